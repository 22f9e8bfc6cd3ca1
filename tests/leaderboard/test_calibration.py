"""Synthetic metrics with known answers: what is flagged, what is excluded, and what is written."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct

from leaderboard import calibration
from leaderboard.calibration import always_above, build, calibrated_range, judge, narrowness, to_markdown, write

DOSES = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Mean score of a metric at each dose of the ladder, ceiling first; the floor has 0, the baseline .4 unless said.
SHAPES = {
    "perfect": (1.0, 0.75, 0.5, 0.25, 0.0),
    "flat": (0.7, 0.7, 0.7, 0.7, 0.7),
    "non_monotone": (1.0, 0.2, 0.8, 0.4, 0.0),
    "rewarding": (1.0, 1.1, 1.2, 1.3, 1.4),
    "late": (1.0, 1.0, 1.0, 1.0, 0.0),
}


def rows(shapes=SHAPES, n_units=6, n_seeds=2, noise=0.01, better="higher", floor=0.0, task="task/sim"):
    rng = np.random.default_rng(0)
    sign = 1.0 if better == "higher" else -1.0
    found = []
    for (metric, shape), unit, seed in itertools.product(shapes.items(), range(n_units), range(n_seeds)):
        floor_here = shape[0] if metric == "flat" else floor
        points = [("floor", 0.0, floor_here), ("baseline", 0.0, 0.4), ("ceiling", 0.0, shape[0])]
        points += [("ladder", dose, level) for dose, level in zip(DOSES, shape, strict=True)]
        for ladder, dose, level in points:
            shaken = 0.0 if metric == "flat" else noise * rng.normal()
            found.append(
                {
                    "task": task, "metric": metric, "primary": metric == "perfect", "better": better, "ladder": ladder,
                    "dose": dose, "unit": f"u{unit}", "seed": seed, "value": sign * (level + shaken),
                }
            )  # fmt: skip
    return pd.DataFrame(found)


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("n_units", [4, 12])
def test_known_metrics_get_their_verdicts(better, n_units):
    table = build(rows(n_units=n_units, better=better)).set_index("metric")
    verdicts = {
        "perfect": "worse",
        "flat": "flat",
        "non_monotone": "non-monotone",
        "rewarding": "inverted",
        "late": "cliff",
    }
    assert table["verdict"].to_dict() == verdicts
    assert table["narrow"].to_dict() == dict.fromkeys(SHAPES, "resolves") | {"flat": "too narrow"}
    assert table.loc["perfect", "monotonicity"] == 1.0
    assert table.loc["rewarding", "monotonicity"] == -1.0
    assert table.loc["perfect", ["half", "full"]].tolist() == pytest.approx([0.5, 1.0], abs=0.03)
    assert table.loc["non_monotone", "worst_step"] == pytest.approx(0.6, abs=0.03)
    assert table.loc["perfect", "headroom"] == pytest.approx(0.6, abs=0.02)
    assert table["flags"].to_dict() == {
        "perfect": "",
        "flat": "too narrow",
        "non_monotone": "non-monotone: ladder",
        "rewarding": "inverted: ladder",
        "late": "",
    }


def test_a_wrong_step_within_its_noise_is_not_flagged():
    noisy = build(rows({"noisy": (1.0, 0.8, 0.83, 0.3, 0.0)}, n_units=12, n_seeds=1, noise=0.3))
    assert noisy["verdict"].tolist() == ["worse"]
    rounding = judge(np.tile([1.0, 1.0 + 1e-9, 1.0], (5, 1)), np.array([0, 0.5, 1]), 1.0)
    assert rounding["verdict"] == "flat"
    zeros = judge(np.tile([-5e-31, -5e-31, -6e-30], (5, 1)), np.array([0, 0.5, 1]), 1.5e-30)
    assert zeros["verdict"] == "flat", "an error of 0 is one of 0 whatever its last digits"
    alone = judge(np.array([[1.0, 0.2, 0.8, 0.4, 0.0]]), np.array(DOSES), 1.0)
    assert alone["verdict"] == "worse", "one unit says nothing about noise"


def test_a_range_that_is_noise_is_too_narrow():
    rng = np.random.default_rng(1)
    for n_units in (5, 20):
        floor, ceiling = rng.normal(size=n_units), 0.1 + rng.normal(size=n_units)
        assert narrowness(calibrated_range(floor, ceiling, 1.0)) == "too narrow"
        assert narrowness(calibrated_range(floor, floor + 3 + 0.1 * ceiling, 1.0)) == "resolves"
        assert narrowness(calibrated_range(floor, floor - 3 + 0.1 * ceiling, 1.0)) == "too narrow"
        assert narrowness(calibrated_range(floor, floor - 3 + 0.1 * ceiling, -1.0)) == "resolves"


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_ranges_of_one_sign_are_never_too_narrow_however_they_differ(better):
    sign = 1.0 if better == "higher" else -1.0
    floor, ceiling = np.zeros(4), sign * np.array([4.3, 5.0, 6.0, 49.5])
    span = calibrated_range(floor, ceiling, sign)
    assert span.low < 0.2
    assert narrowness(span) == "too narrow"
    assert always_above(floor, ceiling, sign)
    assert narrowness(span, above=True) == "resolves"
    # one unit where the floor wins, or is equalled but for rounding, and the rule holds
    for last in (-0.1, 0.0, 1e-12):
        other = ceiling.copy()
        other[0] = sign * last
        assert not always_above(floor + 1, other + 1, sign)
    assert always_above(np.array([np.nan, 0.0]), np.array([1.0, sign]), sign)
    assert not always_above(np.array([np.nan]), np.array([1.0]), sign)


def test_a_task_whose_ceiling_is_above_its_floor_in_every_unit_has_a_calibrated_metric():
    found = rows({"perfect": SHAPES["perfect"]}, n_units=4, n_seeds=1, noise=0.0)
    ceilings = dict(zip(("u0", "u1", "u2", "u3"), (4.3, 5.0, 6.0, 49.5), strict=True))
    at_p = found["ladder"] == "ceiling"
    found.loc[at_p, "value"] = found.loc[at_p, "unit"].map(ceilings)
    table = build(found)
    assert table["calibrated_low"].iloc[0] < 0.2
    assert table["narrow"].tolist() == ["resolves"]
    assert table["flags"].tolist() == [""]
    found.loc[at_p & (found["unit"] == "u0"), "value"] = -1.0
    assert build(found)["narrow"].tolist() == ["too narrow"]


def test_the_range_does_not_depend_on_the_metrics_scale():
    rng = np.random.default_rng(2)
    for n_units in (2, 5, 12):
        floor, ceiling = rng.normal(size=n_units), 2 + rng.normal(size=n_units)
        one, other = calibrated_range(floor, ceiling, 1.0), calibrated_range(3 - 7 * floor, 3 - 7 * ceiling, -1.0)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
        assert -1 <= one.low <= one.value <= one.high <= 1


@pytest.mark.parametrize("mean", [0.0, 0.5, 2.0, -2.0])
@pytest.mark.parametrize("n_units", [3, 5, 20])
def test_the_interval_is_exact_for_normal_ranges(mean, n_units):
    """By scipy's distribution, found from the other side: the chance of a t as extreme at either limit."""
    ranges = mean + np.linspace(-1, 1, n_units)
    found = calibrated_range(np.zeros(n_units), ranges, 1.0)
    t = np.sqrt(n_units) * ranges.mean() / ranges.std(ddof=1)
    low, high = (np.sqrt(n_units) * limit / np.sqrt(1 - limit**2) for limit in (found.low, found.high))
    assert nct.sf(t, n_units - 1, low) == pytest.approx(0.025, abs=1e-4)
    assert nct.cdf(t, n_units - 1, high) == pytest.approx(0.025, abs=1e-4)


