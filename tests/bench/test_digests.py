import textwrap
from pathlib import Path

from bench.plan.digests import source_digest
from bench.plan.plugins import load_plugin
from methods import METHODS

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


def test_what_is_imported_inside_a_function_counts(tmp_path, monkeypatch):
    import methods.nn.penalties as penalties

    cls = METHODS["beta-vae"]
    before = source_digest(cls)
    copy = tmp_path / "penalties.py"
    copy.write_text(Path(penalties.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(penalties.__spec__, "origin", str(copy))
    assert source_digest(cls) != before


def test_methods_that_share_nothing_but_the_contract_differ():
    digests = {name: source_digest(METHODS[name]) for name in METHODS}
    for first, second in (("no-change", "mean-shift"), ("pca", "fastica"), ("vae", "beta-vae")):
        assert digests[first] == digests[second]  # one file
    assert len({digests[name] for name in ("pca", "vae", "cvae", "factor-vae", "ivae", "umap")}) == 6
