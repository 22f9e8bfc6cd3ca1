"""What tuning buys, on rows with a known answer."""

import json

import numpy as np
import pandas as pd
import pytest

from bench import records
from leaderboard import build, to_markdown, tuning
from leaderboard.files import write
from tests.leaderboard.conftest import RATIOS, rows

#: pca is the best at the defaults, the vae once both are tuned.
TUNED = {**RATIOS, "vae": 0.8, "vae@tuned": 0.4, "vae@oracle": 0.3, "pca": 0.6, "pca@tuned": 0.6, "pca@oracle": 0.5}
NAMES = tuple(name for name in TUNED if name.partition("@")[0] in ("vae", "pca"))


def tuned_rows(**changes):
    found = rows(NAMES, ratios=TUNED, **changes)
    found.loc[found["method"].str.endswith("@oracle"), "role"] = "oracle"
    tuned = found["method"].str.contains("@")
    found.loc[tuned, "config"] = found.loc[tuned, "unit"].map(lambda unit: json.dumps({"unit": unit}))
    return found


def test_labels_are_those_that_runs_have():
    assert (tuning.TUNED, tuning.ORACLE) == (records.TUNED, records.ORACLE)


def test_gain_what_is_left_and_places():
    frame = tuning.tuning(build(tuned_rows())).set_index("method")
    assert list(frame.index) == ["vae", "pca"]
    vae, pca = frame.loc["vae"], frame.loc["pca"]
    assert (vae["default"], vae["tuned"], vae["oracle"]) == pytest.approx((0.8, 0.4, 0.3))
    assert (vae["gain"], vae["left"], pca["gain"], pca["left"]) == pytest.approx((0.5, 0.75, 1.0, 5 / 6))
    assert vae["gain_low"] <= 0.5 + 1e-9
    assert vae["gain_high"] >= 0.5 - 1e-9
    assert (vae["place"], vae["place_tuned"], pca["place"], pca["place_tuned"]) == (2, 1, 1, 2)
    said = tuning.tuning_sentence(frame.reset_index())
    assert "2 of 2 change places" in said
    # .8 against .6 at the defaults; the vae is halved and pca stays
    assert (
        "Tuning matters more: the errors of two of these methods at their defaults differ by a factor of 1.33" in said
    )
    assert said.endswith("and tuning changes an error by one of 1.41.")
    assert (frame["n_units"] == 9).all()


def test_a_method_of_fewer_tasks_or_units_has_no_place(tmp_path):
    more = tuned_rows(task="few-shot/other")
    board = build(pd.concat([tuned_rows(), more[~more["method"].str.startswith("pca")]]))
    frame = tuning.tuning(board)
    places = frame.set_index(["task", "method"])[["place", "place_tuned"]]
    assert places.loc[(tuning.ALL_TASKS, "vae")].tolist() == [1, 1]
    assert places.loc[(tuning.ALL_TASKS, "pca")].isna().all()
    assert places.loc[("reembedding/sim", "vae")].tolist() == [2, 1]
    assert "change places" not in tuning.tuning_sentence(frame)  # one alone cannot
    assert "matters more" not in tuning.tuning_sentence(frame)
    write(board, tmp_path, formats=["md", "html"])
    assert "nan" not in (tmp_path / "leaderboard.md").read_text()

    found = tuned_rows()
    found.loc[(found["method"] == "pca@tuned") & (found["unit"] == "unit00"), ["value", "status"]] = [np.nan, "failed"]
    of_task = tuning.tuning(build(found)).set_index("method")
    assert (of_task.loc["vae", "place"], np.isnan(of_task.loc["pca", "place"])) == (1, True)


def test_the_choice_of_the_method_can_matter_more_than_tuning():
    ratios = {
        **RATIOS,
        "vae": 0.4,
        "vae@tuned": 0.38,
        "vae@oracle": 0.3,
        "pca": 0.8,
        "pca@tuned": 0.8,
        "pca@oracle": 0.5,
    }
    found = rows(NAMES, ratios=ratios)
    found.loc[found["method"].str.endswith("@oracle"), "role"] = "oracle"
    said = tuning.tuning_sentence(tuning.tuning(build(found)))
    assert "The choice of the method matters more" in said
    assert "by a factor of 2.00 on average, and tuning changes an error by one of 1.03." in said


def test_intervals_are_over_units():
    frame = tuning.tuning(build(tuned_rows(noise=0.2))).set_index("method")
    assert frame.loc["vae", "gain_low"] < frame.loc["vae", "gain"] < frame.loc["vae", "gain_high"]
    one = tuning.tuning(build(tuned_rows(n_units=1)))
    assert one["gain_low"].isna().all()
    assert np.allclose(one["gain"], [0.5, 1.0])


def test_each_unit_has_its_own_configuration_under_one_label_and_an_oracle_has_no_rank():
    board = build(tuned_rows())
    frame = board.tasks[0].frame.set_index("method")
    assert set(NAMES) <= set(frame.index)
    assert not [note for note in board.notes if "config" in note]
    assert frame.loc["vae@oracle", "relative_error"] == pytest.approx(0.3)
    assert np.isnan(frame.loc["vae@oracle", ["rank_low", "p"]].astype(float)).all()
    assert frame.loc["vae@tuned", "rank_low"] == 1


def test_all_tasks_come_first_and_count_the_same():
    more = tuned_rows(task="few-shot/other")
    more.loc[more["method"] == "vae@tuned", "value"] = more.loc[more["method"] == "vae", "value"].to_numpy()
    board = build(pd.concat([tuned_rows(), more]))
    frame = tuning.tuning(board)
    assert list(frame["task"].unique()) == [tuning.ALL_TASKS, "reembedding/sim", "few-shot/other"]
    whole = frame[frame["task"] == tuning.ALL_TASKS].set_index("method")
    assert whole.loc["vae", "gain"] == pytest.approx(np.sqrt(0.5))
    assert whole.loc["vae", "n_units"] == 2
    assert (
        "leaves 0.85 of the error (median of 2 methods) on all tasks, least for vae (0.71)"
        in tuning.tuning_sentence(frame)
    )


def test_units_without_all_three_do_not_count():
    found = tuned_rows()
    gone = (found["method"] == "vae@tuned") & (found["unit"] == "unit00")
    found.loc[gone, ["value", "status"]] = [np.nan, "failed"]
    frame = tuning.tuning(build(found)).set_index("method")
    assert frame.loc["vae", "n_units"] == 8
    assert frame.loc["vae", "gain"] == pytest.approx(0.5)


def test_nothing_tuned_is_no_table(tmp_path):
    board = build(rows())
    assert tuning.tuning(board).empty
    assert tuning.tuning_sentence(tuning.tuning(board)) == ""
    assert "tuning" not in to_markdown(board, "Leaderboard")
    write(board, tmp_path, formats=["html"])
    assert 'id="tuning"' not in (tmp_path / "leaderboard.html").read_text()


def test_every_format_has_it(tmp_path):
    board = build(tuned_rows())
    write(board, tmp_path, formats=["md", "html", "json"])
    assert "2 → 1" in (tmp_path / "leaderboard.md").read_text()
    assert 'id="tuning"' in (tmp_path / "leaderboard.html").read_text()
    (first, _) = json.loads((tmp_path / "leaderboard.json").read_text())["tuning"]
    assert first["method"] == "vae"
    assert first["gain"] == pytest.approx(0.5)
