"""An interferon-like stimulation of cell types on a tree; a simulator of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated, log1p_cp10k
from tasks.simulate.tree import tree_distances, tree_traits

if TYPE_CHECKING:
    from anndata import AnnData

N_FACTORS = 8


def simulate(
    rng: np.random.Generator,
    n_types: int = 8,
    n_cells: int = 100,
    n_genes: int = 800,
    n_donors: int = 6,
    strength: float = 2.0,
    interaction: float = 0.6,
    trait: float = 1.5,
    spread: float = 0.3,
    n_truth: int = 2000,
) -> AnnData:
    """Simulate control and stimulated cells of types that are leaves of a binary tree.

    Counts are negative binomial with log mean = base + W z + U a + interaction · V (a ⊙ z) + donor effect.
    z (8 factors) is the type's trait on the tree plus a cell's own deviation; a = strength · sigmoid(interaction ·
    R z) in stimulated cells, 0 in controls, is a receptor-like gate for each of 8 response programs; U and V are
    sparse over genes.

    Parameters
    ----------
    rng
        Source of all randomness.
    n_types, n_cells, n_genes, n_donors
        Sizes; ``n_cells`` is per type and condition.
    strength
        Size of the response.
    interaction
        How much the response depends on the cell's state. At 0 all types respond alike in log mean, and the
        mean shift is optimal up to noise and normalisation; at 1 the nearest type and state-aware models can win.
    trait, spread
        Standard deviation of a factor between types, and between the cells of a type.
    n_truth
        Fresh cells per type and condition whose mean expression is taken as the noiseless truth.

    Returns
    -------
    AnnData
        ``layers["counts"]``, ``X`` their log1p(CP10k); ``obsm["factors"]`` the state z, ``obsm["a"]`` the activity;
        ``uns["truth"]`` maps ``"type|condition"`` to the noiseless mean of X (n_genes,); ``uns["programs"]`` the
        response program of each gene (−1 for none); ``uns["tree_distance"]`` levels between types.
    """
    import pandas as pd
    from anndata import AnnData

    base = rng.normal(-0.5, 1.2, n_genes)
    loadings = rng.normal(0.0, 0.35, (N_FACTORS, n_genes)) * (rng.random((N_FACTORS, n_genes)) < 0.3)
    # each response gene belongs to one program; a tenth of the genes respond
    programs = np.where(rng.random(n_genes) < 0.1, rng.integers(0, N_FACTORS, n_genes), -1)
    member = programs[None, :] == np.arange(N_FACTORS)[:, None]
    response = rng.gamma(4.0, 0.25, (N_FACTORS, n_genes)) * member
    # what a program does beyond its own genes depends on the cell's state: a second, sparse set
    state_response = rng.normal(0.0, 0.5, (N_FACTORS, n_genes)) * (member | (rng.random((N_FACTORS, n_genes)) < 0.02))
    gate = rng.standard_normal((N_FACTORS, N_FACTORS)) / np.sqrt(N_FACTORS) * 2.0
    donor_effect = rng.normal(0.0, 0.1, (n_donors, n_genes))
    traits = tree_traits(rng, n_types, N_FACTORS) * trait
    dispersion = rng.gamma(4.0, 0.5, n_genes)

    def cells(types: np.ndarray, stimulated: np.ndarray) -> tuple[np.ndarray, ...]:
        donors = rng.integers(0, n_donors, len(types))
        z = traits[types] + spread * rng.standard_normal((len(types), N_FACTORS))
        a = strength / (1 + np.exp(-interaction * (z @ gate))) * stimulated[:, None]
        log_mean = base + z @ loadings + a @ response + interaction * (a * z) @ state_response
        log_mean += donor_effect[donors]
        log_mean += rng.normal(np.log(2000.0), 0.3, (len(types), 1)) - _log_sum_exp(log_mean)
        counts = rng.poisson(np.exp(log_mean) * rng.gamma(dispersion, 1 / dispersion, log_mean.shape))
        return donors, z, a, counts.astype(np.float32)

    types = np.repeat(np.arange(n_types), 2 * n_cells)
    stimulated = np.tile(np.repeat([0.0, 1.0], n_cells), n_types)
    donors, z, a, counts = cells(types, stimulated)
    names = np.array([f"type{i:0{len(str(n_types - 1))}d}" for i in range(n_types)])
    conditions = np.array(["control", "stimulated"])
    truth = {
        f"{names[t]}|{conditions[s]}": log1p_cp10k(cells(np.full(n_truth, t), np.full(n_truth, float(s)))[3]).mean(0)
        for t in range(n_types)
        for s in (0, 1)
    }
    obs = pd.DataFrame(
        {
            "cell_type": names[types],
            "condition": conditions[stimulated.astype(int)],
            "donor": np.array([f"donor{i}" for i in range(n_donors)])[donors],
        },
        index=[f"cell{i}" for i in range(len(types))],
    )
    data = AnnData(log1p_cp10k(counts), obs=obs, layers={"counts": counts})
    data.obsm["factors"], data.obsm["a"] = z.astype(np.float32), a.astype(np.float32)
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns.update(
        truth=truth,
        programs=programs,
        tree_distance=tree_distances(n_types),
        X_units="log1p of counts per 10,000",
    )
    return data


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    """Return log Σ exp over genes, (n_cells, 1)."""
    top = x.max(axis=1, keepdims=True)
    return top + np.log(np.exp(x - top).sum(axis=1, keepdims=True))


IFN = Simulated(
    name="ifn-sim",
    summary="12 cell types on a tree, control and stimulated; response gated by cell state, 6 donors, counts",
    paper="this suite; modelled on Kang et al. 2018, Nature Biotechnology 36:89",
    fields=Fields(environment="condition", content="cell_type", replicate="donor", control="control"),
    simulate=simulate,
    parameters={"n_types": 12, "n_genes": 500, "interaction": 1.0, "trait": 1.2, "spread": 1.0, "n_truth": 1000},
    sizes={"smoke": {"n_types": 8, "n_cells": 60, "n_genes": 200, "n_truth": 300}, "paper": {"n_genes": 2000}},
)
