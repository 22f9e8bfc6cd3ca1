import json

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

import leaderboard
from leaderboard.writers import escape, raw

FILES = ["leaderboard.csv", "leaderboard.html", "leaderboard.md", "leaderboard_suite.csv"]
NASTY = [
    "<script>alert(1)</script>",
    "a|b",
    "*bold*",
    "_under_",
    "`code`",
    "[x](y)",
    "back\\slash|",
    "two\nlines",
    "# h",
]


def render(markdown):
    return MarkdownIt("commonmark").enable("table").render(markdown)


def test_a_page_has_what_a_reader_needs(sim):
    rows = pd.concat(
        [
            sim.rows(noise=0.05, n_units=5),
            pd.DataFrame(sim.failed("lord", "unit00", 0, reason="loss is NaN") + sim.skipped("umap", "no predict")),
        ]
    )
    page = leaderboard.to_markdown(leaderboard.build(rows), "Results", ["commit abc"])
    assert page.startswith("# Results\n\ncommit abc\n")
    assert "## reembedding/sim (default)" in page
    assert "5 units (unit00, unit01, unit02, unit03, unit04); intervals over 5 units; 3 seeds" in page
    assert "skill ↑" in page
    assert "error ↓" in page
    assert "| *floor* " in page
    assert "Baseline: nearest\\_shift." in page
    assert "## Failed" in page
    assert "`python -m bench run --methods lord`" in page
    assert "## Skipped" in page
    assert page.index("## Failed") < page.index("## Skipped")


@pytest.mark.parametrize("text", NASTY)
def test_names_are_text(sim, text):
    rows = pd.concat(
        [sim.rows(methods=("vae",)), pd.DataFrame(sim.failed(text, text, 0, reason=text, replay=text, task=text))]
    )
    page = leaderboard.to_markdown(leaderboard.build(rows), text, [text])
    shown = render(page)
    plain = " ".join(text.split()).replace("<", "&lt;").replace(">", "&gt;")
    assert "<script" not in shown
    assert f"<h1>{plain}</h1>" in shown
    assert f"<p>{plain}</p>" in shown
    assert f"<h2>{plain} (default)</h2>" in shown
    assert shown.count(f">{plain}</td>") >= 5  # the task's table, then method, task, unit and reason of the failure
    (failed,) = [line for line in page.splitlines() if "| failed" in line]
    assert len(failed.replace("\\\\", "").replace("\\|", "").split("|")) == 9


def test_escape():
    assert escape(None) == escape(np.nan) == "—"
    assert escape("a|b_c*<d>&") == "a\\|b\\_c\\*&lt;d&gt;&amp;"


@pytest.mark.parametrize(
    "rows",
    [
        lambda sim: sim.rows(n_units=1, n_seeds=1, methods=("vae",)),
        lambda sim: sim.rows()[lambda rows: rows["role"] == "method"],
        lambda sim: pd.DataFrame(sim.failed("vae", "a", 0, fit_seconds=np.nan, peak_memory_mb=np.nan)),
        lambda sim: sim.rows().assign(value=np.inf),
        lambda sim: pd.DataFrame(sim.skipped("vae", "no predict")),
        lambda sim: pd.DataFrame(),
    ],
    ids=["one of all", "no references", "all failed", "infinite", "skipped", "empty"],
)
def test_never_nan_or_inf(sim, rows, tmp_path):
    board = leaderboard.build(rows(sim))
    page = leaderboard.to_markdown(board, "Results")
    assert " nan" not in page.lower()
    assert " inf " not in page.lower()
    assert "[nan" not in page.lower()
    for csv in leaderboard.write(board, tmp_path, formats=["csv"]):
        assert not np.isinf(pd.read_csv(csv).select_dtypes("number")).any(axis=None)
    (file,) = leaderboard.write(board, tmp_path, formats=["json"])
    assert json.loads(file.read_text(), parse_constant=pytest.fail)["notes"] == board.notes
    (file,) = leaderboard.write(board, tmp_path, formats=["latex"])
    assert "nan" not in file.read_text().replace("—", "")
    if not board.tasks:
        assert "nothing can be concluded" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.000"), (0.12345, "0.123"), (-0.0001, "-1.00e-04"), (3.14159, "3.14"), (31.4159, "31.4"),
        (314.159, "314"), (123456.7, "123457"), (1.5e7, "1.50e+07"), (np.nan, "—"), (-np.inf, "—"),
    ],
)  # fmt: skip
def test_raw_numbers(value, text):
    assert raw(value) == text


