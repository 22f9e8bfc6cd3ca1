"""The training loop, on models whose course is known."""

import numpy as np
import pytest
import torch
from torch import nn

from methods.errors import CannotFit
from methods.nn.training import Adversary, NonFiniteLoss, Schedule, _spread, train, train_stacked

STEP = 0.5


class Walk(nn.Module):
    """One parameter that starts at 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))


class Model:
    """What the loop asks of every model."""

    unwatched = ()

    def parameter_groups(self, network):
        return [{"params": list(network.parameters())}]


class Course(Model):
    """The gradient of the training loss is −1 forever, so that Adam takes one step of STEP an epoch.

    The validation loss is (w − 5)²: it falls for ten epochs and then rises.
    """

    def __init__(self):
        self.sizes = {True: [], False: []}

    def loss_terms(self, network, minibatch, progress):
        self.sizes[network.training].append(len(minibatch["x"]))
        if network.training:
            return {"climb": -network.w}
        return {"climb": (network.w - 5.0).square()}


class Constant(Schedule):
    """A schedule whose rate is the same at each step and whose minibatches depend on ``minibatch`` alone."""

    def rate(self, progress):
        return 1.0

    def minibatches(self, n_cells):
        n = -(-n_cells // self.minibatch)
        return min(n, n_cells // 2) if self.minibatch > 1 else n


def run(
    model=None, n_cells=40, seed=0, network=None, strata=None, environments=None, epochs=14, kind=Constant, **changes
):
    settings = {"learning_rate": STEP, "minibatch": 128, "validation": 0.1, **changes}
    network = network or Walk()
    tensors = {"x": torch.arange(float(n_cells))[:, None]}
    held = min(int(settings["validation"] * n_cells), n_cells - 2) if n_cells >= 20 else 0
    steps = epochs * kind(steps=1, **settings).minibatches(n_cells - held)
    how = kind(steps=steps, **settings)
    outcome = train(model or Course(), network, tensors, how, seed, "toy", strata, environments)
    return outcome, network


def test_the_weights_of_the_best_epoch_are_restored():
    outcome, network = run()
    assert outcome.best_epoch == 9
    assert network.w.item() == pytest.approx(5.0, abs=1e-4)
    assert not network.training
    # training did go on, and did get worse
    assert len(outcome.history["validation"]) == 14
    assert outcome.history["validation"][-1] == pytest.approx((4 * STEP) ** 2, abs=1e-2)
    assert np.argmin(outcome.history["validation"]) == 9


def test_a_fit_that_no_longer_improves_ends_after_half_of_its_passes_without_improvement():
    outcome, _ = run(epochs=60)
    assert outcome.stopped == "no improvement for 30 epochs after epoch 9"
    assert len(outcome.history["validation"]) == 9 + 30 + 1


def test_the_end_of_the_steps_is_recorded():
    outcome, network = run(epochs=4)
    assert outcome.stopped == "the end of its steps"
    assert outcome.best_epoch == 3
    assert network.w.item() == pytest.approx(4 * STEP, abs=1e-4)


def test_buffers_are_restored_with_the_weights():
    class Counting(Course):
        def loss_terms(self, network, minibatch, progress):
            if network.training:
                network.seen += 1
            return super().loss_terms(network, minibatch, progress)

    network = Walk()
    network.register_buffer("seen", torch.zeros(()))
    outcome, network = run(Counting(), network=network)
    assert len(outcome.history["climb"]) == 14
    assert network.seen.item() == 10


def test_with_few_cells_the_training_loss_is_watched():
    class Valley(Course):
        def loss_terms(self, network, minibatch, progress):
            self.sizes[network.training].append(len(minibatch["x"]))
            return {"valley": (network.w - 1.0).abs()}

    model = Valley()
    outcome, _ = run(model, n_cells=19, epochs=10)
    assert model.sizes[False] == []
    assert set(model.sizes[True]) == {19}
    assert set(outcome.history) == {"valley"}
    assert outcome.stopped.startswith("no improvement for 5 epochs")


@pytest.mark.parametrize(
    ("n_cells", "minibatch", "validation", "sizes", "held"),
    [
        (129, 128, 0.0, {64, 65}, 0),
        (128, 128, 0.0, {128}, 0),
        (257, 128, 0.0, {85, 86}, 0),
        (144, 128, 0.1, {65}, 14),
        (20, 128, 0.1, {18}, 2),
        (19, 128, 0.5, {19}, 0),
        (13, 4, 0.0, {3, 4}, 0),
    ],
)
def test_minibatches_are_spread_so_that_none_is_tiny(n_cells, minibatch, validation, sizes, held):
    model = Course()
    run(model, n_cells=n_cells, minibatch=minibatch, validation=validation, epochs=2)
    assert set(model.sizes[True]) == sizes
    assert sum(model.sizes[True]) == 2 * (n_cells - held)
    assert set(model.sizes[False]) == ({held} if held else set())


class Record(Course):
    """Notes the cells of each minibatch."""

    def __init__(self):
        self.cells = {True: [], False: []}

    def loss_terms(self, network, minibatch, progress):
        self.cells[network.training].append(minibatch["x"][:, 0].tolist())
        return {"climb": -network.w}


def test_an_epoch_shows_every_training_cell_once_in_an_order_of_its_own():
    model = Record()
    run(model, n_cells=50, minibatch=16, epochs=3, validation=0.2)
    epochs = [[cell for shown in model.cells[True][i : i + 3] for cell in shown] for i in (0, 3, 6)]
    held = model.cells[False][0]
    assert len(held) == 10
    assert model.cells[False] == [held] * 3
    for shown in epochs:
        assert sorted(shown + held) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2]
    # a split that is shuffled, not the last or first cells
    assert sorted(held) not in (list(range(10)), list(range(40, 50)))


def test_the_seed_sets_the_split_and_the_order():
    first, again, other = Record(), Record(), Record()
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        run(model, n_cells=50, minibatch=16, epochs=2, seed=seed)
    assert first.cells == again.cells
    assert sorted(first.cells[False][0]) != sorted(other.cells[False][0])


def test_the_loss_is_the_sum_of_its_terms_and_each_is_logged_as_its_mean_over_cells():
    class Terms(Model):
        def loss_terms(self, network, minibatch, progress):
            mean = minibatch["x"].mean()
            return {"mean": mean + 0 * network.w, "three": 3.0 + network.w - network.w.detach()}

    # batches of unequal size: 13 cells as 4, 3, 3, 3
    outcome, network = run(Terms(), n_cells=13, minibatch=4, epochs=1)
    assert outcome.history["mean"] == [pytest.approx(6.0, abs=1e-5)]
    assert outcome.history["three"] == [pytest.approx(3.0, abs=1e-5)]
    assert network.w.item() < 0


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "nan"), (float("inf"), "inf"), (-float("inf"), "-inf")])
def test_a_non_finite_term_is_raised_with_method_term_and_epoch(value, text):
    class Breaks(Course):
        def loss_terms(self, network, minibatch, progress):
            return {"fine": -network.w, "broken": torch.tensor(value if progress > 0.2 else 1.0)}

    with pytest.raises(NonFiniteLoss, match=f"toy: loss term 'broken' is {text} at epoch 2.*learning_rate"):
        run(Breaks(), n_cells=19)


def test_a_non_finite_validation_loss_is_raised():
    class Breaks(Course):
        def loss_terms(self, network, minibatch, progress):
            return {"climb": -network.w if network.training else torch.tensor(float("nan"))}

    with pytest.raises(NonFiniteLoss, match="toy: loss term 'validation' is nan at epoch 0"):
        run(Breaks())


def test_one_cell_is_refused():
    with pytest.raises(CannotFit, match="toy needs at least 2 cells, got 1"):
        run(n_cells=1)


def test_global_random_state_is_left_alone_and_draws_depend_on_the_seed():
    class Draws(Course):
        def __init__(self):
            self.drawn = []

        def loss_terms(self, network, minibatch, progress):
            self.drawn.append(torch.randn(()).item())
            return {"climb": -network.w}

    found = {}
    for key, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.manual_seed(hash(key) % 1000)
        before = torch.get_rng_state()
        model = Draws()
        run(model, n_cells=30, epochs=2, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        found[key] = model.drawn
    assert found["first"] == found["again"]
    assert found["first"] != found["other"]


def test_progress_rises_to_1_and_is_1_in_validation():
    class Shares(Course):
        def __init__(self):
            self.seen = {True: [], False: []}

        def loss_terms(self, network, minibatch, progress):
            self.seen[network.training].append(progress)
            return {"climb": -network.w}

    model = Shares()
    run(model, n_cells=35, minibatch=16, epochs=2, validation=0.1)
    assert model.seen == {True: [0.25, 0.5, 0.75, 1.0], False: [1.0, 1.0]}


@pytest.mark.parametrize(("steps", "passes"), [(1, 1), (5, 1), (6, 2), (8, 2), (11, 3)])
def test_steps_are_rounded_to_whole_passes_and_at_least_one(steps, passes):
    schedule = Constant(steps=steps, learning_rate=STEP, minibatch=10, validation=0.0)
    outcome = train(Course(), Walk(), {"x": torch.zeros(40, 1)}, schedule, 0, "toy")
    assert len(outcome.history["climb"]) == passes


def test_no_weights_count_as_best_during_the_warmup():
    # without it the best epoch is the tenth (number 9)
    outcome, network = run(warmup=0.5, epochs=28)
    assert outcome.best_epoch == 14
    assert network.w.item() == pytest.approx(15 * STEP, abs=1e-4)
    assert len(outcome.history["validation"]) == 28
    # a warm-up that would not end leaves the last epoch to count
    outcome, network = run(warmup=1.0, epochs=20)
    assert network.w.item() == pytest.approx(20 * STEP, abs=1e-4)


def test_unwatched_terms_are_trained_on_and_logged_but_choose_no_weights():
    class Adversary(Course):
        unwatched = ("adversary",)

        def loss_terms(self, network, minibatch, progress):
            return {**super().loss_terms(network, minibatch, progress), "adversary": -100 * network.w}

    outcome, _ = run(Adversary())
    assert outcome.best_epoch == 9
    assert "adversary" in outcome.history
    assert outcome.history["validation"][9] == pytest.approx(0.0, abs=1e-4)
    few, _ = run(Adversary(), n_cells=10, epochs=3)
    assert few.history.keys() == {"climb", "adversary"}


def test_each_group_has_a_rate_of_its_own_and_all_follow_one_cycle():
    class Rates(Course):
        def __init__(self):
            super().__init__()
            self.at = []

        def parameter_groups(self, network):
            return [{"params": [network.w], "lr": 0.125}]

        def loss_terms(self, network, minibatch, progress):
            self.at.append(network.w.item())
            return {"climb": -network.w}

    model = Rates()
    _, network = run(model, n_cells=10, epochs=10, validation=0.0, kind=Schedule)
    rates = np.diff([*model.at, network.w.item()])
    falling = 0.5 * (1 + np.cos(np.pi * np.arange(8) / 7))
    np.testing.assert_allclose(rates, 0.125 * np.array([1 / 3, 2 / 3, *falling]), atol=1e-5)


@pytest.mark.parametrize(
    ("n_cells", "minibatch", "sizes"),
    [(3000, 128, {125}), (640, 128, {80}), (200, 128, {28, 29}), (40, 128, {20}), (640, 50, {49, 50})],
)
def test_small_data_have_smaller_minibatches(n_cells, minibatch, sizes):
    model = Course()
    run(model, n_cells=n_cells, minibatch=minibatch, validation=0.0, epochs=1, kind=Schedule)
    assert set(model.sizes[True]) == sizes


@pytest.mark.parametrize("seed", range(30))
def test_the_split_keeps_a_cell_of_every_environment_in_training(seed):
    environments = torch.tensor([0] * 30 + [1] * 8 + [2, 3])
    model, plain = Record(), Record()
    run(model, seed=seed, environments=environments, epochs=2, validation=0.4)
    run(plain, seed=seed, epochs=2, validation=0.4)
    trained = {int(cell) for batch in model.cells[True] for cell in batch}
    held = {int(cell) for batch in model.cells[False] for cell in batch}
    assert {int(environments[cell]) for cell in trained} == {0, 1, 2, 3}
    assert (len(trained), len(held), trained & held) == (24, 16, set())
    if {2, 3} <= {int(environments[int(cell)]) for cell in plain.cells[True][0]}:
        assert model.cells == plain.cells  # where nothing must change nothing does


@pytest.mark.parametrize(("n_cells", "minibatch"), [(3, 2), (21, 2), (7, 3), (2, 2)])
def test_no_minibatch_has_a_single_cell_unless_it_is_asked_for(n_cells, minibatch):
    model = Course()
    run(model, n_cells=n_cells, minibatch=minibatch, validation=0.95, epochs=1)
    assert min(model.sizes[True]) >= 2
    model = Course()
    run(model, n_cells=n_cells, minibatch=1, validation=0.0, epochs=1)
    assert set(model.sizes[True]) == {1}


def test_an_adversary_takes_its_own_steps_before_each_of_the_model():
    class Two(Walk):
        def __init__(self):
            super().__init__()
            self.against = nn.Parameter(torch.zeros(()))

    class Watching(Course):
        def parameter_groups(self, network):
            return [{"params": [network.w]}]

        def loss_terms(self, network, minibatch, progress):
            at.append((network.w.item(), network.against.item()))
            return {"climb": -network.w}

    at, network = [], Two()
    adversary = Adversary(
        [{"params": [network.against], "lr": 0.25}],
        3,
        lambda network, minibatch: network.w + 0,
        lambda network, read: network.against * (1 + 0 * read) + 0 * read,
    )
    tensors, schedule = {"x": torch.zeros(10, 1)}, Constant(4, STEP, 5, 0.0)
    train_stacked(Watching(), [network], tensors, schedule, [0], "toy", adversary=adversary)
    # three steps down before each of the model's four up; no gradient passes from the one to the other
    np.testing.assert_allclose(at, [(i * STEP, -0.75 * (i + 1)) for i in range(4)], atol=1e-4)


def test_every_minibatch_holds_every_stratum_in_its_share():
    strata = torch.tensor([0] * 90 + [1] * 9 + [2] * 1 + [3] * 60)
    model = Record()
    run(model, n_cells=160, minibatch=32, epochs=4, validation=0.0, strata=strata)
    for epoch in range(4):
        batches = [[int(strata[int(cell)]) for cell in batch] for batch in model.cells[True][5 * epoch : 5 * epoch + 5]]
        counts = np.array([np.bincount(batch, minlength=4) for batch in batches])
        assert counts.sum(axis=0).tolist() == [90, 9, 1, 60]
        assert np.abs(counts - np.array([18, 1.8, 0.2, 12])).max() <= 1.2
    # and the cells of a stratum are in an order of their own in each epoch
    firsts = [tuple(batch) for batch in model.cells[True][::5]]
    assert len(set(firsts)) == 4


def test_spread_keeps_all_and_the_order_within_a_label():
    labels = torch.tensor([1, 0, 0, 0, 0, 1, 0, 0])
    order = _spread(labels)
    assert sorted(order.tolist()) == list(range(8))
    assert [i for i in order.tolist() if labels[i] == 0] == [1, 2, 3, 4, 6, 7]
    # places (rank + ½) / count: .08, .25, .42, .58, .75, .92 for 0, and .25, .75 for 1
    assert labels[order].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
