"""Bulk expression of tumours and normal tissue from several organs and studies; a simulator of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated
from tasks.simulate.tree import tree_traits

if TYPE_CHECKING:
    from anndata import AnnData

N_SHARED = 6


def simulate(
    rng: np.random.Generator,
    n_cancers: int = 8,
    n_tumours: int = 80,
    n_normals: int = 20,
    n_genes: int = 500,
    n_studies: int = 2,
    novelty: float = 0.3,
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
        ``X`` log2 expression; ``obsm["factors"]`` the true coordinates: six shared programs, purity, study.
    """
    import pandas as pd
    from anndata import AnnData

    n_programs = 3
    base = rng.normal(6.0, 2.0, n_genes)
    organ = tree_traits(rng, n_cancers, n_genes) * 1.5 * (rng.random(n_genes) < 0.5)
    axis = rng.normal(0.0, 1.5, n_genes) * (rng.random(n_genes) < 0.3)
    directions = np.linalg.qr(rng.standard_normal((n_genes, N_SHARED + n_cancers * n_programs)))[0].T
    shared, own = directions[:N_SHARED], directions[N_SHARED:].reshape(n_cancers, n_programs, n_genes)
    mixing = rng.standard_normal((n_cancers, n_programs, N_SHARED))
    mixing /= np.linalg.norm(mixing, axis=2, keepdims=True)
    study_effect = rng.normal(0.0, 0.5, (n_studies, n_genes))

    per_cancer = n_tumours + n_normals
    cancers = np.repeat(np.arange(n_cancers), per_cancer)
    tumour = np.tile(np.repeat([1.0, 0.0], [n_tumours, n_normals]), n_cancers)
    purity = tumour * rng.beta(6.0, 3.0, len(cancers))
    study = rng.integers(0, n_studies, len(cancers))
    # √n_genes makes a program's effect on a gene, not on the whole profile, of order one
    activity = rng.standard_normal((len(cancers), n_programs)) * purity[:, None] * np.sqrt(n_genes)
    coordinates = np.einsum("np,nps->ns", activity, mixing[cancers]) * np.sqrt(1 - novelty)
    x = base + organ[cancers] + purity[:, None] * axis + coordinates @ shared
    x += np.sqrt(novelty) * np.einsum("np,npg->ng", activity, own[cancers])
    x += study_effect[study] + noise * rng.standard_normal(x.shape)

    obs = pd.DataFrame(
        {
            "cancer_type": [f"cancer{c}" for c in cancers],
            "condition": np.where(tumour > 0, "tumor", "normal"),
            "study": [f"study{s}" for s in study],
        },
        index=[f"sample{i}" for i in range(len(cancers))],
    )
    data = AnnData(x.astype(np.float32), obs=obs)
    data.obsm["factors"] = np.column_stack([coordinates / np.sqrt(n_genes), purity, study]).astype(np.float32)
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns["X_units"] = "log2 expression"
    return data


PANCANCER = Simulated(
    name="pancancer-sim",
    summary="8 cancers of organs on a tree, tumours and normals in 2 studies; subtype programs partly shared",
    reference="this suite",
    fields=Fields(environment="condition", content="cancer_type", control="normal"),
    simulate=simulate,
    sizes={"smoke": {"n_tumours": 40, "n_genes": 200}, "paper": {"n_cancers": 16, "n_tumours": 150, "n_genes": 2000}},
)
