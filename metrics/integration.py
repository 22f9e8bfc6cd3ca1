"""Metrics of integration: are batches mixed, and labels kept? All computed by scib-metrics (Luecken et al. 2022).

Batch removal alone is gameable: a constant code has mixed batches, by ``ilisi``, ``bras``, ``kbet_per_label``,
``silhouette_batch`` and, nearly, ``graph_connectivity``. Read each of these beside one that asks for the labels
(``clisi``, ``ari_leiden``).

The metrics of a neighbour graph take one that ``neighbours`` has built, so that it is built once; each uses as many
of its nearest as scib-metrics' benchmark does (LISI 90, kBET 50, the rest 15, the cell itself included), or all
that there are. scib-metrics takes seconds to import and compiles for each new shape: hence the imports inside.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.arrays import Floats, as_floats, as_labels, standardised
from metrics.base import metric

if TYPE_CHECKING:
    from scib_metrics.nearest_neighbors import NeighborsResults

Labels = NDArray[np.int64]

K_LISI, K_KBET, K_GRAPH = 90, 50, 15

_SCIB = "scib-metrics; Luecken et al. (2022), Nat. Methods 19:41"
_LISI = "scib-metrics; Korsunsky et al. (2019), Nat. Methods 16:1289"
_KBET = "scib-metrics; Büttner et al. (2019), Nat. Methods 16:43"


# helpers


def neighbours(codes: ArrayLike, k: int = K_LISI) -> NeighborsResults:
    """Build the exact graph of nearest neighbours (Euclidean) that the metrics here share.

    Each cell comes first among its own neighbours, as scib-metrics wants it. Ties are broken at random, by a fixed
    seed, never by the order of the cells, which may be sorted by batch. In a constant code all cells tie: each
    has neighbours drawn at random.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    k
        Neighbours of each cell, itself included; at most n_cells - 1 are taken.

    Returns
    -------
    graph
        scib-metrics' record of ``indices`` and ``distances``, (n_cells, k) each, the nearest first.

    Raises
    ------
    ValueError
        If there are fewer than 3 cells, values are not finite, or k is under 2.
    """
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    z = as_floats("codes", codes, 2)
    if k < 2 or len(z) < 3:
        raise ValueError(f"k is {k} for {len(z)} cell(s); at least 2, the cell itself included, and 3 cells are needed")
    k = min(k, len(z) - 1)
    rng = np.random.default_rng(0)
    indices = np.empty((len(z), k), dtype=np.int64)
    distances = np.zeros((len(z), k))
    indices[:, 0] = np.arange(len(z))
    if not standardised(z).any():
        for cell in range(len(z)):
            others = rng.choice(len(z) - 1, k - 1, replace=False)
            indices[cell, 1:] = others + (others >= cell)
        return NeighborsResults(indices=indices, distances=distances)
    order = rng.permutation(len(z))
    near = NearestNeighbors(n_neighbors=k - 1).fit(z[order])
    distances[order, 1:], found = near.kneighbors()
    indices[order, 1:] = order[found]
    return NeighborsResults(indices=indices, distances=distances)


def leiden_agreement(
    codes: ArrayLike, labels: ArrayLike, graph: NeighborsResults | None = None, seed: int = 0
) -> dict[str, float]:
    """``ari_leiden`` and ``nmi_leiden`` from one clustering, as {"ari": ..., "nmi": ...}; see there."""
    from scib_metrics import nmi_ari_cluster_labels_leiden

    z, y = _labelled(codes, labels)
    if _n_distinct(y) < 2:
        return {"ari": float("nan"), "nmi": float("nan")}
    return {
        name: float(value)
        for name, value in nmi_ari_cluster_labels_leiden(_graph(z, graph, K_GRAPH), y, n_jobs=1, seed=seed).items()
    }


# labels kept


@metric(better="higher", low=0.0, high=1.0, reference=_LISI)
def clisi(codes: ArrayLike, labels: ArrayLike, graph: NeighborsResults | None = None) -> float:
    """Cell-type LISI: how pure in label the neighbourhoods are.

    ``(C - median LISI) / (C - 1)`` over cells, with LISI the effective number of labels (inverse Simpson index,
    perplexity k / 3) among 90 neighbours, and C the number of labels. 1: one label in each; 0: all labels equally.
    Not a number if there is one label.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    graph
        ``neighbours`` of the codes; built here if missing.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    from scib_metrics import clisi_knn

    z, y = _labelled(codes, labels)
    return _unit(clisi_knn(_graph(z, graph, K_LISI), y)) if _n_distinct(y) > 1 else float("nan")


