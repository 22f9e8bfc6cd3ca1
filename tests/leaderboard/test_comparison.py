"""Comparison of methods on a task and on a suite: known relative errors, verdicts that agree, and what is missing."""

import numpy as np
import pytest

from leaderboard.comparison import BASELINE, CEILING, FLOOR, THE_BASELINE, compare, compare_suite

REFERENCES = {FLOOR: "reference", BASELINE: "reference", CEILING: "reference"}
FACTORS = {FLOOR: 5.0, BASELINE: 1.0, CEILING: 0.1}


def errors(factors, n_units=12, n_seeds=1, n_metrics=1, noise=0.1, seed=0):
    """Errors (n_methods, n_units, n_seeds, n_metrics): those of the baseline, which differ, times known factors."""
    rng = np.random.default_rng(seed)
    baseline = rng.uniform(0.5, 2, size=(n_units, 1, n_metrics))
    found = []
    for name, factor in factors.items():
        spread = 0.0 if name in REFERENCES else noise
        found.append(baseline * np.exp(spread * rng.normal(size=(n_units, n_seeds, n_metrics))) * factor)
    return np.stack(found)


def compared(extra, roles=None, draws=True, two_sided=False, one_fit=False, values=None, **sizes):
    factors = FACTORS | extra
    roles = REFERENCES | dict.fromkeys(extra, "method") | (roles or {})
    values = errors(factors, **sizes) if values is None else values
    n_units, n_metrics = values.shape[1], values.shape[3]
    units = [f"u{i:02d}" for i in range(n_units)]
    of_draw = [i // 2 for i in range(n_units)] if draws else [None] * n_units
    return compare(values, roles, units, of_draw, [f"m{k}" for k in range(n_metrics)], two_sided, one_fit)


def test_known_relative_errors_and_verdicts():
    found = compared({"good": 0.5, "bad": 2.0, "close": 1.0, "alike": 0.51}, n_units=24, noise=0.1)
    frame = found.frame
    for method, factor in {"good": 0.5, "bad": 2.0, CEILING: 0.1, FLOOR: 5.0, BASELINE: 1.0}.items():
        assert frame.loc[method, "relative_error"] == pytest.approx(factor, rel=0.06)
    assert frame["verdict"].to_dict() == {
        FLOOR: "", BASELINE: "", CEILING: "", "good": "better", "bad": "worse", "close": "undecided", "alike": "better",
    }  # fmt: skip
    assert list(frame.index[frame["best"]]) == ["good", "alike"]
    assert (frame.loc["good", "rank_low"], frame.loc["good", "rank_high"]) == (1, 2)
    assert (frame.loc["bad", "rank_low"], frame.loc["bad", "rank_high"]) == (4, 4)
    assert frame.loc["good", "p_better"] > 0.99
    assert frame.loc["bad", "p_better"] < 0.01
    assert np.isnan(frame.loc[[FLOOR, BASELINE, CEILING], ["p", "p_better", "rank_low"]].to_numpy(float)).all()
    assert (frame["n_replicates"] == 12).all()
    assert found.notes == ()


def test_equivalent_within_five_percent():
    found = compared({"same": 1.001, "good": 0.5}, n_units=40, noise=0.02)
    assert found.frame.loc["same", "verdict"] == "equivalent"


def test_the_noise_of_the_baseline_cancels_between_methods():
    values = errors(FACTORS | {"a": 0.5, "b": 0.4}, noise=0.0)
    wild = values.copy()
    wild[:, ::2] *= 7  # units of other difficulty
    for one in (values, wild):
        pairs = compared({"a": 0.5, "b": 0.4}, values=one).pairs
        (pair,) = pairs[(pairs["method"] == "b") & (pairs["other"] == "a")].to_dict("records")
        assert (pair["ratio"], pair["low"], pair["high"]) == pytest.approx((0.8, 0.8, 0.8))


def test_every_pair_is_there_once_and_the_better_one_is_named_first():
    found = compared({"a": 0.5, "b": 0.7, "c": 1.5})
    assert len(found.pairs) == 6
    assert (found.pairs.loc[found.pairs["other"] != BASELINE, "ratio"] < 1).all()
    assert set(found.pairs.loc[found.pairs["other"] == BASELINE, "method"]) == {"a", "b", "c"}
    assert found.power.n_pairs == 6
    assert found.power.resolved == (found.pairs["p"] < 0.05).sum()
    against = found.pairs[found.pairs["other"] == BASELINE].set_index("method")
    assert against["p"].to_dict() == found.frame.loc[["a", "b", "c"], "p"].to_dict()


def test_the_larger_of_two_counts_where_both_are_needed():
    factors = FACTORS | {"one-sided": 0.02, "honest": 0.5}
    values = errors(factors, n_metrics=2, noise=0.0)
    values[list(factors).index("one-sided"), ..., 1] = values[0, ..., 1]  # no better than the floor
    both = compared({"one-sided": 0.02, "honest": 0.5}, values=values, two_sided=True)
    assert both.frame.loc["one-sided", "relative_error"] == pytest.approx(5.0)
    assert both.frame.loc["honest", "relative_error"] == pytest.approx(0.5)
    assert both.worst["one-sided"] == "m1"
    mean = compared({"one-sided": 0.02, "honest": 0.5}, values=values)
    assert mean.frame.loc["one-sided", "relative_error"] == pytest.approx(np.sqrt(0.02 * 5))
    assert mean.worst == {}


def test_a_method_without_one_of_the_metrics_has_no_relative_error():
    values = errors(FACTORS | {"a": 0.5, "b": 0.6}, n_metrics=2)
    values[3, ..., 1] = np.nan
    for two_sided in (False, True):
        frame = compared({"a": 0.5, "b": 0.6}, values=values, two_sided=two_sided).frame
        assert np.isnan(frame.loc["a", "relative_error"])
        assert frame.loc["a", "reason"] == "it has no m1"
        assert np.isfinite(frame.loc["b", "relative_error"])


def test_duplicates_are_compared_as_the_first_and_are_not_paid_for():
    factors = {"a": 0.5, "b": 0.6}
    values = errors(FACTORS | factors)
    more = np.concatenate([values, values[[3, 1]]])
    found = compared(factors | {"copy": 0.5, "simple": 1.0}, values=more)
    alone = compared(factors, values=values)
    assert found.power.n_pairs == alone.power.n_pairs == 3
    assert (
        found.frame.loc["copy", ["p", "verdict", "best"]].tolist()
        == alone.frame.loc["a", ["p", "verdict", "best"]].tolist()
    )
    assert found.frame.loc["simple", "verdict"] == THE_BASELINE
    assert "copy gives the very errors of a, and is compared as that one" in found.notes
    assert "simple gives the very errors of baseline, and is compared as that one" in found.notes


def test_methods_that_are_both_cut_at_the_floor_are_not_said_to_be_the_same():
    found = compared({"a": 0.5, "bad": 9.0, "worse": 12.0}, noise=0.01)
    assert "worse errs as the floor or more, as bad does, and is compared as that one" in found.notes
    assert "very errors" not in " ".join(found.notes)


def test_an_oracle_has_a_relative_error_and_no_verdict():
    frame = compared({"a": 0.5, "a@oracle": 0.4}, roles={"a@oracle": "oracle"}).frame
    assert frame.loc["a@oracle", "relative_error"] == pytest.approx(0.4, rel=0.1)
    assert frame.loc["a@oracle", "verdict"] == ""
    assert not frame.loc["a@oracle", "best"]


def test_pairs_are_compared_on_the_units_that_both_have():
    factors = FACTORS | {"a": 0.5, "b": 0.7}
    values = errors(factors, n_units=20)
    values[3, :10] = np.nan
    found = compared({"a": 0.5, "b": 0.7}, values=values)
    assert found.frame.loc["a", "n_units"] == 10
    assert found.frame.loc["b", "n_units"] == 20
    half = compared({"a": 0.5, "b": 0.7}, values=values[:, 10:])
    (pair,), (expected,) = (
        one.pairs[(one.pairs["method"] == "a") & (one.pairs["other"] == "b")].to_dict("records")
        for one in (found, half)
    )
    assert pair["ratio"] == pytest.approx(expected["ratio"])
    values[4, 10:] = np.nan
    none = compared({"a": 0.5, "b": 0.7}, values=values)
    assert "1 pair of methods share no unit and are not compared" in none.notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v[:, :2], "there is nothing"),
        (lambda v: np.where(np.arange(len(v))[:, None, None, None] == 1, 0.0, v), "the baseline has no error in"),
        (lambda v: np.where(np.arange(len(v))[:, None, None, None] == 2, v[1] * 1.2, v), "there is no room above"),
        (lambda v: np.where(np.arange(len(v))[:, None, None, None] == 2, np.nan, v), "no result of the ceiling"),
        (
            lambda v: np.where(np.arange(len(v))[:, None, None, None] == 0, v[1] * 0.5, v),
            "to know nothing does as well",
        ),
        (lambda v: np.where(np.arange(len(v))[:, None, None, None] == 0, np.nan, v), "no result of the floor"),
    ],
    ids=["one draw", "perfect baseline", "ceiling below", "no ceiling", "floor above", "no floor"],
)
def test_what_cannot_be_concluded_is_said_and_nothing_is_infinite(change, said):
    found = compared({"a": 0.5, "b": 0.7}, values=change(errors(FACTORS | {"a": 0.5, "b": 0.7})))
    if said != "there is nothing":
        assert any(said in note for note in found.notes)
    assert not np.isinf(found.frame.select_dtypes("number")).any(axis=None)
    assert found.frame.loc[found.frame["p"].isna(), "best"].sum() <= 1  # the baseline alone may be best without a p


