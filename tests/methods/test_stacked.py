"""Stacked fits are what each is by itself."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from methods import METHODS
from methods.errors import CannotStack
from methods.nn.training import Schedule, train, train_stacked

NAMES = [name for name in METHODS if METHODS[name].stackable]
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
    numbers = {key for key, value in tensors.items() if getattr(value, "dtype", None) == torch.int64}
    tensors = {key: value if key in numbers else value.double() for key, value in tensors.items()}
    return made, tensors, made[0].strata(cells)


def assert_alike(one, other):
    for (key, value), (same, expected) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert key == same
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")


def check(name, cells, **changes):
    # 21 training minibatches in three epochs
    schedule = Schedule(steps=21, learning_rate=1e-3, minibatch=9, validation=0.1)
    stacked, tensors, strata = prepared(name, cells, **changes)
    networks = [method.network for method in stacked]
    outcomes = train_stacked(stacked[0], networks, tensors, schedule, SEEDS, name, strata)
    alone, tensors, strata = prepared(name, cells, **changes)
    for method, other, seed, outcome in zip(alone, stacked, SEEDS, outcomes, strict=True):
        expected = train(method, method.network, tensors, schedule, seed, name, strata)
        assert_alike(other.network, method.network)
        assert outcome.best_epoch == expected.best_epoch
        for term, curve in expected.history.items():
            np.testing.assert_allclose(outcome.history[term], curve, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_each_stacked_fit_equals_its_single_fit(name, cells):
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


# --- what differs between fits


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))


class Pull:
    """Pulls w to the mean of the cells, from where the validation loss rises again."""

    unwatched = ()

    def parameter_groups(self, network):
        return [{"params": list(network.parameters())}]

    def loss_terms(self, network, minibatch, progress):
        network.seen += network.training
        x = minibatch["x"]
        loss = (network.w.unsqueeze(-2) - x).square().sum((-2, -1))
        goal = 0.5 * x if not network.training else x
        return {
            "pull": loss / x.shape[-2] if network.training else (network.w.unsqueeze(-2) - goal).abs().sum((-2, -1))
        }


def pulled(tensors, seeds, starts, **changes):
    networks = [Line() for _ in seeds]
    schedule = Schedule(**{"steps": 200, "learning_rate": 0.05, "minibatch": 16, "validation": 0.2} | changes)
    return networks, train_stacked(Pull(), networks, tensors, schedule, seeds, "pull", None, starts)


def test_fits_of_different_cells_end_when_each_would_alone():
    x = torch.tensor(np.random.default_rng(0).normal([0.5, 1.0], 0.1, (40, 2)))
    sets = [x, 3.0 * x, 0.3 * x]
    networks, outcomes = pulled({"x": torch.cat(sets)}, (0, 1, 2), (0, 40, 80))
    ends = set()
    for i, (cells, network, outcome) in enumerate(zip(sets, networks, outcomes, strict=True)):
        (alone,), (expected,) = pulled({"x": cells}, (i,), (0,))
        assert_alike(network, alone)
        assert outcome.history.keys() == expected.history.keys()
        np.testing.assert_allclose(outcome.history["pull"], expected.history["pull"], rtol=1e-10)
        assert outcome.stopped == expected.stopped
        assert not network.training
        ends.add(len(outcome.history["pull"]))
    assert len(ends) == 3


def test_a_loss_that_is_no_number_ends_its_fit_alone():
    x = torch.ones(40, 2, dtype=torch.float64)
    sick = x.clone()
    sick[3] = float("nan")
    networks, outcomes = pulled({"x": torch.cat([x, sick, x])}, (0, 1, 0), (0, 40, 80), validation=0.0)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert "loss term 'pull' is nan at epoch 0" in str(outcomes[1].error)
    assert_alike(networks[0], networks[2])


# --- whole fits


def test_a_subclass_does_not_inherit_that_it_can_be_stacked():
    class Changed(METHODS["vae"]):
        pass

    assert METHODS["vae"].stackable
    assert not Changed.stackable
    assert not METHODS["pca"].stackable


@pytest.mark.parametrize("form", [np.asarray, csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("same_data", [True, False])
def test_stacked_methods_embed_and_predict_as_those_fitted_alone(cells, same_data, form):
    cls = METHODS["cvae"]
    config = cls.configure(n_latent=4, hidden=(8,), steps=48)
    cells = cells.copy()
    others = cells.copy()
    if not same_data:
        others.X = 2 * others.X[::-1]
    cells.X, others.X = form(cells.X), form(others.X)
    datasets = [cells, others, cells]
    methods = [cls(config) for _ in SEEDS]
    assert cls.fit_stacked(methods, datasets, SEEDS) == [None] * 3
    for method, data, seed in zip(methods, datasets, SEEDS, strict=True):
        alone = cls(config).fit(data, seed)
        np.testing.assert_allclose(method.embed(data), alone.embed(data), atol=1e-4)
        np.testing.assert_allclose(method.predict(data, "A"), alone.predict(data, "A"), atol=1e-3)
        assert method.log == alone.log
        assert method.history.keys() == alone.history.keys()


def test_fits_of_other_cells_or_labels_are_not_stacked(cells):
    cls = METHODS["cvae"]
    for others in (cells[:60].copy(), cells.copy()):
        others.obs["condition"] = others.obs["condition"].replace("A", "C")
        with pytest.raises(CannotStack, match="cells, or of other labels"):
            cls.fit_stacked([cls(), cls()], [cells, others], [0, 1])
