"""Completion, asked for as bash asks: the script that ``--show-completion`` prints is sourced and called."""

import os
import shutil
import subprocess
import sys

import pytest

from bench import complete
from methods import METHODS
from tasks import DATASETS, benchmark_names
from tests.bench.conftest import ROOT, cpu_seconds

CODE = "import sys; sys.argv[0] = 'bench'; from bench.cli import main; main()"
ASK = """
eval "$(_BENCH_COMPLETE=source_bash bench)"
COMP_WORDS=(bench "$@"); COMP_CWORD=$#
_bench_completion bench
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """What bash would offer for the last of the words, the console script being on its path."""
    directory = tmp_path_factory.mktemp("bin")
    program = directory / "bench"
    program.write_text(f"#!{sys.executable}\n{CODE}\n")
    program.chmod(0o755)

    def ask(*words):
        done = subprocess.run(
            ["bash", "-c", ASK, "bash", *words],
            env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout.split()

    return ask


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--methods", "pca,gamm"), ["pca,gamma-vae"]),
        (("preflight", "--tasks", "reembedding/pan"), ["reembedding/pancancer-sim"]),
        (("leaderboard", "--tasks", "oo"), ["ood"]),
        (("show", "trustw"), ["trustworthiness"]),
        (("data", "fetch", "kang-"), [name for name in DATASETS if name.startswith("kang-")]),
        (("lis",), ["list"]),
    ],
)
def test_bash_is_answered(answered, words, expected):
    assert answered(*words) == expected


def test_names_tags_and_all_are_offered_once():
    offered = complete.methods("")
    assert set(METHODS) | {"all", "vae", "baseline"} <= set(offered)
    assert len(offered) == len(set(offered))
    assert set(benchmark_names()) | {"all", "ood", "simulated", "reembedding"} <= set(complete.tasks(""))


def test_what_is_in_the_list_already_is_not_offered_again():
    assert complete.methods("pca,pc") == []
    assert complete.methods("vae,pc") == ["vae,pca"]


def test_an_embedded_data_set_is_not_offered_for_fetching():
    assert "pancancer-sim" not in complete.datasets("")
    assert "kang" in complete.datasets("")


def test_an_answer_takes_under_a_second_of_processor():
    asked = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "bench run --methods pca,", "COMP_CWORD": "3"}
    assert cpu_seconds([sys.executable, "-c", CODE], cwd=ROOT, env={**os.environ, **asked}) < 1.0
