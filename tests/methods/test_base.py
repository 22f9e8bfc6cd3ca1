"""Configuration and the helpers that methods share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from methods import METHODS, Method, register_method
from methods.base import ABILITIES, column, control, key, require, searched
from methods.errors import ConfigError
from methods.groups import group_means


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


class Ranged(Mine):
    name = "ranged"

    @dataclass(frozen=True)
    class Config:
        weight: float = key(1.0, least=0)
        rate: float = searched(0.1, 0.01, 1.0, log=True, above=0)
        share: float = key(0.5, least=0, below=1)
        hidden: tuple[int, ...] = key((8, 8), above=0)
        norm: str = key("batch", among=("batch", "none"))
        free: float = 2.0

    @classmethod
    def check(cls, config):
        require(config.weight <= config.free, "weight", config.weight, f"must be at most free={config.free}")


class Narrower(Ranged):
    name = "narrower"

    @dataclass(frozen=True)
    class Config(Ranged.Config):
        weight: float = 0.5
        norm: str = key("none", among=("none",))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("weight", -0.5, "must be 0 or above"),
        ("weight", float("nan"), "must be 0 or above"),
        ("rate", 0.0, "must be above 0"),
        ("share", 1.0, "must be 0 or above and below 1"),
        ("hidden", (8, 0), "must be above 0"),
        ("norm", "layer", "must be one of ('batch', 'none')"),
        ("weight", 3.0, "must be at most free=2.0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(name, value, rule):
    with pytest.raises(ConfigError) as caught:
        Ranged.configure(**{name: value})
    assert str(caught.value) == f"ranged.{name}={value!r}: {rule}"


def test_values_at_the_limits_are_allowed():
    config = Ranged.configure(weight=0.0, share=0.0, free=0.0)
    assert (config.weight, config.share) == (0.0, 0.0)


def test_another_default_keeps_the_range_unless_it_has_its_own():
    assert Narrower.configure().weight == 0.5
    with pytest.raises(ConfigError, match=r"narrower.weight=-1.0: must be 0 or above"):
        Narrower.configure(weight=-1.0)
    with pytest.raises(ConfigError, match=r"narrower.norm='batch': must be one of \('none',\)"):
        Narrower.configure(norm="batch")


def test_what_tuning_searches_stands_in_the_fields():
    assert list(Ranged.search_space()) == ["rate"]
    space = Ranged.search_space()["rate"]
    assert (space.low, space.high, space.log) == (0.01, 1.0, True)


def test_a_code_of_no_latents_is_refused():
    with pytest.raises(ConfigError, match=r"mine.n_latent=0: must be above 0"):
        Mine.configure(n_latent=0)
