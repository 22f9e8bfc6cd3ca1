"""``bench leaderboard``: from one or several out directories, any subset, in any format."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from bench.keep.store import Store
from tests.bench.conftest import process_environment
from tests.bench.test_run import PLUGIN


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two directories: one seed of two methods; two seeds of one of them and of one that fails."""
    directory = tmp_path_factory.mktemp("outs")
    (directory / "plugin.py").write_text(PLUGIN)
    for methods, seeds, out, code in (("pca,random-projection", "1", "a", 0), ("pca,plugin.py:Raises", "2", "b", 1)):
        command = [sys.executable, "-m", "bench", "run", "--methods", methods, "--seeds", seeds, "--out", out]
        done = subprocess.run(
            [*command, "--tasks", "reembedding/pancancer-sim", "--preset", "smoke"],
            cwd=directory,
            env=process_environment(directory),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
    return directory


@pytest.fixture
def two_outs(made, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(made / name, tmp_path / name)


@pytest.mark.usefixtures("two_outs")
def test_two_directories_are_one_leaderboard_and_nothing_is_mixed_silently(cli, tmp_path):
    done = cli("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "json", "--format", "html")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "both").iterdir()} == {"leaderboard.json", "leaderboard.html"}
    found = json.loads((tmp_path / "both" / "leaderboard.json").read_text())
    (table,) = found["tasks"]
    of = {row["method"]: row for row in table["methods"]}
    assert {"pca", "random-projection", "raises", "floor", "baseline", "structure", "ceiling"} == set(of)
    assert table["seeds"] == [0, 1]
    assert of["pca"]["coverage"] == "4/4"
    assert of["random-projection"]["coverage"] == "2/2"
    assert of["raises"]["coverage"] == "0/4"
    assert {row["method"] for row in found["failures"]} == {"raises"}
    # the cells of pca that are in both count once
    alone = cli("leaderboard", "--out", "b", "--into", "b-alone", "--format", "json")
    assert alone.returncode == 0
    (of_b,) = json.loads((tmp_path / "b-alone" / "leaderboard.json").read_text())["tasks"]
    of_both = {row["method"]: row for row in of_b["methods"]}
    assert of["pca"]["relative_error"] == pytest.approx(of_both["pca"]["relative_error"])
    assert "planted failure" in (tmp_path / "both" / "leaderboard.html").read_text()


@pytest.mark.usefixtures("two_outs")
def test_an_older_task_version_is_left_out_and_said(cli, tmp_path):
    store = Store(tmp_path / "a")
    for file in list(store.jobs.glob("*.json")):
        result = store.read(file.stem)
        store.write(replace(result, job=replace(result.job, task_version=0)))
    assert cli("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "csv").returncode == 0
    assert "random-projection" not in set(pd.read_csv(tmp_path / "both" / "leaderboard.csv")["method"])
    done = cli("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "md")
    page = (tmp_path / "both" / "leaderboard.md").read_text()
    assert "of task version 0, the table shows version 2" in page
    assert "of task version 0, the table shows version 2" in done.stdout


@pytest.mark.usefixtures("two_outs")
def test_a_subset_needs_a_place_of_its_own(cli, tmp_path):
    for arguments in (("--out", "a", "--tasks", "reembedding"), ("--out", "a", "--out", "b")):
        done = cli("leaderboard", *arguments)
        assert done.returncode == 2
        assert "--into is needed" in done.stderr
    done = cli("leaderboard", "--out", "a", "--tasks", "unseen-cell-type/ifn-sim", "--into", "none", "--format", "md")
    assert done.returncode == 0
    assert "nothing can be concluded" in (tmp_path / "none" / "leaderboard.md").read_text()
    assert cli("leaderboard", "--out", "nowhere").returncode == 2
    assert cli("leaderboard", "--out", "a", "--format", "pdf").returncode == 2
