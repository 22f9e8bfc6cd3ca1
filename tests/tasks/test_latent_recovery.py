"""What latent recovery splits, reads off codes, and asks of its data."""

import dataclasses

import numpy as np
import pytest

from methods import METHODS
from tasks.base import PRESETS
from tasks.datasets.base import DataError
from tasks.datasets.memory import Memory, digest
from tasks.latent_recovery import LatentRecovery
from tasks.simulate.sparse_shift import SPARSE_SHIFT, SPARSE_SHIFT_PUBLISHED, latents_of

TINY = dataclasses.replace(SPARSE_SHIFT, parameters={"n_perturbations": 20, "n_cells": 30}, sizes={})


@pytest.fixture(scope="module")
def task():
    return LatentRecovery(TINY)


def test_a_unit_is_a_draw_and_draws_differ(task):
    assert task.units() == ["draw0"]
    assert LatentRecovery(TINY, draw=1000).units() == ["draw1000"]
    assert [LatentRecovery(TINY, preset).n_draws for preset in PRESETS] == [1, 5, 10]
    first, second = (LatentRecovery(TINY, draw=draw).training_data(f"draw{draw}", 0) for draw in (0, 1))
    assert not np.array_equal(first.X, second.X)


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
    data = task.data
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
    scores = task.evaluate(lambda cells: Knows(task.data), "draw0", 0)
    assert scores["target_auprc"] > 0.999
    assert "target_f1" not in scores


@pytest.mark.parametrize("n_latent", [10, 20])
def test_a_wrong_number_of_latents_is_scored(task, n_latent):
    class Wrong(Knows):
        def embed(self, data):
            z = super().embed(data)
            return np.hstack([z, np.zeros((len(z), 5))])[:, :n_latent]

    scores = task.evaluate(lambda cells: Wrong(task.data), "draw0", 0)
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


# --- references


def test_a_rotation_of_the_truth_knows_all_and_no_axes(task):
    rotated, true = (task.evaluate(task.reference_fit(name, "draw0", 0), "draw0", 0) for name in ("rotated", "ceiling"))
    assert true["mcc"] == pytest.approx(1)
    assert rotated["mcc"] < 0.65
    assert rotated["latent_r2"] > 0.999
    assert rotated["mcc_rotated"] == pytest.approx(true["mcc_rotated"], abs=0.1)
    assert rotated["mcc_rotated"] > rotated["mcc"] + 0.1


@pytest.mark.parametrize("dataset", [SPARSE_SHIFT, SPARSE_SHIFT_PUBLISHED], ids=lambda dataset: dataset.name)
def test_the_decoder_is_inverted_from_counts_alone(dataset):
    data = dataclasses.replace(dataset, parameters={**dataset.parameters, "n_cells": 5}, sizes={}).make(draw=1000)
    found = latents_of(data.layers["counts"], data.uns["structure"])
    # measured: .18; each latent has a variance of about 4
    assert np.mean((found - data.obsm["z"]) ** 2) < 0.25


def test_references_are_in_order_over_development_draws():
    small = dataclasses.replace(SPARSE_SHIFT, parameters={"n_perturbations": 50, "n_cells": 50}, sizes={})
    errors = {}
    for draw in range(1000, 1003):
        task = LatentRecovery(small, draw=draw)
        unit = task.units()[0]
        for name in ("floor", "rotated", "baseline", "probe", "structure", "ceiling"):
            fastica = METHODS["fastica"](METHODS["fastica"].configure(n_latent=15))
            fit = task.reference_fit(name, unit, 0) if name != "baseline" else lambda data, it=fastica: it.fit(data, 0)
            scores = task.evaluate(fit, unit, 0)
            errors.setdefault(name, []).append([1 - scores[metric] for metric in task.primary])
    means = {name: np.mean(values, axis=0) for name, values in errors.items()}
    for better, worse in (("ceiling", "structure"), ("structure", "probe"), ("probe", "baseline")):
        assert (means[better] <= means[worse]).all()
    assert (means["structure"] < 0.4 * means["baseline"]).all()
    assert (means["floor"] > 1.3 * means["baseline"]).all()
    assert max(means["rotated"] / means["baseline"]) > 1.3


def test_noise_in_place_of_the_truth_changes_no_training_data(task):
    noised = TINY.make()
    rng = np.random.default_rng(1)
    noised.obsm["z"] = rng.standard_normal(noised.obsm["z"].shape).astype(np.float32)
    test = task._split(task.data, 0)[1]
    noised.X[test] = rng.random((len(test), noised.n_vars))
    training = LatentRecovery(Memory(noised, "noised")).training_data("draw0", 0)
    assert digest(training) == digest(task.training_data("draw0", 0))
