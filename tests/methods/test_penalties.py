"""Penalties against closed forms, loops in numpy, scipy and finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln, logsumexp, polygamma
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Independent, Normal, kl_divergence

from methods.nn.kernels import mean_of_gaussians
from methods.nn.penalties import (
    TRVAE_WIDTHS,
    categorical_dirichlet_kl,
    coordinate_kernels,
    delta_kernel,
    dhsic,
    dip,
    discriminator_loss,
    gaussian_kernel,
    gumbel_sigmoid,
    kl_normal,
    log_beta,
    nuisance_kernels,
    pairwise_mmd,
    permute_codes,
    sqrt_dhsic,
    total_correlation,
    wasserstein_to_zero,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0, grad=False):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).requires_grad_(grad)


def correlated(n, rho, seed=0):
    """Pairs of standard normals, whose total correlation is −½ log(1 − ρ²)."""
    z = normals(n, 2, seed=seed)
    return torch.stack([z[:, 0], rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]], 1)


# --- of each posterior by itself


def test_kl_to_a_shifted_prior_agrees_with_torch_distributions():
    mean, log_variance, prior = normals(7, 4), normals(7, 4, seed=1), normals(7, 4, seed=2)
    expected = kl_divergence(
        Independent(Normal(mean, torch.exp(0.5 * log_variance)), 1), Independent(Normal(prior, torch.ones(7, 4)), 1)
    )
    torch.testing.assert_close(kl_normal(mean, log_variance, prior), expected, rtol=1e-12, atol=1e-12)
    # one unit away from the prior in each of ten dimensions
    torch.testing.assert_close(kl_normal(torch.ones(3, 10), torch.zeros(3, 10), torch.zeros(10)), torch.full((3,), 5.0))


def test_squared_wasserstein_distance_to_the_origin_is_the_second_moment():
    mean, log_variance = normals(3, 4), normals(3, 4, seed=1)
    found = wasserstein_to_zero(mean, log_variance)
    # all mass has to travel to one point
    draws = mean + torch.exp(0.5 * log_variance) * normals(200_000, 3, 4, seed=2)
    moments = draws.square().sum(-1)
    error = moments.std(0) / math.sqrt(200_000)
    assert ((moments.mean(0) - found).abs() < 4 * error).all()
    assert wasserstein_to_zero(torch.zeros(1, 4), torch.zeros(1, 4)) == 4


def test_gradients_of_the_divergences_agree_with_finite_differences():
    arguments = normals(3, 4, grad=True), normals(3, 4, seed=1, grad=True)
    assert gradcheck(kl_normal, (*arguments, normals(3, 4, seed=2, grad=True)))
    assert gradcheck(wasserstein_to_zero, arguments)


# --- maximum mean discrepancy


def mmd(x, y, widths):
    conditions = torch.arange(2).repeat_interleave(torch.tensor([len(x), len(y)]))
    return pairwise_mmd(torch.cat([x, y]), conditions, 2, widths)


def mmd_by_loops(x, y, widths):
    def mean_kernel(first, second):
        return np.mean([[np.mean(np.exp(-((a - b) ** 2).sum() / 2 / widths)) for b in second] for a in first])

    x, y, widths = np.asarray(x), np.asarray(y), np.asarray(widths)
    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


def test_widths_are_those_of_trvae():
    decades = [10.0**k for k in range(-6, 1)]
    assert list(TRVAE_WIDTHS) == [*decades, *range(5, 36, 5), 100, 1e3, 1e4, 1e5, 1e6]


@pytest.mark.parametrize("widths", [TRVAE_WIDTHS, (0.3,)])
def test_mmd_agrees_with_loops(widths):
    x, y = normals(6, 3), normals(4, 3, seed=1) + 0.5
    assert mmd(x, y, widths).item() == pytest.approx(mmd_by_loops(x, y, widths), rel=1e-12)
    assert mmd(x, x, widths).item() == pytest.approx(0, abs=1e-15)


def test_mmd_of_shifted_normals_has_its_closed_form():
    n, d, width, shift = 1500, 3, 2.0, 1.5
    x, y = normals(n, d), normals(n, d, seed=1)
    y[:, 0] += shift
    # E exp(−‖x − y‖²/2σ) = (1 + 2/σ)^(−d/2) exp(−shift²/2(σ + 2))
    same = (1 + 2 / width) ** (-d / 2)
    expected = 2 * same * (1 - math.exp(-(shift**2) / 2 / (width + 2)))
    bias = 2 * (1 - same) / n
    assert mmd(x, y, (width,)).item() == pytest.approx(expected + bias, rel=0.1)  # measured .02


def test_mmd_of_equal_distributions_is_on_average_the_bias_of_a_v_statistic():
    width, values = 2.0, []
    for seed in range(300):
        z = normals(18, 1, seed=seed)
        values.append(mmd(z[:12], z[12:], (width,)).item())
    expected = (1 - (1 + 2 / width) ** -0.5) * (1 / 12 + 1 / 6)
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / math.sqrt(300)
    assert min(values) >= 0


def test_all_pairs_of_conditions_present_are_compared():
    values = normals(11, 3)
    conditions = torch.tensor([0, 3, 0, 2, 3, 3, 0, 2, 5, 5, 0])  # neither 1 nor 4
    pairs = itertools.combinations([0, 2, 3, 5], 2)
    expected = np.mean([mmd_by_loops(values[conditions == a], values[conditions == b], TRVAE_WIDTHS) for a, b in pairs])
    assert pairwise_mmd(values, conditions, 6).item() == pytest.approx(expected, rel=1e-12)
    assert pairwise_mmd(values, conditions, 9).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_conditions", [2, 3, 30])
def test_conditions_that_are_equally_far_apart_are_as_far_however_many_they_are(n_conditions):
    """Points at the corners of a simplex: every pair of conditions has the MMD of the first two."""
    conditions = torch.arange(2 * n_conditions) % n_conditions
    corners = 3 * torch.eye(30).double()
    apart = 2 - 2 * math.exp(-18 / 2 / 5)
    assert pairwise_mmd(corners[conditions], conditions, 30, (5.0,)).item() == pytest.approx(apart, rel=1e-12)


def test_one_condition_alone_is_at_no_distance():
    values = normals(5, 3, grad=True)
    found = pairwise_mmd(values, torch.full((5,), 2), 4)
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-15)
    torch.testing.assert_close(values.grad, torch.zeros(5, 3).double(), rtol=0, atol=1e-15)


def test_gradients_of_the_mmd_agree_with_finite_differences():
    values = normals(7, 3, grad=True)
    conditions = torch.tensor([0, 1, 2, 2, 0, 1, 0])
    assert gradcheck(lambda v: pairwise_mmd(v, conditions, 4, (0.5, 2.0, 30.0)), (values,))
    squared = values.detach().square().sum(1).requires_grad_()
    assert gradgradcheck(lambda s: mean_of_gaussians(s, (0.5, 2.0, 30.0)), (squared,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_the_mmd_at_all_of_its_widths_with_equal_points(dtype):
    values = (normals(8, 5) + 100).to(dtype)
    values[5], values[2] = values[0], values[1]
    conditions = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    values.requires_grad_()
    pairwise_mmd(values, conditions, 3).backward()
    x, c = values.detach().double().numpy(), conditions.numpy()
    n, expected = np.bincount(c), np.zeros((8, 5))
    for i, j in itertools.product(range(8), repeat=2):
        weight = (3 * (c[i] == c[j]) - 1) / n[c[i]] / n[c[j]] / 3
        for width in TRVAE_WIDTHS:
            kernel = np.exp(-((x[i] - x[j]) ** 2).sum() / 2 / width) / len(TRVAE_WIDTHS)
            expected[i] -= 2 * weight * kernel * (x[i] - x[j]) / width
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12
    np.testing.assert_allclose(values.grad, expected, rtol=tolerance, atol=tolerance)


def test_gradients_of_the_mmd_are_finite_when_all_points_are_one():
    values = torch.ones(6, 4, requires_grad=True)
    found = pairwise_mmd(values, torch.arange(6) % 3, 3)
    found.backward()
    assert found == 0
    assert not values.grad.any()


# --- dHSIC


def dhsic_by_loops(kernels):
    """The V-statistic by its definition, with an index for every expectation."""
    d, n, _ = kernels.shape
    joint = np.mean([[np.prod(kernels[:, i, k]) for k in range(n)] for i in range(n)])
    apart = np.prod([kernels[j].mean() for j in range(d)])
    cells = itertools.product(range(n), repeat=d + 1)
    cross = np.mean([np.prod([kernels[j, i, k] for j, k in enumerate(ks)]) for i, *ks in cells])
    return joint + apart - 2 * cross


def test_dhsic_of_three_variables_agrees_with_its_definition():
    z = normals(5, 3)
    kernels = coordinate_kernels(z)
    assert kernels.shape == (3, 5, 5)
    assert dhsic(kernels).item() == pytest.approx(dhsic_by_loops(kernels.numpy()), rel=1e-12)


def test_dhsic_of_two_variables_is_the_trace_of_centred_kernels():
    kernels = torch.stack([gaussian_kernel(normals(20, 2)), gaussian_kernel(normals(20, 3, seed=1))])
    centre = np.eye(20) - 1 / 20
    expected = np.trace(kernels[0].numpy() @ centre @ kernels[1].numpy() @ centre) / 20**2
    assert dhsic(kernels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 10, 400])
def test_the_bandwidth_is_the_mean_distance_of_normals(d):
    x = normals(2, d, seed=d) + 1e3
    distance = (normals(20_000, d, seed=1) - normals(20_000, d, seed=2)).norm(dim=1)
    error = distance.std() / math.sqrt(20_000)
    found = torch.sqrt(-0.5 * (x[0] - x[1]).square().sum() / gaussian_kernel(x)[0, 1].log())
    assert abs(found - distance.mean()) < 4 * error
    torch.testing.assert_close(gaussian_kernel(x).diagonal(), torch.ones(2).double())


def test_dhsic_of_a_variable_with_itself_has_its_closed_form():
    x = normals(2000, 1)
    kernel = gaussian_kernel(x)
    g2 = 4 / math.pi  # g = 2Γ(1)/Γ(½)
    # E k² + (E k)² − 2 E[(E′ k)²] of a standard normal
    expected = (1 + 4 / g2) ** -0.5 + 1 / (1 + 2 / g2) - 2 * g2 / (1 + g2) * ((1 + g2) / (3 + g2)) ** 0.5
    assert dhsic(torch.stack([kernel, kernel])).item() == pytest.approx(expected, rel=0.05)  # measured .01


def test_dhsic_of_independent_variables_vanishes_as_one_over_n():
    biases = {}
    for n in (20, 80):
        values = [dhsic(coordinate_kernels(normals(n, 2, seed=seed))).item() for seed in range(200)]
        assert min(values) >= 0
        # (1 − E k)²/n to first order, E k = (1 + 2/g²)^(−½)
        expected = (1 - (1 + math.pi / 2) ** -0.5) ** 2 / n
        assert np.mean(values) == pytest.approx(expected, rel=0.25)
        biases[n] = np.mean(values)
    assert biases[20] / biases[80] == pytest.approx(4, rel=0.3)


def test_independent_coordinates_are_told_from_dependent_ones():
    z = normals(500, 4)
    eps = 1e-10
    independent = sqrt_dhsic(coordinate_kernels(z), eps)
    block = gaussian_kernel(z)
    # a block is as dependent on itself as it can be, whatever its coordinates: no measure of them
    assert independent < 0.05 < 0.13 < sqrt_dhsic(torch.stack([block, block]), eps)  # measured .031, .143
    mixed = torch.cat([z[:, :3], z[:, :1] + 0.3 * z[:, 3:]], 1)
    assert sqrt_dhsic(coordinate_kernels(mixed), eps) > 3 * independent  # measured .138


def test_dhsic_with_labels_is_a_weighted_mmd():
    z, labels = normals(12, 3), torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1])
    g = 2 * math.gamma(2) / math.gamma(1.5)
    p = 1 / 3
    expected = 2 * p**2 * (1 - p) ** 2 * mmd_by_loops(z[labels == 0], z[labels == 1], [g**2])
    assert dhsic(nuisance_kernels(z, labels)).item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(delta_kernel(labels), np.equal.outer(labels.numpy(), labels.numpy()))


def test_sqrt_dhsic_has_its_eps_inside():
    kernels = coordinate_kernels(normals(9, 2))
    assert sqrt_dhsic(kernels, 0.25).item() == pytest.approx(math.sqrt(dhsic(kernels).item() + 0.25), rel=1e-14)


def test_gradients_of_dhsic_agree_with_finite_differences():
    z, labels = normals(6, 3, grad=True), torch.tensor([0, 1, 1, 0, 2, 1])
    assert gradcheck(lambda z: sqrt_dhsic(coordinate_kernels(z), 1e-6), (z,))
    assert gradcheck(lambda z: sqrt_dhsic(nuisance_kernels(z, labels), 1e-6), (z,))


def test_codes_that_are_one_point_have_a_finite_gradient():
    z = torch.full((6, 3), 0.1, requires_grad=True)
    for kernels in (coordinate_kernels(z), nuisance_kernels(z, torch.arange(6) % 2)):
        found = sqrt_dhsic(kernels, 1e-6)
        found.backward()
        assert found.item() == pytest.approx(1e-3, rel=1e-2)
        assert z.grad.isfinite().all()


def test_kernels_do_not_depend_on_the_origin():
    z = normals(10, 3)
    near, far = gaussian_kernel(z.float()), gaussian_kernel((z + 300).float())
    torch.testing.assert_close(near, far, rtol=0, atol=1e-4)


# --- total correlation


def total_correlation_by_loops(z, mean, log_variance, n_cells):
    """Chen et al.'s minibatch stratified sampling, q averaged over which cell takes the odd weight."""
    n, d = z.shape
    std = np.exp(0.5 * log_variance)
    found = np.zeros(n)
    for i in range(n):
        density = stats.norm.pdf(z[i], mean, std)
        q, marginals = 0.0, np.zeros(d)
        for odd in set(range(n)) - {i}:
            weight = np.full(n, 1 / (n - 1))
            weight[i], weight[odd] = 1 / n_cells, (n_cells - (n - 1)) / n_cells / (n - 1)
            assert weight.sum() == pytest.approx(1)
            q += weight @ density.prod(1) / (n - 1)
            marginals += weight @ density / (n - 1)
        found[i] = np.log(q) - np.log(marginals).sum()
    return found


