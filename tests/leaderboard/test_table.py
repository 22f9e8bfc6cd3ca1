import json

import numpy as np
import pandas as pd
import pytest

from leaderboard import build


def only(board):
    (table,) = board.tasks
    return table


def has_note(table, *parts):
    return any(all(part in note for part in parts) for note in table.notes)


def test_known_order_and_columns(sim):
    table = only(build(sim.rows(noise=0.05)))
    assert list(table.frame["method"]) == ["ceiling", "trvae", "vae", "baseline", "pca", "floor"]
    assert sim.row_of(table, "floor").relative_error == pytest.approx(4)
    assert sim.row_of(table, "ceiling").relative_error == pytest.approx(0.1)
    baseline = sim.row_of(table, "baseline")
    assert (baseline.relative_error, baseline.low, baseline.high) == (1, 1, 1)
    assert set(table.frame.loc[table.frame["role"] == "reference", "method"]) == {"floor", "baseline", "ceiling"}
    vae = sim.row_of(table, "vae")
    assert vae.low < vae.relative_error < vae.high
    assert vae.verdict == "better"
    assert (vae.coverage, vae.n_units, vae.fit_seconds, vae.peak_memory_mb) == ("27/27", 9, 2.0, 512.0)
    assert table.primary == {"skill": "higher", "error": "lower"}
    assert table.baseline == "nearest_shift"
    assert table.core_seconds == 10 * 6 * 27
    assert table.notes == ()


def test_without_noise_the_relative_error_is_the_known_one(sim):
    table = only(build(sim.rows(n_seeds=1)))
    errors = table.frame.set_index("method")["relative_error"]
    for method, ratio in {"vae": 0.5, "pca": 1.3, "trvae": 0.25, "baseline": 1.0}.items():
        assert errors[method] == pytest.approx(ratio)


def test_draws_are_the_replicates(sim):
    table = only(build(sim.rows(n_units=8, n_draws=4, noise=0.3)))
    assert table.draws == (0, 1, 2, 3)
    assert table.replicates == "4 draws"
    assert sim.row_of(table, "vae").n_replicates == 4
    assert table.units[:2] == ("draw0/unit00", "draw0/unit04")
    real = only(build(sim.rows(n_units=8)))
    assert (real.draws, real.replicates) == ((), "8 units")


def test_a_shorter_run_is_part_of_a_longer_one(sim):
    rows = sim.rows(n_units=12, n_draws=6, noise=0.2)
    few = only(build(rows[rows["draw"] < 3]))
    assert few.draws == (0, 1, 2)
    again = only(build(pd.concat([rows[rows["draw"] < 3], rows[rows["draw"] >= 3]])))
    pd.testing.assert_frame_equal(again.frame, only(build(rows)).frame)


def test_a_baseline_that_changes_is_counted(sim):
    rows = sim.rows()
    chosen = (rows["method"] == "baseline") & (rows["unit"] == "unit00")
    table = only(build(rows.assign(detail=rows["detail"].where(~chosen, "ridge"))))
    assert table.baseline == "nearest_shift in 24 of 27 jobs, ridge in 3 of 27 jobs"


def test_raw_columns_are_means_over_seeds_then_units(sim):
    rows = pd.DataFrame(
        sim.cell("vae", "a", 0, {"skill": 1.0})
        + sim.cell("vae", "a", 1, {"skill": 3.0})
        + sim.cell("vae", "b", 0, {"skill": 8.0})
    )
    assert sim.row_of(only(build(rows)), "vae").skill == 5.0


def test_secondary_metrics_do_not_enter(sim):
    rows = sim.rows()
    table = only(build(rows.assign(primary=rows["metric"] == "skill")))
    assert list(table.primary) == ["skill"]
    assert "error" not in table.frame


def test_deterministic_references_may_have_fewer_seeds(sim):
    """A job is compared with the baseline of its own seed; where there is none, it is not compared."""
    rows = sim.rows(n_seeds=3)
    fewer = rows[(rows["role"] == "method") | (rows["seed"] == 1)]
    thin = only(build(fewer)).frame.set_index("method")
    assert thin.loc["vae", "relative_error"] == pytest.approx(0.5)
    assert thin.loc["vae", "n_units"] == 9


def test_order_of_rows_does_not_matter(sim):
    rows = sim.rows(noise=0.1)
    shuffled = rows.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(only(build(rows)).frame, only(build(shuffled)).frame, check_like=True)


