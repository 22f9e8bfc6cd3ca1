import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import leaderboard
from leaderboard import statistics
from leaderboard.comparison import _by_set, compare, compare_suite, tie_groups

REFERENCES = {"floor": 0.0, "baseline": 0.4, "ceiling": 1.0}


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "N_RESAMPLES", 1000)
    statistics.resample_weights.cache_clear()
    yield
    statistics.resample_weights.cache_clear()


def board(levels, n_units=10, n_seeds=3, unit_noise=0.05, seed_noise=0.05, rng=None, n_metrics=2):
    """Values (n_methods + 3, n_units, n_seeds, n_metrics); references come last and have no noise but the unit's."""
    rng = rng or np.random.default_rng(0)
    at = np.append(levels, list(REFERENCES.values()))[:, None, None, None]
    noise = unit_noise * rng.normal(size=(len(at), n_units, 1, n_metrics))
    noise = noise + seed_noise * rng.normal(size=(len(at), n_units, n_seeds, n_metrics))
    noise[len(levels) :] = 0
    return at + noise + rng.normal(size=(1, n_units, 1, n_metrics))


def run(values, tried=None, metrics=("skill", "recall"), better="higher"):
    n_methods = len(values) - len(REFERENCES)
    roles = {f"m{m}": "method" for m in range(n_methods)} | dict.fromkeys(REFERENCES, "control")
    tried = np.ones(values.shape[:3], dtype=bool) if tried is None else tried
    units = [f"u{u}" for u in range(values.shape[1])]
    return compare(values, tried, roles, units, dict.fromkeys(metrics[: values.shape[3]], better))


def suite(tasks):
    roles = {label: role for task in tasks.values() for label, role in task_roles(task).items()}
    return compare_suite(tasks, roles)


def task_roles(task):
    return {label: "control" if label in REFERENCES else "method" for label in task.frame.index}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_known_order_is_found(better):
    levels = [0.9, 0.1, 0.5, 0.7, 0.3]
    found = run((1 if better == "higher" else -1) * board(levels), better=better)
    frame = found.frame.iloc[:5]
    assert frame["rank"].tolist() == [1, 5, 3, 2, 4]
    assert frame["tie_group"].tolist() == ["a", "e", "c", "b", "d"]
    assert frame["rank_low"].tolist() == frame["rank_high"].tolist() == frame["rank_worst_case"].tolist()
    np.testing.assert_allclose(frame["score"], levels, atol=0.05)
    np.testing.assert_allclose(frame["difference"], np.array(levels) - 0.4, atol=0.05)
    assert (frame["p_holm"] < 0.05).all()
    expected = np.sign(np.subtract.outer(levels, levels)) / 2 + 0.5
    np.testing.assert_allclose(found.wins.iloc[:5, :5], expected, atol=0.02)
    references = found.frame.loc[list(REFERENCES)]
    assert references["score"].tolist() == pytest.approx(list(REFERENCES.values()))
    assert references[["rank", "p", "p_holm", "mdd"]].isna().all(axis=None)
    assert found.scored_on == ("skill", "recall")


def test_differences_are_those_of_scores_when_all_cells_are_there():
    found = run(board([0.2, 0.5, 0.6]))
    scores = found.frame["score"].to_numpy()
    np.testing.assert_allclose(found.differences, np.subtract.outer(scores, scores), atol=1e-12)
    np.testing.assert_allclose(found.unit_scores.mean(axis=1), scores)
    np.testing.assert_allclose(found.wins + found.wins.T, 1)


def test_rank_intervals_hold_the_true_ranks_and_one_group_holds_equals():
    rng = np.random.default_rng(0)
    levels = np.linspace(0.3, 0.6, 6)
    hits, splits, false = [], [], []
    for _ in range(50):
        frame = run(board(levels, 10, 3, 0.1, 0.1, rng)).frame.iloc[:6]
        hits += list((frame["rank_low"] <= np.arange(6, 0, -1)) & (np.arange(6, 0, -1) <= frame["rank_high"]))
        null = run(board(np.full(6, 0.4), 10, 3, 0.1, 0.1, rng)).frame.iloc[:6]
        splits.append(null["tie_group"].nunique() > 1)
        false.append((null["p_holm"] < 0.05).any())
    assert np.mean(hits) >= 0.93
    # 5 % and two and a half standard errors
    assert np.mean(splits) <= 0.13
    assert np.mean(false) <= 0.13


