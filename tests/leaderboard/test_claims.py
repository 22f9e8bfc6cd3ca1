"""What papers claim, on boards on which it is true, false, tied, absent or not to be known."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from bench.environment import ROOT
from bench.keep.archive import gathered
from bench.keep.boards import board_of
from leaderboard import build, to_markdown
from leaderboard.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    NO_ROWS,
    NOT_LARGER,
    NOT_SMALLER,
    SMALLER,
    UNDECIDED,
    Claim,
    Contrast,
    outcomes,
)
from leaderboard.files import write
from methods import METHODS
from metrics import METRICS
from tasks import TASKS, benchmark_names
from tests.leaderboard.conftest import RATIOS, rows

TASK = "reembedding/sim"


def claim(*contrasts, tasks=(TASK,)):
    return Claim("A paper", "One is better than the other.", tasks, contrasts, "what decides")


def outcome(found, *contrasts, **changes):
    """The only outcome of a claim with these comparisons."""
    (one,) = outcomes(build(found), [claim(*contrasts, **changes)])
    return one


def told(found, relation, first="vae", second="pca"):
    return outcome(found, Contrast((first,), relation, second)).verdict


@pytest.mark.parametrize("n_draws", [0, 9, 5])
def test_a_true_a_false_and_a_tied_claim(n_draws):
    found = rows(n_units=10 if n_draws == 5 else 9, n_draws=n_draws, noise=0.05)
    assert told(found, SMALLER) == HOLDS
    assert told(found, NOT_LARGER) == HOLDS
    assert told(found, NOT_SMALLER) == FAILS
    assert (told(found, SMALLER, "pca", "vae"), told(found, NOT_LARGER, "pca", "vae")) == (FAILS, FAILS)
    tied = rows(ratios=RATIOS | {"pca": RATIOS["vae"]}, n_draws=n_draws, n_units=10 if n_draws == 5 else 9)
    assert [told(tied, relation) for relation in (SMALLER, NOT_LARGER, NOT_SMALLER)] == [FAILS, HOLDS, HOLDS]


def test_what_cannot_be_told_is_undecided():
    noisy = rows(ratios=RATIOS | {"pca": RATIOS["vae"]}, noise=0.5)
    one = rows(n_units=1)
    for relation in (SMALLER, NOT_LARGER, NOT_SMALLER):
        assert told(noisy, relation) == UNDECIDED
        assert told(one, relation) == UNDECIDED
    (evidence,) = outcome(one, Contrast(("vae",), SMALLER, "pca")).evidence
    assert evidence.ratio == pytest.approx(0.5 / 1.3)
    assert np.isnan([evidence.low, evidence.p]).all()
    assert evidence.on == (f"{TASK}: 1 unit",)


def test_absent_rows_are_said_with_the_command_that_gives_them():
    found = rows(("vae", "pca"))
    for contrast in (Contrast(("lord",), SMALLER, "pca"), Contrast(("vae",), SMALLER, "lord")):
        one = outcome(found, contrast, tasks=(TASK, "other/task"))
        assert (one.verdict, one.evidence) == (NO_ROWS, ())
        assert one.claim.command.endswith(f"--tasks {TASK}")
        assert "lord" in one.claim.command
    elsewhere = outcome(found, Contrast(("vae",), SMALLER, "pca"), tasks=("other/task",))
    assert (elsewhere.verdict, elsewhere.evidence) == (NO_ROWS, ())
    against_floor = claim(Contrast(("vae",), SMALLER, "floor"), Contrast(("vae", "pca"), SMALLER, "baseline"))
    assert "--methods vae,pca " in against_floor.command
    assert [one.verdict for one in outcomes(build(pd.DataFrame()))] == [NO_ROWS] * len(CLAIMS)
    gone = found.assign(status=found["status"].where(found["method"] != "pca", "failed"))
    assert outcome(gone, Contrast(("vae",), SMALLER, "pca")).verdict == NO_ROWS


def test_the_ratio_is_that_of_the_table():
    board = build(rows(noise=0.2))
    pairs = board.tasks[0].comparison.pairs
    (pair,) = pairs[(pairs["method"] == "vae") & (pairs["other"] == "pca")].to_dict("records")
    (one,) = outcomes(board, [claim(Contrast(("vae",), SMALLER, "pca"))])
    (evidence,) = one.evidence
    assert (evidence.ratio, evidence.low, evidence.high) == pytest.approx((pair["ratio"], pair["low"], pair["high"]))
    assert evidence.p <= pair["p"]  # one comparison, where the table has six


def test_a_chain_holds_if_every_part_does():
    found, parts = rows(noise=0.05), [Contrast(("trvae",), SMALLER, "vae"), Contrast(("vae",), SMALLER, "pca")]
    assert outcome(found, *parts).verdict == HOLDS
    assert outcome(found, *parts, Contrast(("pca",), SMALLER, "vae")).verdict == FAILS
    absent = Contrast(("pca",), SMALLER, "lord")
    assert outcome(found, *parts, absent).verdict == NO_ROWS
    assert outcome(found, Contrast(("pca",), SMALLER, "vae"), absent).verdict == FAILS  # whatever the rest would say
    unclear = rows(noise=0.5, ratios=RATIOS | {"pca": RATIOS["vae"]})
    assert outcome(unclear, *parts).verdict == UNDECIDED


def test_one_of_several_methods_is_enough_to_break_or_to_have_a_claim():
    several = Contrast(("vae", "trvae", "lord"), NOT_SMALLER, "pca")
    assert outcome(rows(), several).verdict == FAILS
    worse = {name: RATIOS[name] if name not in ("vae", "trvae") else 2.0 for name in RATIOS}
    found = outcome(rows(ratios=worse), several)
    assert (found.verdict, len(found.evidence)) == (HOLDS, 2)
    assert outcome(rows(("pca",)), several).verdict == NO_ROWS


def test_many_comparisons_are_shown_by_those_that_decide():
    names = ("a", "b", "c", "d", "vae")
    ratios = {**RATIOS, "a": 3.0, "b": 2.0, "c": 1.5, "d": 1.6}
    found = outcome(rows(names, ratios=ratios, noise=0.01), Contrast(names, NOT_SMALLER, "baseline"))
    assert found.verdict == FAILS
    assert [text.partition(":")[0] for text in found.effects] == [
        "vae ÷ baseline",
        "c ÷ baseline",
        "d ÷ baseline",
        "and 2 more",
    ]
    assert found.effects[0].startswith("vae ÷ baseline: 0.5")


def two_metrics(factor, noise=0.0):
    """Rows in which the error of vae's skill is so many times that of its skill among two fits of its own."""
    found = rows()
    own = found[(found["method"] == "vae") & (found["metric"] == "skill")]
    spread = np.exp(noise * np.random.default_rng(3).normal(size=len(own)))
    again = own.assign(metric="skill_again", value=1 - (1 - own["value"]) / factor * spread, primary=False)
    return pd.concat([found, again])


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, HOLDS), (1.03, HOLDS), (0.8, HOLDS), (1.3, FAILS)])
def test_a_method_is_compared_with_itself_by_two_metrics(factor, verdict):
    found = outcome(two_metrics(factor), Contrast(("vae",), NOT_LARGER, "vae", "skill", "skill_again"))
    assert found.verdict == verdict
    assert found.evidence[0].ratio == pytest.approx(factor)
    assert found.effects[0].startswith("skill of vae ÷ skill_again of vae: ")


