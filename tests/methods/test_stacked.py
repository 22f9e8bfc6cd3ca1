"""Stacked fits are what each is by itself."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from methods import METHODS
from methods.nn import training
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


def pulled(tensors, seeds, spans=None, **changes):
    networks = [Line() for _ in seeds]
    schedule = Schedule(**{"steps": 200, "learning_rate": 0.05, "minibatch": 16, "validation": 0.2} | changes)
    return networks, train_stacked(Pull(), networks, tensors, schedule, seeds, "pull", None, spans)


def test_fits_of_different_cells_end_when_each_would_alone():
    x = torch.tensor(np.random.default_rng(0).normal([0.5, 1.0], 0.1, (40, 2)))
    sets = [x, 3.0 * x, 0.3 * x]
    networks, outcomes = pulled({"x": torch.cat(sets)}, (0, 1, 2), [range(40), range(40, 80), range(80, 120)])
    ends = set()
    for i, (cells, network, outcome) in enumerate(zip(sets, networks, outcomes, strict=True)):
        (alone,), (expected,) = pulled({"x": cells}, (i,))
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
    spans = [range(40), range(40, 80), range(80, 120)]
    networks, outcomes = pulled({"x": torch.cat([x, sick, x])}, (0, 1, 0), spans, validation=0.0)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert "loss term 'pull' is nan at epoch 0" in str(outcomes[1].error)
    assert_alike(networks[0], networks[2])


class Seen(Pull):
    """Notes which cells each fit takes in a step; a cell's value is its number."""

    def __init__(self):
        self.steps, self.validated = [], []

    def loss_terms(self, network, minibatch, progress):
        (self.steps if network.training else self.validated).append(minibatch["x"][..., 0].clone())
        return super().loss_terms(network, minibatch, progress)


def test_a_fit_of_more_cells_takes_others_of_its_own_in_each_pass():
    x = torch.arange(200, dtype=torch.float64).unsqueeze(1).repeat(1, 2)
    spans, model = [range(90), range(90, 200)], Seen()
    networks = [Line(), Line()]
    schedule = Schedule(steps=200, learning_rate=1e-3, minibatch=16, validation=0.2)
    train_stacked(model, networks, {"x": x}, schedule, (0, 1), "seen", None, spans)
    held = torch.cat(model.validated, -1).long()
    n_steps = schedule.minibatches(72)
    passes = [torch.cat(model.steps[i : i + n_steps], -1).long() for i in range(0, len(model.steps), n_steps)]
    assert all(each.shape == (2, 72) for each in passes), "18 of 90 cells are held out, of 110 cells as many"
    for fit, span in enumerate(spans):
        seen = [set(each[fit].tolist()) for each in passes]
        assert all(len(cells) == 72 for cells in seen), "no cell comes twice in a pass"
        others = set(held[fit].tolist())
        assert len(others) == 18
        assert set.union(*seen) == set(span) - others
        assert (seen[0] == seen[1]) == (fit == 0)
    (alone,), _ = pulled({"x": x[:90]}, (0,), steps=200, learning_rate=1e-3)
    assert_alike(networks[0], alone)


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


def relabelled(cells):
    others = cells.copy()
    others.obs["condition"] = others.obs["condition"].replace("A", "C")
    return others


def test_fits_of_other_cells_or_labels_are_made_beside_those_that_are_alike(cells):
    cls = METHODS["cvae"]
    config = cls.configure(n_latent=4, hidden=(8,), steps=48)
    datasets, seeds = [cells, relabelled(cells), cells[:60].copy(), cells], [0, 1, 2, 3]
    methods = [cls(config) for _ in seeds]
    assert cls.fit_stacked(methods, datasets, seeds) == [None] * 4
    for method, data, seed in zip(methods, datasets, seeds, strict=True):
        alone = cls(config).fit(data, seed)
        np.testing.assert_allclose(method.embed(data), alone.embed(data), atol=1e-4 if data is cells else 0)


def test_a_gpu_stacks_fits_of_nearly_as_many_cells(cells, monkeypatch):
    cls = METHODS["cvae"]
    datasets = [cells[:n].copy() for n in (50, 70, 60, 40)]
    datasets.append(relabelled(datasets[1]))

    def lists():
        methods = [cls() for _ in datasets]
        for method, data in zip(methods, datasets, strict=True):
            method.prepare(data)
        return training._alike(methods, datasets)

    assert sorted(lists()) == [[0], [1], [2], [3], [4]]
    monkeypatch.setattr(training.graphs, "can_record", lambda where: True)
    assert sorted(lists()) == [[0, 3], [1, 2], [4]], "52.5 of 70 cells are the least, 37.5 of 50"


def test_stacked_fits_of_other_numbers_of_cells_embed_and_predict(cells, monkeypatch):
    cls = METHODS["trvae"]
    config = cls.configure(n_latent=4, hidden=(8,), steps=48)
    datasets = [cells, cells[:60].copy()]
    monkeypatch.setattr(training, "_alike", lambda methods, _: [list(range(len(methods)))])
    methods = [cls(config) for _ in datasets]
    assert cls.fit_stacked(methods, datasets, [0, 1]) == [None] * 2
    monkeypatch.undo()
    large, small = (cls(config).fit(data, seed) for seed, data in enumerate(datasets))
    np.testing.assert_allclose(methods[1].embed(cells), small.embed(cells), atol=1e-4)
    assert methods[0].predict(cells, "A").shape == cells.shape
    # the larger one differs from its own single fit, by the cells that each pass leaves out, less than a seed does
    other = cls(config).fit(cells, 5)
    moved = np.abs(methods[0].predict(cells, "A") - large.predict(cells, "A")).mean()
    assert 0 < moved < np.abs(other.predict(cells, "A") - large.predict(cells, "A")).mean()


def test_a_gpu_that_is_full_is_a_matter_of_memory(cells, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "_fit_at_once", full)
    with pytest.raises(MemoryError, match="2 fits at once: CUDA out of memory"):
        METHODS["vae"].fit_stacked([METHODS["vae"](), METHODS["vae"]()], [cells, cells], [0, 1])