def test_ranks_are_over_the_units_that_each_pair_shares():
    values = board([0.6, 0.5, 0.4], seed_noise=0, unit_noise=0)
    values[0] -= 5 * (np.arange(10) == 0)[:, None, None]  # everybody is bad on the first unit
    values[2] -= 5 * (np.arange(10) == 0)[:, None, None]
    values[1, 0] = np.nan  # and the second method is not there
    found = run(values)
    frame = found.frame
    assert frame["score"].iloc[:3].tolist() == pytest.approx([0.1, 0.5, -0.1])
    assert frame["rank"].iloc[:3].tolist() == [1, 2, 3]
    assert frame["n_units"].iloc[:3].tolist() == [10, 9, 10]
    assert found.differences.loc["m0", "m1"] == pytest.approx(0.1)


def test_methods_that_share_nothing_are_not_compared_and_that_is_said():
    values = board([0.5, 0.6, 0.7])
    values[0, :5] = values[1, 5:] = np.nan
    found = run(values)
    assert np.isnan(found.differences.loc["m0", "m1"])
    assert "1 pair of methods share no unit and are not compared" in found.notes
    assert found.frame["rank"].iloc[:3].tolist() == [2, 2, 1]
    values[2] = np.nan
    assert run(values).frame["rank"].isna().all()


def test_a_crash_gains_nothing_in_the_worst_case_and_is_not_imputed_elsewhere():
    values = board([0.5, 0.45, 0.6], unit_noise=0.01, seed_noise=0, n_metrics=1)
    values[0, :8] = np.nan
    values[2, 0] -= 3  # below floor
    crashed = run(values).frame
    assert (crashed["rank"].iloc[0], crashed["rank_worst_case"].iloc[0]) == (2, 3)
    assert crashed["score"].iloc[0] == pytest.approx(0.5, abs=0.1)
    never = np.ones(values.shape[:3], dtype=bool)
    never[0, :8] = False
    assert run(values, never).frame["rank_worst_case"].iloc[0] == crashed["rank"].iloc[0]
    # Filled with the worst of the unit: that of the third method on the first, floor's on the others
    floor = np.where(np.arange(8) == 0, values[2, :8].mean(axis=1)[:, 0] - values[3, :8, 0, 0], 0)
    kept = (values[0, 8:] - values[3, 8:]).mean()
    expected = (floor.sum() + 2 * kept) / 10
    assert run(values).worst_case.loc["m0", "floor"] == pytest.approx(expected)


def test_equal_methods_share_a_rank():
    values = board([0.5, 0.5, 0.2])
    values[1] = values[0]
    found = run(values)
    assert found.frame["rank"].iloc[:3].tolist() == [1.5, 1.5, 3]
    assert found.frame["tie_group"].iloc[:3].tolist() == ["a", "a", "b"]
    assert found.wins.loc["m0", "m1"] == pytest.approx(0.5, abs=0.1)
    constant = run(np.where(np.arange(6)[:, None, None, None] < 3, 0.3, board([0, 0, 0])))
    assert constant.frame["rank"].iloc[:3].tolist() == [2, 2, 2]
    assert constant.frame["tie_group"].iloc[:3].tolist() == ["a", "a", "a"]


def test_p_a_better_than_b_by_hand():
    values = np.zeros((5, 2, 2, 1))
    values[4] = 1  # ceiling
    values[0, :, :, 0] = [[0.3, 0.5], [0.9, 0.9]]
    values[1, :, :, 0] = [[0.4, 0.5], [0.1, np.nan]]
    # First unit: .3 loses twice, .5 wins once and ties once: 1.5 of 4. Second: wins 2 of 2 pairs of seeds.
    assert run(values).wins.loc["m0", "m1"] == pytest.approx((1.5 / 4 + 1) / 2)


