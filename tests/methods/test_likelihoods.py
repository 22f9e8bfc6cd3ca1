"""Likelihoods against scipy, torch.distributions and sums over all outcomes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Normal

from methods.nn.kernels import _log_gamma_terms
from methods.nn.likelihoods import (
    Bernoulli,
    Gaussian,
    GeneGaussian,
    NegativeBinomial,
    SquaredError,
    ZeroInflatedNegativeBinomial,
)
from methods.nn.sparse import SparseRows

CONTINUOUS = (SquaredError, Gaussian, GeneGaussian)
COUNTS = (NegativeBinomial, ZeroInflatedNegativeBinomial)
ALL = (*CONTINUOUS, Bernoulli, *COUNTS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def counts(n_cells, n_genes, seed=0):
    """Half of them 0, up to a few hundred; the last cell and the last gene are empty."""
    draw = torch.poisson(torch.exp(2 * normals(n_cells, n_genes, seed=seed)), generator=generator(seed))
    draw *= torch.bernoulli(torch.full_like(draw, 0.5), generator=generator(seed))
    draw[-1], draw[:, -1] = 0, 0
    return draw


def with_theta(cls, log_theta):
    likelihood = cls(len(log_theta)).to(log_theta.dtype)
    with torch.no_grad():
        likelihood.log_theta.copy_(log_theta)
    return likelihood


class LogProb(torch.nn.Module):
    """log_prob as a forward pass, for torch.func.functional_call."""

    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, *args):
        return self.likelihood.log_prob(*args)


def as_function(cls, x, library):
    module = LogProb(cls(x.shape[1]).to(x.dtype))

    def log_prob(log_theta, output):
        return torch.func.functional_call(module, {"likelihood.log_theta": log_theta}, (x, output, library))

    return log_prob


def reference(cls, x, output, library, log_theta):
    """The likelihoods of counts by torch.distributions, in terms of log-softmax."""
    n_genes = x.shape[1]
    # no −∞ where the library is empty: log(0) would make a NaN of 0 · log(0)
    log_mean = torch.log_softmax(output[:, :n_genes], -1) + library.clamp(min=1e-300).log()[:, None]
    nb = TorchNegativeBinomial(log_theta.exp(), logits=log_mean - log_theta, validate_args=False).log_prob(x)
    if cls is NegativeBinomial:
        return nb.sum(-1)
    log_pi = torch.nn.functional.logsigmoid(output[:, n_genes:])
    log_rest = torch.nn.functional.logsigmoid(-output[:, n_genes:]) + nb
    return torch.where(x == 0, torch.logaddexp(log_pi, log_rest), log_rest).sum(-1)


# --- all likelihoods


@pytest.mark.parametrize("cls", ALL)
def test_extreme_outputs_have_finite_values_and_gradients_in_single_precision(cls):
    n_genes = 6
    likelihood = cls(n_genes)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            if parameter.ndim:
                parameter.copy_(torch.tensor([-100.0, -20.0, 0.0, 10.0, 20.0, 100.0]))
    x = torch.zeros(5, n_genes)
    x[0], x[1, 0], x[2, ::2] = 1.0, 1.0, 1.0
    if cls in COUNTS:
        x[2, 0], x[3] = 1e5, 300.0
    output = torch.tensor([50.0, -50.0, 0.0]).repeat(5, 2 * cls.outputs_per_gene)
    output[1] = -output[1]
    output[3] = 0.0
    output.requires_grad_()
    log_prob = likelihood.log_prob(x, output, x.sum(-1))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert output.grad.isfinite().all()
    for parameter in likelihood.parameters():
        assert parameter.grad.isfinite().all()
    assert likelihood.mean(output, x.sum(-1)).isfinite().all()


# --- of expression


def test_squared_error_is_a_normal_of_variance_one_up_to_its_constant():
    x, output = normals(6, 5), normals(6, 5, seed=1)
    found = SquaredError(5).log_prob(x, output)
    np.testing.assert_allclose(found, -0.5 * ((x - output).numpy() ** 2).sum(1), rtol=1e-14)
    constant = 5 * 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(found - constant, Normal(output, 1.0).log_prob(x).sum(-1))
    assert not list(SquaredError().parameters())


def test_gaussian_needs_no_number_of_genes():
    x, output = torch.randn(6, 5, generator=generator()), torch.randn(6, 5, generator=generator(1))
    for likelihood in (Gaussian(), Gaussian(5)):
        assert [name for name, _ in likelihood.named_parameters()] == ["log_variance"]
        with torch.no_grad():
            likelihood.log_variance.fill_(0.7)
        log_variance = likelihood.log_variance
        squared = (x - output).square() * torch.exp(-log_variance)
        expected = -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)
        torch.testing.assert_close(likelihood.log_prob(x, output), expected)


@pytest.mark.parametrize("cls", [Gaussian, GeneGaussian])
def test_gaussians_agree_with_torch_distributions_in_value_and_gradient(cls):
    likelihood = cls(5).double()
    with torch.no_grad():
        likelihood.log_variance.copy_(normals(*likelihood.log_variance.shape, seed=2))
    x, output = normals(6, 5), normals(6, 5, seed=1).requires_grad_()
    log_variance = likelihood.log_variance.detach().clone().requires_grad_()
    expected = Normal(output, torch.exp(0.5 * log_variance)).log_prob(x).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(x, output), expected, rtol=1e-12, atol=1e-12)
    likelihood.log_prob(x, output).sum().backward()
    by_variance, by_output = torch.autograd.grad(expected.sum(), (log_variance, output))
    torch.testing.assert_close(likelihood.log_variance.grad, by_variance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(output.grad, by_output, rtol=1e-12, atol=1e-12)


def test_variance_is_bounded_below_for_each_gene():
    likelihood = GeneGaussian(2).double()
    with torch.no_grad():
        likelihood.log_variance.copy_(torch.tensor([-50.0, 1.0]))
    x = torch.zeros(1, 2).double()
    expected = -0.5 * (-10 + 1 + 2 * math.log(2 * math.pi))
    assert likelihood.log_prob(x, x).item() == pytest.approx(expected, abs=1e-12)


def test_a_gene_that_is_reproduced_exactly_has_a_bounded_density():
    x, log_probs = torch.zeros(2, 1).double(), []
    for log_variance in (-50.0, -10.0):
        likelihood = Gaussian().double()
        with torch.no_grad():
            likelihood.log_variance.fill_(log_variance)
        log_probs.append(likelihood.log_prob(x, x))
    assert torch.equal(*log_probs)


def test_bernoulli_agrees_with_torch_distributions_and_takes_fractions():
    output = normals(6, 5) * 3
    x = torch.bernoulli(torch.full((6, 5), 0.5).double(), generator=generator())
    expected = TorchBernoulli(logits=output).log_prob(x).sum(-1)
    torch.testing.assert_close(Bernoulli(5).log_prob(x, output), expected, rtol=1e-12, atol=1e-12)
    fraction = torch.rand(6, 5, generator=generator()).double()
    p = 1 / (1 + np.exp(-output.numpy()))
    expected = (fraction.numpy() * np.log(p) + (1 - fraction.numpy()) * np.log1p(-p)).sum(1)
    np.testing.assert_allclose(Bernoulli().log_prob(fraction, output), expected, rtol=1e-12)
    np.testing.assert_allclose(Bernoulli().mean(output), p, rtol=1e-12)


# --- of counts


@pytest.mark.parametrize("cls", COUNTS)
@pytest.mark.parametrize("log_theta", [-14.0, -5.0, 0.0, 5.0, 14.0])
def test_counts_agree_with_torch_distributions_in_value_and_gradient(cls, log_theta):
    x = counts(9, 12)
    library = x.sum(-1)
    output = (2 * normals(9, 12 * cls.outputs_per_gene, seed=1)).requires_grad_()
    theta = (log_theta + 0.5 * normals(12, seed=2)).requires_grad_()
    found = as_function(cls, x, library)(theta, output)
    expected = reference(cls, x, output, library, theta)
    # the reference subtracts one log-gamma from the other: at θ = e^14 they are near 1e7
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 if log_theta < 10 else 1e-6)
    weight = normals(9, seed=3)
    for ours, theirs in zip(
        torch.autograd.grad(found @ weight, (theta, output)),
        torch.autograd.grad(expected @ weight, (theta, output)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10 if log_theta < 10 else 1e-6)


@pytest.mark.parametrize("cls", COUNTS)
def test_counts_agree_with_scipy(cls):
    x, output, theta = counts(8, 6), normals(8, 6 * cls.outputs_per_gene, seed=1), normals(6, seed=2)
    likelihood = with_theta(cls, theta)
    library = x.sum(-1) + 3.0
    mean = np.exp(output[:, :6].numpy())
    mean *= library.numpy()[:, None] / mean.sum(1, keepdims=True)
    r = theta.exp().numpy()
    expected = stats.nbinom.pmf(x, r, r / (r + mean))
    if cls is ZeroInflatedNegativeBinomial:
        pi = 1 / (1 + np.exp(-output[:, 6:].numpy()))
        expected = pi * (x.numpy() == 0) + (1 - pi) * expected
        mean = (1 - pi) * mean
    np.testing.assert_allclose(likelihood.log_prob(x, output, library).detach(), np.log(expected).sum(1), rtol=1e-10)
    np.testing.assert_allclose(likelihood.mean(output, library), mean, rtol=1e-12)


@pytest.mark.parametrize("cls", COUNTS)
def test_gradients_of_counts_agree_with_finite_differences(cls):
    x = counts(4, 5).clamp(max=9.0)
    output = normals(4, 5 * cls.outputs_per_gene, seed=1).requires_grad_()
    theta = normals(5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(as_function(cls, x, x.sum(-1)), (theta, output))


@pytest.mark.parametrize("cls", COUNTS)
def test_probabilities_of_all_counts_sum_to_one_and_have_the_stated_mean(cls):
    likelihood = with_theta(cls, torch.tensor([0.4]).double())
    x = torch.arange(400.0).double()[:, None]
    # of one gene the softmax is 1: the mean is the library
    output = torch.full((400, cls.outputs_per_gene), -0.8).double()
    library = torch.full((400,), 7.0).double()
    p = likelihood.log_prob(x, output, library).detach().exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-11)
    assert (p @ x).item() == pytest.approx(likelihood.mean(output, library)[0].item(), abs=1e-9)
    for u in (0.0, 0.3, 1.0):
        missing = likelihood.generating_deficit(torch.tensor(1 - u, dtype=torch.float64), output[:1], library[:1])
        assert missing.item() == pytest.approx(1 - (p @ u**x).item(), abs=1e-11)


@pytest.mark.parametrize("cls", COUNTS)
@pytest.mark.parametrize("log_theta", [-14.0, 0.0, 14.0])
def test_single_precision_loses_no_digits_to_the_dispersion(cls, log_theta):
    x = counts(9, 12)
    output = 2 * normals(9, 12 * cls.outputs_per_gene, seed=1)
    results = []
    for dtype in (torch.float64, torch.float32):
        theta = torch.full((12,), log_theta, dtype=dtype, requires_grad=True)
        logits = output.to(dtype).requires_grad_()
        value = as_function(cls, x.to(dtype), x.sum(-1).to(dtype))(theta, logits)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), (theta, logits))))
    # log Γ(x + θ) − log Γ(θ) in single precision would be off by several units at θ = e^14
    for precise, single in zip(*results, strict=True):
        torch.testing.assert_close(single.double(), precise, rtol=1e-5, atol=2e-4)


def test_log_gamma_terms_agree_with_sums_over_the_counts_below():
    theta = torch.logspace(-6.5, 6.5, 27).double()
    for x in (1, 2, 7, 50, 10_000):
        value, gradient = _log_gamma_terms(torch.full((27,), float(x)).double(), theta, torch.arange(27), True)
        steps = theta.numpy()[:, None] + np.arange(x)
        np.testing.assert_allclose(value, np.log(steps).sum(1) - gammaln(x + 1), rtol=1e-11, atol=1e-10)
        np.testing.assert_allclose(gradient, (theta.numpy()[:, None] / steps).sum(1), rtol=1e-10)


@pytest.mark.parametrize("cls", COUNTS)
def test_an_empty_cell_is_certain_and_asks_for_nothing(cls):
    x = torch.zeros(2, 3).double()
    output = normals(2, 3 * cls.outputs_per_gene).requires_grad_()
    theta = torch.zeros(3).double().requires_grad_()
    log_prob = as_function(cls, x, torch.zeros(2).double())(theta, output)
    assert torch.equal(log_prob, torch.zeros(2).double())
    log_prob.sum().backward()
    assert not output.grad.any()
    assert not theta.grad.any()


def test_dispersion_is_bounded_without_a_gradient_beyond():
    x, output = counts(5, 3), normals(5, 3)
    log_prob = as_function(NegativeBinomial, x, x.sum(-1))
    beyond, bound = torch.tensor([-90.0, 0.0, 90.0]).double(), torch.tensor([-15.0, 0.0, 15.0]).double()
    assert torch.equal(log_prob(beyond, output), log_prob(bound, output))
    beyond.requires_grad_()
    log_prob(beyond, output).sum().backward()
    assert beyond.grad[0] == beyond.grad[2] == 0 != beyond.grad[1]


def test_zero_inflation_of_nothing_and_of_everything():
    x = counts(5, 3)
    output = normals(5, 3)
    plain = NegativeBinomial(3).double().log_prob(x, output, x.sum(-1))
    likelihood = ZeroInflatedNegativeBinomial(3).double()
    never = likelihood.log_prob(x, torch.cat([output, torch.full_like(output, -60.0)], 1), x.sum(-1))
    torch.testing.assert_close(never, plain, rtol=1e-12, atol=1e-12)
    always = likelihood.log_prob(x, torch.cat([output, torch.full_like(output, 60.0)], 1), x.sum(-1))
    # every zero is explained, every other count costs log σ(−60) = −60
    only_nonzero = torch.where(x > 0, reference_entries(x, output) - 60.0, 0.0).sum(-1)
    torch.testing.assert_close(always, only_nonzero, rtol=1e-12, atol=1e-12)


def reference_entries(x, output):
    log_mean = torch.log_softmax(output, -1) + x.sum(-1).clamp(min=1.0).log()[:, None]
    return TorchNegativeBinomial(1.0, logits=log_mean, validate_args=False).log_prob(x)


@pytest.mark.parametrize("cls", COUNTS)
def test_a_second_derivative_is_refused(cls):
    x = counts(4, 3)
    output = normals(4, 3 * cls.outputs_per_gene).requires_grad_()
    theta = torch.zeros(3).double().requires_grad_()
    log_prob = as_function(cls, x, x.sum(-1))
    for loss in (log_prob(theta, output).sum(), log_prob(theta, output).exp().sum()):
        for gradient in torch.autograd.grad(loss, (theta, output), create_graph=True):
            with pytest.raises(RuntimeError, match="differentiated once only"):
                # the second term could be differentiated
                (gradient.sum() + output.square().sum()).backward(retain_graph=True)


@pytest.mark.parametrize("cls", COUNTS)
def test_stacked_counts_equal_the_single_ones(cls):
    def with_gradients(x, *arguments):
        arguments = [argument.clone().requires_grad_() for argument in arguments]
        log_prob = as_function(cls, x, x.sum(-1))(*arguments)
        return log_prob.detach(), *torch.autograd.grad(log_prob.square().sum(), arguments)

    x = counts(8, 3).view(2, 4, 3)
    theta, output = normals(2, 3), normals(2, 4, 3 * cls.outputs_per_gene)
    stacked = with_gradients(x, theta, output)
    for i in range(2):
        for together, single in zip(stacked, with_gradients(x[i], theta[i], output[i]), strict=True):
            torch.testing.assert_close(together[i], single, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", COUNTS)
def test_sparse_counts_are_counts(cls):
    x, likelihood = counts(7, 5), cls(5).double()
    cells = torch.tensor([3, 6, 0, 3, 5])
    sparse = SparseRows.of_tensor(x).index_select(0, cells)
    output, library = normals(5, 5 * cls.outputs_per_gene), x[cells].sum(-1)
    assert torch.equal(likelihood.log_prob(sparse, output, library), likelihood.log_prob(x[cells], output, library))


@pytest.mark.parametrize("cls", COUNTS)
def test_values_are_the_same_without_gradients(cls):
    x, likelihood = counts(4, 3), cls(3).double()
    output = normals(4, 3 * cls.outputs_per_gene)
    with torch.no_grad():
        plain = likelihood.log_prob(x, output, x.sum(-1))
    assert torch.equal(plain, likelihood.log_prob(x, output, x.sum(-1)))
    assert not plain.requires_grad


@pytest.mark.parametrize("cls", COUNTS)
def test_counts_without_a_library_are_refused(cls):
    likelihood = cls(3)
    output = torch.zeros(2, 3 * cls.outputs_per_gene)
    for refused in (lambda: likelihood.log_prob(torch.zeros(2, 3), output), lambda: likelihood.mean(output)):
        with pytest.raises(ValueError, match="needs library="):
            refused()