def test_a_metric_is_compared_within_its_bounds():
    found = rows()
    found = pd.concat([found, found[found["metric"] == "skill"].assign(metric="leak", primary=False)])
    perfect = (found["metric"] == "leak") & (found["method"] == "vae")
    found.loc[perfect, "value"] = 1.0  # its best: as a hundredth of the baseline's error
    (evidence,) = outcome(found, Contrast(("vae",), SMALLER, "pca", "leak")).evidence
    assert evidence.ratio == pytest.approx(0.01 / 1.3)


def test_tasks_are_averaged_and_presets_are_not_mixed():
    other = rows(task="other/sim", ratios=RATIOS | {"vae": 1.3 / 4})
    contrast = Contrast(("vae",), SMALLER, "pca")
    both = outcome(pd.concat([rows(), other]), contrast, tasks=(TASK, "other/sim"))
    assert both.evidence[0].ratio == pytest.approx(np.sqrt(0.5 / 1.3 * 0.25))
    assert both.on == [f"{TASK}: 9 units", "other/sim: 9 units"]
    paper = rows(preset="paper", ratios=RATIOS | {"vae": 2.0})
    default, of_paper = outcomes(build(pd.concat([rows(), paper])), [claim(contrast)])
    assert (default.preset, default.verdict, of_paper.preset, of_paper.verdict) == ("default", HOLDS, "paper", FAILS)
    assert of_paper.sentence.endswith(" (paper)")
    assert [one.preset for one in outcomes(build(pd.concat([rows(), paper])), [claim(contrast, tasks=("x/y",))])] == [
        "default"
    ]