def test_without_a_baseline_or_a_metric_nothing_is_compared():
    values = errors(FACTORS | {"a": 0.5})
    values[1] = np.nan
    found = compared({"a": 0.5}, values=values)
    assert found.frame["relative_error"].isna().all()
    assert "no result of the baseline" in found.notes[0]
    assert compared({"a": 0.5}, values=values[..., :0]).notes == ("no primary metric: nothing is compared",)


def test_one_unit_has_a_value_no_interval_and_no_rank():
    found = compared({"a": 0.5, "b": 0.7}, n_units=1, noise=0.0)
    assert found.frame.loc["a", "relative_error"] == pytest.approx(0.5)
    assert found.frame.loc["a", ["low", "high", "p", "rank_low"]].isna().all()
    assert not found.frame["best"].any()
    assert found.power.resolved == 0
    assert np.isnan(found.power.detectable)


def test_power_is_the_median_over_methods_and_the_room_in_its_steps():
    found = compared({"a": 0.5, "b": 0.6, "c": 0.7}, n_units=24)
    power = found.power
    assert 0.5 < power.detectable < 1
    assert power.room == pytest.approx(np.log(0.1) / np.log(power.detectable))
    assert power.replicates == 12
    assert power.replicates_for_10_percent == pytest.approx(12 * (np.log(power.detectable) / np.log(0.9)) ** 2)
    more = compared({"a": 0.5, "b": 0.6, "c": 0.7}, n_units=96).power
    assert more.detectable > power.detectable


