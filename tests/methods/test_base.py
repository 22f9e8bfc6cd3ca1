"""Configuration and the helpers that methods share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from methods import METHODS, Method, register_method
from methods.base import ABILITIES, ConfigError, column, control, group_means


class Mine(Method):
    name = "mine"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"n_latent": 2}}

    @dataclass(frozen=True)
    class Config:
        n_latent: int = 10
        beta: float = 1.0
        hidden: tuple[int, ...] = (8,)
        norm: str = "batch"
        flag: bool = False

    def fit(self, data, seed):
        return self

    def embed(self, data):
        return np.zeros((data.n_obs, 1))


def test_configure_replaces_preset_by_changes():
    assert Mine.configure() == Mine.Config()
    assert Mine.configure("smoke").n_latent == 2
    assert Mine.configure("smoke", n_latent=3, beta=2.5) == Mine.Config(n_latent=3, beta=2.5)
    assert Mine.presets == {"smoke": {"n_latent": 2}}


def test_configure_takes_a_whole_number_for_a_float_and_a_list_for_a_tuple():
    config = Mine.configure(beta=4, hidden=[16, 8])
    assert config == Mine.Config(beta=4.0, hidden=(16, 8))
    assert type(config.beta) is float
    assert type(config.hidden) is tuple


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_latent", 2.0), ("n_latent", True), ("beta", "1"), ("beta", True), ("hidden", 8), ("norm", None), ("flag", 1)],
)
def test_configure_refuses_another_type_and_shows_the_right_one(key, value):
    with pytest.raises(ConfigError) as caught:
        Mine.configure(**{key: value})
    assert f"mine.{key}={value!r}" in str(caught.value)
    assert repr(getattr(Mine.Config(), key)) in str(caught.value)


def test_configure_refuses_an_unknown_key_and_lists_the_known():
    with pytest.raises(ConfigError, match="'latent'; it has n_latent, beta, hidden, norm, flag"):
        Mine.configure(latent=3)


def test_abilities_are_the_methods_it_has():
    assert Mine.abilities() == {"embed"}
    assert METHODS["pca"].abilities() == {"adapt", "embed", "decode", "predict"}
    assert METHODS["mean-shift"].abilities() == {"adapt", "predict"}
    assert "fit" not in ABILITIES


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    assert register_method(Mine) is Mine
    assert METHODS["mine"] is Mine
    with pytest.raises(ValueError, match="'mine' is registered already"):
        register_method(Mine)
    with pytest.raises(ValueError, match="'pca' is registered already"):
        METHODS.register("pca", Mine)


def test_columns_are_strings_and_a_missing_field_is_one_label(labelled):
    data = labelled(np.zeros((3, 2)), ["control", "x", "x"], [1, 2, 3])
    assert column(data, "environment").tolist() == ["control", "x", "x"]
    assert column(data, "content").tolist() == ["1", "2", "3"]
    assert column(data, "replicate").tolist() == ["", "", ""]
    assert control(data) == "control"


def test_group_means_of_the_pairs_present():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]], dtype=np.float32)
    means = group_means(values, np.array(["b", "b", "a"]), np.array(["x", "x", "y"]))
    assert list(means) == [("a", "y"), ("b", "x")]
    np.testing.assert_array_equal(means["b", "x"], [2.0, 3.0])
    np.testing.assert_array_equal(means["a", "y"], [10.0, 20.0])
    assert means["a", "y"].dtype == np.float64
