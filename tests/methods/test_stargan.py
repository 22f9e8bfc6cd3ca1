"""StarGAN: what its networks learn on cells with a plain shift, and that it is trained as its docstring says."""

import numpy as np
import pytest

from methods import METHODS
from methods.errors import CannotFit

CLS = METHODS["stargan"]


@pytest.fixture(scope="module")
def shifted():
    """Expression of two environments that differ by 3 in the first five of twenty genes."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 20))
    x[120:, :5] += 3
    return x


def test_it_moves_cells_to_the_other_environment_and_leaves_them_in_their_own(shifted, labelled):
    data = labelled(shifted, np.repeat(["control", "other"], 120))
    method = CLS(CLS.configure(steps=3000, learning_rate=1e-3, hidden=(32,))).fit(data, 0)
    control = data[:120].copy()
    moved = method.predict(control, "other").mean(axis=0) - shifted[:120].mean(axis=0)
    assert 1.5 < moved[:5].mean() < 4.5
    assert np.abs(moved[5:]).mean() < 0.6
    same = method.predict(control, "control").mean(axis=0) - shifted[:120].mean(axis=0)
    assert np.abs(same[:5]).mean() < 0.5 * moved[:5].mean()
    # a step of the translator for five of the critic
    assert {"critic", "gradient_penalty", "critic_class", "translator", "translator_class", "cycle"} == set(
        method.history
    )


def test_one_environment_cannot_be_translated_and_an_unknown_one_is_refused(shifted, labelled):
    with pytest.raises(CannotFit, match="translates between environments; there is one, 'only'"):
        CLS(CLS.configure("smoke")).fit(labelled(shifted, ["only"] * 240), 0)
    data = labelled(shifted, np.repeat(["control", "other"], 120))
    method = CLS(CLS.configure("smoke")).fit(data, 0)
    with pytest.raises(CannotFit, match="not trained on environment 'new'"):
        method.predict(data, "new")


def test_equal_seeds_are_equal_and_the_state_is_restored(shifted, labelled):
    data = labelled(shifted, np.repeat(["control", "other"], 120))
    first, again, other = (CLS(CLS.configure("smoke")).fit(data, seed) for seed in (0, 0, 1))
    expected = first.predict(data, "other")
    np.testing.assert_array_equal(again.predict(data, "other"), expected)
    assert not np.array_equal(other.predict(data, "other"), expected)
    restored = CLS(CLS.configure("smoke"))
    restored.restore(first.state())
    np.testing.assert_array_equal(restored.predict(data, "other"), expected)