def suite(*tasks):
    roles = {name: role for one in tasks for name, role in zip(one.frame.index, _roles(one), strict=True)}
    return compare_suite({f"t{k}/d{k}": one for k, one in enumerate(tasks)}, roles)


def _roles(one):
    return ["reference" if name in REFERENCES else "method" for name in one.frame.index]


def test_a_suite_is_the_geometric_mean_over_tasks():
    first, second = compared({"a": 0.5, "b": 2.0}, noise=0.05), compared({"a": 0.8, "b": 1.0}, noise=0.05, seed=1)
    found = suite(first, second)
    expected = np.sqrt(first.frame["relative_error"] * second.frame["relative_error"])
    np.testing.assert_allclose(found.frame["relative_error"], expected)
    assert found.frame.loc["a", "verdict"] == "better"
    these = found.frame.loc["a", "high"] / found.frame.loc["a", "low"]
    others = found.frame.loc["a", "others_high"] / found.frame.loc["a", "others_low"]
    assert others > 2 * these


def test_methods_are_compared_over_the_tasks_that_both_have():
    first = compared({"a": 0.5, "b": 0.6}, noise=0.05)
    second = compared({"a": 0.9}, noise=0.05, seed=1)
    found = suite(first, second)
    assert found.frame["n_units"].to_dict() == {FLOOR: 2, BASELINE: 2, CEILING: 2, "a": 2, "b": 1}
    (pair,) = found.pairs[found.pairs["method"].eq("a") & found.pairs["other"].eq("b")].to_dict("records")
    (expected,) = first.pairs[first.pairs["method"].eq("a") & first.pairs["other"].eq("b")].to_dict("records")
    assert pair["ratio"] == pytest.approx(expected["ratio"])


def test_one_task_is_no_suite():
    found = suite(compared({"a": 0.5}))
    assert found.frame["relative_error"].isna().all()
    assert "there is no suite to speak of" in found.notes[-1]


def test_tasks_on_one_data_set_are_named():
    one = compared({"a": 0.5})
    roles = dict(zip(one.frame.index, _roles(one), strict=True))
    found = compare_suite({"t/d": one, "u/d": one}, roles)
    assert "on one data set, so not independent of each other: t/d, u/d" in found.notes
