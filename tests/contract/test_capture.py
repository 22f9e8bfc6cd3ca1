"""That steps can be recorded on a GPU, found without one: our networks in every form, and planted obstacles."""

import numpy as np
import pytest
import torch
from torch import nn

from methods import METHODS
from methods.nn import LIKELIHOODS, graphs
from methods.nn.sparse import SparseRows
from methods.nn.training import Adversary
from tests.benchmarks.data import dense, expression, sparse_counts
from tests.contract.test_methods import OWN_LOOP

NETWORKS = [name for name, cls in METHODS.items() if cls.uses_gpu and cls.__module__ not in OWN_LOOP]
STACKABLE = [name for name in NETWORKS if METHODS[name].stackable]
TINY = {"hidden": (16,), "n_latent": 4, "steps": 8}
N_CELLS, N_GENES = 60, 12


@pytest.fixture(scope="module")
def data():
    """Counts with their log-normalised expression, dense and sparse, and grey levels."""
    sparse = sparse_counts(N_CELLS, N_GENES, n_environments=3)
    grey = dense(sparse)
    grey.X = (grey.X / grey.X.max()).astype(np.float32)
    return {"sparse": sparse, "dense": dense(sparse), "grey": grey}


def obstacles(name, data, seeds=(0,), **settings):
    cls = METHODS[name]
    config = cls.configure(**{**TINY, **settings})
    with graphs.checking() as found:
        cls.fit_stacked([cls(config) for _ in seeds], [data] * len(seeds), list(seeds))
    return found


def allowed(name, key):
    ranges = [vars(base).get("__dataclass_fields__", {}).get(key) for base in METHODS[name].Config.__mro__[:-1]]
    stated = [field.metadata["range"] for field in ranges if field is not None and "range" in field.metadata]
    return stated[0].among


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "lord"])
def test_every_network_under_every_likelihood(name, likelihood, data):
    if likelihood not in allowed(name, "likelihood") or (name == "gamma-vae" and likelihood not in ("gaussian",)):
        pytest.skip("the method does not have it")
    assert obstacles(name, data["grey" if likelihood == "bernoulli" else "dense"], likelihood=likelihood) == [""]


@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize("name", STACKABLE)
def test_stacked_fits(name, form, data):
    assert obstacles(name, data[form], seeds=(0, 1, 2)) == [""]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gamma-vae", {"n_latent": 10}),
        ("gamma-vae", {"n_latent": 3, "activation": "elu", "norm": "batch"}),
        ("gamma-vae", {"n_latent": 3, "activation": "silu"}),
        *(("vae", {"activation": activation}) for activation in ("relu", "leaky_relu", "softplus", "elu")),
        *(("vae", {"norm": norm}) for norm in ("none", "layer")),
    ],
)
def test_other_networks(name, settings):
    assert obstacles(name, expression(N_CELLS, N_GENES), **settings) == [""]


def test_both_stages_of_lord(data):
    with graphs.checking() as found:
        METHODS["lord"](METHODS["lord"].configure(**TINY)).fit(data["dense"], 0)
    assert found == ["", ""]


def test_nothing_is_checked_on_the_cpu_unless_asked(monkeypatch):
    monkeypatch.setattr(graphs, "obstacle", lambda *_: pytest.fail("checked"))
    METHODS["vae"](METHODS["vae"].configure(**TINY)).fit(expression(N_CELLS, N_GENES), 0)


def test_a_check_changes_nothing_of_a_fit():
    data = expression(N_CELLS, N_GENES)
    fits = [METHODS["svae-plus"](METHODS["svae-plus"].configure(**{**TINY, "steps": 24})) for _ in range(2)]
    fits[0].fit(data, 0)
    with graphs.checking():
        fits[1].fit(data, 0)
    np.testing.assert_array_equal(fits[0].embed(data), fits[1].embed(data))
    assert fits[0].history == fits[1].history


class Step:
    """A model whose loss is what a test gives it."""

    unwatched = ()

    def __init__(self, loss):
        self.loss = loss

    def loss_terms(self, network, minibatch, progress):
        return {"loss": self.loss(network(minibatch["x"]), minibatch["x"], progress)}


def found(loss, adversary=None):
    tensors = {"x": torch.rand(20, 3)}
    return graphs.obstacle(Step(loss), nn.Linear(3, 3), tensors, torch.arange(8), adversary)