@pytest.mark.parametrize("n_cells", [6, 50, 100_000])
def test_total_correlation_agrees_with_loops(n_cells):
    mean, log_variance = normals(6, 3), normals(6, 3, seed=1)
    z = mean + torch.exp(0.5 * log_variance) * normals(6, 3, seed=2)
    expected = total_correlation_by_loops(z.numpy(), mean.numpy(), log_variance.numpy(), n_cells)
    np.testing.assert_allclose(total_correlation(z, mean, log_variance, n_cells), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("n_cells", [8, 1000])
def test_total_correlation_of_equal_posteriors_is_zero(n_cells):
    mean, log_variance = normals(1, 5).expand(8, -1), normals(1, 5, seed=1).expand(8, -1)
    z = mean + torch.exp(0.5 * log_variance) * normals(8, 5, seed=2)
    found = total_correlation(z, mean, log_variance, n_cells)
    torch.testing.assert_close(found, torch.zeros(8).double(), rtol=0, atol=1e-12)
    # the form that sums where ours averages, without constants, is −(d − 1) log n
    density = stats.norm.logpdf(z[:, None], mean, torch.exp(0.5 * log_variance))
    plain = logsumexp(density.sum(-1), axis=1) - logsumexp(density, axis=1).sum(-1)
    np.testing.assert_allclose(plain, -4 * math.log(8), rtol=1e-12)


def test_total_correlation_of_correlated_codes_has_its_closed_form():
    n, rho, variance = 1500, 0.6, 0.2
    # posterior means of covariance 1 − σ² and ρ, posterior variance σ²: together normals of correlation ρ
    mean = math.sqrt(1 - variance) * correlated(n, rho / (1 - variance))
    z = mean + math.sqrt(variance) * normals(n, 2, seed=1)
    found = total_correlation(z, mean, torch.full((n, 2), math.log(variance)).double(), n).mean().item()
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.05)  # .22; measured .24


