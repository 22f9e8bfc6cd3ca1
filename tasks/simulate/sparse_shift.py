"""The sparse-mechanism-shift simulator (Lopez et al. 2023, CLeaR; arXiv 2211.03553)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated, log1p_cp10k
from tasks.simulate.inversion import most_likely

if TYPE_CHECKING:
    from anndata import AnnData

#: Slope of the leaky ReLU for negative values, and number of the decoder's layers.
SLOPE, N_LAYERS = 0.2, 4
#: Of a latent over all perturbations: 1 within one, and shifts of 5 in about one of eight.
VARIANCE = 4.0


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
    n_truth: int = 1000,
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
    n_truth
        Fresh cells per perturbation whose mean expression is taken as the noiseless truth.

    Returns
    -------
    AnnData
        ``layers["counts"]`` Poisson counts, ``X`` their log1p(CP10k), ``obsm["z"]`` true latents,
        ``uns["targets"]`` (n_perturbations, n_latent) in {0, 1} in the order of ``uns["perturbations"]``;
        ``uns["structure"]``: the decoder's weights by layer, and each gene's offset, for :func:`latents_of`; with
        normalisation over genes also ``uns["truth"]``, each perturbation's noiseless mean of X (n_genes,).
    """
    import pandas as pd
    from anndata import AnnData

    targets = np.zeros((n_perturbations, n_latent))
    for row in targets:
        row[rng.choice(n_latent, size=rng.integers(1, 4), replace=True)] = 1
    sign = rng.choice([-1.0, 1.0], size=targets.shape)
    shift = targets * sign * rng.normal(5.0, 0.5, size=targets.shape)
    perturbation = np.repeat(np.arange(n_perturbations), n_cells)

    def around(means: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal(means.shape)
        if correlation > 0:
            common = rng.standard_normal((len(means), 1))
            noise = np.sqrt(1 - correlation) * noise + np.sqrt(correlation) * common
        return means + noise

    z = around(shift[perturbation])

    layers = [orthogonal_layer(rng, *fans) for fans in ((n_latent, 40), (40, 40), (40, 40), (40, n_genes))]
    logits = decoded(z, layers)
    layers[-1] /= logits.std()
    logits /= logits.std()
    offset = np.zeros(n_genes)
    if over == "cells":
        offset -= np.log(np.exp(logits).sum(axis=0))
        counts = rng.poisson(softmax(logits, axis=0) * (40.0 * len(logits))).astype(np.float32)
    else:
        counts = counted(rng, logits)

    names = np.array([f"p{i:03d}" for i in range(n_perturbations)])
    obs = pd.DataFrame({"perturbation": names[perturbation]}, index=[f"cell{i}" for i in range(len(z))])
    data = AnnData(log1p_cp10k(counts), obs=obs, layers={"counts": counts}, obsm={"z": z.astype(np.float32)})
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns.update(targets=targets, perturbations=names, X_units="log1p of counts per 10,000")
    data.uns["structure"] = {**{f"layer{i}": layer for i, layer in enumerate(layers)}, "offset": offset}
    if over == "genes":
        fresh = (decoded(around(np.tile(mean, (n_truth, 1))), layers) for mean in shift)
        means = [log1p_cp10k(counted(rng, logits)).mean(axis=0) for logits in fresh]
        data.uns["truth"] = dict(zip(names.tolist(), means, strict=True))
    return data


def counted(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """Return Poisson counts (n_cells, n_genes), the softmax over genes times a log-normal library."""
    library = rng.lognormal(np.log(4000.0), 0.3, size=(len(logits), 1))
    return rng.poisson(softmax(logits, axis=1) * library).astype(np.float32)


def decoded(z: np.ndarray, layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logits (n_cells, n_genes) of latents (n_cells, n_latent), by weights (fan_in, fan_out)."""
    for layer in layers[:-1]:
        z = z @ layer
        z = np.where(z > 0, z, SLOPE * z)
    return z @ layers[-1]


def latents_of(counts: np.ndarray, structure: dict[str, np.ndarray]) -> np.ndarray:
    """Return the latents that explain counts (n_cells, n_genes) best by the true decoder, (n_cells, n_latent).

    The search starts from the decoder's inverse, layer by layer, and goes on for 500 cells at a time.
    """
    layers, offset = [structure[f"layer{i}"] for i in range(N_LAYERS)], structure["offset"]

    def decoder(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden, jacobian = z, np.eye(z.shape[1])[None]
        for layer in layers[:-1]:
            hidden, jacobian = hidden @ layer, jacobian @ layer
            slope = np.where(hidden > 0, 1.0, SLOPE)
            hidden, jacobian = hidden * slope, jacobian * slope[:, None, :]
        return hidden @ layers[-1] + offset, jacobian @ layers[-1]

    z = np.log((counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 0.5)) - offset
    centred = layers[-1] - layers[-1].mean(axis=1, keepdims=True)
    z = (z - z.mean(axis=1, keepdims=True)) @ np.linalg.pinv(centred)
    for layer in layers[-2::-1]:
        z = np.where(z > 0, z, z / SLOPE) @ np.linalg.pinv(layer)
    chunks = [slice(start, start + 500) for start in range(0, len(z), 500)]
    return np.vstack([most_likely(counts[chunk], decoder, z[chunk], VARIANCE) for chunk in chunks])


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    """Return the softmax along ``axis``."""
    exponential = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return exponential / exponential.sum(axis=axis, keepdims=True)


_SIZES = {
    "smoke": {"n_cells": 50, "n_perturbations": 50, "n_truth": 200},
    "default": {"n_cells": 100},
    "paper": {},
}
_REFERENCE = "Lopez et al. 2023, CLeaR, PMLR 213: Learning causal representations of single cells via sparse shifts"
_FIELDS = Fields(environment="perturbation", content="")

SPARSE_SHIFT = Simulated(
    name="sparse-shift",
    summary="100 perturbations, each shifting up to 3 of 15 latents; counts normalised within cells",
    paper=_REFERENCE,
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
