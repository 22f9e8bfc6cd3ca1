"""The Γ-VAE: what its terms are, what they do, and that without them it is the VAE."""

import dataclasses

import numpy as np
import pytest
import torch

from methods.errors import ConfigError
from methods.gamma_vae import GammaVAE
from methods.nn.curvature import curvatures, derivative_gram
from methods.vaes import VAE
from methods.variational import Forward
from metrics import METRICS

NONE = {"parameter_effects": 0.0, "extrinsic": 0.0, "metric_scale": 0.0}
SMALL = {"n_latent": 2, "hidden": (24, 16), "steps": 40, "warmup": 0.0, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def curved(labelled):
    """600 cells on a cap of a sphere, unevenly laid out, in 40 genes with a little noise."""
    rng = np.random.default_rng(0)
    theta, phi = rng.uniform(0.2, 1.5, 600), rng.uniform(0, 4, 600)
    x = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], 1)
    x = x @ rng.standard_normal((3, 40)) + 0.02 * rng.standard_normal((600, 40))
    return labelled(5 + x, np.array(["control", "stimulated"])[np.arange(600) % 2])


def fitted(data, seed=0, **changes):
    return GammaVAE(GammaVAE.configure(**{**SMALL, **NONE, **changes})).fit(data, seed)


def untrained(n_genes=30, **changes):
    """A method and its network with random weights."""
    torch.manual_seed(0)
    method = GammaVAE(GammaVAE.configure(**{**SMALL, **NONE, **changes}))
    method.likelihood = "gaussian"
    return method, method.build(n_genes)


def penalties(method, network, z, progress=1.0):
    return method.penalties(Forward(network, {}, progress, torch.zeros_like(z), torch.zeros_like(z), z, z, z))


# --- without the terms


@pytest.mark.parametrize(
    "network", [{}, {"activation": "relu", "norm": "batch", "dropout": 0.2}, {"norm": "layer", "likelihood": "auto"}]
)
def test_without_weights_it_is_the_vae_bit_for_bit(structured, network):
    gamma = fitted(structured, 3, **network)
    shared = {field.name: getattr(gamma.config, field.name) for field in dataclasses.fields(VAE.Config)}
    plain = VAE(VAE.configure(**shared)).fit(structured, 3)
    assert plain.history == gamma.history
    first, second = plain.state(), gamma.state()
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
    assert not np.array_equal(fitted(structured, 3, extrinsic=0.01).embed(structured), gamma.embed(structured))


@pytest.mark.parametrize("term", list(NONE))
def test_a_term_of_weight_zero_is_left_out(structured, term):
    assert set(fitted(structured, **{term: 0.1}).history) == {"reconstruction", "kl", "validation", term}


# --- what the terms are


