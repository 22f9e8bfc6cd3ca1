"""From expression to a network's input and back, for each kind of data."""

import numpy as np
import pytest
import torch
from scipy.special import digamma
from scipy.stats import nbinom

from methods.nn import LIKELIHOODS
from methods.nn.observation import Counts, Greys, Scaled, observation


def test_every_likelihood_has_its_observation():
    kinds = [type(observation(name, 4)) for name in LIKELIHOODS]
    assert kinds == [Scaled, Scaled, Scaled, Counts, Counts, Greys]
    assert [observation(name, 4).outputs_per_gene for name in LIKELIHOODS] == [1, 1, 1, 1, 2, 1]


def counted(labelled, n_cells=40, n_genes=12, kept=12, target=1e4):
    """Counts of ``n_genes``, of which the first ``kept`` are there, with X normalised over all of them."""
    counts = np.random.default_rng(0).poisson(2.0, (n_cells, n_genes)).astype(np.float32)
    data = labelled(np.log1p(counts / counts.sum(1, keepdims=True) * target)[:, :kept], ["control"] * n_cells)
    data.layers["counts"] = counts[:, :kept]
    return data, counts.sum(1) / target


@pytest.mark.parametrize(("kept", "target"), [(12, 1e4), (5, 1e4), (12, 1e6)])
def test_the_constant_of_a_cell_is_read_off_whatever_genes_are_kept(labelled, kept, target):
    data, constant = counted(labelled, kept=kept, target=target)
    observed = observation("negative-binomial", kept)
    observed.calibrate(data)
    tensors = observed.tensors(data)
    np.testing.assert_allclose(tensors["constant"], constant, rtol=1e-4)
    np.testing.assert_array_equal(tensors["library"], data.layers["counts"].sum(1))
    np.testing.assert_allclose(observed.network_input(tensors), np.log1p(data.layers["counts"]), rtol=1e-6)
    assert float(observed.constant) == pytest.approx(np.median(constant), rel=0.05)


def expected_log1p(mean, theta, constant, zero=0.0):
    """Σ_k p(k) log1p(k / c), by summing until nothing is left."""
    k = np.arange(0, int(mean + 60 * np.sqrt(mean + mean**2 / theta)) + 200)
    return (1 - zero) * float((nbinom.pmf(k, theta, theta / (theta + mean)) * np.log1p(k / constant)).sum())


@pytest.mark.parametrize("name", ["negative-binomial", "zero-inflated-negative-binomial"])
@pytest.mark.parametrize(("library", "theta", "constant"), [(20.0, 0.3, 0.1), (200.0, 2.0, 0.02), (5e3, 50.0, 0.5)])
def test_expected_x_is_the_mean_of_the_logarithm(name, library, theta, constant):
    share = np.array([0.001, 0.01, 0.1, 0.3, 0.589])
    observed = observation(name, 5).double()
    with torch.no_grad():
        observed.likelihood.log_theta.fill_(np.log(theta))
    logits, zero = np.log(share), np.zeros(5)
    if observed.outputs_per_gene == 2:
        zero = np.array([0.0, 0.1, 0.5, 0.9, 0.3])
        logits = np.concatenate([logits, np.log(np.maximum(zero, 1e-12) / (1 - zero))])
    cell = {"library": torch.tensor([library]).double(), "constant": torch.tensor([constant]).double()}
    found = observed.expression(torch.from_numpy(logits)[None] - observed.offset, cell)[0].detach().numpy()
    expected = [expected_log1p(library * s, theta, constant, z) for s, z in zip(share, zero, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # and the logarithm of the mean is another thing, the more so for small counts
    assert (np.log1p((1 - zero) * library * share / constant) > expected).all()


@pytest.mark.parametrize("mean", [4e2, 4e4, 4e6])
def test_expected_x_of_large_counts_keeps_its_digits_in_single_precision(mean):
    theta = 5.0
    observed = observation("negative-binomial", 1)
    with torch.no_grad():
        observed.likelihood.log_theta.fill_(np.log(theta))
    cell = {"library": torch.tensor([mean]), "constant": torch.tensor([1.0])}
    found = float(observed.expression(torch.zeros(1, 1), cell).detach())
    # of a large mean the count is a gamma variable, whose mean logarithm is known: 15.098 at 4 million
    expected = np.log(mean) + digamma(theta) - np.log(theta)
    assert found == pytest.approx(expected, rel=2e-3 if mean < 1e3 else 1e-4)


def test_a_cell_without_counts_has_finite_everything(labelled):
    data, _ = counted(labelled)
    data.layers["counts"][0], data.X[0] = 0, 0
    observed = observation("negative-binomial", 12)
    observed.calibrate(data)
    tensors = observed.tensors(data)
    output = torch.zeros(data.n_obs, 12, requires_grad=True)
    observed.log_prob(tensors, output).sum().backward()
    assert torch.isfinite(output.grad).all()
    assert torch.isfinite(observed.expression(output, tensors)).all()


def test_greys_are_probabilities(labelled):
    data = labelled(np.random.default_rng(0).random((10, 4)), ["control"] * 10)
    observed = observation("bernoulli", 4)
    observed.calibrate(data)
    np.testing.assert_array_equal(observed.tensors(data)["x"], data.X)
    # an output of 0 is the mean of the training data
    np.testing.assert_allclose(observed.expression(torch.zeros(2, 4))[1], data.X.mean(0), rtol=1e-5)
    with torch.no_grad():
        expected = -torch.nn.functional.binary_cross_entropy(
            torch.from_numpy(data.X.mean(0)).expand(10, 4), torch.from_numpy(data.X), reduction="none"
        ).sum(1)
    np.testing.assert_allclose(observed.log_prob(observed.tensors(data), torch.zeros(10, 4)), expected, rtol=1e-5)


def test_counts_start_at_the_shares_and_dispersions_of_the_data(labelled):
    rng = np.random.default_rng(0)
    mean, theta = np.array([2.0, 20.0, 200.0]), np.array([0.5, 5.0, 50.0])
    counts = rng.negative_binomial(theta, theta / (theta + mean), (20000, 3)).astype(np.float32)
    rest = 1e4 - counts.sum(1, keepdims=True)  # a gene that makes all libraries equal
    counts = np.hstack([counts, rest]).astype(np.float32)
    data = labelled(np.log1p(counts), ["control"] * len(counts))
    data.layers["counts"] = counts
    observed = observation("negative-binomial", 4)
    observed.calibrate(data)
    np.testing.assert_allclose(observed.offset.exp()[:3] * 1e4, mean, rtol=0.05)
    np.testing.assert_allclose(observed.likelihood.log_theta.detach().exp()[:3], theta, rtol=0.15)


def test_scaled_expression_goes_back_to_the_scale_of_x(labelled):
    data = labelled(np.random.default_rng(0).normal(5, 3, (20, 4)), ["control"] * 20)
    observed = observation("gaussian", 4)
    observed.calibrate(data)
    np.testing.assert_allclose(observed.expression(observed.tensors(data)["x"]), data.X, rtol=1e-5)
    assert float(observed.log_volume()) == pytest.approx(-4 * np.log(float(observed.scaler.std)), rel=1e-5)
