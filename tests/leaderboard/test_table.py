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


def test_known_order_with_controls_at_0_and_1(sim):
    table = only(build(sim.rows(noise=0.05)))
    assert list(table.frame["method"]) == ["trvae", "ceiling", "vae", "baseline", "pca", "floor"]
    assert sim.row_of(table, "floor").score == 0
    assert sim.row_of(table, "ceiling").score == 1
    n1 = sim.row_of(table, "baseline")
    assert (n1.difference, n1.difference_low, n1.difference_high) == (0, 0, 0)
    assert n1.score == pytest.approx(0.4)
    assert set(table.frame.loc[table.frame["role"] == "reference", "method"]) == {"floor", "baseline", "ceiling"}
    vae = sim.row_of(table, "vae")
    assert vae.low < vae.score < vae.high
    assert vae.difference == pytest.approx(vae.score - n1.score)
    assert (vae.coverage, vae.n_units, vae.fit_seconds, vae.peak_memory_mb) == ("27/27", 9, 2.0, 512.0)
    assert table.primary == {"skill": "higher", "error": "lower"}
    assert table.baseline == "nearest_shift in 27 of 27 jobs"
    assert table.notes == ()


def test_without_noise_the_score_is_the_level(sim):
    table = only(build(sim.rows(n_seeds=1)))
    scores = table.frame.set_index("method")["score"]
    for method, level in {"vae": 0.6, "pca": 0.3, "trvae": 1.2, "baseline": 0.4}.items():
        assert scores[method] == pytest.approx(level)
    assert has_note(table, "one seed")


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


def test_deterministic_controls_may_have_fewer_seeds(sim):
    rows = sim.rows(n_seeds=3)
    fewer = rows[(rows["role"] == "method") | (rows["seed"] == 1)]
    full, thin = only(build(rows)).frame, only(build(fewer)).frame
    assert thin.loc[thin["role"] == "reference", "seed_sd"].isna().all()
    differ = ["coverage", "seed_sd"]
    pd.testing.assert_frame_equal(full.drop(columns=differ), thin.drop(columns=differ))


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
    assert has_note(table, "vae is scored on 8 of 9 units")
    assert umap.coverage == "0/1"
    assert np.isnan(umap.score)
    assert table.frame["method"].iloc[-1] == "umap"
    assert list(board.failures.columns) == ["method", "task", "unit", "seed", "status", "reason", "replay"]
    assert len(board.failures) == 4
    assert list(board.failures["status"].unique()) == ["failed", "out_of_memory"]
    # Over its own eight units the comparison is still paired: as if the ninth were nowhere.
    without = sim.row_of(only(build(rows[rows["unit"] != "unit03"])), "vae")
    assert (without.score, without.p) == pytest.approx((vae.score, vae.p))
    assert without.difference_low == pytest.approx(vae.difference_low, abs=0.02)


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
    other = sim.rows(levels={"floor": 0, "baseline": 0.4, "ceiling": 1, "vae": 0.9}, methods=("vae",))
    other = other[other["role"] == "method"].assign(config=json.dumps({"beta": 8}))
    other["job_id"] += "/beta"
    table = only(build(pd.concat([sim.rows(), other])))
    assert sim.row_of(table, "vae (config 2)").score > sim.row_of(table, "vae (config 1)").score
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
    assert np.isfinite([row.skill, row.score]).all()
    assert has_note(table, "skill of vae is undefined in 3 of 27 ok jobs")


def test_a_method_without_one_primary_metric_has_no_score(sim):
    rows = sim.rows()
    table = only(build(rows[~((rows["method"] == "vae") & (rows["metric"] == "error"))]))
    assert np.isnan(sim.row_of(table, "vae").score)
    assert np.isfinite(sim.row_of(table, "vae").skill)
    assert has_note(table, "vae has no score", "error")
    assert sim.row_of(table, "pca").score == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("control", ["floor", "ceiling"])
def test_a_missing_control_leaves_the_raw_metrics(sim, control):
    rows = sim.rows()
    table = only(build(rows[rows["method"] != control]))
    assert table.frame["score"].isna().all()
    assert table.frame["skill"].notna().all()
    assert has_note(table, f"no result of reference {control}")


def test_units_that_a_control_lacks_are_said(sim):
    rows = sim.rows()
    table = only(build(rows[~((rows["method"] == "ceiling") & (rows["unit"] == "unit04"))]))
    assert sim.row_of(table, "vae").n_units == 8
    assert has_note(table, "floor and ceiling have every primary metric on 8 of 9 units only")


def test_a_missing_baseline_leaves_the_score(sim):
    rows = sim.rows()
    table = only(build(rows[rows["method"] != "baseline"]))
    assert table.frame["score"].notna().all()
    assert table.frame["difference"].isna().all()
    assert has_note(table, "no result of reference baseline")


def test_a_metric_that_is_too_narrow_is_excluded_and_named(sim):
    rows = sim.rows(n_seeds=1)
    swap = {"floor": "ceiling", "ceiling": "floor"}
    error = rows["metric"] == "error"
    rows.loc[error, "method"] = rows.loc[error, "method"].replace(swap)
    rows.loc[error, "job_id"] = rows.loc[error, "method"] + rows.loc[error, "job_id"]
    rows["job_id"] = rows["method"] + rows["unit"] + rows["seed"].astype(str)
    table = only(build(rows))
    assert has_note(table, "error is excluded, too narrow", "calibrated range", "over 9 units")
    assert has_note(table, "the score rests on skill alone")
    assert sim.row_of(table, "vae").score == pytest.approx(0.6)  # skill is not swapped
    none = only(build(rows[rows["metric"] == "error"]))
    assert none.frame["score"].isna().all()
    assert has_note(none, "no score: no primary metric is left")


def test_one_unit_has_scores_and_no_interval(sim):
    table = only(build(sim.rows(n_units=1)))
    row = sim.row_of(table, "trvae")
    assert row.score == pytest.approx(1.2, abs=0.05)
    assert np.isnan([row.low, row.high, row.difference_low]).all()
    assert has_note(table, "one unit")


def test_few_units_are_said(sim):
    table = only(build(sim.rows(n_units=5)))
    assert np.isfinite(table.frame["low"]).all()
    assert has_note(table, "5 units", "Student")


def test_one_method_and_a_constant_metric_are_said(sim):
    assert has_note(only(build(sim.rows(methods=("vae",)))), "one method")
    rows = sim.rows()
    constant = (rows["role"] == "method") & (rows["metric"] == "skill")
    table = only(build(rows.assign(value=rows["value"].where(~constant, 0.25))))
    assert has_note(table, "skill is the same for all methods")


def test_no_primary_metric(sim):
    table = only(build(sim.rows().assign(primary=False)))
    assert table.frame["score"].isna().all()
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
