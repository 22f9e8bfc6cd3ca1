"""Does disentanglement predict skill: scores of fits, correlations between and within methods."""

import numpy as np
import pandas as pd
import pytest

from leaderboard import build
from leaderboard.association import (
    BETWEEN,
    DISENTANGLEMENT,
    RECONSTRUCTION,
    WITHIN,
    answers,
    association,
    fit_scores,
    of_fits,
    points,
)


def fits(n_methods=8, n_units=6, n_seeds=2, between=0.0, within=0.0, seed=0, task="t"):
    """Fits whose score and mcc share a part between methods and another one within them; units are unlike."""
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal((2, n_methods))
    of_unit = rng.standard_normal((2, n_units))
    records = []
    for m in range(n_methods):
        for u in range(n_units):
            for s in range(n_seeds):
                a, b = rng.standard_normal(2)
                score = 3 * shared[m] + 2 * of_unit[0, u] + 0.3 * a
                mcc = 3 * (between * shared[m] + np.sqrt(1 - between**2) * own[m]) + of_unit[1, u]
                mcc += 0.3 * (within * a + np.sqrt(1 - within**2) * b)
                records.append((task, "default", f"m{m}", f"u{u}", s, score, mcc))
    frame = pd.DataFrame(records, columns=["task", "preset", "method", "unit", "seed", "score", "mcc"])
    return frame.assign(draw=pd.NA)


def test_between_and_within_are_told_apart():
    found = association(fits(between=0.0, within=0.95, n_methods=30), "mcc", WITHIN)
    assert found.value == pytest.approx(0.95, abs=0.05)
    assert found.low > 0.8
    assert abs(association(fits(within=0.95, n_methods=30), "mcc", BETWEEN).value) < 0.4
    across = association(fits(between=0.95, within=0.0, n_methods=30), "mcc", BETWEEN)
    assert across.value > 0.8
    assert across.low > 0.5
    assert abs(association(fits(between=0.95, n_methods=30), "mcc", WITHIN).value) < 0.2


def test_opposite_answers_are_both_given():
    jobs = fits(between=0.95, within=-0.95, n_methods=30)
    assert association(jobs, "mcc", BETWEEN).value > 0.8
    assert association(jobs, "mcc", WITHIN).value < -0.8


def test_between_is_spearmans_of_the_means_averaged_over_tasks():
    jobs = pd.concat([fits(seed=1, task="a"), fits(seed=2, task="b")])
    each = []
    for _, of_task in jobs.groupby("task"):
        means = of_task.groupby("method")[["score", "mcc"]].mean()
        each.append(means["score"].corr(means["mcc"], method="spearman"))
    found = association(jobs, "mcc", BETWEEN)
    assert found.value == pytest.approx(np.mean(each))
    assert (found.n_points, found.n_groups) == (16, 8)
    # tasks on unlike scales count alike
    jobs.loc[jobs["task"] == "a", "score"] *= 1e6
    assert association(jobs, "mcc", BETWEEN).value == pytest.approx(np.mean(each))


def test_within_is_the_correlation_of_what_the_means_leave():
    jobs = fits(within=0.5)
    deviations = jobs[["score", "mcc"]].copy()  # balanced: sweeping out means once is exact
    for column in ("method", "unit"):
        deviations -= deviations.groupby(jobs[column]).transform("mean")
    found = association(jobs, "mcc", WITHIN)
    assert found.value == pytest.approx(deviations["score"].corr(deviations["mcc"]), abs=1e-9)
    assert (found.n_points, found.n_groups) == (96, 6)
    moved = jobs.assign(score=jobs["score"] + jobs["method"].map(lambda m: 100.0 * int(m[1:])))
    assert association(moved, "mcc", WITHIN).value == pytest.approx(found.value, abs=1e-6)


def test_partial_correlation_is_that_of_the_residuals():
    rng = np.random.default_rng(3)
    jobs = fits(within=0.0)
    common = rng.standard_normal(len(jobs))
    jobs["score"] += common
    jobs["mcc"] += common
    jobs[RECONSTRUCTION] = common + 0.1 * rng.standard_normal(len(jobs))
    plain, given = association(jobs, "mcc", WITHIN), association(jobs, "mcc", WITHIN, RECONSTRUCTION)
    assert plain.value > 0.7
    assert abs(given.value) < 0.25
    assert given.low < 0 < given.high
    left = jobs[["score", "mcc", RECONSTRUCTION]].copy()
    for column in ("method", "unit"):
        left -= left.groupby(jobs[column]).transform("mean")
    residuals = [
        left[c] - left[RECONSTRUCTION] * np.polyfit(left[RECONSTRUCTION], left[c], 1)[0] for c in ("score", "mcc")
    ]
    assert given.value == pytest.approx(np.corrcoef(residuals)[0, 1], abs=1e-6)


