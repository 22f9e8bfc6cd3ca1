import textwrap
from pathlib import Path

import pytest

from bench.plan import digests
from bench.plan.digests import code_of, source_digest, task_digests
from bench.plan.plugins import load_plugin
from methods import METHODS
from tasks import load_task

FILE = """
    from methods.base import Method
    class Own(Method):
        '''A method.'''
        name = "{name}"
        def fit(self, data, seed):
            from methods.nn import penalties
            return self
"""


def digest(tmp_path, name, text):
    file = tmp_path / f"{name}.py"
    file.write_text(textwrap.dedent(text))
    return source_digest(METHODS[load_plugin(f"{file}:Own")])


def test_a_changed_source_has_another_digest(tmp_path):
    first = digest(tmp_path, "own-a", FILE.format(name="own-a"))
    second = digest(tmp_path, "own-b", FILE.format(name="own-b"))
    assert first != second


CODE = '''
"""A module."""

import math


# ---- a part
class Own:
    """A class.

    With a second paragraph.
    """

    text = "# no comment"  # a comment

    def area(self, r):
        """Return π r², "quoted"."""
        lines = """
        kept: it is no docstring

        """
        return math.pi * r**2, lines  # π

    def nothing(self): "One line."
'''


def changed_code(old, new):
    assert old in CODE
    return code_of(CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""\n', '"""Another, which says more.\n\n# of it\n"""\n'),
        ('"""A module."""\n', ""),
        ("# ---- a part\n", ""),
        ("# ---- a part\n", "# π\n    # indented\n"),
        ("second paragraph", "third paragraph"),
        ("  # a comment", ""),
        ("  # π", "  # r is a radius"),
        ('Return π r², "quoted".', "Return it."),
    ],
)
def test_comments_and_docstrings_are_no_code(old, new):
    assert changed_code(old, new) == code_of(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r**2", "r**3"),
        ("# no comment", "# another text"),
        ("kept", "changed"),
        ("docstring\n\n", "docstring\n"),
        ("import math\n", "import math as m\n"),
        ('def nothing(self): "One line."', 'def something(self): "One line."'),
        ('        """Return π r², "quoted"."""\n', '        self.r = r\n        """Return π r², "quoted"."""\n'),
    ],
)
def test_all_else_is_code(old, new):
    assert changed_code(old, new) != code_of(CODE)


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Let a module of ours have another file, with one more line of code."""

    def change(name):
        (file,) = digests._files_of(name)
        copy = tmp_path / file.name
        copy.write_text(file.read_text() + "\nCHANGED = True\n")
        find = digests._files_of
        monkeypatch.setattr(digests, "_files_of", lambda asked: [copy] if asked == name else find(asked))
        digests._imports.cache_clear()

    yield change
    digests._imports.cache_clear()


def test_what_is_imported_inside_a_function_counts(changed):
    cls = METHODS["beta-vae"]
    before = source_digest(cls)
    changed("methods.nn.penalties")
    assert source_digest(cls) != before


def test_only_modules_of_ours_have_files():
    root = Path(digests.__file__).parents[2]
    assert digests._files_of("methods.nn.training") == [root / "methods" / "nn" / "training.py"]
    for other in ("methods", "methods.nn", "methods.nn.training.train", "methods.none", "torch.nn", "bench.cli"):
        assert digests._files_of(other) == []


def test_methods_that_share_nothing_but_the_contract_differ():
    found = {name: source_digest(METHODS[name]) for name in METHODS}
    for first, second in (("no-change", "mean-shift"), ("pca", "fastica"), ("vae", "beta-vae")):
        assert found[first] == found[second]  # one file
    assert len({found[name] for name in ("pca", "vae", "cvae", "factor-vae", "ivae", "umap")}) == 6


def test_the_metrics_that_a_task_names_count(changed):
    reembedding, recovery = (
        load_task(name, "smoke") for name in ("reembedding/pancancer-sim", "latent-recovery/sparse-shift")
    )
    before = task_digests(reembedding).split(), task_digests(recovery).split()
    changed("metrics.neighbours")
    after = task_digests(reembedding).split(), task_digests(recovery).split()
    assert after[0][0] == before[0][0], "the task's own code is as it was"
    assert after[0][1] != before[0][1], "its metrics are taken among neighbours"
    assert after[1] == before[1], "no metric of the other is"
