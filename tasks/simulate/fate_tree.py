"""Clones of progenitors that differentiate along a branching tree, biased early or not; a simulator of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated, log1p_cp10k
from tasks.simulate.inversion import most_likely

if TYPE_CHECKING:
    from anndata import AnnData

DAYS = ("2", "4", "6")
#: Parameters (a, b) of the Beta law of a cell's progress on each day.
PROGRESS = ((1.0, 6.0), (3.0, 3.0), (6.0, 2.0))
#: Share of a clone's cells that is sampled on each day.
SAMPLED = (0.3, 0.3, 0.4)
N_STATES = 4
#: How often a cell takes its clone's fate; otherwise any fate.
FIDELITY = 0.9


def simulate(
    rng: np.random.Generator,
    n_clones: int = 400,
    clone_size: float = 6.0,
    n_fates: int = 3,
    n_genes: int = 200,
    n_bias_genes: int = 5,
    strength: float = 3.0,
) -> AnnData:
    """Simulate cells of clones on three days, from progenitors to fates.

    Counts are negative binomial with log mean = base + s W + Σ_level travelled(p, level) · step(node of the fate at
    level) + (1 − p) b U. The tree is binary with ⌈log₂ n_fates⌉ levels of branching below a trunk; a cell of progress
    p in [0, 1] has gone the share clip(p · (levels + 1) − level, 0, 1) of the edge at each level, the trunk being
    level 0. s are four cell states that have nothing to do with fate. Each clone has an early state b ~ N(0, I), one
    value a fate, in U's ``n_bias_genes`` genes each, and draws its fate from softmax(strength · b). While a cell is
    on the trunk, b is all that its expression tells of its fate; it is then labelled "progenitor", later by its fate.

    Parameters
    ----------
    rng
        Source of all randomness.
    n_clones, n_fates, n_genes, n_bias_genes
        Sizes; ``n_bias_genes`` is per fate.
    clone_size
        Mean of the geometric law of a clone's number of sampled cells.
    strength
        How much the early state decides. At 0 fates cannot be told from early cells; with growing strength
        the fate is the largest entry of b.

    Returns
    -------
    AnnData
        ``layers["counts"]``, ``X`` their log1p(CP10k); ``obs["fate"]`` the fate that the clone drew;
        ``obsm["bias"]`` b, ``obsm["progress"]`` p (n_cells, 1); ``uns["structure"]``: base and programs, for
        :func:`bias_of`.
    """
    import pandas as pd
    from anndata import AnnData

    sizes = rng.geometric(1 / clone_size, n_clones)
    bias = rng.standard_normal((n_clones, n_fates))
    # the largest of logits plus Gumbel noise is a draw from their softmax
    drawn = np.argmax(strength * bias + rng.gumbel(size=bias.shape), axis=1)

    clone = np.repeat(np.arange(n_clones), sizes)
    n_cells = len(clone)
    faithful = rng.random(n_cells) < FIDELITY
    fate = np.where(faithful, drawn[clone], rng.integers(0, n_fates, n_cells))
    day = rng.choice(len(DAYS), n_cells, p=SAMPLED)
    progress = rng.beta(*np.array(PROGRESS)[day].T)

    base = rng.normal(-0.5, 1.2, n_genes)
    state_loadings = rng.normal(0.0, 0.35, (N_STATES, n_genes)) * (rng.random((N_STATES, n_genes)) < 0.3)
    log_mean = base + rng.standard_normal((n_cells, N_STATES)) @ state_loadings
    n_levels = int(np.ceil(np.log2(n_fates)))
    loadings = [state_loadings]
    for level in range(n_levels + 1):
        node = fate >> (n_levels - level)
        steps = rng.normal(0.0, 1.2, (2**level, n_genes)) * (rng.random((2**level, n_genes)) < 0.15)
        travelled = np.clip(progress * (n_levels + 1) - level, 0.0, 1.0)
        log_mean += travelled[:, None] * steps[node]
        loadings.append(steps)
    bias_loadings = np.zeros((n_fates, n_genes))
    # genes of the upper half, so that the early state can be read
    chosen = rng.choice(np.flatnonzero(base > np.median(base)), (n_fates, n_bias_genes), replace=False)
    np.put_along_axis(bias_loadings, chosen, rng.gamma(16.0, 1 / 16.0, chosen.shape), axis=1)
    log_mean += ((1 - progress)[:, None] * bias[clone]) @ bias_loadings

    library = rng.lognormal(np.log(2000.0), 0.3, (n_cells, 1))
    mean = np.exp(log_mean)
    mean *= library / mean.sum(axis=1, keepdims=True)
    dispersion = rng.gamma(4.0, 0.5, n_genes)
    counts = rng.poisson(mean * rng.gamma(dispersion, 1 / dispersion, mean.shape)).astype(np.float32)

    names = np.array([f"fate{i}" for i in range(n_fates)])
    on_trunk = progress * (n_levels + 1) <= 1
    obs = pd.DataFrame(
        {
            "cell_type": np.where(on_trunk, "progenitor", names[fate]),
            "time": np.array(DAYS)[day],
            "clone": np.array([f"clone{i}" for i in range(n_clones)])[clone],
            "fate": names[drawn[clone]],
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    data = AnnData(log1p_cp10k(counts), obs=obs, layers={"counts": counts})
    data.obsm["bias"] = bias[clone].astype(np.float32)
    data.obsm["progress"] = progress[:, None].astype(np.float32)
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns["X_units"] = "log1p of counts per 10,000"
    data.uns["structure"] = {"base": base, "loadings": np.vstack([*loadings, bias_loadings]), "n_fates": n_fates}
    return data


def bias_of(counts: np.ndarray, structure: Mapping[str, Any]) -> np.ndarray:
    """Return the early state that explains counts (n_cells, n_genes) best, by all true programs, (n_cells, n_fates).

    Log means are taken as linear in cell states, steps along the tree and the early state, which has shrunk by the
    cell's progress.
    """
    loadings = structure["loadings"]

    def decoder(activities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return structure["base"] + activities @ loadings, loadings[None]

    start = np.zeros((len(counts), len(loadings)))
    return most_likely(counts, decoder, start, variance=1.0)[:, -int(structure["n_fates"]) :]


FATE_TREE = Simulated(
    name="fate-sim",
    summary="clones of progenitors on 3 days, differentiating into 3 fates with an early bias in 15 genes; counts",
    paper="this suite; modelled on Weinreb et al. 2020, Science 367:eaaw3381",
    fields=Fields(environment="time", content="cell_type", replicate="clone"),
    simulate=simulate,
    sizes={"smoke": {"n_clones": 200, "n_genes": 100}, "paper": {"n_clones": 2000, "n_genes": 1000}},
)