def test_the_interval_covers_the_truth_where_fits_of_a_method_are_alike():
    """No relation between methods: resampling fits, of which a method has many, would find one far too often."""
    excluded = 0
    for seed in range(60):
        found = association(fits(n_methods=10, n_units=4, seed=seed), "mcc", BETWEEN)
        excluded += found.low > 0 or found.high < 0
    assert excluded <= 9  # 5 % of 60 are 3; intervals of 10 methods are a little short (measured 5)


def test_what_cannot_be_told_is_not_a_number():
    assert np.isnan(association(fits(n_methods=2), "mcc", BETWEEN).value)
    few = association(fits(n_methods=4), "mcc", BETWEEN)
    assert np.isfinite(few.value)
    assert np.isnan(few.low)
    assert np.isnan(association(fits(), "mig", BETWEEN).value)
    assert np.isnan(association(fits().iloc[:0], "mcc", WITHIN).value)
    constant = fits().assign(mcc=0.5)
    assert np.isnan(association(constant, "mcc", BETWEEN).value)
    assert np.isnan(association(constant, "mcc", WITHIN).value)
    assert np.isnan(association(fits(n_units=1, n_seeds=1), "mcc", WITHIN).value)
    table = answers(fits())
    assert len(table) == 2 * len(DISENTANGLEMENT)
    assert table.loc[table["metric"] == "mig", "value"].isna().all()
    assert table["partial"].isna().all()


def test_points_are_what_is_correlated():
    jobs = pd.concat([fits(seed=1, task="a"), fits(seed=2, task="b")])
    for level in (BETWEEN, WITHIN):
        pairs, methods = points(jobs, "mcc", level)
        assert len(pairs) == len(methods)
        assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(association(jobs, "mcc", level).value)


def test_the_skills_of_fits_add_up_to_the_relative_error_of_the_table(sim):
    rows = sim.rows(noise=0.3)
    jobs = fit_scores(build(rows))
    assert len(jobs) == 3 * 9 * 3
    for method, group in jobs.groupby("method"):
        table = build(rows).tasks[0]
        assert np.exp(-group["score"].mean()) == pytest.approx(sim.row_of(table, method).relative_error)
    assert {"skill", "error"} <= set(jobs)
    without = fit_scores(build(rows[rows["method"] != "baseline"]))
    assert without["score"].isna().all()
    lost = rows[~((rows["method"] == "vae") & (rows["metric"] == "error"))]
    assert fit_scores(build(lost)).set_index("method").loc["vae", "score"].isna().all()
    assert fit_scores(build(rows[rows["role"] == "reference"])).empty


@pytest.mark.filterwarnings("error")
def test_a_metric_is_not_related_to_a_score_that_is_made_of_it(sim):
    """Latent recovery scores mcc itself, on the fits that are asked for mcc elsewhere, too."""
    codes = sim.rows(task="latent-recovery/sim", noise=0.3).replace({"metric": {"skill": "mcc"}})
    jobs = fit_scores(build(pd.concat([sim.rows(noise=0.3), codes]))).set_index("task")
    assert jobs.loc["reembedding/sim", "score"].notna().all()
    assert jobs.loc["latent-recovery/sim", "mcc"].notna().all()
    assert jobs.loc["latent-recovery/sim", "score"].isna().all()


@pytest.mark.filterwarnings("error")
def test_codes_alone_have_no_skill_and_no_complaint(sim):
    codes = sim.rows(task="latent-recovery/sim", noise=0.3).replace({"metric": {"skill": "mcc"}})
    jobs = fit_scores(build(codes))
    assert jobs["mcc"].notna().all()
    assert jobs["score"].isna().all()
    assert np.isnan(association(jobs, "mcc", WITHIN).value)


def test_within_methods_draws_are_resampled_where_there_are_several(sim):
    jobs = fit_scores(build(sim.rows(n_units=12, n_draws=6, noise=0.3)))
    jobs["mcc"] = np.random.default_rng(0).random(len(jobs))
    assert association(jobs, "mcc", WITHIN).n_groups == 6


def test_what_is_measured_once_a_fit_goes_with_the_mean_over_its_units(sim):
    jobs = fit_scores(build(sim.rows(n_units=12, n_draws=6, n_seeds=1, noise=0.3)))
    first = ~jobs.duplicated(["method", "draw"])
    jobs["mcc"] = np.where(first, np.random.default_rng(0).random(len(jobs)), np.nan)
    rows = of_fits(jobs)
    assert len(rows) == 3 * 6
    assert rows["mcc"].notna().all()
    one = rows[(rows["method"] == "vae") & (rows["draw"] == 2)].iloc[0]
    of_draw = jobs[(jobs["method"] == "vae") & (jobs["draw"] == 2)]
    assert one["score"] == pytest.approx(of_draw["score"].mean())
    assert one["mcc"] == of_draw["mcc"].iloc[0]
    assert association(jobs, "mcc", WITHIN).n_points == 18
