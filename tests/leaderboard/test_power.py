"""What a run can tell and what more draws would."""

import numpy as np
import pandas as pd
import pytest

from leaderboard import build
from leaderboard.power import forecast, power

RATIOS = {"floor": 4.0, "baseline": 1.0, "ceiling": 0.1, "a": 0.8, "b": 0.9, "c": 1.0}


def drawn(sim, n_draws, **changes):
    return sim.rows(
        ("a", "b", "c"), n_units=2 * n_draws, n_seeds=1, noise=0.3, ratios=RATIOS, n_draws=n_draws, **changes
    )


def test_the_table_is_that_of_the_tasks(sim):
    board = build(pd.concat([drawn(sim, 8), sim.rows(task="fate/other", n_units=1)]))
    told = power(board).set_index("task")
    found = board.tasks[0].comparison.power
    assert told.loc["reembedding/sim", "detectable"] == found.detectable
    assert told.loc["reembedding/sim", "replicates"] == "8 draws"
    assert told.loc["reembedding/sim", "core_seconds"] == 6 * 16 * 10
    assert told.loc["reembedding/sim", "pairs_per_core_hour"] == pytest.approx(found.resolved / (960 / 3600))
    assert np.isnan(told.loc["fate/other", "detectable"])


def test_a_forecast_is_what_a_longer_run_tells(sim):
    """Over 20 boards: the detectable difference forecast from 8 draws, and that of 32 draws."""
    ratios = []
    for k in range(20):
        rows = drawn(sim, 32)
        rng = np.random.default_rng(k)
        shift = {key: np.exp(0.3 * rng.normal()) for key in rows[["method", "draw"]].itertuples(index=False, name=None)}
        factor = [shift[key] for key in rows[["method", "draw"]].itertuples(index=False, name=None)]
        is_method = rows["role"] == "method"
        error = (rows["value"] - rows["best"]) * np.where(is_method, factor, 1.0)
        rows = rows.assign(value=rows["best"] + error)
        few = build(rows[rows["draw"] < 8])
        minutes = 4 * few.tasks[0].core_seconds / 60
        (said,) = forecast(few, minutes, 1).to_dict("records")
        assert said["draws"] == 32
        ratios.append(np.log(build(rows).tasks[0].comparison.power.detectable) / np.log(said["detectable"]))
    # 8 draws estimate a spread within some 25 %, and their critical |t| is larger
    assert np.median(ratios) == pytest.approx(0.9, abs=0.15)


def test_at_least_one_draw_and_real_data_are_paid_for_once(sim):
    board = build(pd.concat([drawn(sim, 4), sim.rows(task="fate/kang")]))
    assert forecast(board, 0.01, 2)["draws"].tolist() == [1]
    a_draw = board.tasks[0].core_seconds / 4
    minutes = (board.tasks[1].core_seconds + 6.5 * a_draw) / 60
    assert forecast(board, minutes, 1)["draws"].tolist() == [6]
    assert forecast(board, minutes / 2, 2)["draws"].tolist() == [6]


def test_without_two_draws_nothing_is_forecast(sim):
    assert forecast(build(sim.rows()), 5, 2).empty
    assert forecast(build(pd.DataFrame()), 5, 2).empty
    assert power(build(pd.DataFrame())).empty
