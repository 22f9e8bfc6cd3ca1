"""Counts that independent factors make through sparse gene programs; a simulator of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated, log1p_cp10k
from tasks.simulate.inversion import most_likely

if TYPE_CHECKING:
    from anndata import AnnData

FACTORS = ("binary", "ternary", "uniform0", "uniform1", "normal", "skewed")


def draw_factors(rng: np.random.Generator, n_cells: int) -> np.ndarray:
    """Return independent factors (n_cells, 6), in the order of ``FACTORS``, each with mean 0 and variance 1.

    Two levels; three levels; two uniform ones; a normal one; an exponential one.
    """
    return np.column_stack(
        [
            rng.choice([-1.0, 1.0], n_cells),
            rng.choice([-1.0, 0.0, 1.0], n_cells) * np.sqrt(1.5),
            rng.uniform(-np.sqrt(3), np.sqrt(3), n_cells),
            rng.uniform(-np.sqrt(3), np.sqrt(3), n_cells),
            rng.standard_normal(n_cells),
            rng.exponential(1.0, n_cells) - 1.0,
        ]
    )


def simulate(
    rng: np.random.Generator,
    n_cells: int = 1000,
    n_genes: int = 300,
    density: float = 0.15,
    effect: float = 0.2,
    interaction: float = 4.0,
) -> AnnData:
    """Simulate negative binomial counts with log mean = base + f W + interaction · tanh(f R) V.

    W is sparse: each factor's program is a random share of the genes, so that programs overlap and no gene stands
    for a factor. f R are six random unit combinations of the factors, and V is as sparse as W: what is not linear.

    Parameters
    ----------
    rng
        Source of all randomness.
    n_cells, n_genes
        Sizes.
    density
        Share of the genes in a program.
    effect
        Standard deviation of the log-mean effects in W and V.
    interaction
        How much of the response is nonlinear in the factors and common to several; at 0 log means are linear in them.

    Returns
    -------
    AnnData
        ``layers["counts"]``, ``X`` their log1p(CP10k); ``obsm["factors"]`` (n_cells, 6) in the order of
        ``uns["factor_names"]``; ``uns["structure"]``: what makes log means of them, for :func:`factors_of`. The
        environment is one for all.
    """
    import pandas as pd
    from anndata import AnnData

    factors = draw_factors(rng, n_cells)
    shape = (len(FACTORS), n_genes)
    programs = rng.normal(0.0, effect, shape) * (rng.random(shape) < density)
    nonlinear = rng.normal(0.0, effect, shape) * (rng.random(shape) < density)
    mixing = rng.standard_normal((len(FACTORS), len(FACTORS)))
    mixing /= np.linalg.norm(mixing, axis=0)
    base = rng.normal(0.0, 1.0, n_genes)
    structure = {"base": base, "programs": programs, "mixing": mixing, "nonlinear": interaction * nonlinear}
    rate = np.exp(log_means(factors, structure))
    rate *= rng.lognormal(np.log(4000.0), 0.3, (n_cells, 1)) / rate.sum(axis=1, keepdims=True)
    dispersion = rng.gamma(4.0, 0.5, n_genes)
    counts = rng.poisson(rate * rng.gamma(dispersion, 1 / dispersion, rate.shape)).astype(np.float32)

    obs = pd.DataFrame({"environment": np.repeat("all", n_cells)}, index=[f"cell{i}" for i in range(n_cells)])
    data = AnnData(
        log1p_cp10k(counts), obs=obs, layers={"counts": counts}, obsm={"factors": factors.astype(np.float32)}
    )
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns.update(factor_names=np.array(FACTORS), structure=structure, X_units="log1p of counts per 10,000")
    return data


def log_means(factors: np.ndarray, structure: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return log mean expression but for the library, (n_cells, n_genes), of factors (n_cells, 6)."""
    bent = np.tanh(factors @ structure["mixing"]) @ structure["nonlinear"]
    return structure["base"] + factors @ structure["programs"] + bent


def factors_of(counts: np.ndarray, structure: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the factors that explain counts (n_cells, n_genes) best by the true programs, (n_cells, 6)."""

    def decoder(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = 1 - np.tanh(factors @ structure["mixing"]) ** 2
        bent = (structure["mixing"] * slope[:, None, :]) @ structure["nonlinear"]
        return log_means(factors, structure), structure["programs"] + bent

    start = np.zeros((len(counts), len(FACTORS)))
    return most_likely(counts, decoder, start, variance=1.0)


FACTOR_EXPRESSION = Simulated(
    name="factor-expression",
    summary="counts from six independent factors, two discrete, through sparse overlapping gene programs",
    paper="this suite",
    fields=Fields(environment="environment", content=""),
    simulate=simulate,
    sizes={"smoke": {"n_cells": 500, "n_genes": 150}, "paper": {"n_cells": 10_000, "n_genes": 1000}},
)
