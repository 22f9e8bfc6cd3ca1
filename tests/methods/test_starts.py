"""How networks start."""

import numpy as np
import pytest
import torch

from methods.nn import ACTIVATIONS
from methods.nn.networks import hidden_layers, moments


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_moments_are_those_of_a_standard_normal(activation):
    layer = hidden_layers((1, 1), activation, "layer", 0.0)[-1]
    values = layer(torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))).double()
    assert moments(activation) == (
        pytest.approx(float(values.mean()), abs=3e-3),
        pytest.approx(float(values.var()), rel=1e-2),
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_a_norm_every_layer_starts_with_unit_variance(activation):
    torch.manual_seed(0)
    body = hidden_layers((300, 200, 100, 150), activation, "none", 0.0)
    h = torch.randn(2000, 300)
    for layer in body:
        h = layer(h)
        if isinstance(layer, torch.nn.Linear):
            assert abs(float(h.detach().mean())) < 0.15
            assert 0.7 < float(h.detach().var(0).mean()) < 1.3


def test_with_a_norm_the_start_is_pytorchs():
    torch.manual_seed(0)
    ours = hidden_layers((30, 20), "silu", "batch", 0.0)[0].weight.detach().numpy()
    torch.manual_seed(0)
    np.testing.assert_array_equal(ours, torch.nn.Linear(30, 20, bias=False).weight.detach().numpy())