def test_a_plain_step_has_no_obstacle():
    assert found(lambda y, x, epoch: (y - x).square().mean() * (epoch + 1) / 3) == ""


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda y, x, epoch: y.mean() * min(1.0, epoch), "a value is asked for"),
        (lambda y, x, epoch: y.mean() * float(x.max()), "a value is asked for"),
        (lambda y, x, epoch: y.mean() if x.sum() > 0 else y.sum(), "a value is asked for"),
        (lambda y, x, epoch: y[x > 0.5].mean(), "a shape depends on values"),
        (lambda y, x, epoch: y.reshape(-1)[x.reshape(-1).nonzero()].mean(), "a shape depends on values"),
        (lambda y, x, epoch: y.mean() * x.round().unique().sum(), "a shape depends on values"),
        (lambda y, x, epoch: (y * torch.tensor([1.0, 2.0, 3.0])).mean(), "host data"),
        (lambda y, x, epoch: (y * x.new_tensor([1.0, 2.0, 3.0])).mean(), "host data"),
        (lambda y, x, epoch: (y * torch.from_numpy(np.ones(3))).mean(), "host data"),
        (lambda y, x, epoch: (y * torch.as_tensor(2.0)).mean(), "host data"),
        (lambda y, x, epoch: y[:, [0, 2]].mean(), "host data"),
        (lambda y, x, epoch: y[:, np.array([0, 2])].mean(), "host data"),
        (lambda y, x, epoch: y.prod(0).mean(), "the gradient of prod"),
        (lambda y, x, epoch: torch.where(x > 0.5, y, 0.0).mean(), "where copies a number"),
        (lambda y, x, epoch: torch.linalg.cholesky(y.mT @ y + torch.eye(3)).mean(), "linear algebra"),
        (lambda y, x, epoch: torch.linalg.inv(y.mT @ y + torch.eye(3)).mean(), "linear algebra"),
        (lambda y, x, epoch: torch.linalg.eigvalsh(y.mT @ y).mean(), "waits for the GPU"),
        (lambda y, x, epoch: y.mean().cpu() + 1.0, "cpu waits for the GPU"),
        (lambda y, x, epoch: y.mean() + 1 / 0, "ZeroDivisionError"),
    ],
)
def test_obstacles_are_found_and_said(loss, said):
    reason = found(loss)
    assert said in reason
    assert "of test_capture.py)" in reason


def test_masks_that_set_entries_are_found():
    def masked(y, x, epoch):
        copy = y.clone()
        copy[x > 0.5] = x[0]
        return copy.mean()

    assert "entries are set by a mask" in found(masked) or "a shape depends on values" in found(masked)


def test_an_adversary_is_checked():
    def loss(network, shown):
        return network(shown).mean() * shown.sum().item()

    adversary = Adversary([], 1, lambda network, minibatch: minibatch["x"], loss)
    assert "a value is asked for" in found(lambda y, x, epoch: y.mean(), adversary)


def test_padded_rows_are_the_rows():
    x = torch.rand(7, 5).mul(3).round()
    x[3] = 0.0
    rows, cells = SparseRows.of_tensor(x), torch.tensor([[5, 3, 0], [3, 3, 6]])
    chosen = rows.padded().index_select(0, cells.view(-1)).view(2, 3, 5)
    torch.testing.assert_close(chosen.dense(), x[cells])
    torch.testing.assert_close(chosen.log1p(), x[cells].log1p())
    of_rows = torch.where(chosen.value > 0, chosen.value, 9.0)
    torch.testing.assert_close(chosen.sum(of_rows), x[cells].sum(-1).view(-1))
    cleared = torch.ones(2, 3, 5)
    chosen.clear(cleared)
    torch.testing.assert_close(cleared, (x[cells] == 0).float())
    nothing = SparseRows.of_tensor(torch.zeros(4, 3)).padded().index_select(0, torch.tensor([1, 2]))
    torch.testing.assert_close(nothing.dense(), torch.zeros(2, 3))


@pytest.mark.parametrize("likelihood", ["negative-binomial", "zero-inflated-negative-binomial"])
def test_padded_counts_have_the_same_loss_and_gradient(likelihood, data):
    method = METHODS["vae"](METHODS["vae"].configure(**TINY, likelihood=likelihood, dropout=0.0))
    method.prepare(data["dense"])
    tensors = method.tensors(data["dense"])
    cells, gradients = torch.arange(3, 40), []
    for counts in (tensors["counts"], tensors["counts"].padded()):
        method.network.zero_grad()
        minibatch = {
            "counts": counts.index_select(0, cells).view(len(cells), N_GENES),
            "library": tensors["library"][cells],
            "constant": tensors["constant"][cells],
        }
        torch.manual_seed(0)
        terms = method.loss_terms(method.network.train(), minibatch, 0)
        sum(terms.values()).backward()
        gradients.append([terms["reconstruction"].detach(), *(p.grad for p in method.network.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
