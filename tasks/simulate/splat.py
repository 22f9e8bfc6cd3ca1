"""The Splat model of single-cell counts (Zappia, Phipson, Oshlack 2017, Genome Biology 18:174), as pure functions.

base mean of gene i        λ_i ~ Gamma(.6, rate .3); with probability .05 an outlier: median(λ) · LogNormal(4, .5)
library of cell j          L_j ~ LogNormal(11, .2)
DE factor of a group       with probability .1: LogNormal(.1, .4), taken above 1, or below 1 with probability .5; else 1
mean of gene i in cell j   μ_ij = L_j · λ_i f_ig / Σ_i λ_i f_ig, g the cell's group
BCV                        B_ij = (.1 + 1/√μ_ij) · √(60 / χ²_i), χ²_i ~ χ²₆₀ drawn once a gene, as in the R package
count                      Poisson(Gamma(mean μ_ij, coefficient of variation B_ij))

The gamma-Poisson mixture is negative binomial, so the likelihood of counts is known in closed form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def gene_means(rng: np.random.Generator, n_genes: int, outlier_probability: float = 0.05) -> Floats:
    """Return base means (n_genes,): Gamma, some replaced by outliers, median · LogNormal."""
    means = rng.gamma(0.6, 1 / 0.3, n_genes)
    outlier = rng.random(n_genes) < outlier_probability
    factors = rng.lognormal(4.0, 0.5, n_genes)
    return np.where(outlier, np.median(means) * factors, means)


def library_sizes(rng: np.random.Generator, n_cells: int, location: float = 11.0, scale: float = 0.2) -> Floats:
    """Return expected total counts (n_cells,), LogNormal(location, scale)."""
    return rng.lognormal(location, scale, n_cells)


def de_factors(
    rng: np.random.Generator,
    n_groups: int,
    n_genes: int,
    probability: float = 0.1,
    down: float = 0.5,
    location: float = 0.1,
    scale: float = 0.4,
) -> Floats:
    """Return the factors (n_groups, n_genes) on the base means: exp(± |N(location, scale)|) where DE, else 1."""
    size = np.abs(rng.normal(location, scale, (n_groups, n_genes)))
    sign = np.where(rng.random((n_groups, n_genes)) < down, -1.0, 1.0)
    return np.where(rng.random((n_groups, n_genes)) < probability, np.exp(sign * size), 1.0)


def cell_means(base: Floats, factors: Floats, groups: NDArray[np.int64], library: Floats) -> Floats:
    """Return expected counts (n_cells, n_genes) of cells of ``groups`` (n_cells,); each row sums to its library."""
    profiles = base * factors
    profiles /= profiles.sum(axis=1, keepdims=True)
    return profiles[groups] * library[:, None]


def bcv_inflation(rng: np.random.Generator, n_genes: int) -> Floats:
    """Return √(60 / χ²₆₀) of each gene, (n_genes,)."""
    return np.sqrt(60.0 / rng.chisquare(60.0, n_genes))


def bcv(means: Floats, inflation: Floats) -> Floats:
    """Return the biological coefficient of variation (n_cells, n_genes), (.1 + 1/√mean) · inflation."""
    return (0.1 + 1 / np.sqrt(means)) * inflation


def gamma_poisson(rng: np.random.Generator, means: Floats, variation: Floats) -> Floats:
    """Return counts (n_cells, n_genes) with mean μ and variance μ + (μ B)², B being ``variation``."""
    shape = 1 / variation**2
    return rng.poisson(rng.gamma(shape, means / shape)).astype(np.float64)


def log_likelihood(counts: Floats, means: Floats, variation: Floats) -> Floats:
    """Return log p(counts | means, BCV) of each cell, (n_cells,): negative binomial, summed over genes.

    With r = 1/B²: Γ(x + r) / (Γ(r) x!) · (r / (r + μ))^r · (μ / (r + μ))^x.
    """
    from scipy.special import gammaln, xlogy

    r = 1 / variation**2
    terms = gammaln(counts + r) - gammaln(r) - gammaln(counts + 1)
    terms += xlogy(counts, means / (r + means)) - r * np.log1p(means / r)
    return np.asarray(terms.sum(axis=1))