def test_seed_spread_pools_variances():
    values = board([0.5], n_units=2, n_seeds=3, n_metrics=1)
    values[0, :, :, 0] = values[1, :, :, 0] + [[0.1, 0.2, 0.3], [0.5, 0.9, np.nan]]
    expected = np.sqrt((2 * np.var([0.1, 0.2, 0.3], ddof=1) + np.var([0.5, 0.9], ddof=1)) / 3)
    assert run(values).frame["seed_sd"].iloc[0] == pytest.approx(expected)
    assert np.isnan(run(values[:, :, :1]).frame["seed_sd"].iloc[0])


def test_tie_groups_by_hand():
    p = np.ones((4, 4))
    for (a, b), value in {(0, 1): 0.01, (0, 2): 0.2, (0, 3): 0.001, (1, 3): 0.3, (2, 3): 0.001}.items():
        p[a, b] = p[b, a] = value
    ranks, scores = np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])
    # The third is not shown to be worse than the first; the fourth not worse than the second, who is.
    assert tie_groups(ranks, scores, p) == ["a", "b", "a", "b"]
    assert tie_groups(np.array([2.0, 1.5, 1.5, np.nan]), scores, np.full((4, 4), 0.01)) == ["c", "a", "b", ""]
    assert tie_groups(ranks, scores, np.full((4, 4), np.nan)) == ["a"] * 4
    many = tie_groups(np.arange(28.0), -np.arange(28.0), np.zeros((28, 28)))
    assert many[25:] == ["z", "aa", "ab"]


def test_the_rule_of_the_calibrated_range():
    values = board([0.5, 0.7])
    values[4, :, :, 1] = values[2, :, :, 1] + np.random.default_rng(1).normal(size=(10, 1))
    found = run(values)
    assert found.scored_on == ("skill",)
    assert any("recall is excluded, too narrow" in note and "over 10 units" in note for note in found.notes)
    np.testing.assert_allclose(found.frame["score"], run(values[..., :1]).frame["score"])
    none = run(values[..., 1:])
    assert none.scored_on == ()
    assert none.frame["score"].isna().all()
    assert none.frame["reason"].eq("no score: no primary metric is left").all()
    # With two units there is no calibrated range to judge by, but a range that is negative scales nothing.
    two = values[:, :2].copy()
    two[4, :, :, 1] = two[2, :, :, 1] - 1
    assert run(two).scored_on == ("skill",)


def test_a_metric_is_kept_where_the_ceiling_is_above_the_floor_in_every_unit():
    values = board([0.5, 0.7])[..., :1]
    ranges = np.array([4.3, 5.0, 6.0, 49.5])
    four = values[:, :4].copy()
    four[4] = four[2] + ranges[:, None, None]
    found = run(four)
    assert found.scored_on == ("skill",)
    assert found.frame["score"].notna().all()
    assert any("skill is kept, as ceiling is above floor in every unit" in note for note in found.notes)
    four[4, 0] = four[2, 0] - 0.1
    assert run(four).scored_on == ()


def tasks(n_tasks, levels=(0.2, 0.5, 0.8), **changes):
    rng = np.random.default_rng(1)
    return {
        f"t{t}": run(board(np.array(levels) + 0.02 * rng.normal(size=3), rng=rng, **changes)) for t in range(n_tasks)
    }


