"""``--json``: one document on standard output and nothing else, its keys as docs/json.md has them."""

import json
import re

import pytest

from bench.describe import about, as_json, listed
from methods import METHODS
from metrics import METRICS
from tasks import DATASETS, TASKS, benchmark_names
from tests.bench.conftest import ROOT

DOC = (ROOT / "docs" / "json.md").read_text()


def documented(heading):
    """The keys, in backquotes at the beginning of a table's row, under a heading of the page."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", DOC, re.DOTALL | re.MULTILINE)
    return set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))


def strict(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("kind", ["methods", "tasks", "metrics"])
def test_list(inside, kind):
    done = inside("list", kind, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    entries = strict(done.stdout)
    assert [entry["name"] for entry in entries] == [entry["name"] for entry in listed(kind)]
    assert {key for entry in entries for key in entry} == documented(f"list {kind}")


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("show: a method", METHODS),
        ("show: a task", [*TASKS, *benchmark_names()]),
        ("show: a metric", METRICS),
        ("show: a data set", DATASETS),
    ],
)
def test_show_has_the_documented_keys(heading, names):
    found = [strict(as_json(about(name))) for name in names]
    assert {key for document in found for key in document} == documented(heading)
    assert [document["name"] for document in found] == list(names)


def test_show_prints_it(inside):
    done = inside("show", "energy_distance", "--json")
    assert strict(done.stdout)["high"] is None  # an infinity


def test_status_and_leaderboard(inside, tmp_path):
    ran = inside(
        "run", "--methods", "random-projection", "--tasks", "reembedding/pancancer-sim", "--preset", "smoke",
        "--out", "out",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    status = strict(inside("status", "--out", "out", "--json").stdout)
    assert set(status) == documented("status")
    assert status["counts"]["ok"] == status["tasks"][0]["ok"] == 10
    assert not status["at_work"]
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    done = inside("leaderboard", "--out", "out", "--tasks", "reembedding", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    board = strict(done.stdout)
    assert set(board) == documented("leaderboard")
    assert {row["method"] for row in board["tasks"][0]["methods"]} == {
        "floor",
        "baseline",
        "structure",
        "ceiling",
        "random-projection",
    }
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before
    for wrong in (("leaderboard", "--format", "md"), ("leaderboard", "--into", "x"), ("status", "--watch")):
        refused = inside(*wrong, "--out", "out", "--json")
        assert refused.returncode == 2
        assert "--json" in refused.stderr