@metric(better="higher", low=-0.5, high=1.0, reference=f"{_SCIB}; Hubert & Arabie (1985), J. Classif. 2:193")
def ari_leiden(codes: ArrayLike, labels: ArrayLike, graph: NeighborsResults | None = None, seed: int = 0) -> float:
    """Adjusted Rand index of Leiden clusters with the labels.

    Leiden by modularity on the UMAP-weighted graph of 15 neighbours, at the one of ten resolutions (.2 to 2) whose
    NMI *with the labels* is the best: an optimistic choice, equally so for every method. 0 is chance. Not a number if
    there is one label. ``leiden_agreement`` gives this and the NMI at the price of one.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    graph
        ``neighbours`` of the codes; built here if missing.
    seed
        Seed of Leiden.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    return leiden_agreement(codes, labels, graph, seed)["ari"]


@metric(better="higher", low=0.0, high=1.0, reference=f"{_SCIB}; Strehl & Ghosh (2002), JMLR 3:583")
def nmi_leiden(codes: ArrayLike, labels: ArrayLike, graph: NeighborsResults | None = None, seed: int = 0) -> float:
    """Normalised mutual information of Leiden clusters with the labels.

    ``2 I / (H + H')``, clustered as for ``ari_leiden``. Not adjusted for chance. Not a number if there is one label.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    graph
        ``neighbours`` of the codes; built here if missing.
    seed
        Seed of Leiden.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    return leiden_agreement(codes, labels, graph, seed)["nmi"]


@metric(better="higher", low=0.0, high=1.0, reference=_SCIB)
def isolated_labels(codes: ArrayLike, labels: ArrayLike, batch: ArrayLike) -> float:
    """How well the labels found in the fewest batches stand apart.

    Mean silhouette (Euclidean, all labels), scaled to [0, 1], over the cells of each isolated label; then over those
    labels: the ones in as few batches as any. If all labels are in all batches, all are isolated. A constant code
    scores .5. Not a number if there is one label.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels, batch
        (n_cells,).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from scib_metrics import isolated_labels as scib

    z, y = _labelled(codes, labels)
    batches = as_labels("batch", batch, len(z))
    return _unit(scib(_centred(z), y, batches)) if _n_distinct(y) > 1 else float("nan")


# batches mixed


@metric(better="higher", low=0.0, high=1.0, reference=_LISI)
def ilisi(codes: ArrayLike, batch: ArrayLike, graph: NeighborsResults | None = None) -> float:
    """Integration LISI: how many batches there are, effectively, in a neighbourhood.

    ``(median LISI - 1) / (B - 1)`` over cells, with LISI the effective number of batches (inverse Simpson index,
    perplexity k / 3) among 90 neighbours, and B the number of batches. 0: one batch in each; 1: all equally, which
    batches of unequal size cannot reach. Not a number if there is one batch.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    batch
        (n_cells,).
    graph
        ``neighbours`` of the codes; built here if missing.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    from scib_metrics import ilisi_knn

    z, batches = _labelled(codes, batch, "batch")
    return _unit(ilisi_knn(_graph(z, graph, K_LISI), batches)) if _n_distinct(batches) > 1 else float("nan")


@metric(
    better="higher", low=0.0, high=1.0, reference="scib-metrics; Rautenstrauch & Ohler (2025), Nat. Biotechnol., BRAS"
)
def bras(codes: ArrayLike, labels: ArrayLike, batch: ArrayLike) -> float:
    """Batch-removal-adapted silhouette: whether batches overlap within each label.

    ``1 - |s|`` with s the silhouette of batches within a label, where the distance to other batches is the mean over
    all their cells, not to the nearest batch; mean over cells, then labels. Cosine distance, so it depends on where
    the origin is: the codes are taken as they are. 1 is mixed, and so is a constant code, up to rounding. Labels
    in one batch are left out; not a number if all are.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels, batch
        (n_cells,).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from scib_metrics import bras as scib

    z, y = _labelled(codes, labels)
    batches = as_labels("batch", batch, len(z))
    return _unit(scib(z, y, batches)) if _some_label_mixes(y, batches) else float("nan")


@metric(better="higher", low=0.0, high=1.0, reference=f"{_SCIB}; legacy: misleading, Rautenstrauch & Ohler (2025)")
def silhouette_batch(codes: ArrayLike, labels: ArrayLike, batch: ArrayLike) -> float:
    """Legacy: silhouette of batches within each label, shown for comparison with papers only.

    ``1 - |s|``, mean over cells, then labels, s being the usual silhouette with Euclidean distances. It looks at the
    *nearest* other batch alone, so batches that mix in pairs, the pairs being apart, score as if all were mixed; and
    a constant code scores 1. Use ``bras``. Labels in one batch are left out; not a number if all are.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels, batch
        (n_cells,).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from scib_metrics import silhouette_batch as scib

    z, y = _labelled(codes, labels)
    batches = as_labels("batch", batch, len(z))
    return _unit(scib(_centred(z), y, batches)) if _some_label_mixes(y, batches) else float("nan")


@metric(better="higher", low=0.0, high=1.0, reference=_SCIB)
def graph_connectivity(codes: ArrayLike, labels: ArrayLike, graph: NeighborsResults | None = None) -> float:
    """Share of each label's cells that lie in one connected piece of the label's graph.

    Mean over labels of ``largest strongly connected component / cells`` in the graph of 15 neighbours, restricted
    to the label. 1 if every label is in one piece. That is so for most codes that know the labels, and nearly so
    for a constant code, whose graph is random.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    graph
        ``neighbours`` of the codes; built here if missing.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    from scib_metrics import graph_connectivity as scib

    z, y = _labelled(codes, labels)
    return _unit(scib(_graph(z, graph, K_GRAPH), y))


@metric(better="higher", low=0.0, high=1.0, reference=_KBET)
def kbet_per_label(
    codes: ArrayLike, labels: ArrayLike, batch: ArrayLike, graph: NeighborsResults | None = None
) -> float:
    """kBET: share of cells around which the batches are as frequent as in the whole label.

    Acceptance rate of a χ² test at 5 % in each label's neighbourhoods by diffusion distance on the graph of 50
    neighbours; mean over labels. A label whose graph falls to pieces scores 0. Labels in one batch, or with
    under 10 cells, are left out; not a number if all are. 1 is mixed. The first call in a process takes half a
    minute, in which pynndescent compiles.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels, batch
        (n_cells,).
    graph
        ``neighbours`` of the codes; built here if missing.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    from scib_metrics import kbet_per_label as scib

    z, y = _labelled(codes, labels)
    batches = as_labels("batch", batch, len(z))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        return _unit(scib(_graph(z, graph, K_KBET), batches, y))


@metric(better="higher", low=0.0, high=1.0, reference=f"{_SCIB}; principal component regression, {_KBET[14:]}")
def pcr_comparison(before: ArrayLike, after: ArrayLike, batch: ArrayLike) -> float:
    """Share of the variance that batch explained before which it explains no more.

    ``max(0, 1 - V_after / V_before)``, V being the R² of batch (one-hot) for each principal component, weighted by the
    component's variance. 1: none left; 0: as much as before, or more. Not a number if either is constant or batch
    explained nothing before (under 1e-6).

    Parameters
    ----------
    before
        The cells before integration, such as expression or its PCA, (n_cells, n_features).
    after
        Their codes, (n_cells, n_latent).
    batch
        (n_cells,).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from scib_metrics.utils import principal_component_regression

    z = as_floats("before", before, 2)
    z_after, batches = _labelled(after, batch, "batch")
    if len(z) != len(z_after):
        raise ValueError(f"before has {len(z)} cells and after {len(z_after)}; the same cells are needed")
    if _n_distinct(batches) < 2:
        return float("nan")
    explained = [principal_component_regression(_centred(x), batches, categorical=True) for x in (z, z_after)]
    if not np.isfinite(explained).all() or explained[0] < 1e-6:
        return float("nan")
    return _unit(1.0 - explained[1] / explained[0])


# private


def _labelled(codes: ArrayLike, labels: ArrayLike, name: str = "labels") -> tuple[Floats, Labels]:
    z = as_floats("codes", codes, 2)
    return z, as_labels(name, labels, len(z))


def _n_distinct(labels: Labels) -> int:
    return len(np.unique(labels))


def _some_label_mixes(labels: Labels, batches: Labels) -> bool:
    """Tell whether scib-metrics' silhouettes have a label to work on: more than one batch, and fewer than cells."""
    return any(1 < _n_distinct(batches[labels == name]) < np.sum(labels == name) for name in np.unique(labels))


def _centred(z: Floats) -> Floats:
    """Shifted to the mean, which loses no precision to the single precision that jax computes in."""
    z = z - z[0]  # constant columns become exactly zero
    return np.asarray(z - z.mean(axis=0))


def _graph(z: Floats, graph: NeighborsResults | None, k: int) -> Any:
    if graph is None:
        return neighbours(z, k)
    if graph.n_samples != len(z):
        raise ValueError(f"graph has {graph.n_samples} cells and codes {len(z)}; build it from these codes")
    return graph.subset_neighbors(min(k, graph.n_neighbors))


def _unit(score: Any) -> float:
    """A float in [0, 1], rid of rounding in single precision; what is not a number stays so."""
    return float(np.clip(float(score), 0.0, 1.0))