@pytest.mark.parametrize("n_tasks", [3, 8])
def test_the_suite_is_to_its_tasks_what_a_task_is_to_its_units(n_tasks):
    found = tasks(n_tasks)
    frame = suite(found).frame
    by_task = np.array([task.frame["score"] for task in found.values()])
    np.testing.assert_allclose(frame["score"], by_task.mean(axis=0))
    gain = by_task[:, 2] - by_task[:, 4]
    assert frame.loc["m2", "difference"] == pytest.approx(gain.mean())
    assert frame.loc["m2", "p"] == pytest.approx(stats.ttest_1samp(gain, 0).pvalue)
    if n_tasks == 3:
        limits = stats.t.interval(0.95, 2, gain.mean(), stats.sem(gain))
        assert tuple(frame.loc["m2", ["difference_low", "difference_high"]]) == pytest.approx(limits)
    assert frame["rank"].iloc[:3].tolist() == [3, 2, 1]
    assert frame["tie_group"].iloc[:3].tolist() == ["c", "b", "a"]
    for name in ("rank_low", "rank_high", "rank_without_low", "rank_without_high", "rank_weights_high"):
        assert frame[name].iloc[:3].tolist() == [3, 2, 1]
    assert (frame["n_units"] == n_tasks).all()
    spread = np.array([task.frame["seed_sd"] for task in found.values()])
    np.testing.assert_allclose(frame["seed_sd"], np.sqrt((spread**2).mean(axis=0)))


@pytest.mark.parametrize("n_sets", [3, 8])
def test_tasks_of_one_data_set_are_one_replicate(n_sets):
    alone = {f"first/{name}": task for name, task in tasks(n_sets).items()}
    twice = alone | {f"second/{name}": task for name, task in tasks(n_sets).items()}
    one, both = suite(alone), suite(twice)
    assert (both.frame["n_units"] == 2 * n_sets).all()
    pd.testing.assert_frame_equal(both.frame.drop(columns="n_units"), one.frame.drop(columns="n_units"))
    assert "on one data set, so no independent replicates, and drawn together: first/t0, second/t0" in both.notes


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [[2] * 6, [2, 2, 1, 1, 1], [3, 2, 2, 1, 1, 1, 1, 1]])
def test_intervals_over_data_sets_cover_where_those_over_tasks_do_not(sizes, correlation):
    set_of, rng = np.repeat(np.arange(len(sizes)), sizes), np.random.default_rng(0)
    shared, own = rng.normal(size=(len(sizes), 2000))[set_of], rng.normal(size=(len(set_of), 2000))
    values = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    together, independent = (
        statistics.ratios_of_means(*_by_set(values, replicate)) for replicate in (set_of, np.arange(len(set_of)))
    )
    covered, naive = (((one.low <= 0) & (one.high >= 0)).mean() for one in (together, independent))
    assert 0.92 < covered < 0.98
    if correlation:
        assert naive < 0.93


def test_tasks_of_one_data_set_alone_have_no_interval():
    found = suite({f"{name}/only": task for name, task in tasks(2).items()})
    assert found.frame["score"].notna().all()
    assert found.frame[["low", "high", "p", "mdd"]].isna().all(axis=None)
    assert "one data set: no interval, and nothing can be said about data not tried" in found.notes


def test_interquartile_mean_of_the_suite_is_over_tasks_and_units():
    found = tasks(4, n_units=10)
    pooled = np.concatenate([task.unit_scores.loc["m1"] for task in found.values()])
    assert suite(found).frame.loc["m1", "iqm"] == pytest.approx(stats.trim_mean(pooled, 0.25))
    # A task with three times as many units counts no more than another.
    uneven = {name: run(np.tile(board([at]), (1, n, 1, 1))) for name, at, n in (("s", 0.2, 1), ("t", 0.6, 3))}
    even = {name: run(board([at])) for name, at in (("s", 0.2), ("t", 0.6))}
    assert suite(uneven).frame.loc["m0", "iqm"] == pytest.approx(suite(even).frame.loc["m0", "iqm"])


def test_sensitivity_of_suite_ranks():
    # One task where the first wins by far carries the mean over three where it loses by little.
    levels = ((0.9, 0.3), (0.4, 0.5), (0.4, 0.5), (0.4, 0.5))
    frame = suite({f"t{t}": run(board(at, unit_noise=0, seed_noise=0)) for t, at in enumerate(levels)}).frame
    assert frame["rank"].iloc[:2].tolist() == [1, 2]
    for name in ("without", "weights"):
        assert frame[f"rank_{name}_low"].iloc[:2].tolist() == [1, 1]
        assert frame[f"rank_{name}_high"].iloc[:2].tolist() == [2, 2]


