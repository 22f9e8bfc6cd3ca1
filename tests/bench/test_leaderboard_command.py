"""``bench leaderboard``: from one or several out directories, any subset, in any format."""

import json

import pandas as pd
import pytest

from tests.bench.test_run import PLUGIN

TASKS = "reembedding/pancancer-sim"


@pytest.fixture
def two_outs(cli, plugin):
    """Two directories: one seed of two methods; two seeds of one of them and of one that fails."""
    assert (
        cli("run", "--methods", "pca,random-projection", "--tasks", TASKS, "--preset", "smoke", "--out", "a").returncode
        == 0
    )
    file = plugin(PLUGIN)
    done = cli(
        "run", "--methods", f"pca,{file}:Raises", "--tasks", TASKS, "--preset", "smoke", "--seeds", "2", "--out", "b"
    )
    assert done.returncode == 1


def test_two_directories_are_one_leaderboard_and_nothing_is_mixed_silently(two_outs, cli, tmp_path):
    done = cli("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "json", "--format", "html")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "both").iterdir()} == {"leaderboard.json", "leaderboard.html"}
    found = json.loads((tmp_path / "both" / "leaderboard.json").read_text())
    (table,) = found["tasks"]
    of = {row["method"]: row for row in table["methods"]}
    assert {"pca", "random-projection", "raises", "N0", "N1", "P"} == set(of)
    assert table["seeds"] == [0, 1]
    assert of["pca"]["coverage"] == "4/4"
    assert of["random-projection"]["coverage"] == "2/2"
    assert of["raises"]["coverage"] == "0/4"
    assert {row["method"] for row in found["failures"]} == {"raises"}
    # the cells of pca that are in both count once
    alone = cli("leaderboard", "--out", "b", "--into", "b-alone", "--format", "json")
    assert alone.returncode == 0
    (of_b,) = json.loads((tmp_path / "b-alone" / "leaderboard.json").read_text())["tasks"]
    assert of["pca"]["score"] == pytest.approx({row["method"]: row for row in of_b["methods"]}["pca"]["score"])
    assert "planted failure" in (tmp_path / "both" / "leaderboard.html").read_text()


def test_an_older_task_version_is_left_out_and_said(two_outs, cli, tmp_path):
    for file in (tmp_path / "a" / "cells").glob("*.json"):
        result = json.loads(file.read_text())
        result["cell"]["task_version"] = 0
        file.write_text(json.dumps(result))
    assert cli("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "csv").returncode == 0
    assert "random-projection" not in set(pd.read_csv(tmp_path / "both" / "leaderboard.csv")["method"])
    done = cli("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "md")
    page = (tmp_path / "both" / "leaderboard.md").read_text()
    assert "of task version 0, the table shows version 1" in page
    assert "of task version 0, the table shows version 1" in done.stdout


def test_a_subset_needs_a_place_of_its_own(two_outs, cli, tmp_path):
    for arguments in (("--out", "a", "--tasks", "reembedding"), ("--out", "a", "--out", "b")):
        done = cli("leaderboard", *arguments)
        assert done.returncode == 2
        assert "--into is needed" in done.stderr
    done = cli("leaderboard", "--out", "a", "--tasks", "unseen-cell-type/ifn-sim", "--into", "none", "--format", "md")
    assert done.returncode == 0
    assert "nothing can be concluded" in (tmp_path / "none" / "leaderboard.md").read_text()
    assert cli("leaderboard", "--out", "nowhere").returncode == 2
    assert cli("leaderboard", "--out", "a", "--format", "pdf").returncode == 2
