import textwrap
from pathlib import Path

import metrics.neighbours
from bench.plan.digests import source_digest, task_digests
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


def test_the_metrics_that_a_task_names_count(tmp_path, monkeypatch):
    reembedding, recovery = (
        load_task(name, "smoke") for name in ("reembedding/pancancer-sim", "latent-recovery/sparse-shift")
    )
    before = task_digests(reembedding).split(), task_digests(recovery).split()
    copy = tmp_path / "neighbours.py"
    copy.write_text(Path(metrics.neighbours.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(metrics.neighbours.__spec__, "origin", str(copy))
    after = task_digests(reembedding).split(), task_digests(recovery).split()
    assert after[0][0] == before[0][0], "the task's own code is as it was"
    assert after[0][1] != before[0][1], "its metrics are taken among neighbours"
    assert after[1] == before[1], "no metric of the other is"
