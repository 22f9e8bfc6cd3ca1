"""Replicas trained in one pass are what each is alone."""

import numpy as np
import pytest
import torch

from methods import METHODS
from methods.nn.training import Schedule, train, train_together

NAMES = [name for name in METHODS if METHODS[name].fits_together()]
SEEDS = (0, 1, 5)


@pytest.fixture(scope="module")
def cells(labelled):
    """Seventy cells of twelve genes in three environments, with counts."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 3.0, (70, 12))).astype(np.float32)
    data = labelled(
        np.log1p(counts / counts.sum(1, keepdims=True) * 1e4), np.array(["A", "B", "control"])[np.arange(70) % 3]
    )
    data.layers["counts"] = counts
    return data


def prepared(name, cells, **changes):
    """Return methods of several seeds ready to be trained in double precision, and the cells as their tensors."""
    made = []
    for seed in SEEDS:
        method = METHODS[name](METHODS[name].configure(**changes))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            method.prepare(cells)
        method.network.double()
        made.append(method)
    tensors = {**made[0].tensors(cells), **made[0].supervision(cells)}
    tensors = {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}
    return made, tensors, made[0].strata(cells)


def assert_alike(one, other):
    for (key, value), (same, expected) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert key == same
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")


def check(name, cells, **changes):
    # 21 training minibatches in three epochs
    schedule = Schedule(max_epochs=3, learning_rate=1e-3, minibatch=9, validation=0.1, patience=9)
    together, tensors, strata = prepared(name, cells, **changes)
    tensors |= together[0].network["observation"].index(tensors)
    networks = [method.network for method in together]
    outcomes = train_together(together[0], networks, tensors, schedule, SEEDS, name, strata)
    alone, tensors, strata = prepared(name, cells, **changes)
    for method, other, seed, outcome in zip(alone, together, SEEDS, outcomes, strict=True):
        own = tensors | method.network["observation"].index(tensors)
        expected = train(method, method.network, own, schedule, seed, name, strata)
        assert_alike(other.network, method.network)
        assert outcome.best_epoch == expected.best_epoch
        for term, curve in expected.history.items():
            np.testing.assert_allclose(outcome.history[term], curve, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_each_replica_equals_its_single_fit(name, cells):
    check(name, cells, n_latent=4, hidden=(8, 6))


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "layer"},
        {"norm": "none"},
        {"likelihood": "gene-gaussian"},
        {"likelihood": "squared-error"},
        {"likelihood": "negative-binomial"},
        {"likelihood": "zero-inflated-negative-binomial"},
    ],
    ids=lambda changes: "-".join(changes.values()),
)
def test_so_do_other_networks_and_likelihoods(changes, cells):
    check("vae", cells, n_latent=4, hidden=(8, 6), **changes)
