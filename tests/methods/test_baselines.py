"""The simple baselines on data whose answer is known."""

import numpy as np
import pytest

from methods import METHODS, CannotFit
from methods.groups import LEAST_CELLS

PROFILES = np.array([[5.0, 1.0, 1.0, 1.0], [1.0, 5.0, 1.0, 1.0], [1.0, 1.0, 5.0, 1.0]])
SHIFTS = np.array([[1.0, 0.0, 0.0, 2.0], [0.0, 2.0, 0.0, 4.0], [0.0, 0.0, 3.0, 6.0]])


def predicted_shift(name, training, queries, target="stimulated", **config):
    cls = METHODS[name]
    method = cls(cls.configure(**config)).fit(training, 0)
    return (method.predict(queries, target) - queries.X).astype(float)


@pytest.fixture
def queries(labelled):
    rng = np.random.default_rng(1)
    x = np.array([1.0, 4.0, 2.0, 1.0]) + 0.1 * rng.standard_normal((5, 4))
    return labelled(x, ["control"] * 5, ["new"] * 5)


def test_no_change_returns_the_cells(crossed, queries):
    assert (predicted_shift("no-change", crossed(PROFILES, SHIFTS), queries) == 0).all()


def test_mean_shift_is_the_mean_of_the_types_shifts(crossed, queries):
    shift = predicted_shift("mean-shift", crossed(PROFILES, SHIFTS), queries)
    np.testing.assert_allclose(shift, np.tile(SHIFTS.mean(axis=0), (5, 1)), atol=1e-5)


def test_mean_shift_weighs_types_equally_whatever_their_numbers_of_cells(crossed, queries):
    shift = predicted_shift("mean-shift", crossed(PROFILES, SHIFTS, n_cells=[50, 20, 24]), queries)
    np.testing.assert_allclose(shift, np.tile(SHIFTS.mean(axis=0), (5, 1)), atol=1e-5)


@pytest.mark.parametrize("name", ["mean-shift", "nearest-type-shift", "ridge-shift"])
def test_a_type_of_few_cells_enters_no_shift_unless_all_are_so_small(crossed, queries, name):
    with_small = predicted_shift(name, crossed(PROFILES, SHIFTS, n_cells=[50, LEAST_CELLS, LEAST_CELLS - 1]), queries)
    without = predicted_shift(name, crossed(PROFILES[:2], SHIFTS[:2], n_cells=[50, LEAST_CELLS]), queries)
    np.testing.assert_allclose(with_small, without, atol=1e-5)
    all_small = predicted_shift("mean-shift", crossed(PROFILES, SHIFTS, n_cells=[LEAST_CELLS - 1, 3, 1]), queries)
    np.testing.assert_allclose(all_small, np.tile(SHIFTS.mean(axis=0), (5, 1)), atol=1e-5)


def test_a_new_environment_is_known_from_few_cells(crossed, labelled, queries):
    fitted = METHODS["mean-shift"](METHODS["mean-shift"].configure()).fit(
        crossed(PROFILES, SHIFTS, n_cells=[30] * 3), 0
    )
    few = labelled(np.tile(PROFILES[0] + 7.0, (3, 1)), ["novel"] * 3, ["type0"] * 3)
    adapted = fitted.adapt(few)
    np.testing.assert_allclose(adapted.means.shifts("control", "novel")[1], np.full((1, 4), 7.0), atol=1e-5)
    restored = METHODS["mean-shift"](METHODS["mean-shift"].configure())
    restored.restore(adapted.state())
    assert restored.means.sizes == adapted.means.sizes
    assert restored.means.sizes["novel", "type0"] == 3


def test_types_in_one_condition_alone_do_not_count(crossed, queries):
    shift = predicted_shift("mean-shift", crossed(PROFILES, SHIFTS, lacking=(1,)), queries)
    np.testing.assert_allclose(shift, np.tile(SHIFTS[[0, 2]].mean(axis=0), (5, 1)), atol=1e-5)


def test_shift_runs_from_the_cells_own_environment(crossed, labelled):
    queries = labelled(np.full((4, 4), 2.0), ["stimulated", "control"] * 2, ["new"] * 4)
    shift = predicted_shift("mean-shift", crossed(PROFILES, SHIFTS), queries)
    np.testing.assert_allclose(shift[1::2], np.tile(SHIFTS.mean(axis=0), (2, 1)), atol=1e-5)
    np.testing.assert_allclose(shift[::2], 0.0, atol=1e-5)
    back = predicted_shift("mean-shift", crossed(PROFILES, SHIFTS), queries, target="control")
    np.testing.assert_allclose(back[::2], np.tile(-SHIFTS.mean(axis=0), (2, 1)), atol=1e-5)
    np.testing.assert_allclose(back[1::2], 0.0, atol=1e-5)