def test_write(sim, tmp_path):
    board = leaderboard.build(pd.concat([sim.rows(), sim.rows(task="fate/sim", preset="smoke", n_units=2)]))
    directory = tmp_path / "new" / "folder"
    markdown, csv, *_ = leaderboard.write(board, directory, ["one line"])
    assert sorted(path.name for path in directory.iterdir()) == FILES
    assert markdown.read_text(encoding="utf-8") == leaderboard.to_markdown(board, "Leaderboard", ["one line"])
    table = pd.read_csv(csv)
    assert list(table.columns[:5]) == ["task", "preset", "task_version", "method", "role"]
    assert set(zip(table["task"], table["preset"], strict=True)) == {
        ("reembedding/sim", "default"),
        ("fate/sim", "smoke"),
    }
    np.testing.assert_allclose(table["relative_error"][:6], board.tasks[0].frame["relative_error"])


def test_a_failed_write_leaves_the_old_page(sim, tmp_path, monkeypatch):
    board = leaderboard.build(sim.rows())
    markdown, *_ = leaderboard.write(board, tmp_path)
    before = markdown.read_text(encoding="utf-8")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("leaderboard.files.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        leaderboard.write(leaderboard.build(pd.DataFrame()), tmp_path)
    assert markdown.read_text(encoding="utf-8") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_json_has_every_number_of_the_tables(sim, tmp_path):
    board = leaderboard.build(pd.concat([sim.rows(noise=0.1), sim.rows(task="fate/sim", noise=0.1)]))
    (file,) = leaderboard.write(board, tmp_path, ["one line"], ["json"])
    found = json.loads(file.read_text())
    assert found["about"] == ["one line"]
    assert [task["task"] for task in found["tasks"]] == ["reembedding/sim", "fate/sim"]
    for task, table in zip(found["tasks"], board.tasks, strict=True):
        errors = {row["method"]: row["relative_error"] for row in task["methods"]}
        assert errors == dict(zip(table.frame["method"], table.frame["relative_error"], strict=True))
        assert [pair["p_better"] for pair in task["pairs"]] == list(table.comparison.pairs["p_better"])
        assert task["power"]["resolved"] == table.comparison.power.resolved
        assert task["units"] == list(table.units)
    assert found["suites"][0]["pairs"]
    assert found["answers"]


def test_latex_escapes_and_has_a_table_for_each(sim, tmp_path):
    rows = pd.concat([sim.rows(), sim.rows(task="fate/sim_2")])
    rows["method"] = rows["method"].replace({"vae": "a_b&c%{x}"})
    (file,) = leaderboard.write(leaderboard.build(rows), tmp_path, ["100 % sure"], ["latex"])
    text = file.read_text()
    assert file.name == "leaderboard.tex"
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert r"a\_b\&c\%\{x\}" in text
    assert r"fate/sim\_2 (default)" in text
    assert "% 100 % sure" in text
    for line in text.splitlines():
        if line.endswith(r"\\") and "&" in line:
            assert line.replace(r"\&", "").count("&") in (5, 6), line


def test_an_unknown_format_is_refused(sim, tmp_path):
    with pytest.raises(ValueError, match="format 'pdf': one of md, csv, html, json, latex"):
        leaderboard.write(leaderboard.build(sim.rows()), tmp_path, formats=["pdf"])
