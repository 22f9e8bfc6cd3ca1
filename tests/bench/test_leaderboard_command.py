"""``bench leaderboard``: from one or several out directories, any subset, in any format."""

import io
import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from bench.keep.store import Store
from leaderboard.claims import CLAIMS
from tests.bench.conftest import run_inside
from tests.bench.test_run import PLUGIN


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two directories: one seed of two methods; two seeds of one of them and of one that fails."""
    directory = tmp_path_factory.mktemp("outs")
    (directory / "plugin.py").write_text(PLUGIN)
    for methods, seeds, out, code in (("pca,random-projection", "1", "a", 0), ("pca,plugin.py:Raises", "2", "b", 1)):
        done = run_inside(
            directory, "run", "--methods", methods, "--seeds", seeds, "--out", out,
            "--tasks", "reembedding/pancancer-sim", "--preset", "smoke", "--executor", "inline",
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
    return directory


@pytest.fixture
def two_outs(made, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(made / name, tmp_path / name)


@pytest.mark.usefixtures("two_outs")
def test_two_directories_are_one_leaderboard_and_nothing_is_mixed_silently(inside, tmp_path):
    done = inside("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "json", "--format", "html")
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
    alone = inside("leaderboard", "--out", "b", "--into", "b-alone", "--format", "json")
    assert alone.returncode == 0
    (of_b,) = json.loads((tmp_path / "b-alone" / "leaderboard.json").read_text())["tasks"]
    of_both = {row["method"]: row for row in of_b["methods"]}
    assert of["pca"]["relative_error"] == pytest.approx(of_both["pca"]["relative_error"])
    assert "planted failure" in (tmp_path / "both" / "leaderboard.html").read_text()


@pytest.mark.usefixtures("two_outs")
def test_claims_of_papers_are_asked_of_several_directories_and_nothing_is_written(inside, tmp_path):
    before = sorted((tmp_path / "a").rglob("*"))
    done = inside("claims", "--out", "a", "--out", "b/results.parquet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no rows: ") == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.sentence in done.stdout
        assert f"rows: {claim.command}" in done.stdout
    assert sorted((tmp_path / "a").rglob("*")) == before
    refused = inside("claims", "--out", "nowhere")
    assert (refused.returncode, refused.stdout) == (2, "")


@pytest.mark.usefixtures("two_outs")
def test_an_older_task_version_is_left_out_and_said(inside, tmp_path):
    store = Store(tmp_path / "a")
    for file in list(store.jobs.glob("*.json")):
        result = store.read(file.stem)
        store.write(replace(result, job=replace(result.job, task_version=0)))
    assert inside("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "csv").returncode == 0
    assert "random-projection" not in set(pd.read_csv(tmp_path / "both" / "leaderboard.csv")["method"])
    done = inside("leaderboard", "--out", "a", "--out", "b", "--into", "both", "--format", "md")
    page = (tmp_path / "both" / "leaderboard.md").read_text()
    assert "of task version 0, the table shows version 2" in page
    assert "of task version 0, the table shows version 2" in done.stdout


@pytest.mark.usefixtures("two_outs")
def test_a_subset_needs_a_place_of_its_own(inside, tmp_path):
    for arguments in (("--out", "a", "--tasks", "reembedding"), ("--out", "a", "--out", "b")):
        done = inside("leaderboard", *arguments)
        assert done.returncode == 2
        assert "--into is needed" in done.stderr
    other = ("--tasks", "unseen-cell-type/ifn-sim", "--into", "none", "--format", "md")
    done = inside("leaderboard", "--out", "a", *other)
    assert done.returncode == 0
    assert "nothing can be concluded" in (tmp_path / "none" / "leaderboard.md").read_text()
    assert inside("leaderboard", "--out", "nowhere").returncode == 2
    assert inside("leaderboard", "--out", "a", "--format", "pdf").returncode == 2


@pytest.mark.usefixtures("two_outs")
def test_the_parquet_file_alone_makes_the_same_tables(inside, tmp_path):
    assert inside("leaderboard", "--out", "b", "--format", "csv", "--format", "md").returncode == 0
    shutil.copy(tmp_path / "b" / "results.parquet", tmp_path / "table.parquet")
    refused = inside("leaderboard", "--out", "table.parquet")
    assert refused.returncode == 2
    assert "--into is needed" in refused.stderr
    done = inside("leaderboard", "--out", "table.parquet", "--into", "again", "--format", "csv", "--format", "html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "leaderboard.csv").read_text() == (tmp_path / "b" / "leaderboard.csv").read_text()
    assert "planted failure" in (tmp_path / "again" / "leaderboard.html").read_text()
    (digest,) = pd.read_parquet(tmp_path / "table.parquet")["data_digest"].unique()
    assert f"data {digest[:12]}" in (tmp_path / "b" / "leaderboard.md").read_text()
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    pd.DataFrame({"method": ["vae"]}).to_parquet(tmp_path / "other.parquet")
    for file, said in (
        ("noise", "not a readable Parquet file"),
        ("other", "has no column"),
        ("none", "not a readable"),
    ):
        refused = inside("leaderboard", "--out", f"{file}.parquet", "--into", "x")
        assert refused.returncode == 2
        assert said in refused.stderr


def test_the_terminal_begins_as_the_page_does():
    from rich.console import Console

    from bench.keep.boards import print_leaderboard, questions_of
    from leaderboard import build
    from leaderboard.report import to_html
    from tests.leaderboard.conftest import rows
    from tests.leaderboard.test_report import NO_CURVES, NO_PICTURES, Page

    names = "reembedding/pancancer-sim", "unseen-cell-type/ifn-sim"
    board = build(pd.concat([rows(task=task, noise=0.1, preset="smoke") for task in names]))
    console = Console(file=io.StringIO(), width=250)
    print_leaderboard(board, console)
    shown = console.file.getvalue()
    page = Page(to_html(board, NO_CURVES, NO_PICTURES, questions=questions_of(board)))
    columns, *lines = page.tables["answers"]
    first = shown.partition("\n\n")[0]
    for text in ("Preset smoke: it shows that things run", *columns[1:2], *names):
        assert text in first
        assert text in page.text
    for line in lines:
        for cell in line[1:]:
            assert all(word in first for word in cell.split())
