"""Environments that were not trained: composed of trained ones, or adapted to from few cells."""

import copy

import numpy as np
import pytest

from methods import METHODS, CannotFit
from methods.latent_arithmetic import LatentArithmetic
from tasks.datasets.memory import digest

NAMES = [name for name in METHODS if "adapt" in METHODS[name].abilities()]
FAST = {"n_latent": 4, "hidden": (32,), "steps": 24}
SHIFTS = {"control": np.zeros(6), "A": np.array([2.0, 0, 0, 1, 0, 0]), "B": np.array([0, 3.0, 0, 1, 0, -1])}
NEW = np.array([0, 0, 4.0, 0, 1, 0])


def configured(name):
    keys = METHODS[name].Config.__dataclass_fields__
    return METHODS[name](METHODS[name].configure(**{key: value for key, value in FAST.items() if key in keys}))


@pytest.fixture(scope="module")
def training(labelled):
    rng = np.random.default_rng(0)
    names = np.repeat(list(SHIFTS), 40)
    x = 5 + np.stack([SHIFTS[name] for name in names]) + 0.3 * rng.standard_normal((120, 6))
    return labelled(x, names)


@pytest.fixture(scope="module")
def few(labelled):
    return labelled(5 + NEW + 0.3 * np.random.default_rng(1).standard_normal((10, 6)), ["new"] * 10)


@pytest.fixture(scope="module")
def fitted(training):
    cache = {}

    def get(name):
        if name not in cache:
            cache[name] = configured(name).fit(training, 0)
        return cache[name]

    return get


def mean_of(training, name):
    return np.asarray(training.X, dtype=float)[(training.obs["condition"] == name).to_numpy()].mean(axis=0)


# --- adapting


@pytest.mark.parametrize("name", NAMES)
def test_adapting_changes_neither_the_method_nor_its_codes_nor_the_cells(name, fitted, training, few):
    method = fitted(name)
    before, cells = copy.deepcopy(method.state()), digest(few)
    adapted = method.adapt(few)
    assert adapted is not method
    assert type(adapted) is type(method)
    assert digest(few) == cells
    after = method.state()
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    if hasattr(method, "embed"):
        np.testing.assert_array_equal(adapted.embed(few), method.embed(few))
        codes = method.embed(training)
        np.testing.assert_array_equal(adapted.decode(codes), method.decode(codes))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_trained_is_predicted_as_before(name, fitted, training, few):
    method = fitted(name)
    np.testing.assert_array_equal(method.adapt(few).predict(training, "A"), method.predict(training, "A"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "no-change"])
def test_only_the_adapted_copy_predicts_the_new_environment(name, fitted, training, few):
    method = fitted(name)
    with pytest.raises(CannotFit, match="'new'"):
        method.predict(training, "new")
    assert method.adapt(few).predict(training, "new").shape == training.shape
    with pytest.raises(CannotFit, match="'new'"):
        method.predict(training, "new")


@pytest.mark.parametrize("name", ["mean-shift", "additive-shift", "nearest-type-shift", "ridge-shift"])
def test_shift_baselines_predict_the_mean_of_the_adaptation_cells(name, fitted, training, few):
    predicted = fitted(name).adapt(few).predict(training, "new")
    np.testing.assert_allclose(predicted.mean(axis=0), np.asarray(few.X).mean(axis=0), atol=1e-4)


def test_a_full_pca_predicts_the_mean_of_the_adaptation_cells(training, few):
    whole = METHODS["pca"](METHODS["pca"].configure(n_latent=6)).fit(training, 0)
    predicted = whole.adapt(few).predict(training, "new")
    np.testing.assert_allclose(predicted.mean(axis=0), np.asarray(few.X).mean(axis=0), atol=1e-3)


# --- composing


@pytest.mark.parametrize("target", ["A+B", "B+A"])
def test_additive_shift_is_the_sum_of_the_parts(training, fitted, target):
    control = training[(training.obs["condition"] == "control").to_numpy()].copy()
    shift = fitted("additive-shift").predict(control, target) - control.X
    expected = mean_of(training, "A") + mean_of(training, "B") - 2 * mean_of(training, "control")
    np.testing.assert_allclose(shift, np.tile(expected, (40, 1)), atol=1e-4)


def test_a_trained_double_is_not_composed(labelled, training):
    names = np.concatenate([training.obs["condition"].to_numpy(str), ["A+B"] * 5])
    data = labelled(np.vstack([training.X, np.full((5, 6), 9.0)]), names)
    control = training[(training.obs["condition"] == "control").to_numpy()].copy()
    for name, tolerance in (("additive-shift", 1e-4), ("pca", 0.4)):
        config = METHODS[name].configure(**({"n_latent": 6} if name == "pca" else {}))
        predicted = METHODS[name](config).fit(data, 0).predict(control, "A+B")
        np.testing.assert_allclose(predicted.mean(axis=0), np.full(6, 9.0), atol=tolerance)


def test_latent_arithmetic_adds_the_latent_shifts(fitted):
    method = fitted("pca")
    expected = method.latent_shift("control", "A") + method.latent_shift("control", "B")
    np.testing.assert_allclose(method.latent_shift("control", "A+B"), expected, atol=1e-6)
    # what cells of A lack is B
    np.testing.assert_allclose(
        method.latent_shift("A", "A+B"), method.latent_shift("control", "B"), rtol=1e-5, atol=1e-6
    )


#: Those that predict by adding a shift, of codes or of expression.
ADDING = ["additive-shift", *(name for name in METHODS if issubclass(METHODS[name], LatentArithmetic))]


@pytest.mark.parametrize("name", ADDING)
def test_every_method_that_adds_shifts_composes(name, fitted, training):
    method = fitted(name)
    control = training[(training.obs["condition"] == "control").to_numpy()].copy()
    assert method.predict(control, "A+B").shape == control.shape
    if name != "additive-shift":
        expected = method.latent_shift("control", "A") + method.latent_shift("control", "B")
        np.testing.assert_allclose(method.latent_shift("control", "A+B"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cvae", "trvae", "lord", "multigroup-vi"])
def test_methods_that_decode_with_a_label_refuse_to_compose(name, fitted, training):
    with pytest.raises(CannotFit, match=r"'A\+B'"):
        fitted(name).predict(training, "A+B")


@pytest.mark.parametrize("name", ["mean-shift", "additive-shift", "pca", "vae"])
def test_a_double_of_an_unknown_part_is_refused(name, fitted, training):
    with pytest.raises(CannotFit, match="trained environments: A, B, control"):
        fitted(name).predict(training, "A+unknown")


def test_the_mean_shift_does_not_compose(fitted, training):
    with pytest.raises(CannotFit, match=r"'A\+B'"):
        fitted("mean-shift").predict(training, "A+B")
