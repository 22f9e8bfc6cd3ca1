"""``bench site``: pages of several runs, each recomputed from rows, and an index to choose from."""

import re

import numpy as np
import pandas as pd
import pytest

from bench.keep.archive import gathered
from bench.keep.boards import board_of
from bench.keep.site import write_site
from leaderboard.sentences import answer
from tests.bench.conftest import ROOT
from tests.waiting import wait_for

TASKS = ("unseen-cell-type/digits", "unseen-cell-type/ifn-sim", "unseen-mixture/rnamix-sim")
METHODS = ("vae", "pca", "ridge-shift", "floor", "baseline", "ceiling")
MB = 1 << 20


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The rows of a run at one commit; and of one with a second seed at another commit and a submitted method."""
    rows = pd.read_parquet(ROOT / "leaderboard" / "RESULTS.parquet")
    rows = rows[rows["task"].isin(TASKS) & rows["method"].isin(METHODS)].assign(git_commit="a" * 40)
    again = rows[rows["task"] != TASKS[2]].assign(seed=1, git_commit="f" * 40, job_id=lambda r: r["job_id"] + "x")
    worse = np.where((again["method"] == "vae") & (again["metric"] == "skill"), -0.5, again["value"])
    sent = rows[rows["method"] == "pca"].assign(method="mine (submitted)", job_id=lambda r: r["job_id"] + "m")
    directory = tmp_path_factory.mktemp("archives")
    (directory / "second").mkdir()
    files = directory / "one.parquet", directory / "second" / "results.parquet"
    rows[rows["task"] == TASKS[0]].to_parquet(files[0])
    pd.concat([rows, again.assign(value=worse), sent]).to_parquet(files[1])
    return files


@pytest.fixture(scope="module")
def site(archives, tmp_path_factory):
    said = []
    index = write_site(archives, tmp_path_factory.mktemp("site") / "new", ["Command: site"], said.append)
    assert {str(file.relative_to(index.parent)) for file in index.parent.rglob("leaderboard.html")} == set(said)
    return index


def listed(site):
    """The rows of the index: the values of its choices, its address and its text."""
    found = []
    for row in re.findall(r"<tr data-.*?</tr>", site.read_text(), re.DOTALL):
        choices = dict(re.findall(r'data-(run|version|seed|task|data_set)="([^"]*)"', row))
        found.append(choices | {"page": re.search(r'href="([^"]*)"', row)[1], "text": row})
    return found


def test_each_choice_has_a_page_that_is_small_and_needs_no_network(site):
    pages = sorted(str(file.parent.relative_to(site.parent)) for file in site.parent.rglob("leaderboard.html"))
    assert pages == [
        "one/aaaaaaa-seed-0",
        "second/aaaaaaa-seed-0",
        "second/aaaaaaa-seed-0-unseen-cell-type",
        "second/all-seed-all",
        "second/all-seed-all-unseen-cell-type",
        "second/fffffff-seed-1",  # all its tasks are of one kind, so that this is that page, too
    ]
    for one in listed(site):
        file, _, anchor = one["page"].partition("#")
        text = (site.parent / file).read_text()
        assert f'id="{anchor}"' in text
        assert len(text) < 8 * MB
        assert not re.search(r'<(script|img|iframe|link)[^>]*(src|href)="(?!#)', text)
        assert f"<title>{one['run']}, {one['version']}, seed {one['seed']}" in text


def test_numbers_are_computed_from_the_rows_that_are_chosen(site, archives):
    (one,) = [
        row for row in listed(site) if row["run"] == "second" and row["seed"] == "1" and row["data_set"] == "digits"
    ]
    results = gathered(archives[1])
    rows = results.rows[(results.rows["seed"] == 1) & (results.rows["task"] == TASKS[0])]
    (table,) = board_of([type(results)(rows, results.curves, results.pictures)]).tasks
    assert answer(table).sentence in one["text"].replace("&#39;", "'")
    of_both = [row for row in listed(site) if (row["seed"], row["data_set"], row["run"]) == ("all", "digits", "second")]
    assert answer(table).sentence not in of_both[0]["text"].replace("&#39;", "'")


def test_submitted_methods_are_marked_where_they_are(site):
    marked = {(one["run"], one["seed"]) for one in listed(site) if "fitted here: mine (submitted)." in one["text"]}
    assert marked == {("second", "all"), ("second", "0")}


def test_the_rows_come_along_and_make_the_site_again(site, archives, inside):
    for run, archive in zip(("one", "second"), archives, strict=True):
        copy = site.parent / run / "results.parquet"
        pd.testing.assert_frame_equal(gathered(copy).rows, gathered(archive).rows)
    done = inside("site", site.parent / "one" / "results.parquet", "--into", "again")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Site: again/index.html"


def test_a_directory_with_files_and_a_file_without_rows_are_refused_before_anything_is_written(
    inside, tmp_path, archives
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "no.parquet").write_text("no rows")
    for words, reason in (
        ((archives[0], "--into", "full"), "--into full: it is there already"),
        ((archives[0], "no.parquet", "--into", "new"), "no.parquet: not a readable Parquet file"),
        ((archives[0], "nowhere", "--into", "new"), "nowhere"),
    ):
        done = inside("site", *words)
        assert done.returncode == 2
        assert reason in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("width", [1400, 390])
def test_the_index_chooses(browser, site, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 800},
    )
    browser.get(site.as_uri())
    everything = listed(site)
    count = browser.find_element("id", "count")
    wait_for(lambda: count.text == f"{len(everything)} of {len(everything)} tables")
    for key, value in (("run", "second"), ("seed", "1"), ("task", "unseen-cell-type"), ("data_set", "digits")):
        (option,) = browser.find_elements("css selector", f"select[data-key='{key}'] option[value='{value}']")
        option.click()
        everything = [one for one in everything if one[key] == value]
        assert count.text.startswith(f"{len(everything)} of ")
    (shown,) = [row for row in browser.find_elements("css selector", "#entries tbody tr") if row.is_displayed()]
    assert shown.get_attribute("data-version") == "fffffff"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.get(shown.find_element("css selector", "a").get_attribute("href"))
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.tables") == "ready")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