def test_failed_cells_never_score_and_are_listed(sim):
    rows = sim.rows(noise=0.05)
    lost = (rows["method"] == "vae") & (rows["unit"] == "unit03")
    crashed = sim.failed("umap", "unit00", 0, status="out_of_memory", reason="8.1 GB of 8 GB")
    jobs = [row for seed in range(3) for row in sim.failed("vae", "unit03", seed, reason="NaN loss")]
    board = build(pd.concat([rows[~lost], pd.DataFrame(jobs + crashed)]))
    table = only(board)
    vae, umap = sim.row_of(table, "vae"), sim.row_of(table, "umap")
    assert (vae.coverage, vae.n_units) == ("24/27", 8)
    assert has_note(table, "vae has 8 of 9 units")
    assert umap.coverage == "0/1"
    assert np.isnan(umap.relative_error)
    assert table.frame["method"].iloc[-1] == "umap"
    assert list(board.failures.columns) == ["method", "task", "unit", "seed", "status", "reason", "replay"]
    assert len(board.failures) == 4
    assert list(board.failures["status"].unique()) == ["failed", "out_of_memory"]
    # over its own eight units the comparison is still paired: as if the ninth were nowhere
    without = sim.row_of(only(build(rows[rows["unit"] != "unit03"])), "vae")
    assert (without.relative_error, without.low) == pytest.approx((vae.relative_error, vae.low))


def test_skipped_methods_are_rows_at_the_bottom(sim):
    rows = pd.concat([sim.rows(), pd.DataFrame(sim.skipped("umap", "no predict") + sim.failed("lord", "unit00", 0))])
    board = build(rows)
    table = only(board)
    assert list(table.frame["method"].iloc[-2:]) == ["lord", "umap"]
    assert sim.row_of(table, "umap").coverage == "skipped"
    assert "*" not in table.units
    assert board.skipped.to_dict("records") == [{"method": "umap", "task": "reembedding/sim", "reason": "no predict"}]
    assert list(board.failures["method"]) == ["lord"]


def test_a_method_skipped_everywhere_is_still_a_table(sim):
    table = only(build(pd.DataFrame(sim.skipped("umap", "no predict"))))
    assert table.units == ()
    assert sim.row_of(table, "umap").coverage == "skipped"
    assert has_note(table, "no method has an ok job")


def test_presets_are_separate_tables(sim):
    board = build(pd.concat([sim.rows(preset="smoke", n_units=2), sim.rows(preset="default")]))
    assert [(table.preset, len(table.units)) for table in board.tasks] == [("smoke", 2), ("default", 9)]


def test_the_newest_task_version_counts_and_the_rest_is_named(sim):
    old, new = sim.rows(task_version=1), sim.rows(task_version=2, n_units=8)
    table = only(build(pd.concat([new, old])))
    assert table.version == 2
    assert len(table.units) == 8
    assert has_note(table, "162 jobs of task version 1")
    pd.testing.assert_frame_equal(table.frame, only(build(new)).frame)


def test_the_data_with_most_cells_counts_and_the_rest_is_named(sim):
    few = sim.rows(methods=("vae",), data_digest="d2", n_units=2)
    undated = pd.DataFrame(sim.failed("lord", "unit00", 0, data_digest=None))
    table = only(build(pd.concat([few, sim.rows(), undated])))
    assert has_note(table, "24 jobs on data d2", "shows data d1")
    assert sim.row_of(table, "vae").coverage == "27/27"
    assert sim.row_of(table, "lord").coverage == "0/1"


def test_configs_under_one_label_are_told_apart(sim):
    other = sim.rows(ratios={"floor": 4, "baseline": 1, "ceiling": 0.1, "vae": 0.3}, methods=("vae",))
    other = other[other["role"] == "method"].assign(config=json.dumps({"beta": 8}))
    other["job_id"] += "/beta"
    table = only(build(pd.concat([sim.rows(), other])))
    first, second = (sim.row_of(table, f"vae (config {k})").relative_error for k in (1, 2))
    assert second < first
    assert has_note(table, "vae (config 2) is", '{"beta": 8}')


def test_of_two_results_for_one_cross_the_later_counts(sim):
    again = sim.cell("vae", "unit00", 0, {"skill": 100.0, "error": 0.0})
    again = pd.DataFrame(again).assign(job_id="after the code changed")
    table = only(build(pd.concat([sim.rows(n_seeds=1), again])))
    row = sim.row_of(table, "vae")
    assert row.coverage == "9/9"
    assert row.skill > 10
    assert has_note(table, "1 job with a later result")


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite_are_undefined(sim, bad):
    rows = sim.rows()
    hit = (rows["method"] == "vae") & (rows["unit"] == "unit00") & (rows["metric"] == "skill")
    table = only(build(rows.assign(value=rows["value"].where(~hit, bad))))
    row = sim.row_of(table, "vae")
    assert row.n_units == 8
    assert np.isfinite([row.skill, row.relative_error]).all()
    assert has_note(table, "skill of vae is undefined in 3 of 27 ok jobs")