def test_gradients_of_the_total_correlation_agree_with_finite_differences():
    arguments = [normals(5, 3, seed=seed, grad=True) for seed in range(3)]
    assert gradcheck(lambda *a: total_correlation(*a, n_cells=40), arguments)


def test_codes_are_permuted_each_dimension_by_itself():
    z = normals(500, 3)
    z[:, 1] = z[:, 0]
    kept = z.clone()
    torch.manual_seed(0)
    permuted = permute_codes(z)
    assert torch.equal(z, kept)
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    assert np.abs(np.corrcoef(permuted.numpy().T) - np.eye(3)).max() < 0.15


def test_all_permutations_are_equally_likely():
    z = torch.arange(3.0)[:, None].expand(-1, 6000)
    torch.manual_seed(0)
    orders = permute_codes(z).long()
    _, observed = torch.unique(orders, dim=1, return_counts=True)
    assert stats.chisquare(observed.numpy()).pvalue > 0.001
    assert len(observed) == 6


def test_discriminator_loss_is_the_cross_entropy_of_its_two_halves():
    joint, permuted = normals(5, grad=True), normals(5, seed=1, grad=True)
    d = torch.sigmoid(torch.cat([joint, permuted])).detach()
    expected = torch.nn.functional.binary_cross_entropy(d, torch.tensor([1.0] * 5 + [0.0] * 5).double())
    torch.testing.assert_close(discriminator_loss(joint, permuted), expected, rtol=1e-12, atol=1e-12)
    assert discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2), abs=1e-7)
    assert gradcheck(discriminator_loss, (joint, permuted))
    extreme = torch.tensor([-200.0], requires_grad=True)
    discriminator_loss(extreme, -extreme).backward()
    assert extreme.grad.isfinite().all()


