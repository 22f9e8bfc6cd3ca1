"""The table that `make benchmark` ends with, on lines whose outcome is known."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.bench.conftest import ROOT

LINES = """
import time


def busy(seconds):
    def call():
        start = time.process_time()
        while time.process_time() < start + seconds:
            pass
        return seconds

    return call


def test_reached(line):
    line.describe("reached", faster=5)
    ours, theirs = line.alternate(busy(0.001), busy(0.03))
    assert (ours, theirs) == ([0.001] * 5, [0.03] * 5)
    line.require_same_loss([10.0, 10.1, 10.0], [10.1, 10.0, 10.2])
    line.judge()


def test_missed(line):
    line.describe("missed", at_most=1.5)
    line.compare([4.0, 6.0, 5.0], 2.0, spell=str)
    line.judge()


def test_void(line):
    line.describe("void", faster=1)
    line.compare(1.0, 2.0, spell=str)
    line.require_same_loss([10.0, 10.01, 10.02], [10.1, 10.12, 10.11])
    line.judge()


def test_without_peer(line):
    line.describe("without peer", faster=5)
    line.needs("no_such_peer", "scvi")


def test_broken(line):
    line.describe("broken", faster=5)
    line.alternate(busy(0), lambda: 1 / 0)
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    directory = tmp_path_factory.mktemp("benchmarks")
    shutil.copy(ROOT / "tests/benchmarks/conftest.py", directory)
    (directory / "test_lines.py").write_text(LINES)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(directory)]
    # in a worker of a parallel test run pytest-benchmark would not measure
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(command, cwd=directory, env=alone, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("what", "ratio", "reached"),
    [
        ("reached", None, "yes"),
        ("missed", "2.5 [2.25, 2.75]", "NO"),
        ("void; loss 10.01 and 10.11", "2", "void: not the same loss"),
        ("without peer", "", "skipped: peer not installed, pip install '.[scvi]'"),
        ("broken", "", "not measured"),
    ],
)
def test_line(session, what, ratio, reached):
    lines = [[cell.strip() for cell in text.split("|")[1:-1]] for text in session.stdout.splitlines()]
    line = next(cells for cells in lines if cells and cells[0].startswith(what))
    assert line[-1] == reached
    assert ratio is None or line[3] == ratio


def test_a_missed_target_is_an_error(session):
    assert session.returncode == 1
    assert "3 failed, 1 passed, 1 skipped" in session.stdout
