import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

import leaderboard
from leaderboard.writers import _raw, escape

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
    assert "5 units (unit00, unit01, unit02, unit03, unit04); 3 seeds" in page
    assert "skill ↑" in page
    assert "error ↓" in page
    assert "| *N0* " in page
    assert "strongest simple baseline (chosen: nearest\\_shift in 15 of 15 cells)" in page
    assert "## Failed" in page
    assert "`python -m bench run --methods lord`" in page
    assert "## Skipped" in page
    assert "- 5 units, too few for a bootstrap" in page
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
    ids=["one of all", "no controls", "all failed", "infinite", "skipped", "empty"],
)
def test_never_nan_or_inf(sim, rows, tmp_path):
    board = leaderboard.build(rows(sim))
    page = leaderboard.to_markdown(board, "Results")
    assert " nan" not in page.lower()
    assert " inf " not in page.lower()
    assert "[nan" not in page.lower()
    _, csv = leaderboard.write(board, tmp_path)
    assert "inf" not in csv.read_text(encoding="utf-8")
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
    assert _raw(value) == text


def test_write(sim, tmp_path):
    board = leaderboard.build(pd.concat([sim.rows(), sim.rows(task="fate/sim", preset="smoke", n_units=2)]))
    directory = tmp_path / "new" / "folder"
    markdown, csv = leaderboard.write(board, directory, ["one line"])
    assert sorted(path.name for path in directory.iterdir()) == ["leaderboard.csv", "leaderboard.md"]
    assert markdown.read_text(encoding="utf-8") == leaderboard.to_markdown(board, "Leaderboard", ["one line"])
    table = pd.read_csv(csv)
    assert list(table.columns[:5]) == ["task", "preset", "task_version", "method", "role"]
    assert set(zip(table["task"], table["preset"], strict=True)) == {
        ("reembedding/sim", "default"),
        ("fate/sim", "smoke"),
    }
    np.testing.assert_allclose(table["score"][:6], board.tasks[0].frame["score"])


def test_a_failed_write_leaves_the_old_page(sim, tmp_path, monkeypatch):
    board = leaderboard.build(sim.rows())
    markdown, _ = leaderboard.write(board, tmp_path)
    before = markdown.read_text(encoding="utf-8")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("leaderboard.writers.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        leaderboard.write(leaderboard.build(pd.DataFrame()), tmp_path)
    assert markdown.read_text(encoding="utf-8") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaderboard.csv", "leaderboard.md"]
