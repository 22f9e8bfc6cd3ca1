"""Curvature of decoders: closed forms, an independent implementation, gradients."""

import math

import pytest
import torch
from torch import nn

from methods.errors import ConfigError
from methods.nn.curvature import (
    curvatures,
    derivative_gram,
    metric_scale,
    mixup,
    sampled_curvatures,
    sampled_gram,
)
from methods.nn.networks import Decoder

SMOOTH = ("softplus", "elu", "silu")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def decoder_of(n_latent, activation="softplus", norm="none", dropout=0.0, hidden=(7, 11, 9), n_out=40):
    """A decoder that bends well, its batch norms with statistics and weights of their own."""
    decoder = Decoder(n_latent, hidden, n_out, activation, norm, dropout).double()
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.2 / math.sqrt(module.in_features))
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, std=0.5)
            nn.init.uniform_(module.running_var, 1.0, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return decoder.eval()


def differentiated(f, z):
    """The Gram matrices of any function of points, by automatic differentiation forward twice."""

    def output(point):
        return f(point[None])[0]

    jacobian = torch.func.vmap(torch.func.jacfwd(output))(z)
    hessian = torch.func.vmap(torch.func.jacfwd(torch.func.jacfwd(output)))(z)
    i, j = torch.triu_indices(z.shape[1], z.shape[1])
    derivatives = torch.cat([jacobian, hessian[..., i, j]], dim=-1)
    return derivatives.mT @ derivatives


# --- surfaces with known curvatures


def polar(z):
    return z[:, :1] * torch.stack([torch.cos(z[:, 1]), torch.sin(z[:, 1])], 1)


def cylinder(radius):
    return lambda z: torch.stack([radius * torch.cos(z[:, 0]), radius * torch.sin(z[:, 0]), 0.7 * z[:, 1]], 1)


def sphere(radius):
    def f(z):
        theta, phi = z.unbind(1)
        return radius * torch.stack(
            [torch.sin(theta) * torch.cos(phi), torch.sin(theta) * torch.sin(phi), torch.cos(theta)], 1
        )

    return f


def curvature_of(f, z):
    return curvatures(derivative_gram(f, z) if isinstance(f, Decoder) else differentiated(f, z), z.shape[1])


def assert_curvatures(found, tangent, normal):
    expected = torch.as_tensor(tangent, dtype=torch.float64), torch.as_tensor(normal, dtype=torch.float64)
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value, right.expand_as(value), rtol=1e-11, atol=1e-11)


def points(n_points, *ranges):
    low, high = torch.tensor(ranges, dtype=torch.float64).T
    return low + (high - low) * torch.rand(n_points, len(ranges), dtype=torch.float64)


@pytest.mark.parametrize("radius", [0.3, 1.0, 5.0])
def test_sphere(radius):
    z = points(50, (0.3, 2.8), (0.0, 6.0))
    cotangent = 1 / torch.tan(z[:, 0])
    assert_curvatures(curvature_of(sphere(radius), z), 3 * cotangent**2 / radius**2, 2 / radius**2)


@pytest.mark.parametrize("radius", [0.3, 1.0, 5.0])
def test_cylinder(radius):
    assert_curvatures(curvature_of(cylinder(radius), points(50, (-3, 3), (-3, 3))), 0.0, 1 / radius**2)


def test_circle_is_curved_in_one_dimension():
    assert_curvatures(
        curvature_of(lambda z: 2 * torch.cat([torch.cos(z), torch.sin(z)], 1), points(9, (0, 6))), 0, 0.25
    )


def test_plane_in_polar_coordinates():
    z = points(50, (0.5, 4.0), (0.0, 6.0))
    assert_curvatures(curvature_of(polar, z), 3 / z[:, 0] ** 2, 0.0)


def test_a_linear_decoder_is_flat():
    weight = torch.randn(3, 20, dtype=torch.float64)
    assert_curvatures(curvature_of(lambda z: z @ weight + 3, torch.randn(10, 3, dtype=torch.float64)), 0.0, 0.0)


def test_reparametrising_the_latent_leaves_the_extrinsic_curvature_alone():
    decoder = decoder_of(2)
    z = torch.randn(30, 2, dtype=torch.float64)
    shear = torch.tensor([[1.0, 0.4], [0.0, 2.0]], dtype=torch.float64)

    def bent(points):
        return points @ shear + 0.3 * torch.sin(points)

    plain, other = curvature_of(decoder, bent(z)), curvature_of(lambda points: decoder(bent(points)), z)
    torch.testing.assert_close(other.extrinsic, plain.extrinsic, rtol=1e-9, atol=0)
    # a linear map of the latent leaves both alone, this one does not
    assert ((other.parameter_effects / plain.parameter_effects - 1).abs() > 1e-3).all()
    linear = curvature_of(lambda points: decoder(points @ shear), z @ torch.linalg.inv(shear))
    same = curvature_of(decoder, z)
    torch.testing.assert_close(linear.parameter_effects, same.parameter_effects, rtol=1e-9, atol=0)


