"""What the factors task scores of codes that are known."""

import dataclasses

import numpy as np
import pytest

from methods import METHODS
from metrics import METRICS
from metrics.disentanglement import dci
from tasks.base import PRESETS
from tasks.datasets.base import DataError
from tasks.datasets.memory import Memory, digest
from tasks.factors import MAX_SCORED, Factors
from tasks.paired import CURVATURES
from tasks.simulate.factor_expression import FACTOR_EXPRESSION
from tasks.simulate.factor_images import FACTOR_IMAGES

DATASETS = [FACTOR_IMAGES, FACTOR_EXPRESSION]


def small(dataset, **parameters):
    return dataclasses.replace(dataset, parameters={"n_cells": 1200, **parameters}, sizes={})


@pytest.fixture(scope="module", params=DATASETS, ids=lambda dataset: dataset.name)
def task(request):
    return Factors(small(request.param), primary_only=True)


def method(name, task):
    cls = METHODS[name]
    return lambda data: cls(cls.configure(**task.settings)).fit(data, 0)


class Given:
    def __init__(self, data, codes):
        self.names, self.codes = data.obs_names, codes

    def embed(self, data):
        return self.codes[self.names.get_indexer(data.obs_names)]


def scored(task, change, seed=0):
    data = task.data
    scores = task.evaluate(lambda _: Given(data, change(data.obsm["factors"])), "draw0", seed)
    return scores["mig"], scores["dci_disentanglement"]


def test_a_unit_is_a_draw_and_draws_differ(task):
    assert task.units() == ["draw0"]
    assert Factors(task.dataset, draw=1000).units() == ["draw1000"]
    assert [Factors(task.dataset, preset).n_draws for preset in PRESETS] == [2, 10, 10]
    first, second = (Factors(task.dataset, draw=draw).training_data(f"draw{draw}", 0) for draw in (0, 1))
    assert not np.array_equal(first.X, second.X)


@pytest.mark.parametrize("seed", [0, 1])
def test_two_thirds_train_the_rest_scores_and_no_factor_is_handed_over(task, seed):
    training, test = task._split("draw0", seed)
    assert sorted([*training, *test]) == list(range(1200))
    assert len(training) == 800
    data = task.training_data("draw0", seed)
    assert list(data.obs) == ["environment"]
    assert set(data.obs["environment"]) == {"all"}
    assert len(data.obsm) == 0
    assert set(data.uns) == {"fields", "X_units"}


def test_no_more_than_the_most_are_scored():
    task = Factors(small(FACTOR_EXPRESSION, n_cells=6600, n_genes=5))
    training, test = task._split("draw0", 0)
    assert len(training) == 4400
    assert len(test) == MAX_SCORED


def test_true_factors_are_perfect_in_any_order_and_scale_and_beside_noise(task):
    rng = np.random.default_rng(0)
    n_factors = task.data.obsm["factors"].shape[1]
    true = scored(task, lambda f: f)
    # the gap is to the second best code, which plug-in information puts above 0: .85 to .95 of 400 cells
    assert true[0] > 0.8
    assert true[1] > 0.98
    order, scale = rng.permutation(n_factors), rng.choice([-3.0, 0.1], n_factors)
    assert scored(task, lambda f: f[:, order] * scale) == pytest.approx(true, abs=0.02)
    padded = scored(task, lambda f: np.hstack([f, rng.standard_normal((len(f), 4))]))
    assert padded == pytest.approx(true, abs=0.08)


def test_each_primary_sees_what_the_other_is_blind_to(task):
    true = scored(task, lambda f: f)
    # a copy of every code: compactness goes, modularity stays
    copied = scored(task, lambda f: np.hstack([f, f]))
    assert copied[0] < 0.02
    assert copied[1] > 0.95
    # a code for all but the first factor, which the first shares with the second: modularity suffers more
    mixed = scored(task, lambda f: np.column_stack([_ranks(f[:, 0]) + 10 * _ranks(f[:, 1]), f[:, 2:]]))
    assert mixed[1] < true[1] - 0.1


def _ranks(values):
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)


def test_permuted_codes_score_chance(task):
    rng = np.random.default_rng(0)
    mig, modular = scored(task, lambda f: f[rng.permutation(len(f))])
    assert mig < 0.06
    # importances of noise: no factor can be predicted, yet each has its favourites
    assert modular < 0.4
    data = task.data
    codes = data.obsm["factors"][rng.permutation(data.n_obs)]
    assert dci(codes[:400], data.obsm["factors"][:400])["dci_informativeness"] < 0.05


def test_every_metric_is_scored_and_the_primaries_are_the_same_alone(task):
    fit = method("pca", task)
    whole = Factors(task.dataset).evaluate(fit, "draw0", 0)
    assert set(whole) == {*Factors.primary, *Factors.secondary} - set(CURVATURES)
    assert all(type(value) is float for value in whole.values())
    for name, value in whole.items():
        assert METRICS[name].info.low <= value <= METRICS[name].info.high
    assert task.evaluate(fit, "draw0", 0) == {name: whole[name] for name in Factors.primary}


def test_data_without_factors_are_refused():
    data = small(FACTOR_EXPRESSION, n_genes=10).load()
    del data.obsm["factors"]
    with pytest.raises(DataError, match=r"sim: obsm\['factors'\]"):
        Factors(Memory(data, "sim")).training_data("draw0", 0)


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_references_are_in_order_over_development_draws(dataset):
    found = {}
    for draw in range(1000, 1003):
        task = Factors(dataset, primary_only=True, draw=draw)
        unit = task.units()[0]
        for reference in task.references_here:
            name = reference.methods[0] if reference.methods else None
            fit = method(name, task) if name else task.reference_fit(reference.name, unit, 0)
            scores = task.evaluate(fit, unit, 0)
            found.setdefault(reference.name, []).append([1 - scores[metric] for metric in task.primary])
    log = {name: np.log(np.maximum(values, 1e-3)).mean(axis=1) for name, values in found.items()}
    # measured, mean of both relative errors: expression 1.5, .86, .05; images 1.3, .23, .03
    assert (log["floor"] - log["baseline"] > 0.15).all()
    assert (log["structure"] < log["baseline"]).all()
    assert np.mean(log["structure"] - log["baseline"]) < -0.1
    assert (log["ceiling"] - log["structure"] < -0.5).all()


def test_noise_in_place_of_the_held_out_cells_and_of_the_truth_changes_no_training_data(task):
    noised = task.dataset.make()
    rng = np.random.default_rng(1)
    test = task._split("draw0", 0)[1]
    noised.X[test] = rng.random((len(test), noised.n_vars))
    noised.obsm["factors"] = rng.random(noised.obsm["factors"].shape)
    training = Factors(Memory(noised, "noised")).training_data("draw0", 0)
    assert digest(training) == digest(task.training_data("draw0", 0))
