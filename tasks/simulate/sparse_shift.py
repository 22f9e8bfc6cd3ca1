"""The sparse-mechanism-shift simulator (Lopez et al. 2023, CLeaR; arXiv 2211.03553)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated, log1p_cp10k

if TYPE_CHECKING:
    from anndata import AnnData


def orthogonal_layer(rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    """Return a (fan_in, fan_out) weight with orthonormal rows (columns, where fan_out is smaller), scaled.

    The scale is √(2 / (1 + .2²)) · √(2 / (fan_in + fan_out)): the gain of a leaky ReLU of slope .2 and Glorot's.
    """
    weight = rng.standard_normal((fan_in, fan_out))
    orthonormal = np.linalg.qr(weight.T)[0].T if fan_out >= fan_in else np.linalg.qr(weight)[0]
    return orthonormal * np.sqrt(2 / (1 + 0.2**2)) * np.sqrt(2 / (fan_in + fan_out))


def simulate(
    rng: np.random.Generator,
    n_latent: int = 15,
    n_perturbations: int = 100,
    n_cells: int = 250,
    n_genes: int = 100,
    over: Literal["cells", "genes"] = "genes",
    correlation: float = 0.0,
) -> AnnData:
    """Simulate perturbations that each shift up to three of the latent units.

    For each perturbation: n = choice(1, 2, 3) targets drawn with replacement; for each latent a sign ±1 and a
    magnitude N(5, .5); shift = target · sign · magnitude. z ~ N(shift, I). A decoder of four orthogonal layers
    (hidden width 40, leaky ReLU .2 after the first three) gives logits, divided by their global standard deviation.

    Parameters
    ----------
    rng
        Source of all randomness.
    n_latent, n_perturbations, n_cells, n_genes
        Sizes; ``n_cells`` is per perturbation. There is no control arm.
    over
        ``"genes"``: each cell's softmax over its genes times a log-normal library (median 4,000, log-std .3).
        ``"cells"``: as in the published code, each gene's softmax over all cells times the total that leaves
        a mean count of 40 (10⁶ at 25,000 cells).
    correlation
        Correlation of two latents within a perturbation, in [0, 1): z ~ N(shift, (1 − correlation) I + correlation).

    Returns
    -------
    AnnData
        ``layers["counts"]`` Poisson counts, ``X`` their log1p(CP10k), ``obsm["z"]`` true latents,
        ``uns["targets"]`` (n_perturbations, n_latent) in {0, 1} in the order of ``uns["perturbations"]``.
    """
    import pandas as pd
    from anndata import AnnData

    targets = np.zeros((n_perturbations, n_latent))
    for row in targets:
        row[rng.choice(n_latent, size=rng.integers(1, 4), replace=True)] = 1
    sign = rng.choice([-1.0, 1.0], size=targets.shape)
    shift = targets * sign * rng.normal(5.0, 0.5, size=targets.shape)
    perturbation = np.repeat(np.arange(n_perturbations), n_cells)
    noise = rng.standard_normal((len(perturbation), n_latent))
    if correlation > 0:
        common = rng.standard_normal((len(perturbation), 1))
        noise = np.sqrt(1 - correlation) * noise + np.sqrt(correlation) * common
    z = shift[perturbation] + noise

    hidden = z
    for fan_in, fan_out in ((n_latent, 40), (40, 40), (40, 40)):
        hidden = hidden @ orthogonal_layer(rng, fan_in, fan_out)
        hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    logits = hidden @ orthogonal_layer(rng, 40, n_genes)
    logits /= logits.std()
    if over == "cells":
        rate = softmax(logits, axis=0) * (40.0 * len(logits))
    else:
        library = rng.lognormal(np.log(4000.0), 0.3, size=(len(logits), 1))
        rate = softmax(logits, axis=1) * library
    counts = rng.poisson(rate).astype(np.float32)

    names = np.array([f"p{i:03d}" for i in range(n_perturbations)])
    obs = pd.DataFrame({"perturbation": names[perturbation]}, index=[f"cell{i}" for i in range(len(z))])
    data = AnnData(log1p_cp10k(counts), obs=obs, layers={"counts": counts}, obsm={"z": z.astype(np.float32)})
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns.update(targets=targets, perturbations=names, X_units="log1p of counts per 10,000")
    return data


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    """Return the softmax along ``axis``."""
    exponential = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return exponential / exponential.sum(axis=axis, keepdims=True)


_SIZES = {
    "smoke": {"n_cells": 50, "n_perturbations": 50},
    "default": {"n_cells": 100},
    "paper": {},
}
_REFERENCE = "Lopez et al. 2023, CLeaR, PMLR 213: Learning causal representations of single cells via sparse shifts"
_FIELDS = Fields(environment="perturbation", content="")

SPARSE_SHIFT = Simulated(
    name="sparse-shift",
    summary="100 perturbations, each shifting up to 3 of 15 latents; counts normalised within cells",
    reference=_REFERENCE,
    fields=_FIELDS,
    simulate=simulate,
    sizes=_SIZES,
)
SPARSE_SHIFT_PUBLISHED = replace(
    SPARSE_SHIFT,
    name="sparse-shift-published",
    summary="the same with the published code's softmax over cells, gene by gene",
    parameters={"over": "cells"},
)
SPARSE_SHIFT_CORRELATED = replace(
    SPARSE_SHIFT,
    name="sparse-shift-correlated",
    summary="sparse-shift whose latents are correlated by .9 within a perturbation: a stress test",
    parameters={"correlation": 0.9},
)
SPARSE_SHIFT_FEW_CELLS = replace(
    SPARSE_SHIFT,
    name="sparse-shift-few-cells",
    summary="sparse-shift with 20 cells a perturbation: a stress test",
    parameters={"n_cells": 20},
    sizes={"smoke": {"n_perturbations": 50}},
)