# --- DIP


def whitened(n, d):
    """Codes whose covariance, divided by n, is the identity."""
    z = normals(n, d).numpy()
    z = z - z.mean(0)
    return torch.from_numpy(z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / n)).T + 3.0)


def test_dip_of_identity_covariance_is_zero():
    z = whitened(20, 4)
    assert dip(z, None, 10.0, 100.0).item() == pytest.approx(0, abs=1e-20)
    # σ² = ½ and means of variance ½ add up to it
    assert dip(z * math.sqrt(0.5), torch.full((20, 4), math.log(0.5)), 10.0, 100.0).item() == pytest.approx(
        0, abs=1e-10
    )


def test_dip_weighs_the_diagonal_and_the_rest():
    mean, log_variance = normals(9, 3), normals(9, 3, seed=1)
    covariance = np.cov(mean.numpy().T, bias=True)
    off = 2 * (covariance[0, 1] ** 2 + covariance[0, 2] ** 2 + covariance[1, 2] ** 2)
    first = sum((covariance[i, i] - 1) ** 2 for i in range(3))
    second = sum((covariance[i, i] + np.exp(log_variance.numpy()[:, i]).mean() - 1) ** 2 for i in range(3))
    assert dip(mean, None, 1.0, 0.0).item() == pytest.approx(off, rel=1e-12)
    assert dip(mean, None, 0.0, 1.0).item() == pytest.approx(first, rel=1e-12)
    assert dip(mean, log_variance, 2.0, 5.0).item() == pytest.approx(2 * off + 5 * second, rel=1e-12)


