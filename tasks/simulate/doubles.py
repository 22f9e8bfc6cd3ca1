"""Single and double perturbations that add up in latent programs and saturate in expression; a simulator of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated, log1p_cp10k

if TYPE_CHECKING:
    from anndata import AnnData

CONTROL = "control"
N_PROGRAMS = 5
N_TARGETS = 3
#: Where a saturating program ends; it is twice as steep as a linear one at its middle.
CEILING = 2.0


def simulate(
    rng: np.random.Generator,
    n_singles: int = 10,
    n_doubles: int = 6,
    n_cells: int = 80,
    n_genes: int = 300,
    interaction: float = 1.0,
    n_truth: int = 2000,
) -> AnnData:
    """Simulate control cells, single perturbations, and doubles whose latent shifts are the sum of their singles'.

    z ~ N(Σ shifts, I) of 5 programs; a single shifts three of them by ±N(2, .4). Counts are negative binomial
    with log mean = base + h(z) W, h(z) = (1 − interaction) · z + interaction · 2 tanh(z): two perturbations
    that push one program the same way give less than their sum. The library is log-normal about 2,000.

    Parameters
    ----------
    rng
        Source of all randomness.
    n_singles, n_doubles, n_cells, n_genes
        Sizes; ``n_cells`` is per perturbation, and twice that in control. Doubles are spread evenly over all pairs, the
        same ones in every draw.
    interaction
        How much programs saturate. At 0 the log mean of a double is the sum of its singles', so that adding
        shifts of expression is optimal up to noise and normalisation; at 1 a model with a curved decoder can win.
    n_truth
        Fresh cells per perturbation whose mean expression is taken as the noiseless truth.

    Returns
    -------
    AnnData
        ``layers["counts"]``, ``X`` their log1p(CP10k), ``obsm["factors"]`` z; doubles are named "A+B";
        ``uns["truth"]`` maps each perturbation to the noiseless mean of X (n_genes,); ``uns["shifts"]`` (n_singles, 5).
    """
    import pandas as pd
    from anndata import AnnData

    base = rng.normal(-0.5, 1.2, n_genes)
    loadings = rng.normal(0.0, 0.25, (N_PROGRAMS, n_genes)) * (rng.random((N_PROGRAMS, n_genes)) < 0.4)
    dispersion = rng.gamma(4.0, 0.5, n_genes)
    shifts = np.zeros((n_singles, N_PROGRAMS))
    for shift in shifts:
        targets = rng.choice(N_PROGRAMS, N_TARGETS, replace=False)
        shift[targets] = rng.choice([-1.0, 1.0], N_TARGETS) * rng.normal(2.0, 0.4, N_TARGETS)
    first, second = np.triu_indices(n_singles, 1)
    pairs = np.linspace(0, len(first) - 1, n_doubles).round().astype(int)  # the same in every draw

    singles = [f"g{i}" for i in range(n_singles)]
    shift_of = {CONTROL: np.zeros(N_PROGRAMS), **dict(zip(singles, shifts, strict=True))}
    for i, j in zip(first[pairs], second[pairs], strict=True):
        shift_of[f"{singles[i]}+{singles[j]}"] = shifts[i] + shifts[j]

    def cells(shift: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        z = shift + rng.standard_normal((n, N_PROGRAMS))
        response = (1 - interaction) * z + interaction * CEILING * np.tanh(z)
        mean = np.exp(base + response @ loadings)
        mean *= rng.lognormal(np.log(2000.0), 0.3, (n, 1)) / mean.sum(axis=1, keepdims=True)
        return z, rng.poisson(mean * rng.gamma(dispersion, 1 / dispersion, mean.shape)).astype(np.float32)

    sizes = {name: n_cells * (2 if name == CONTROL else 1) for name in shift_of}
    z, counts = (
        np.vstack(parts) for parts in zip(*(cells(shift_of[name], n) for name, n in sizes.items()), strict=True)
    )
    truth = {name: log1p_cp10k(cells(shift, n_truth)[1]).mean(axis=0) for name, shift in shift_of.items()}
    obs = pd.DataFrame(
        {"perturbation": np.repeat(list(sizes), list(sizes.values()))}, index=[f"cell{i}" for i in range(len(z))]
    )
    data = AnnData(log1p_cp10k(counts), obs=obs, layers={"counts": counts}, obsm={"factors": z.astype(np.float32)})
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns.update(truth=truth, shifts=shifts, X_units="log1p of counts per 10,000")
    return data


DOUBLES = Simulated(
    name="doubles-sim",
    summary="10 single and 15 double perturbations of 5 latent programs that saturate, and control; counts",
    paper="this suite; modelled on Norman et al. 2019, Science 365:786",
    fields=Fields(environment="perturbation", content="", control=CONTROL),
    simulate=simulate,
    parameters={"n_doubles": 15, "n_truth": 1000},
    sizes={
        "smoke": {"n_doubles": 6, "n_genes": 150, "n_truth": 500},
        "paper": {"n_doubles": 45, "n_cells": 200, "n_genes": 1000},
    },
)
