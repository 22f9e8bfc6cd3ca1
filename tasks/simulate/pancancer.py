"""Bulk expression of tumours and normal tissue from several organs and studies; a simulator of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated
from tasks.simulate.tree import tree_traits

if TYPE_CHECKING:
    from anndata import AnnData

N_SHARED, N_PROGRAMS = 6, 3
#: Most coordinates that tell organs apart.
N_ORGAN = 7


def simulate(
    rng: np.random.Generator,
    n_cancers: int = 8,
    n_tumours: int = 40,
    n_normals: int = 10,
    n_genes: int = 300,
    n_studies: int = 2,
    novelty: float = 0.7,
    noise: float = 0.5,
) -> AnnData:
    """Simulate log2 expression = base + organ + tumour axis + subtype programs + study effect + noise.

    Organs are leaves of a binary tree. A tumour moves along one axis shared by all cancers, by its purity, and
    varies along its cancer's three subtype programs. Each program is a unit direction √(1 − novelty) · (a
    combination of six programs shared by all cancers) + √novelty · (a direction of this cancer alone).

    Parameters
    ----------
    rng
        Source of all randomness.
    n_cancers, n_tumours, n_normals, n_genes, n_studies
        Sizes; tumours and normals are per cancer.
    novelty
        Share of a cancer's program variance outside the span of the others. At 0 a held-out cancer varies as
        the training cancers do and re-embeds as if trained on; at 1 nothing about its variation can be known.
    noise
        Standard deviation of the technical noise, log2 units (the expression itself is log-normal).

    Returns
    -------
    AnnData
        ``X`` log2 expression; ``obsm["factors"]`` the true coordinates: six shared programs, purity, study, and the
        coordinates of the organ (n_cells, at most 15); ``obsm["state"]`` the expression without noise and study, by
        which samples are alike in truth (n_cells, n_genes); ``obsm["code"]`` the true factors as an embedding that
        keeps its distances within a cancer: the organ, purity, and the activity of the cancer's own three programs
        (n_cells, at most 11). ``uns["structure"]``: the profiles that make ``X`` of them, for :func:`codes_of`.
    """
    import pandas as pd
    from anndata import AnnData

    base = rng.normal(6.0, 2.0, n_genes)
    organ = tree_traits(rng, n_cancers, n_genes) * 1.5 * (rng.random(n_genes) < 0.5)
    axis = rng.normal(0.0, 1.5, n_genes) * (rng.random(n_genes) < 0.3)
    directions = np.linalg.qr(rng.standard_normal((n_genes, N_SHARED + n_cancers * N_PROGRAMS)))[0].T
    shared, own = directions[:N_SHARED], directions[N_SHARED:].reshape(n_cancers, N_PROGRAMS, n_genes)
    mixing = rng.standard_normal((n_cancers, N_PROGRAMS, N_SHARED))
    mixing /= np.linalg.norm(mixing, axis=2, keepdims=True)
    study_effect = rng.normal(0.0, 0.5, (n_studies, n_genes))

    per_cancer = n_tumours + n_normals
    cancers = np.repeat(np.arange(n_cancers), per_cancer)
    tumour = np.tile(np.repeat([1.0, 0.0], [n_tumours, n_normals]), n_cancers)
    purity = tumour * rng.beta(6.0, 3.0, len(cancers))
    study = rng.integers(0, n_studies, len(cancers))
    # √n_genes makes a program's effect on a gene, not on the whole profile, of order one
    activity = rng.standard_normal((len(cancers), N_PROGRAMS)) * purity[:, None] * np.sqrt(n_genes)
    coordinates = np.einsum("np,nps->ns", activity, mixing[cancers]) * np.sqrt(1 - novelty)
    state = base + organ[cancers] + purity[:, None] * axis + coordinates @ shared
    state += np.sqrt(novelty) * np.einsum("np,npg->ng", activity, own[cancers])
    x = state + study_effect[study] + noise * rng.standard_normal(state.shape)

    obs = pd.DataFrame(
        {
            "cancer_type": [f"cancer{c}" for c in cancers],
            "condition": np.where(tumour > 0, "tumor", "normal"),
            "study": [f"study{s}" for s in study],
        },
        index=[f"sample{i}" for i in range(len(cancers))],
    )
    data = AnnData(x.astype(np.float32), obs=obs)
    organs = organ_coordinates(organ)
    factors = np.column_stack([coordinates / np.sqrt(n_genes), purity, study, organs[cancers]])
    data.obsm["factors"] = factors.astype(np.float32)
    data.obsm["state"] = state.astype(np.float32)
    programs = np.sqrt(1 - novelty) * mixing @ shared + np.sqrt(novelty) * own
    tumours = np.concatenate([np.broadcast_to(axis, (n_cancers, 1, n_genes)), programs], axis=1)
    data.uns["structure"] = {"base": base, "organ": organ, "tumour": tumours, "study": study_effect}
    within = np.column_stack([purity, activity])
    data.obsm["code"] = embedded(cancers, within, data.uns["structure"]).astype(np.float32)
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns["X_units"] = "log2 expression"
    return data


def organ_coordinates(organ: np.ndarray) -> np.ndarray:
    """Return principal coordinates of the organs' profiles (n_cancers, n_genes), (n_cancers, at most 7)."""
    u, singular, _ = np.linalg.svd(organ - organ.mean(axis=0), full_matrices=False)
    return (u * singular)[:, : min(N_ORGAN, len(organ) - 1)]


def embedded(cancers: np.ndarray, within: np.ndarray, structure: dict[str, np.ndarray]) -> np.ndarray:
    """Return codes of samples: coordinates of the organ, and four that keep distances within the cancer.

    Parameters
    ----------
    cancers
        Their numbers, (n_samples,).
    within
        Purity and activity of the programs, (n_samples, 4).
    structure
        As in ``uns["structure"]``.
    """
    tumour = structure["tumour"]
    roots = np.linalg.cholesky(tumour @ tumour.transpose(0, 2, 1))
    return np.hstack([organ_coordinates(structure["organ"])[cancers], np.einsum("ni,nij->nj", within, roots[cancers])])


def codes_of(x: np.ndarray, structure: dict[str, np.ndarray]) -> np.ndarray:
    """Return what the true structure makes of expression (n_samples, n_genes): an estimate of ``obsm["code"]``.

    For every cancer the purity, the activity of its programs and the shares of the studies are fitted by least
    squares; the cancer that leaves least is taken.
    """
    fits, left = [], []
    for organ, tumour in zip(structure["organ"], structure["tumour"], strict=True):
        loadings = np.vstack([tumour, structure["study"]])
        residual = x - structure["base"] - organ
        fitted = np.linalg.lstsq(loadings.T, residual.T, rcond=None)[0].T
        fits.append(fitted[:, : len(tumour)])
        left.append(np.sum((residual - fitted @ loadings) ** 2, axis=1))
    cancers = np.argmin(left, axis=0)
    return embedded(cancers, np.stack(fits)[cancers, np.arange(len(x))], structure)


PANCANCER = Simulated(
    name="pancancer-sim",
    summary="8 cancers of organs on a tree, tumours and normals in 2 studies; subtype programs partly shared",
    paper="this suite",
    fields=Fields(environment="condition", content="cancer_type", control="normal"),
    simulate=simulate,
    sizes={
        "smoke": {"n_tumours": 30, "n_genes": 150},
        "paper": {"n_cancers": 16, "n_tumours": 150, "n_normals": 20, "n_genes": 2000},
    },
)