def test_claims_are_corrected_for_each_other_and_do_not_hinder_each_other():
    found, contrast = rows(noise=0.3), Contrast(("vae",), SMALLER, "pca")
    thin = rows(task="thin/sim", n_units=3, noise=0.3)
    of_thin = claim(contrast, tasks=("thin/sim",))
    alone = outcome(found, contrast).evidence[0]
    first, second = outcomes(build(pd.concat([found, thin])), [claim(contrast), of_thin])
    assert alone.p < first.evidence[0].p == pytest.approx(2 * alone.p)
    assert (first.verdict, second.verdict) == (HOLDS, UNDECIDED)


def test_the_catalogue_names_what_the_suite_has():
    assert len({one.sentence for one in CLAIMS}) == len(CLAIMS)
    for one in CLAIMS:
        assert set(one.tasks) <= set(benchmark_names())
        labels = {label for contrast in one.contrasts for label in (*contrast.methods, contrast.other)}
        assert {label.partition("@")[0] for label in labels} <= {*METHODS, "baseline", "floor"}
        metrics = {metric for contrast in one.contrasts for metric in (contrast.metric, contrast.other_metric)} - {""}
        for task in {TASKS[name.partition("/")[0]] for name in one.tasks}:
            assert metrics <= {*task.primary, *task.secondary}
        for info in (METRICS[metric].info for metric in metrics):  # there is a best value to err from
            assert np.isfinite(info.high if info.better == "higher" else info.low)
        assert {contrast.relation for contrast in one.contrasts} <= {SMALLER, NOT_LARGER, NOT_SMALLER}


def test_every_page_has_the_claims_that_have_rows_and_folds_the_others(tmp_path):
    found = rows(("trvae", "cvae", "vae"), ratios=RATIOS | {"cvae": 1.1}, task="unseen-cell-type/kang", noise=0.05)
    board = build(found)
    write(board, tmp_path, formats=["md", "html", "json"])
    page = (tmp_path / "leaderboard.html").read_text()
    (kang,) = [one for one in outcomes(board) if one.verdict != NO_ROWS]
    assert kang.verdict == HOLDS
    for text in (page, (tmp_path / "leaderboard.md").read_text()):
        assert "trVAE predicts unseen cell types better than the CVAE" in text
        assert "trvae ÷ cvae: 0.2" in text
        assert CLAIMS[0].command in text
    assert f"Claims without rows ({len(CLAIMS) - 1})" in page
    claims = json.loads((tmp_path / "leaderboard.json").read_text())["claims"]
    assert [one["verdict"] for one in claims].count(NO_ROWS) == len(CLAIMS) - 1
    (of_kang,) = [one for one in claims if one["comparisons"]]
    assert of_kang["comparisons"][0]["ratio"] == pytest.approx(0.25 / 1.1, rel=0.1)
    other = build(rows())
    assert "papers claim" not in to_markdown(other, "Leaderboard")
    write(other, tmp_path, formats=["html"])
    assert 'id="claims"' not in (tmp_path / "leaderboard.html").read_text()


def test_the_page_of_results_says_what_its_rows_say():
    names = ("RESULTS", "RESULTS_real", "RESULTS_claims")
    board = board_of([gathered(ROOT / "leaderboard" / f"{name}.parquet") for name in names])
    page = (ROOT / "leaderboard" / "RESULTS.md").read_text().partition("## All claims of the papers")[2]
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    for outcome in outcomes(board):
        three = sorted(outcome.evidence, key=lambda one: one.ratio)[:3]
        said = [f"{one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in three]
        short = [re.sub(r"\b0\.", ".", text) for text in said]
        assert any(f"| {outcome.verdict} |" in line and all(text in line for text in short) for line in lines), said
