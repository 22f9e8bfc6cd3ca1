"""What the variational autoencoders share: likelihood by importance weights, likelihood kinds, presets of data sets."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.stats import multivariate_normal

from methods import METHODS, CannotFit
from methods.errors import ConfigError
from methods.vaes import VAE

SMALL = {"n_latent": 3, "hidden": (16,), "steps": 16}


class Posterior(torch.nn.Module):
    """The exact posterior of x = W z + noise for W with orthogonal columns: diagonal."""

    def __init__(self, weight, variance, off=0.0):
        super().__init__()
        self.weight, self.variance, self.off = weight, variance, off

    def forward(self, x):
        precision = 1 + self.weight.square().sum(0) / self.variance
        mean = (x @ self.weight) / self.variance / precision
        return mean + self.off, (-precision.log()).expand_as(mean)


@pytest.fixture
def linear_gaussian(structured):
    """A VAE whose network is a linear Gaussian model, with the covariance of X that it implies."""
    vae = VAE(VAE.configure(**SMALL)).fit(structured, 0)
    rng = np.random.default_rng(0)
    weight = np.linalg.qr(rng.standard_normal((30, 3)))[0] * [1.5, 0.7, 0.4]
    variance = 0.3
    observed = vae.network["observation"]
    scale, mean = float(observed.scaler.std), observed.scaler.mean.numpy()
    decoder = torch.nn.Linear(3, 30, bias=False)
    with torch.no_grad():
        decoder.weight.copy_(torch.from_numpy(weight))
        observed.likelihood.log_variance.fill_(np.log(variance))
    vae.network["decoder"] = decoder
    vae.network["encoder"] = Posterior(torch.from_numpy(weight).float(), variance)
    covariance = scale**2 * (weight @ weight.T + variance * np.eye(30))
    return vae, multivariate_normal(mean, covariance)


def test_with_the_exact_posterior_one_sample_gives_the_likelihood_of_x(linear_gaussian, structured):
    vae, truth = linear_gaussian
    expected = truth.logpdf(structured.X)
    for n_samples in (1, 7):
        np.testing.assert_allclose(vae.log_likelihood(structured, n_samples), expected, rtol=1e-4, atol=1e-3)


def test_with_a_wrong_posterior_it_is_a_lower_bound_that_rises_with_the_samples(linear_gaussian, structured):
    vae, truth = linear_gaussian
    expected = truth.logpdf(structured.X)
    vae.network["encoder"].off = 0.5
    means = [vae.log_likelihood(structured, n).mean() for n in (1, 10, 1000)]
    assert means[0] < means[1] < means[2] <= expected.mean() + 0.02
    assert means[2] > expected.mean() - 0.1
    np.testing.assert_array_equal(vae.log_likelihood(structured, 3), vae.log_likelihood(structured, 3))


@pytest.mark.parametrize("name", [name for name in METHODS if "log_likelihood" in METHODS[name].abilities()])
def test_likelihood_is_finite_one_number_a_cell_and_leaves_random_state_alone(name, structured):
    keys = set(METHODS[name].Config.__dataclass_fields__)
    fitted = METHODS[name](METHODS[name].configure(**{k: v for k, v in SMALL.items() if k in keys})).fit(structured, 0)
    before = torch.get_rng_state()
    values = fitted.log_likelihood(structured, 5)
    assert values.shape == (structured.n_obs,)
    assert np.isfinite(values).all()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", [name for name in METHODS if "warmup" in METHODS[name].Config.__dataclass_fields__])
def test_a_weight_rises_to_the_whole_within_its_share_of_the_steps(name):
    method = METHODS[name](METHODS[name].configure(warmup=0.4))
    method.groups = ["a", "b"]  # what the minibatches of multiGroupVI depend on
    method.environments = ["a"]  # what the steps of sparse shifts depend on
    assert method.schedule().warmup == 0.4
    assert [method.risen(progress) for progress in (0.1, 0.4, 0.41, 1.0)] == [pytest.approx(0.25), 1.0, 1.0, 1.0]
    assert METHODS[name](METHODS[name].configure(warmup=0.0)).risen(0.01) == 1.0
    with pytest.raises(ConfigError, match=r"warmup=1\.0: must be .*below 1"):
        METHODS[name].configure(warmup=1.0)


def test_a_minibatch_of_one_cell_needs_a_network_without_batch_norm(structured):
    with pytest.raises(ConfigError, match=r"vae\.minibatch=1: must be 2 or above with norm='batch'"):
        VAE.configure(**SMALL, minibatch=1)
    method = VAE(VAE.configure(**SMALL, minibatch=1, norm="layer")).fit(structured[:30].copy(), 0)
    assert np.isfinite(method.embed(structured)).all()
    # 21 cells in twos leave no single one
    assert np.isfinite(VAE(VAE.configure(**SMALL, minibatch=2)).fit(structured[:21].copy(), 0).embed(structured)).all()


@pytest.mark.parametrize("seed", range(20))
def test_an_environment_of_one_cell_is_trained_on(seed, structured, monkeypatch):
    """At 956005a three of twenty seeds had it in the validation split, so that the method never saw it."""
    data = structured.copy()
    data.obs["condition"] = np.where(np.arange(data.n_obs) == 17, "rare", data.obs["condition"].to_numpy(str))
    seen = set()
    terms = METHODS["cvae"].loss_terms

    def watched(self, network, minibatch, progress):
        if network.training:
            seen.update(minibatch["environment"].argmax(1).tolist())
        return terms(self, network, minibatch, progress)

    monkeypatch.setattr(METHODS["cvae"], "loss_terms", watched)
    METHODS["cvae"](METHODS["cvae"].configure(**{**SMALL, "steps": 8})).fit(data, seed)
    assert seen == {0, 1, 2}


def test_a_preset_of_a_data_set_is_laid_over_the_preset():
    trvae = METHODS["trvae"]
    assert trvae.configure("paper").n_latent == 20
    assert trvae.configure("paper", "haber-infection").n_latent == 60
    assert trvae.configure("paper", "kang") == trvae.configure("paper")
    assert trvae.configure("default", "haber-infection") == trvae.configure()
    assert trvae.configure("paper", "haber-infection", n_latent=7).n_latent == 7


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ("negative-binomial", "needs counts, and these data have none; set likelihood=gaussian"),
        ("bernoulli", r"needs X in \[0, 1\]; it goes from"),
    ],
)
def test_a_likelihood_that_does_not_fit_the_data_is_refused(likelihood, message, structured):
    with pytest.raises(CannotFit, match=message):
        VAE(VAE.configure(**SMALL, likelihood=likelihood)).fit(structured, 0)


@pytest.mark.parametrize("factor", [-1.0, 0.5])
def test_what_are_no_counts_are_refused(factor, structured):
    data = structured.copy()
    data.layers["counts"] = np.round(np.expm1(np.abs(data.X))) * np.float32(factor)
    with pytest.raises(CannotFit, match="negative or fractional"):
        VAE(VAE.configure(**SMALL, likelihood="negative-binomial")).fit(data, 0)


def test_counts_that_are_not_those_of_x_are_refused(structured):
    data = structured.copy()
    data.layers["counts"] = np.random.default_rng(0).poisson(3.0, data.shape).astype(np.float32)
    with pytest.raises(CannotFit, match="X is not log1p of counts"):
        VAE(VAE.configure(**SMALL, likelihood="negative-binomial")).fit(data, 0)


def test_auto_takes_counts_where_they_are(structured):
    data = structured.copy()
    counts = np.random.default_rng(0).poisson(3.0, data.shape).astype(np.float32)
    data.X, data.layers["counts"] = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4), counts
    assert VAE(VAE.configure(**SMALL, likelihood="auto")).fit(structured, 0).likelihood == "gaussian"
    vae = VAE(VAE.configure(**SMALL, likelihood="auto")).fit(data, 0)
    assert vae.likelihood == "negative-binomial"


@pytest.mark.parametrize("likelihood", ["gaussian", "negative-binomial"])
def test_sparse_expression_is_dense_expression(labelled, likelihood):
    counts = np.random.default_rng(0).poisson(0.5, (60, 12)).astype(np.float32)
    counts[:, 0] += 1
    dense = labelled(np.log1p(counts / counts.sum(1, keepdims=True) * 1e4), ["a", "control"] * 30)
    dense.layers["counts"] = counts
    sparse = dense.copy()
    sparse.X, sparse.layers["counts"] = csr_matrix(dense.X), csr_matrix(counts)
    config = METHODS["vae"].configure(n_latent=3, hidden=(8,), steps=32, likelihood=likelihood)
    of_dense, of_sparse = (METHODS["vae"](config).fit(data, 0) for data in (dense, sparse))
    np.testing.assert_allclose(of_sparse.embed(sparse), of_dense.embed(dense), atol=1e-4)
    np.testing.assert_allclose(of_sparse.embed(dense), of_dense.embed(dense), atol=1e-4)
    for term, curve in of_dense.history.items():
        np.testing.assert_allclose(of_sparse.history[term], curve, rtol=1e-4)


def test_many_cells_are_embedded_in_blocks(labelled, monkeypatch):
    data = labelled(np.random.default_rng(0).normal(size=(50, 6)), ["a", "control"] * 25)
    method = METHODS["vae"](METHODS["vae"].configure(n_latent=2, hidden=(8,), steps=16)).fit(data, 0)
    whole = method.embed(data)
    monkeypatch.setattr("methods.neural.BLOCK", 16)
    np.testing.assert_allclose(method.embed(data), whole, atol=1e-6)
