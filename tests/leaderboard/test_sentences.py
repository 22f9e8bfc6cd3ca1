"""What a board says in words agrees with its tables, however the numbers fall."""

import re

import numpy as np
import pandas as pd
import pytest

from leaderboard import build
from leaderboard.sentences import SMOKE, answers, folded_skips
from leaderboard.sentences import answer as answer_of

REFERENCES = {"floor": 4.0, "baseline": 1.0, "ceiling": 0.1}


def answer(table):
    return answer_of(table).sentence


def board(sim, ratios, **changes):
    return build(
        sim.rows(methods=tuple(ratios), ratios=REFERENCES | ratios, **{"noise": 0.05, "n_units": 12} | changes)
    )


def test_a_clear_winner_is_named_and_so_are_those_like_it(sim):
    said = answer(board(sim, {"good": 0.5, "alike": 0.5, "bad": 2.0}).tasks[0])
    assert re.match(
        r"use (good, with|alike, with) 0\.\d\d \[.*\] of the error of the best simple method \(nearest_shift\)", said
    )
    assert re.search(r"not told from it: (good|alike)\.", said)
    assert "Worse than the best simple method (nearest_shift): bad." in said


def test_a_winner_without_equals(sim):
    assert "it is told from all others" in answer(board(sim, {"good": 0.5, "fair": 0.8}).tasks[0])


def test_no_winner(sim):
    said = answer(board(sim, {"same": 1.0, "bad": 2.0, "worst": 3.0}, noise=0.01).tasks[0])
    assert said.startswith(
        "no method is shown to beat the best simple method (nearest_shift); same does as well within 5 %"
    )
    assert "Worse than it: bad and worst." in said


def test_one_replicate_concludes_nothing(sim):
    said = answer(board(sim, {"good": 0.5}, n_units=1, noise=0.0).tasks[0])
    assert said.startswith("nothing can be concluded, as there is 1 unit alone; good has the smallest error here, 0.50")


def test_nothing_at_all():
    assert answers(build(pd.DataFrame())) == ["There are no results, so nothing can be concluded."]


def test_a_smoke_board_says_so_first(sim):
    assert answers(board(sim, {"good": 0.5}, preset="smoke"))[0] == SMOKE


@pytest.mark.parametrize("seed", range(30))
def test_sentence_and_table_never_disagree(sim, seed):
    """Random boards: who is said to win, lose or be tied is what the table's verdicts say."""
    rng = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(rng.integers(1, 8))]
    ratios = {name: float(np.exp(rng.normal(0, rng.choice([0.02, 0.3, 1])))) for name in names}
    found = board(sim, ratios, noise=float(rng.choice([0.01, 0.2, 0.8])), n_units=int(rng.integers(2, 15)))
    table = found.tasks[0]
    frame = table.frame[table.frame["role"] == "method"].set_index("method")
    said = answer(table)
    better = frame.index[frame["verdict"] == "better"]
    winner = re.match(r"use (m\d),", said)
    assert bool(winner) == (len(better) > 0)
    if winner:
        assert frame.loc[winner[1], "verdict"] == "better"
        assert frame.loc[winner[1], "best"]
        tied = re.search(r"not told from it: ([^.]*)\.", said)
        listed = re.findall(r"m\d", tied[1]) if tied else []
        assert set(listed) | {winner[1]} == set(frame.index[frame["best"]]) or "more" in tied[1]
    for name in frame.index[frame["verdict"] == "worse"]:
        assert name in said or "more" in said
    told = re.search(r"(\d+) of (\d+) pairs are told apart", said)
    if told:
        assert int(told[1]) == (table.comparison.pairs["p"] < 0.05).sum()


def test_skips_that_differ_by_the_method_or_by_what_they_quote_are_folded():
    rows = [
        ("umap", "a/x", "umap cannot predict, which a needs"),
        ("vae", "a/x", "vae cannot predict, which a needs"),
        ("umap", "a/y", "umap cannot predict, which a needs"),
        ("lord", "b/z", "no label in 'g0+g1'; trained: g0"),
        ("lord", "b/z", "no label in 'g2+g3'; trained: g0"),
        ("trvae", "b/z", "trvae is not installed"),
    ]
    skipped = pd.DataFrame(rows, columns=["method", "task", "reason"])
    assert folded_skips(skipped).to_dict("records") == [
        {"methods": "umap, vae", "tasks": "a/x and a/y", "reason": "cannot predict, which a needs"},
        {"methods": "lord", "tasks": "b/z", "reason": "no label in 'g0+g1'; trained: g0 (and 1 like it)"},
        {"methods": "trvae", "tasks": "b/z", "reason": "trvae is not installed"},
    ]
    assert folded_skips(skipped[:0]).empty