@pytest.mark.parametrize("n_units", [5, 10])
def test_the_interval_covers(n_units):
    rng = np.random.default_rng(3)
    truth = 1.0 / np.hypot(1.0, 1.5)
    hits = 0
    for _ in range(300):
        found = calibrated_range(np.zeros(n_units), rng.normal(1.0, 1.5, n_units), 1.0)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 300 <= 0.98


def test_extreme_ranges_end():
    same = calibrated_range(np.zeros(3), np.full(3, 5.0), 1.0)
    assert same.value == 1.0
    assert same.low > 0.99
    opposite = calibrated_range(np.zeros(3), np.full(3, 5.0), -1.0)
    assert opposite.value == -1.0
    assert opposite.high < -0.99
    rounding = calibrated_range(np.ones(3), np.ones(3) + 1e-12 * np.arange(3), 1.0)
    assert (rounding.value, rounding.low) == (0.0, 0.0)


def test_too_few_units_are_not_judged():
    for n_units in (1, 2):
        assert build(rows(n_units=n_units))["narrow"].iloc[0] == "not judged"
    lacking = rows({"perfect": SHAPES["perfect"]})
    assert build(lacking[lacking["ladder"] == "baseline"])["narrow"].tolist() == ["not judged"]


def test_missing_values_are_no_scores():
    found = rows({"perfect": SHAPES["perfect"]})
    found.loc[found["unit"] == "u0", "value"] = np.nan
    table = build(found)
    assert table["verdict"].tolist() == ["worse"]
    assert np.isfinite(table["calibrated_low"]).all()
    found.loc[(found["ladder"] == "ladder") & (found["dose"] == 1.0), "value"] = np.inf
    assert build(found)["verdict"].tolist() == ["undefined"]


def test_the_page_names_what_is_flagged():
    page = to_markdown(build(rows()), ["Command: made | up"])
    assert "Command: made \\| up" in page
    for line in (
        "- too narrow to resolve methods: flat",
        "- non-monotone: non\\_monotone (ladder, a step gains 6",
        "- inverted: rewarding (ladder, a step gains 1",
        "- flat under ladder: flat",
        "| **perfect ↑**",
    ):
        assert line in page
    assert "nothing was measured" in to_markdown(build(rows().iloc[:0]))


def test_all_files_are_written_and_none_is_left_over(tmp_path):
    found = pd.concat([rows(), rows(task="other/sim")])
    for _ in range(2):
        files = write(found, tmp_path / "calibration")
    assert {file.name for file in files} == {
        "calibration.md", "calibration.csv", "calibration.parquet", "task.sim.png", "other.sim.png",
    }  # fmt: skip
    assert set(files) == set((tmp_path / "calibration").iterdir())
    assert (tmp_path / "calibration" / "task.sim.png").read_bytes().startswith(b"\x89PNG")
    pd.testing.assert_frame_equal(pd.read_parquet(files[2]), found.reset_index(drop=True))
    table = pd.read_csv(files[1])
    assert len(table) == 2 * len(SHAPES)
    assert {"calibrated_low", "verdict", "flags", *(f"dose_{dose:g}" for dose in DOSES)} <= set(table)


def test_nothing_measured_writes_no_figure(tmp_path):
    assert [file.suffix for file in write(rows().iloc[:0], tmp_path)] == [".md", ".csv", ".parquet"]
    assert calibration.plot_name("a/b") == "a.b.png"