def test_a_method_without_one_primary_metric_has_no_relative_error(sim):
    rows = sim.rows()
    table = only(build(rows[~((rows["method"] == "vae") & (rows["metric"] == "error"))]))
    assert np.isnan(sim.row_of(table, "vae").relative_error)
    assert np.isfinite(sim.row_of(table, "vae").skill)
    assert has_note(table, "vae has no relative error", "error")
    assert sim.row_of(table, "pca").relative_error == pytest.approx(1.3)


def test_a_missing_baseline_leaves_the_raw_metrics(sim):
    rows = sim.rows()
    table = only(build(rows[rows["method"] != "baseline"]))
    assert table.frame["relative_error"].isna().all()
    assert table.frame["skill"].notna().all()
    assert has_note(table, "no result of the baseline")


def test_a_missing_ceiling_or_floor_is_said(sim):
    rows = sim.rows()
    for reference in ("floor", "ceiling"):
        table = only(build(rows[rows["method"] != reference]))
        assert sim.row_of(table, "vae").relative_error == pytest.approx(0.5)
        assert has_note(table, f"no result of the {reference}")


def test_a_metric_without_a_best_value_makes_no_error(sim):
    rows = sim.rows()
    rows.loc[rows["metric"] == "error", "best"] = np.nan
    table = only(build(rows))
    assert has_note(table, "error has no best possible value")
    assert sim.row_of(table, "vae").relative_error == pytest.approx(0.5)


def test_one_unit_has_a_value_and_no_interval(sim):
    table = only(build(sim.rows(n_units=1)))
    row = sim.row_of(table, "trvae")
    assert row.relative_error == pytest.approx(0.25)
    assert np.isnan([row.low, row.high, row.p, row.rank_low]).all()
    assert has_note(table, "one replicate: no interval and no verdict")


def test_one_seed_of_one_fit_is_said(sim):
    assert has_note(only(build(sim.rows(n_seeds=1, one_fit=True))), "one seed, and all units from one fit")
    assert not has_note(only(build(sim.rows(n_seeds=3, one_fit=True))), "one seed")
    assert not has_note(only(build(sim.rows(n_seeds=1, one_fit=True, n_units=8, n_draws=4))), "one seed")


def test_one_method_and_a_constant_metric_are_said(sim):
    assert has_note(only(build(sim.rows(methods=("vae",)))), "one method")
    rows = sim.rows()
    constant = (rows["role"] == "method") & (rows["metric"] == "skill")
    table = only(build(rows.assign(value=rows["value"].where(~constant, 0.25))))
    assert has_note(table, "skill is the same for all methods")


def test_no_primary_metric(sim):
    table = only(build(sim.rows().assign(primary=False)))
    assert table.frame["relative_error"].isna().all()
    assert has_note(table, "no primary metric")


def test_all_failed(sim):
    board = build(pd.DataFrame(sim.failed("vae", "a", 0) + sim.failed("floor", "a", 0) + sim.failed("ceiling", "a", 0)))
    table = only(board)
    assert set(table.frame["coverage"]) == {"0/1"}
    assert has_note(table, "no method has an ok job")
    assert len(board.failures) == 3


def test_a_method_absent_from_a_task_is_named(sim):
    rows = pd.concat([sim.rows(), sim.rows(methods=("vae",), task="fate/sim")])
    board = build(rows)
    assert [table.task for table in board.tasks] == ["reembedding/sim", "fate/sim"]
    assert has_note(board.tasks[1], "not run here", "pca, trvae")
    assert any(note.startswith("fate/sim (default): not run here") for note in board.notes)


def test_tasks_are_summed_up_once_two_of_them_have_errors(sim):
    """A run that has only begun has results of some of its tasks."""
    begun, other = sim.rows(), sim.rows(task="fate/sim")
    without = other[other["method"] != "baseline"]
    assert build(pd.concat([begun, without])).suites == []
    (suite,) = build(pd.concat([begun, other])).suites
    assert suite.tasks == ("reembedding/sim", "fate/sim")


def test_no_rows():
    board = build(pd.DataFrame())
    assert board.tasks == []
    assert board.failures.empty
    assert board.skipped.empty
    assert board.notes == ["there are no results, so nothing can be concluded"]


def test_rows_are_left_as_they_were(sim):
    rows = sim.rows()
    before = rows.copy()
    build(rows)
    pd.testing.assert_frame_equal(rows, before)


def test_fits_that_still_improved_are_counted(sim):
    rows = sim.rows()
    cut = (rows["method"] == "vae") & (rows["unit"] == rows["unit"].iloc[0])
    rows["warnings"] = np.where(cut, "still improved", "")
    vae = rows[rows["method"] == "vae"].drop_duplicates("job_id")
    said = f"their training ended, or warned otherwise: vae ({(vae['warnings'] != '').sum()} of {len(vae)})"
    assert has_note(only(build(rows)), said)
