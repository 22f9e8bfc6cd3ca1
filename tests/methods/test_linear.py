"""PCA, FastICA and random projection against independent implementations."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as SklearnPCA

from methods import METHODS, CannotFit


def fitted(name, data, seed=0, **config):
    cls = METHODS[name]
    return cls(cls.configure(**config)).fit(data, seed)


@pytest.mark.parametrize("n_latent", [1, 3, 10])
def test_pca_reconstructs_as_the_truncated_svd(structured, n_latent):
    x = np.asarray(structured.X, dtype=float)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    pca = fitted("pca", structured, n_latent=n_latent)
    codes = pca.embed(structured)
    np.testing.assert_allclose(codes.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(codes.var(axis=0) * len(x), s[:n_latent] ** 2, rtol=1e-3)
    # no linear code leaves less than the discarded singular values
    left = np.square(pca.decode(codes) - x).sum()
    assert left == pytest.approx(np.square(s[n_latent:]).sum(), rel=1e-4)
    # the directions themselves, where the singular values are apart (beyond three is noise)
    shown = min(n_latent, 3)
    np.testing.assert_allclose(np.abs(codes[:, :shown]), np.abs(u[:, :shown] * s[:shown]), atol=5e-3)


def test_pca_embeds_new_cells_as_scikit_learn(structured, labelled):
    new = labelled(np.random.default_rng(1).normal(5, 2, (20, 30)), ["control"] * 20)
    reference = SklearnPCA(5, random_state=0).fit(structured.X)
    np.testing.assert_allclose(
        fitted("pca", structured, n_latent=5).embed(new), reference.transform(new.X), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["pca", "fastica"])
def test_no_more_codes_than_cells_or_genes(name, structured):
    few = structured[:6].copy()
    narrow = structured[:, :4].copy()
    assert fitted(name, few, n_latent=20).embed(few).shape[1] <= 6
    assert fitted(name, narrow, n_latent=20).embed(narrow).shape == (300, 4)


@pytest.fixture(scope="module")
def mixed(labelled):
    """Four independent sources (uniform and Laplace), mixed linearly into 12 genes."""
    rng = np.random.default_rng(0)
    sources = np.column_stack([rng.uniform(-1, 1, (4000, 2)), rng.laplace(size=(4000, 2))])
    mixing = rng.standard_normal((4, 12))
    return labelled(5 + sources @ mixing + 0.01 * rng.standard_normal((4000, 12)), ["control"] * 4000), sources


@pytest.mark.parametrize("seed", [0, 1])
def test_fastica_recovers_independent_sources_and_pca_does_not(mixed, seed):
    data, sources = mixed

    def worst_match(codes):
        return np.abs(np.corrcoef(sources.T, codes.T)[:4, 4:]).max(axis=1).min()

    ica = fitted("fastica", data, seed, n_latent=4)
    assert not ica.unconverged
    assert worst_match(ica.embed(data)) > 0.98
    assert worst_match(fitted("pca", data, n_latent=4).embed(data)) < 0.95


def test_fastica_codes_are_white_and_reconstruct_as_pca(mixed):
    data, _ = mixed
    ica = fitted("fastica", data, n_latent=4)
    codes = ica.embed(data)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(4), atol=2e-3)
    np.testing.assert_allclose(codes.mean(axis=0), 0.0, atol=1e-3)
    pca = fitted("pca", data, n_latent=4)
    np.testing.assert_allclose(ica.decode(codes), pca.decode(pca.embed(data)), atol=1e-3)


def test_fastica_that_reaches_its_limit_is_marked_and_works(structured):
    ica = fitted("fastica", structured, n_latent=8, max_iter=1)
    assert ica.unconverged == "FastICA reached max_iter=1"
    assert np.isfinite(ica.embed(structured)).all()
    assert fitted("fastica", structured, n_latent=2, max_iter=1000, tolerance=0.1).unconverged == ""


def test_fastica_takes_no_more_codes_than_the_cells_span_dimensions(labelled):
    rng = np.random.default_rng(0)
    x = rng.gamma(2, 1, (200, 3)) @ rng.standard_normal((3, 20))
    x[:, 15:] = 3.3
    data = labelled(x, ["control"] * 200)
    ica = fitted("fastica", data, n_latent=10)
    codes = ica.embed(data)
    assert codes.shape == (200, 3)
    np.testing.assert_allclose(codes.std(axis=0), 1.0, atol=0.01)
    np.testing.assert_allclose(ica.decode(codes), data.X, atol=1e-3)
    # three cells span two
    assert fitted("fastica", data[:3].copy(), n_latent=10).embed(data).shape == (200, 2)


@pytest.mark.parametrize("value", [0.0, 3.3])
def test_fastica_refuses_cells_that_are_all_alike(labelled, value):
    with pytest.raises(CannotFit, match="all of the 30 are alike"):
        fitted("fastica", labelled(np.full((30, 8), value), ["control"] * 30))


def test_random_projection_keeps_squared_distances_in_expectation(structured):
    x = np.asarray(structured.X)
    codes = fitted("random-projection", structured, n_latent=2000).embed(structured)
    pairs = np.random.default_rng(0).integers(0, 300, (200, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]

    def squared(values):
        return np.square(values[pairs[:, 0]] - values[pairs[:, 1]]).sum(axis=1)

    # a ratio is χ²_2000 / 2000: standard deviation .03
    ratio = squared(codes) / squared(x)
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)
    assert ratio.min() > 0.8
    assert ratio.max() < 1.2


def test_random_projection_does_not_learn(structured):
    other = structured[:50].copy()
    other.X = np.random.default_rng(0).standard_normal(other.shape).astype(np.float32)
    np.testing.assert_array_equal(
        fitted("random-projection", structured, 3).embed(structured),
        fitted("random-projection", other, 3).embed(structured),
    )