def test_suite_ranks_are_over_common_tasks():
    easy, hard = board([0.8, 0.7], unit_noise=0, seed_noise=0), board([0.2, 0.1], unit_noise=0, seed_noise=0)
    hard[1] = np.nan
    frame = suite({"easy": run(easy), "hard": run(hard)}).frame
    assert frame["score"].iloc[:2].tolist() == pytest.approx([0.5, 0.7])
    assert frame["rank"].iloc[:2].tolist() == [1, 2]
    assert frame["n_units"].iloc[:2].tolist() == [2, 1]


def test_tasks_without_a_score_are_left_out_of_the_suite_and_named():
    found = tasks(2) | {"none": run(np.full((6, 4, 2, 1), np.nan))}
    board_of_all = suite(found)
    assert board_of_all.scored_on == ("t0", "t1")
    assert "left out: none, where nothing has a score" in board_of_all.notes
    pd.testing.assert_frame_equal(board_of_all.frame, suite(tasks(2)).frame)
    alone = suite({"t0": found["t0"], "none": found["none"]})
    assert alone.frame["score"].isna().all()
    assert alone.notes[-1].startswith("1 task with scores")


SHAPES = list(itertools.product((0, 1, 3), (1, 2, 9), (1, 3), (1, 2)))


@pytest.mark.parametrize("spoil", ["nothing", "nan", "inf", "constant", "no floor", "holes", "huge"])
def test_bad_input_gives_gaps_with_reasons_and_no_exception(spoil):
    for n_methods, n_units, n_seeds, n_metrics in SHAPES:
        values = board(np.linspace(0.2, 0.8, n_methods), n_units, n_seeds, n_metrics=n_metrics)
        if spoil in ("nan", "inf"):
            values[:n_methods] = np.nan if spoil == "nan" else np.inf
        elif spoil == "constant":
            values[:] = 0.5
        elif spoil == "no floor":
            values[n_methods] = np.nan
        elif spoil == "holes":
            values[np.random.default_rng(0).random(values.shape) < 0.6] = -np.inf
        elif spoil == "huge":
            values[:n_methods] *= 1e300
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = run(values)
            both = suite({"a": found, "b": found})
        for frame in (found.frame, both.frame):
            assert not np.isinf(frame.select_dtypes("number")).any(axis=None)
            assert (frame["reason"] != "").tolist() == frame["score"].isna().tolist()
            assert frame.loc[frame["score"].isna(), "rank"].isna().all()
        if n_units == 1:
            assert found.frame[["low", "p", "p_holm", "mdd", "rank_low", "iqm_low"]].isna().all(axis=None)
        if spoil in ("constant", "no floor"):
            assert found.frame["score"].isna().all()
            assert found.notes


def test_tables_of_the_suite(sim):
    rows = pd.concat([sim.rows(noise=0.2, task=f"task{t}/sim{t}") for t in range(3)] + [sim.rows(preset="smoke")])
    found = leaderboard.build(rows)
    (table,) = found.suites
    assert table.preset == "default"
    assert table.tasks == ("task0/sim0", "task1/sim1", "task2/sim2")
    assert list(table.frame.columns[:3]) == ["method", "role", "score"]
    assert table.frame["n_tasks"].tolist() == [3] * 6
    page = leaderboard.to_markdown(found, "Results")
    assert page.index("## Suite (default)") < page.index("## task0/sim0")
    (line,) = [line for line in page[: page.index("## task0/sim0")].splitlines() if line.startswith("| trvae")]
    assert "| 1 a" in " ".join(line.split())
    missing = leaderboard.build(rows[(rows["method"] != "vae") | (rows["task"] != "task1/sim1")])
    (note,) = [note for note in missing.notes if note.startswith("suite (default): scored on fewer than 3 tasks")]
    assert note.endswith(": vae (2)")