def test_terms_are_weighted_dimensionless_curvatures_at_draws_and_mixtures_of_them():
    """Where all draws are one point, so is every mixture of them."""
    method, network = untrained(parameter_effects=2.0, extrinsic=3.0, metric_scale=5.0, jitter=0.01)
    point = torch.tensor([[0.7, -1.1]])
    terms = penalties(method, network, point.expand(40, -1))
    expected = curvatures(derivative_gram(network["decoder"], point), 2, 0.01)
    assert list(terms) == ["kl", "parameter_effects", "extrinsic", "metric_scale"]
    torch.testing.assert_close(terms["parameter_effects"], 2 * 30 * expected.parameter_effects[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(terms["extrinsic"], 3 * 30 * expected.extrinsic[0], rtol=1e-3, atol=0)
    assert terms["metric_scale"].item() < 1e-9
    spread = penalties(method, network, torch.randn(40, 2))["metric_scale"]
    assert spread.item() > 1e-3


def test_above_eight_latents_the_terms_are_sampled_without_bias():
    method, network = untrained(n_latent=9, parameter_effects=2.0, extrinsic=3.0, jitter=0.1)
    point = torch.randn(1, 9)
    exact = curvatures(derivative_gram(network["decoder"], point), 9, 0.1)
    with torch.no_grad():
        terms = [penalties(method, network, point.expand(8000, -1)) for _ in range(10)]
    for name, expected in (("parameter_effects", 2 * 30 * exact[0]), ("extrinsic", 3 * 30 * exact[1])):
        draws = torch.stack([term[name] for term in terms])
        assert draws.std() > 0
        assert abs(draws.mean() - expected.item()) < 5 * draws.std() / 10**0.5
        assert draws.std() < 0.1 * draws.mean()


def test_of_every_eight_cells_one_is_a_point_and_one_is_mixed(monkeypatch):
    method, network = untrained(extrinsic=1.0)
    seen = []
    monkeypatch.setattr(
        "methods.nn.curvature.derivative_gram", lambda decoder, z: seen.append(z) or derivative_gram(decoder, z)
    )
    z = torch.randn(80, 2)
    penalties(method, network, z)
    (points,) = seen
    assert points.shape == (20, 2)
    assert torch.equal(points[:10], z[:10])
    assert (points[10:, None] != z).any(-1).all(1).float().mean() > 0.8
    for n_cells in (1, 2, 3):
        assert torch.isfinite(penalties(method, network, z[:n_cells])["extrinsic"])


def test_weights_rise_over_the_warm_up_and_count_in_full_in_validation():
    method, network = untrained(metric_scale=4.0, warmup=0.5)
    z = torch.randn(50, 2)
    values = []
    for progress in (0.05, 0.25, 0.5, 1.0):
        torch.manual_seed(1)
        values.append(penalties(method, network, z, progress)["metric_scale"].item())
    assert values[0] == pytest.approx(values[2] / 10)
    assert values[1] == pytest.approx(values[2] / 2)
    assert values[2] == values[3] > 0
    # without penalties nothing rises
    assert untrained(warmup=0.5)[0].schedule().warmup == 0.0


def test_a_decoder_without_second_derivatives_is_refused():
    for key, value in (
        ("activation", "relu"),
        ("activation", "leaky_relu"),
        ("norm", "layer"),
        ("likelihood", "negative-binomial"),
        ("likelihood", "auto"),
    ):
        for term in NONE:
            with pytest.raises(ConfigError, match=rf"{key}='{value}'.*weights to 0"):
                GammaVAE.configure(**{**NONE, term: 1.0, key: value})
        GammaVAE.configure(**{**NONE, key: value})


# --- what the terms do


@pytest.mark.parametrize("term", ["parameter_effects", "extrinsic"])
def test_a_larger_weight_leaves_less_of_its_curvature(curved, term):
    metric = METRICS[{"extrinsic": "extrinsic_curvature"}.get(term, "parameter_effects_curvature")]
    found = []
    # the cells lie on a sphere: small weights leave the curvature that the data have. Extrinsic: .92, .28 and .014
    for weight in (0.0, 3.0, 100.0):
        method = fitted(curved, steps=800, **{term: weight})
        found.append(metric(method.derivative_gram(method.embed(curved)), 2))
    assert found[0] > 2 * found[1]
    assert found[1] > 2 * found[2]


def test_metric_scale_evens_out_the_metric(curved):
    spread = []
    for weight in (0.0, 30.0):
        method = fitted(curved, steps=480, metric_scale=weight)
        metric = method.derivative_gram(method.embed(curved))[:, :2, :2]
        spread.append(np.square(metric - metric.mean(0)).sum((1, 2)).mean() / np.square(metric.mean(0)).sum())
    assert spread[1] < spread[0] / 4


def test_derivative_gram_is_of_decode_in_units_of_the_total_variance(curved):
    method = fitted(curved, steps=160)
    codes = np.random.default_rng(0).standard_normal((7, 2))
    gram = method.derivative_gram(codes)
    assert gram.shape == (7, 5, 5)
    assert gram.dtype == np.float64
    steps = 0.02 * np.eye(2)

    def moved(step):
        return method.decode(codes + step).astype(np.float64)

    first = [(moved(step) - moved(-step)) / 0.04 for step in steps]
    mixed = (
        moved(steps.sum(0)) - moved(steps[0] - steps[1]) - moved(steps[1] - steps[0]) + moved(-steps.sum(0))
    ) / 0.04**2
    second = [(moved(step) - 2 * moved(0) + moved(-step)) / 0.02**2 for step in steps]
    rows = np.stack([*first, second[0], mixed, second[1]], axis=1) / np.sqrt(curved.X.var(0, dtype=np.float64).sum())
    assert np.abs(gram - rows @ rows.swapaxes(1, 2)).max() < 0.01 * np.abs(gram).max()
    np.testing.assert_allclose(method.derivative_gram(np.repeat(codes, 100, axis=0))[::100], gram, rtol=1e-9)


def test_derivative_gram_of_a_decoder_without_curvature_is_not_a_number(structured):
    for network in ({"activation": "relu"}, {"norm": "layer"}):
        method = fitted(structured, **network)
        gram = method.derivative_gram(method.embed(structured)[:3])
        assert gram.shape == (3, 5, 5)
        assert np.isnan(gram).all()