def test_stretching_x_by_c_divides_both_by_its_square():
    decoder, z = decoder_of(3), torch.randn(20, 3, dtype=torch.float64)
    for stretched, plain in zip(curvature_of(lambda p: 4 * decoder(p), z), curvature_of(decoder, z), strict=True):
        torch.testing.assert_close(stretched, plain / 16, rtol=1e-9, atol=0)


# --- the push through a multilayer perceptron


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("n_latent", [1, 2, 4])
def test_gram_agrees_with_automatic_differentiation(activation, norm, n_latent):
    decoder = decoder_of(n_latent, activation, norm)
    z = torch.randn(25, n_latent, dtype=torch.float64)
    expected = differentiated(decoder, z)
    k = n_latent + n_latent * (n_latent + 1) // 2
    assert expected.shape == (25, k, k)
    assert (derivative_gram(decoder, z) - expected).norm() < 1e-12 * expected.norm()
    single = derivative_gram(decoder.float(), z.float())
    assert single.dtype == torch.float32
    assert (single.double() - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_curvature_of_a_training_decoder_is_that_of_its_eval_mode(norm):
    decoder, z = decoder_of(2, norm=norm, dropout=0.5), torch.randn(10, 2, dtype=torch.float64)
    expected, before = differentiated(decoder, z), {k: v.clone() for k, v in decoder.state_dict().items()}
    state = torch.get_rng_state()
    torch.testing.assert_close(derivative_gram(decoder.train(), z), expected, rtol=1e-10, atol=1e-10)
    assert all(torch.equal(before[key], value) for key, value in decoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_decoders_without_curvature_are_refused(activation):
    with pytest.raises(ConfigError, match=r"ReLU has no second derivative.*softplus"):
        derivative_gram(decoder_of(2, activation), torch.zeros(1, 2, dtype=torch.float64))


def test_layer_norm_is_refused():
    with pytest.raises(ConfigError, match=r"LayerNorm.*'none' or 'batch'"):
        derivative_gram(decoder_of(2, norm="layer"), torch.zeros(1, 2, dtype=torch.float64))


# --- gradients


def penalties(decoder, z, jitter=1e-3):
    gram = derivative_gram(decoder, z)
    return torch.stack([*(c.mean() for c in curvatures(gram, z.shape[1], jitter)), metric_scale(gram, z.shape[1])])


def sampled_penalties(decoder, z, jitter=1e-3):
    torch.manual_seed(3)
    gram = sampled_gram(decoder, z, jitter)
    n_latent = z.shape[1]
    return torch.stack([*(c.mean() for c in sampled_curvatures(gram, n_latent, jitter)), metric_scale(gram, n_latent)])


class Penalised(nn.Module):
    """Penalties as a module's output, so that they are a function of the decoder's weights."""

    def __init__(self, decoder, of):
        super().__init__()
        self.decoder, self.of = decoder, of

    def forward(self, z):
        return self.of(self.decoder, z)


@pytest.mark.parametrize("of", [penalties, sampled_penalties])
@pytest.mark.parametrize(("activation", "norm"), [("softplus", "none"), ("silu", "batch"), ("elu", "none")])
def test_gradients_agree_with_finite_differences(of, activation, norm):
    model = Penalised(decoder_of(2, activation, norm, hidden=(4, 5), n_out=6), of)
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*model.named_parameters(), strict=True)

    def function(z, *weights):
        return torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (z,))

    # a bias of the head moves the manifold and bends nothing
    assert torch.autograd.gradcheck(function, (z, *weights), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("of", [penalties, sampled_penalties])
def test_gradients_in_single_precision_are_those_in_double(of, monkeypatch):
    noise = torch.randn(20, 3, 2, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn", lambda *shape, dtype, **_: noise.to(dtype))
    decoder, z = decoder_of(3), torch.randn_like(noise[..., 0])
    gradients = []
    for precision in (torch.float64, torch.float32):
        decoder = decoder.to(precision)
        decoder.zero_grad()
        of(decoder, z.to(precision)).sum().backward()
        gradients.append([p.grad.double().clone() for p in decoder.parameters() if p.grad is not None])
    for exact, single in zip(*gradients, strict=True):
        assert (exact - single).norm() < 1e-4 * exact.norm()


# --- the sampled form


def many_draws(decoder, point, n_draws=20_000):
    n_latent = len(point)
    with torch.no_grad():
        return sampled_curvatures(sampled_gram(decoder, point.expand(n_draws, -1), 0.0), n_latent)


def assert_mean(draws, expected):
    error = draws.std() / math.sqrt(len(draws))
    assert error < 0.1 * expected
    assert abs(draws.mean() - expected) < 4 * error


@pytest.mark.parametrize("n_latent", [1, 3, 9])
def test_the_sampled_form_is_unbiased(n_latent):
    decoder = decoder_of(n_latent, hidden=(12, 30), n_out=60)
    point = torch.randn(n_latent, dtype=torch.float64)
    exact = curvatures(derivative_gram(decoder, point[None]), n_latent)
    for draws, expected in zip(many_draws(decoder, point), exact, strict=True):
        assert_mean(draws, expected.item())


def test_one_direction_used_twice_gives_twice_the_curvature_and_the_squared_trace(monkeypatch):
    decoder, point = decoder_of(3), torch.randn(3, dtype=torch.float64)
    gram = derivative_gram(decoder, point[None])
    exact = curvatures(gram, 3).extrinsic.item()
    # the trace of the normal part of H with respect to g, squared
    inverse = torch.linalg.inv(gram[0, :3, :3])
    i, j = torch.triu_indices(3, 3)
    trace = torch.where(i == j, 1.0, 2.0) * inverse[i, j]
    christoffel = gram[0, :3, 3:]
    normal = gram[0, 3:, 3:] - christoffel.T @ inverse @ christoffel
    wrong = 2 * exact + (trace @ normal @ trace).item()
    assert wrong > 2.1 * exact
    independent = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **kwargs: independent(*shape, **kwargs)[..., :1].expand(*shape))
    assert_mean(many_draws(decoder, point, 60_000).extrinsic, wrong)


# --- the metric


def test_jitter_is_relative_to_the_mean_diagonal_of_the_metric():
    """A plane whose second latent does nothing: without jitter it has no inverse, with it E² is (H·H) / jittered g²."""

    def f(z):
        return torch.stack([2 * z[:, 0], z[:, 0] ** 2, 0 * z[:, 1]], 1)

    gram = differentiated(f, torch.zeros(1, 2, dtype=torch.float64))
    assert torch.isnan(curvatures(gram, 2).extrinsic).all()
    found = curvatures(gram, 2, jitter=0.1)
    # g = diag(4, 0), its mean diagonal 2; H₁₁ = (0, 2, 0) is normal
    torch.testing.assert_close(found.extrinsic, torch.tensor([4 / 4.2**2], dtype=torch.float64))
    assert found.parameter_effects.item() == 0


def test_metric_scale_is_the_relative_spread_of_the_metric():
    flat = torch.eye(5, dtype=torch.float64).repeat(6, 1, 1)
    assert metric_scale(flat, 2).item() == 0
    uneven = flat * torch.tensor([1.0, 3, 1, 3, 1, 3], dtype=torch.float64)[:, None, None]
    # mean 2, every point 1 away from it
    assert metric_scale(uneven, 2).item() == pytest.approx(0.25)
    assert metric_scale(7 * uneven, 2).item() == pytest.approx(0.25)
    assert metric_scale(uneven[:1], 2).item() == 0


# --- mix-up


def test_mixup_lies_on_lines_through_two_points_and_a_little_beyond():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(5000)[:, None]
    mixed = mixup(ends, 0.2)
    between = mixed[(mixed != 0) & (mixed != 1)]
    assert len(between) == pytest.approx(5000, rel=0.05)  # as many partners are the other end
    assert between.min() == pytest.approx(-0.2, abs=0.01)
    assert between.max() == pytest.approx(1.2, abs=0.01)
    assert between.mean() == pytest.approx(0.5, abs=0.02)
    assert between.var() == pytest.approx(1.4**2 / 12, rel=0.05)
    assert mixup(ends, 0.0).min() >= 0


def test_mixup_moves_all_coordinates_by_one_share():
    z = torch.randn(100, 3, dtype=torch.float64)
    mixed = mixup(z, 0.2)
    shares = (mixed - z)[:, None] / (z - z[:, None] + torch.eye(100)[..., None])
    # for each point some partner explains every coordinate by the same share
    off = (shares - shares[..., :1]).abs().amax(-1)
    assert off.min(1).values.max() < 1e-9
    assert (mixed != z).any(1).float().mean() > 0.9


def test_mixup_of_one_point_is_that_point():
    z = torch.randn(1, 3)
    torch.testing.assert_close(mixup(z, 0.2), z)