def test_gradients_of_dip_agree_with_finite_differences():
    mean, log_variance = normals(5, 3, grad=True), normals(5, 3, seed=1, grad=True)
    assert gradcheck(lambda m, v: dip(m, v, 2.0, 5.0), (mean, log_variance))
    assert gradcheck(lambda m: dip(m, None, 2.0, 5.0), (mean,))


# --- masks


def test_gumbel_sigmoid_draws_zeros_and_ones_with_the_probability_of_its_logit():
    logits = torch.tensor([-40.0, -2.0, 0.0, 1.0, 40.0])
    for temperature in (0.1, 1.0, 5.0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            draw = gumbel_sigmoid(logits.expand(20_000, -1), temperature)
        assert set(draw.unique().tolist()) == {0.0, 1.0}
        p = torch.sigmoid(logits)
        assert ((draw.mean(0) - p).abs() <= 4 * (p * (1 - p) / 20_000).sqrt()).all()


def test_gradient_of_gumbel_sigmoid_is_that_of_its_relaxation():
    logits, temperature = normals(50, grad=True), 0.7
    with torch.random.fork_rng():
        torch.manual_seed(3)
        draw = gumbel_sigmoid(logits, temperature)
    draw.sum().backward()
    uniform = torch.rand(50, generator=generator(3), dtype=torch.float64)
    noise = uniform.log() - (1 - uniform).log()
    relaxed = 1 / (1 + torch.exp(-(logits.detach() + noise) / temperature))
    torch.testing.assert_close(logits.grad, relaxed * (1 - relaxed) / temperature, rtol=1e-10, atol=1e-12)
    assert torch.equal(draw.detach(), (logits + noise > 0).double())


def test_log_beta_agrees_with_scipy():
    logits = normals(9) * 3
    q = 1 / (1 + np.exp(-logits.numpy()))
    for a, b in ((1.0, 100.0), (0.5, 3.0), (2.0, 1.0)):
        np.testing.assert_allclose(log_beta(logits, a, b), stats.beta.logpdf(q, a, b), rtol=1e-11)
    torch.testing.assert_close(log_beta(logits, 1.0, 1.0), torch.zeros(9).double())
    assert gradcheck(lambda x: log_beta(x, 1.0, 20.0), (normals(4, grad=True),))
    extreme = torch.tensor([-200.0, 200.0], requires_grad=True)
    found = log_beta(extreme, 1.0, 100.0)
    found.sum().backward()
    # −log Beta(q; 1, λ) = −log λ − (λ − 1) log(1 − q): a price of λ − 1 on the logit of a mask that is on
    torch.testing.assert_close(found, math.log(100) - torch.tensor([0.0, 99 * 200.0]))
    torch.testing.assert_close(extreme.grad, torch.tensor([0.0, -99.0]))


# --- BasisVAE


def assignments_kl(q, concentration):
    """KL(q(w) ‖ p(w)) by all K^n_genes assignments, with p(w) from the urn that π integrated out makes."""
    n, k = q.shape
    total = 0.0
    for w in itertools.product(range(k), repeat=n):
        probability = math.prod(q[j, w[j]] for j in range(n))
        urn, log_p = np.full(k, concentration), 0.0
        for cluster in w:
            log_p += math.log(urn[cluster] / urn.sum())
            urn[cluster] += 1
        if probability > 0:
            total += probability * (math.log(probability) - log_p)
    return total


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_kl_of_certain_assignments_is_exact(concentration):
    for w in ([0, 0, 0, 0], [0, 1, 2, 0], [2, 1, 2, 1]):
        one_hot = np.eye(3)[w]
        found = categorical_dirichlet_kl(torch.from_numpy(1000 * one_hot), concentration).item()
        assert found == pytest.approx(assignments_kl(one_hot, concentration), rel=1e-12)


def test_two_genes_in_two_clusters_integrate_over_their_share():
    # p(w) = ∫ π² dπ = 1/3 when both are in one cluster and ∫ π(1 − π) dπ = 1/6 when not
    together, apart = torch.tensor([[500.0, 0.0], [500.0, 0.0]]), torch.tensor([[500.0, 0.0], [0.0, 500.0]])
    assert categorical_dirichlet_kl(together, 1.0).item() == pytest.approx(math.log(3), abs=1e-6)
    assert categorical_dirichlet_kl(apart, 1.0).item() == pytest.approx(math.log(6), abs=1e-6)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_kl_of_uncertain_assignments_is_bounded_from_above(concentration):
    logits = 2 * normals(6, 3)
    q = torch.softmax(logits, -1).numpy()
    found, exact = categorical_dirichlet_kl(logits, concentration).item(), assignments_kl(q, concentration)
    assert found > exact
    # what the mean in place of n_k leaves out is ½ Σ_k Var(n_k) ψ′(α + E n_k) to second order
    mean, variance = q.sum(0), (q * (1 - q)).sum(0)
    correction = 0.5 * (variance * polygamma(1, concentration + mean)).sum()
    assert abs(found - correction - exact) < 0.5 * (found - exact)
    counts = mean + concentration
    formula = (q * np.log(q)).sum() - gammaln(3 * concentration) + gammaln(3 * concentration + 6)
    formula -= (gammaln(counts) - gammaln(concentration)).sum()
    assert found == pytest.approx(formula, rel=1e-12)


def test_a_large_concentration_is_a_uniform_prior():
    logits = normals(6, 3)
    q = torch.softmax(logits, -1)
    expected = (q * (q * 3).log()).sum()
    torch.testing.assert_close(categorical_dirichlet_kl(logits, 1e7), expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_the_assignments_agree_with_finite_differences():
    assert gradcheck(lambda x: categorical_dirichlet_kl(x, 0.7), (normals(5, 3, grad=True),))
    certain = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    categorical_dirichlet_kl(certain, 0.1).backward()
    assert certain.grad.isfinite().all()
