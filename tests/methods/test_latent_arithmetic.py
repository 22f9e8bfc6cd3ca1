"""Latent vector arithmetic on a linear model, where it can be worked out by hand."""

import numpy as np
import pytest

from methods.errors import CannotFit
from methods.groups import LEAST_CELLS
from methods.latent_arithmetic import LatentArithmetic

TO_GENES = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
PROFILES = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]]) @ TO_GENES
CODE_SHIFTS = np.array([[1.0, 0.0], [3.0, -2.0], [2.0, 5.0]])


class Toy(LatentArithmetic):
    """Codes are the first two genes; decoding is linear."""

    name = "toy"

    def fit(self, data, seed):
        self.remember_latents(data)
        return self

    def embed(self, data):
        return np.asarray(data.X)[:, :2]

    def decode(self, codes):
        return codes @ TO_GENES.astype(np.float32)


@pytest.fixture
def training(crossed):
    return crossed(PROFILES, CODE_SHIFTS @ TO_GENES, n_cells=[40, 25, 20])


@pytest.fixture
def queries(labelled):
    codes = np.random.default_rng(0).standard_normal((6, 2))
    return labelled(codes @ TO_GENES, ["control", "stimulated"] * 3, ["new"] * 6)


def test_shift_is_exact_and_every_type_weighs_the_same_with_unequal_cell_numbers(training):
    toy = Toy().fit(training, 0)
    np.testing.assert_allclose(toy.latent_shift("control", "stimulated"), [2.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(toy.latent_shift("stimulated", "control"), [-2.0, -1.0], atol=1e-5)
    np.testing.assert_allclose(toy.latent_shift("control", "control"), 0.0, atol=1e-12)


def test_a_type_of_few_cells_enters_no_shift(crossed):
    toy = Toy().fit(crossed(PROFILES, CODE_SHIFTS @ TO_GENES, n_cells=[40, LEAST_CELLS, LEAST_CELLS - 1]), 0)
    np.testing.assert_allclose(toy.latent_shift("control", "stimulated"), CODE_SHIFTS[:2].mean(axis=0), atol=1e-5)
    # where no type is larger all of them count, and so do the few cells of a new environment
    small = Toy().fit(crossed(PROFILES, CODE_SHIFTS @ TO_GENES, n_cells=[5, 3, 1]), 0)
    np.testing.assert_allclose(small.latent_shift("control", "stimulated"), CODE_SHIFTS.mean(axis=0), atol=1e-5)


def test_prediction_encodes_shifts_by_the_cells_own_environment_and_decodes(training, queries):
    found = Toy().fit(training, 0).predict(queries, "stimulated")
    assert found.shape == queries.shape
    expected = np.array(queries.X, dtype=float)
    expected[::2] += np.array([2.0, 1.0]) @ TO_GENES
    np.testing.assert_allclose(found, expected, atol=1e-5)
    back = Toy().fit(training, 0).predict(queries, "control")
    expected = np.array(queries.X, dtype=float)
    expected[1::2] -= np.array([2.0, 1.0]) @ TO_GENES
    np.testing.assert_allclose(back, expected, atol=1e-5)


def test_prediction_changes_neither_cells_nor_means(training, queries):
    toy = Toy().fit(training, 0)
    before, means = queries.X.copy(), {pair: mean.copy() for pair, mean in toy.latent_means.items()}
    toy.predict(queries, "stimulated")
    np.testing.assert_array_equal(queries.X, before)
    for pair, mean in means.items():
        np.testing.assert_array_equal(toy.latent_means[pair], mean)


def test_types_in_one_environment_alone_do_not_count(crossed):
    toy = Toy().fit(crossed(PROFILES, CODE_SHIFTS @ TO_GENES, lacking=(2,)), 0)
    np.testing.assert_allclose(toy.latent_shift("control", "stimulated"), [2.0, -1.0], atol=1e-5)


@pytest.mark.parametrize("pair", [("control", "gone"), ("gone", "control")])
def test_an_untrained_environment_is_refused_with_those_that_were_trained(training, pair):
    with pytest.raises(CannotFit, match=r"'gone'.*trained environments: control, stimulated"):
        Toy().fit(training, 0).latent_shift(*pair)


def test_remembered_means_survive_their_state(training):
    first, second = Toy().fit(training, 0), Toy()
    second.restore(first.state())
    assert list(first.latent_means) == list(second.latent_means)
    np.testing.assert_array_equal(
        first.latent_shift("control", "stimulated"), second.latent_shift("control", "stimulated")
    )


def test_a_regressed_shift_is_read_at_the_code_of_each_cell(crossed, labelled):
    slope = np.array([[0.5, -1.0], [0.25, 2.0]])
    codes = np.random.default_rng(1).standard_normal((6, 2))
    data = crossed(codes @ TO_GENES, (1.0 + codes @ slope) @ TO_GENES)
    queries = np.random.default_rng(0).standard_normal((6, 2))
    cells = labelled(queries @ TO_GENES, ["control", "stimulated"] * 3, ["new"] * 6)
    expected = np.array(queries)
    expected[::2] += 1.0 + queries[::2] @ slope
    toy = Toy(Toy.configure(shift="regression")).fit(data, 0)
    weakest = 0.01  # the penalty keeps about a hundredth of the shift's spread
    np.testing.assert_allclose(toy.predict(cells, "stimulated"), expected @ TO_GENES, atol=5 * weakest)
    mean = Toy().fit(data, 0).predict(cells, "stimulated")
    assert np.abs(mean - expected @ TO_GENES).max() > 1.0


def test_a_regressed_shift_of_two_types_and_a_composed_one_are_means(crossed, labelled):
    two = crossed(PROFILES[:2], CODE_SHIFTS[:2] @ TO_GENES)
    cells = labelled(PROFILES[:1], ["control"], ["new"])
    regression = Toy.configure(shift="regression")
    found, mean = (Toy(config).fit(two, 0).predict(cells, "stimulated") for config in (regression, None))
    np.testing.assert_allclose(found, mean)
    parts = labelled(np.repeat(PROFILES, 2, axis=0), ["control", "control", "A", "A", "B", "B"], ["only"] * 6)
    found, mean = (Toy(config).fit(parts, 0).predict(cells, "A+B") for config in (regression, None))
    np.testing.assert_allclose(found, mean)
