"""The scripts themselves, at a size that takes seconds."""

import numpy as np
import pandas as pd
import pytest

from methods import METHODS
from tests.held_back import processors, sparse_shift
from tests.held_back.scoring import fit_all, task_of


@pytest.fixture(scope="module")
def task():
    return task_of("unseen-perturbation/doubles-sim", 1000)


def test_a_draw_is_not_the_one_that_the_board_shows(task):
    shown = task_of("unseen-perturbation/doubles-sim")
    assert shown.data.shape == task.data.shape
    assert not np.array_equal(shown.data.X, task.data.X)


def test_fits_are_those_that_a_method_makes_alone_and_equal_ones_are_made_once(task):
    data, changes = task.training_data(task.units()[0], 0), {"steps": 16, "n_latent": 3}
    label = "ivae@" + ",".join(f"{key}={value}" for key, value in changes.items())
    fitted, _ = fit_all(label, task, [data, data, data], [0, 0, 1])
    assert fitted[0] is fitted[1]
    for method, seed in ((fitted[0], 0), (fitted[2], 1)):
        alone = METHODS["ivae"](METHODS["ivae"].configure(**changes)).fit(data, seed)
        np.testing.assert_allclose(method.embed(data), alone.embed(data), atol=0.02)


def test_a_table_has_scores_and_says_who_refused(task, capsys):
    methods = ["ivae@steps=8", "mean-shift", "no-change"]
    sparse_shift.show("unseen-perturbation/doubles-sim", methods, [1000], [0])
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert "refused: no content label was trained in both 'control' and" in rows[1]
    (score,) = {cell.strip() for cell in rows[2].split("|")[2:4]}
    of_units = [
        task.evaluate(lambda data: METHODS["no-change"]().fit(data, 0), unit, 0)["skill"] for unit in task.units()
    ]
    assert float(score) == pytest.approx(np.mean(of_units), abs=1e-3)


def test_moves_between_instruction_sets_stand_beside_the_spread_over_seeds(tmp_path):
    def run(name, values):
        rows = [
            {"task": "t/d", "method": "m", "metric": "skill", "seed": seed, "value": value, "unit": unit}
            | {"status": "ok", "primary": True, "role": "method"}
            for seed, of_units in enumerate(values)
            for unit, value in enumerate(of_units)
        ]
        (tmp_path / name).mkdir()
        pd.DataFrame(rows).to_parquet(tmp_path / name / "results.parquet")
        return tmp_path / name

    own = run("own", [(1.0, 3.0), (4.0, 4.0)])
    (row,) = processors.compare(own, [run("plain", [(1.5, 3.5)]), run("same", [(1.0, 3.0), (4.0, 4.0)])])
    assert row[:3] == ["t/d", "m", "skill"]
    np.testing.assert_allclose(row[3:], [3.0, np.sqrt(2), 0.5, 0.0])


def test_varimax_undoes_a_rotation():
    rng = np.random.default_rng(0)
    # of one latent in each row, than which nothing varies more
    sparse = rng.standard_normal((60, 1)) * np.eye(5)[np.arange(60) % 5]
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    turn = sparse_shift.varimax(sparse @ rotation)
    np.testing.assert_allclose(turn.T @ turn, np.eye(5), atol=1e-8)
    np.testing.assert_allclose(np.abs(rotation @ turn).max(axis=0), 1.0, atol=1e-3)