@pytest.mark.parametrize("nearest", [0, 1, 2])
def test_nearest_type_is_the_one_of_the_most_correlated_profile(crossed, labelled, nearest):
    # far off in level and size, so that only the correlation finds it
    x = np.tile(20 + 0.3 * PROFILES[nearest] + 0.1 * PROFILES[(nearest + 1) % 3], (3, 1))
    queries = labelled(x, ["control"] * 3, ["new"] * 3)
    shift = predicted_shift("nearest-type-shift", crossed(PROFILES, SHIFTS), queries)
    np.testing.assert_allclose(shift, np.tile(SHIFTS[nearest], (3, 1)), atol=1e-5)


def test_each_content_label_gets_the_shift_of_its_own_profile(crossed, labelled):
    queries = labelled(PROFILES[[0, 2, 0, 2]], ["control"] * 4, ["first", "third"] * 2)
    shift = predicted_shift("nearest-type-shift", crossed(PROFILES, SHIFTS), queries)
    np.testing.assert_allclose(shift, SHIFTS[[0, 2, 0, 2]], atol=1e-5)


@pytest.fixture(scope="module")
def linear(crossed):
    """Eight types whose shift is affine in two coordinates of their profile, and a ninth one."""
    rng = np.random.default_rng(0)
    coordinates = rng.standard_normal((9, 2))
    profiles = 5 + coordinates @ rng.standard_normal((2, 12))
    shifts = rng.standard_normal(12) + coordinates @ rng.standard_normal((2, 12))
    return crossed(profiles[:8], shifts[:8]), profiles[8], shifts[8], shifts[:8].mean(axis=0)


def test_ridge_at_a_tiny_penalty_predicts_a_linear_shift_exactly(linear, labelled):
    training, profile, shift, mean_shift = linear
    queries = labelled(profile[None], ["control"], ["new"])
    found = predicted_shift("ridge-shift", training, queries, strengths=(1e-6,))[0]
    assert np.linalg.norm(shift - mean_shift) > 0.5
    np.testing.assert_allclose(found, shift, atol=1e-4)


def test_ridge_at_a_huge_penalty_is_the_mean_shift(linear, labelled):
    training, profile, _, mean_shift = linear
    queries = labelled(profile[None], ["control"], ["new"])
    found = predicted_shift("ridge-shift", training, queries, strengths=(1e9,))[0]
    np.testing.assert_allclose(found, mean_shift, atol=1e-5)


def test_ridge_between_is_the_closed_form(linear, labelled):
    from sklearn.linear_model import Ridge

    training, profile, _, _ = linear
    queries = labelled(profile[None], ["control"], ["new"])
    found = predicted_shift("ridge-shift", training, queries, strengths=(0.5,))[0]
    obs, x = training.obs, np.asarray(training.X, dtype=float)
    control, stimulated = (
        np.stack(
            [x[((obs["cell_type"] == f"type{i}") & (obs["condition"] == c)).to_numpy()].mean(axis=0) for i in range(8)]
        )
        for c in ("control", "stimulated")
    )
    variance = np.square(control - control.mean(axis=0)).sum() / 8
    expected = Ridge(alpha=0.5 * variance).fit(control, stimulated - control).predict(profile[None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_ridge_chooses_its_penalty_by_the_types_left_out(linear, labelled, crossed):
    training, profile, shift, _ = linear
    queries = labelled(profile[None], ["control"], ["new"])
    for strengths in ((1e-6, 1e9), (1e9, 1e-6)):
        found = predicted_shift("ridge-shift", training, queries, strengths=strengths)[0]
        np.testing.assert_allclose(found, shift, atol=1e-4)
    # where the shift has nothing to do with the profile, the mean shift is chosen
    rng = np.random.default_rng(3)
    profiles, shifts = rng.standard_normal((8, 12)), rng.standard_normal((8, 12))
    found = predicted_shift("ridge-shift", crossed(profiles, shifts), queries, strengths=(1e-6, 1e9))[0]
    np.testing.assert_allclose(found, shifts.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("n_types", [1, 2])
def test_ridge_of_one_or_two_types_is_the_mean_shift(crossed, queries, n_types):
    shift = predicted_shift("ridge-shift", crossed(PROFILES[:n_types], SHIFTS[:n_types]), queries)
    np.testing.assert_allclose(shift[0], SHIFTS[:n_types].mean(axis=0), atol=1e-5)


def test_ridge_of_types_with_one_profile_is_the_mean_shift(crossed, queries):
    training = crossed(np.tile(PROFILES[0], (3, 1)), SHIFTS, noise=0.0)
    np.testing.assert_allclose(predicted_shift("ridge-shift", training, queries)[0], SHIFTS.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("name", ["mean-shift", "nearest-type-shift", "ridge-shift"])
def test_no_type_in_both_conditions_is_refused_with_what_was_trained(name, crossed, queries):
    with pytest.raises(CannotFit, match="both 'control' and 'stimulated'; trained environments: control"):
        predicted_shift(name, crossed(PROFILES, SHIFTS, lacking=(0, 1, 2)), queries)


def test_prediction_leaves_the_cells_as_they_are(crossed, queries):
    before = queries.X.copy()
    predicted_shift("mean-shift", crossed(PROFILES, SHIFTS), queries)
    np.testing.assert_array_equal(queries.X, before)
