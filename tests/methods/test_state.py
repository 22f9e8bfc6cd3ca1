"""A fitted method as arrays and JSON, and back."""

import json

import numpy as np
import pytest
import torch

from methods.base import Method
from methods.groups import GroupMeans


class Mine(Method):
    name = "mine"

    def fit(self, data, seed):
        return self


class Neural(Mine):
    def untrained(self):
        return torch.nn.Sequential(torch.nn.Linear(self.width, 2), torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5))


def through_json(method):
    """The state of a method as it comes back from disk, in a method that was not fitted."""
    state = method.state()
    arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    rest = json.loads(json.dumps({key: value for key, value in state.items() if key not in arrays}))
    restored = type(method)(method.config)
    restored.restore({**rest, **arrays})
    return restored


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.1,
        float("inf"),
        "word",
        ["a", ("b", 2.5)],
        (),
        {"a": {1: [None]}, ("x", "y"): 2},
        np.float32(0.1),
        np.int64(7),
        np.bool_(True),
    ],
    ids=repr,
)
def test_plain_values_come_back_with_their_types(value):
    method = Mine()
    method.value = value
    restored = through_json(method).value
    assert restored == value
    assert type(restored) is type(value)
    assert repr(restored) == repr(value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_arrays_come_back_bit_for_bit_wherever_they_are(dtype):
    method = Mine()
    method.a = np.arange(6).reshape(2, 3).astype(dtype)
    method.nested = {"first": [method.a[0], method.a[:, 1]], "empty": np.zeros((0, 3), dtype)}
    restored = through_json(method)
    for ours, theirs in (
        (restored.a, method.a),
        (restored.nested["first"][1], method.a[:, 1]),
        (restored.nested["empty"], method.nested["empty"]),
    ):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_group_means_come_back_with_their_sizes():
    method = Mine()
    method.means = GroupMeans(
        {("A", "x"): np.array([0.1, 0.2]), ("B", "y"): np.ones(2)}, {("A", "x"): 3, ("B", "y"): 40}
    )
    restored = through_json(method).means
    assert type(restored) is GroupMeans
    assert list(restored) == list(method.means)
    assert restored.sizes == method.means.sizes
    np.testing.assert_array_equal(restored["A", "x"], [0.1, 0.2])


def test_a_network_comes_back_by_its_weights_in_eval_mode():
    method = Neural()
    method.width = 3
    method.network = method.untrained()
    method.network(torch.randn(8, 3))  # statistics of the batch norm
    restored = through_json(method)
    assert not restored.network.training
    x = torch.randn(5, 3)
    assert torch.equal(restored.network(x), method.network.eval()(x))


@pytest.mark.parametrize("value", [object(), np.array(["a"]), {"deep": [lambda: 0]}, torch.nn.Linear(2, 1)])
def test_a_method_with_another_attribute_is_not_stored(value):
    method = Mine()
    method.value = value
    assert method.state() is None


def test_configuration_and_training_curves_are_no_part_of_the_state():
    method = Mine()
    method.history, method.unconverged, method.log = {"loss": [1.0]}, "stopped early", ["a remark"]
    assert method.state() == Mine().state()
