"""What latent recovery splits, reads off codes, and asks of its data."""

import dataclasses

import numpy as np
import pytest

from tasks.datasets.base import DataError
from tasks.datasets.memory import Memory
from tasks.latent_recovery import LatentRecovery
from tasks.simulate.sparse_shift import SPARSE_SHIFT

TINY = dataclasses.replace(SPARSE_SHIFT, parameters={"n_perturbations": 20, "n_cells": 30}, sizes={})


@pytest.fixture(scope="module")
def task():
    return LatentRecovery(TINY)


def test_units_are_draws_and_draws_differ(task):
    assert task.units() == [f"draw{i}" for i in range(5)]
    assert len(LatentRecovery(TINY, "smoke").units()) == 1
    assert len(LatentRecovery(TINY, "paper").units()) == 10
    first, second = (task.training_data(unit, 0) for unit in task.units()[:2])
    assert not np.array_equal(first.X, second.X)
    np.testing.assert_array_equal(task.training_data("draw0", 0).X, first.X)


@pytest.mark.parametrize("seed", [0, 1])
def test_four_fifths_of_each_seen_perturbation_train(task, seed):
    sizes = task.training_data("draw0", seed).obs["perturbation"].value_counts()
    assert sorted(sizes.index) == [f"p{i:03d}" for i in range(16)]
    assert set(sizes) == {24}


class Knows:
    """Codes that are the true latents, and targets as given."""

    def __init__(self, data, targets=None):
        self.data = data
        if targets is not None:
            self.intervention_targets = lambda: targets

    def embed(self, data):
        return self.data[data.obs_names].obsm["z"]


def test_own_targets_are_scored_in_the_order_of_the_matched_latents(task):
    data = task.draw("draw0")
    truth = data.uns["targets"][:16]
    order = np.random.default_rng(0).permutation(15)

    class Permuted(Knows):
        def embed(self, data):
            return -super().embed(data)[:, order]

    right = task.evaluate(lambda cells: Permuted(data, truth[:, order]), "draw0", 0)
    assert right["target_auprc"] == pytest.approx(1.0)
    assert right["target_f1"] == pytest.approx(1.0)
    unmatched = task.evaluate(lambda cells: Permuted(data, truth), "draw0", 0)
    assert unmatched["target_auprc"] < 0.5
    nothing = task.evaluate(lambda cells: Permuted(data, np.zeros((16, 15))), "draw0", 0)
    assert nothing["target_auprc"] == pytest.approx(truth.mean(), abs=1e-9)
    assert nothing["target_f1"] == 0.0


def test_targets_of_other_methods_are_read_off_their_codes(task):
    scores = task.evaluate(lambda cells: Knows(task.draw("draw0")), "draw0", 0)
    assert scores["target_auprc"] > 0.999
    assert "target_f1" not in scores


@pytest.mark.parametrize("n_latent", [10, 20])
def test_a_wrong_number_of_latents_is_scored(task, n_latent):
    class Wrong(Knows):
        def embed(self, data):
            z = super().embed(data)
            return np.hstack([z, np.zeros((len(z), 5))])[:, :n_latent]

    scores = task.evaluate(lambda cells: Wrong(task.draw("draw0")), "draw0", 0)
    # a latent without a code counts as 0; a code without a latent costs nothing
    assert scores["mcc"] == pytest.approx(min(n_latent, 15) / 15, abs=0.02 if n_latent == 10 else 1e-6)
    assert np.isfinite(list(scores.values())).all()


def test_a_constant_code_scores_zero_and_does_not_crash(task):
    class Constant:
        def embed(self, data):
            return np.ones((data.n_obs, 15))

    scores = task.evaluate(lambda cells: Constant(), "draw0", 0)
    assert scores["mcc"] == pytest.approx(0.0, abs=1e-6)
    assert scores["mcc_within"] == pytest.approx(0.0, abs=1e-6)
    assert scores["target_auprc"] < 0.3


@pytest.mark.parametrize("missing", ["z", "targets"])
def test_data_without_the_truth_are_refused(missing):
    data = TINY.load()
    if missing == "z":
        del data.obsm["z"]
    else:
        del data.uns["targets"]
    with pytest.raises(DataError, match="sparse: obsm"):
        LatentRecovery(Memory(data, "sparse")).training_data("draw0", 0)
