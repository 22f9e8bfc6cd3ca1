"""Metrics of integration: are batches mixed, and labels kept? Values are those of scib-metrics (Luecken et al. 2022).

Batch removal alone is gameable: a constant code has mixed batches, by ``ilisi``, ``bras``, ``kbet_per_label``,
``silhouette_batch`` and, nearly, ``graph_connectivity``. Read each of these beside one that asks for the labels
(``clisi``, ``ari_leiden``).

Of the neighbours (``metrics.neighbours``) each takes as many of the nearest as scib-metrics' benchmark does (LISI 90,
kBET 50, the rest 15, the cell itself included), or all that there are. scib-metrics itself is compiled anew for every
number of cells, for a minute in all; here are its formulas in numpy, and tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.arrays import RESOLUTION, Floats, as_floats, as_labels
from metrics.base import metric
from metrics.neighbours import neighbours, shared

Labels = NDArray[np.int64]

K_LISI, K_KBET, K_GRAPH = 90, 50, 15
CHUNK_ENTRIES = 1_000_000
"""Distances computed at once; a chunk of them takes 8 MB."""

RESOLUTIONS = tuple(round(0.2 * step, 1) for step in range(1, 11))
"""Of Leiden, of which the best is taken."""
MAX_TRIES, TOLERANCE = 50, 1e-5
"""Of the search for LISI's perplexity: steps, and the distance of the entropy from its aim."""
MIN_CELLS, ALPHA, N_DIFFUSION = 10, 0.05, 100
"""Of kBET: cells of a label, level of the test, diffusion components."""

_SCIB = "scib-metrics; Luecken et al. (2022), Nat. Methods 19:41"
_LISI = "scib-metrics; Korsunsky et al. (2019), Nat. Methods 16:1289"
_KBET = "scib-metrics; Büttner et al. (2019), Nat. Methods 16:43"


# helpers


def leiden_agreement(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> dict[str, float]:
    """``ari_leiden`` and ``nmi_leiden`` from one clustering, as {"ari": ..., "nmi": ...}; see there."""
    z, y = _labelled(codes, labels)
    if _n_distinct(y) < 2:
        return {"ari": float("nan"), "nmi": float("nan")}
    return dict(_leiden_agreement(z, y, seed))


# labels kept


@metric(better="higher", low=0.0, high=1.0, reference=_LISI)
def clisi(codes: ArrayLike, labels: ArrayLike) -> float:
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

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    z, y = _labelled(codes, labels)
    n_labels = _n_distinct(y)
    return _unit((n_labels - _median_lisi(z, y)) / (n_labels - 1)) if n_labels > 1 else float("nan")


@metric(better="higher", low=-0.5, high=1.0, reference=f"{_SCIB}; Hubert & Arabie (1985), J. Classif. 2:193")
def ari_leiden(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
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
    seed
        Seed of Leiden.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    return leiden_agreement(codes, labels, seed)["ari"]


@metric(better="higher", low=0.0, high=1.0, reference=f"{_SCIB}; Strehl & Ghosh (2002), JMLR 3:583")
def nmi_leiden(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Normalised mutual information of Leiden clusters with the labels.

    ``2 I / (H + H')``, clustered as for ``ari_leiden``. Not adjusted for chance. Not a number if there is one label.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    seed
        Seed of Leiden.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    return leiden_agreement(codes, labels, seed)["nmi"]


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
    z, y = _labelled(codes, labels)
    batches = as_labels("batch", batch, len(z))
    names = np.unique(y)
    if len(names) < 2:
        return float("nan")
    n_batches = np.array([_n_distinct(batches[y == name]) for name in names])
    isolated = names[n_batches == n_batches.min()]
    cells = np.flatnonzero(np.isin(y, isolated))
    widths = _silhouettes(z, y, cells)
    return _unit(np.mean([(widths[y[cells] == name].mean() + 1) / 2 for name in isolated]))


# batches mixed


@metric(better="higher", low=0.0, high=1.0, reference=_LISI)
def ilisi(codes: ArrayLike, batch: ArrayLike) -> float:
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

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    z, batches = _labelled(codes, batch, "batch")
    n_batches = _n_distinct(batches)
    return _unit((_median_lisi(z, batches) - 1) / (n_batches - 1)) if n_batches > 1 else float("nan")


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
    z, y = _labelled(codes, labels)
    return _within_labels(_cosine_silhouettes, z, y, as_labels("batch", batch, len(z)))


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
    z, y = _labelled(codes, labels)
    return _within_labels(_silhouettes, z, y, as_labels("batch", batch, len(z)))


@metric(better="higher", low=0.0, high=1.0, reference=_SCIB)
def graph_connectivity(codes: ArrayLike, labels: ArrayLike) -> float:
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

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    from scipy.sparse.csgraph import connected_components

    z, y = _labelled(codes, labels)
    indices = neighbours(z, K_GRAPH).indices
    graph = _rows(indices, np.ones(indices.shape))
    shares = []
    for own in (y == name for name in np.unique(y)):
        pieces = connected_components(graph[own][:, own], connection="strong")[1]
        shares.append(np.bincount(pieces).max() / len(pieces))
    return _unit(np.mean(shares))


@metric(better="higher", low=0.0, high=1.0, reference=_KBET)
def kbet_per_label(codes: ArrayLike, labels: ArrayLike, batch: ArrayLike) -> float:
    """kBET: share of cells around which the batches are as frequent as in the whole label.

    Acceptance rate of a χ² test at 5 % in each label's neighbourhoods by diffusion distance on the graph of 50
    neighbours; mean over labels. A label whose graph falls to pieces scores 0. Labels in one batch, or with
    under 10 cells, are left out; not a number if all are. 1 is mixed. Where scib-metrics searches approximately for
    neighbours by diffusion distance, the search here is that of ``neighbours``, exact in labels of up to 20,000 cells.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels, batch
        (n_cells,).

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    from scipy.sparse.csgraph import connected_components

    z, y = _labelled(codes, labels)
    batches = as_labels("batch", batch, len(z))
    graph, n_components, accepted = umap_graph(z, K_KBET), N_DIFFUSION, []
    for cells in (np.flatnonzero(y == name) for name in np.unique(y)):
        sizes = np.unique(batches[cells], return_counts=True)[1]
        if len(cells) < MIN_CELLS or len(sizes) < 2:
            continue
        k = int(np.clip(sizes.mean() // 4, 10, 70))
        pieces = connected_components(graph[cells][:, cells], connection="strong")[1]
        kept = cells[np.bincount(pieces)[pieces] >= 3 * k] if pieces.any() else cells
        if len(kept) < 0.75 * len(cells):
            accepted.append(0.0)
            continue
        n_components = min(n_components, len(kept) - 1)  # a small label limits those after it, as in scib-metrics
        near = neighbours(_diffusion(graph[kept][:, kept], n_components), k + 1).indices
        accepted.append(_accepted(near, np.unique(batches[kept], return_inverse=True)[1]))
    return _unit(np.mean(accepted)) if accepted else float("nan")


@metric(better="higher", low=0.0, high=1.0, reference=f"{_SCIB}; principal component regression, {_KBET[14:]}")
def pcr_comparison(before: ArrayLike, after: ArrayLike, batch: ArrayLike) -> float:
    """Share of the variance that batch explained before which it explains no more.

    ``max(0, 1 - V_after / V_before)``, V being the R² of batch (one-hot) for each principal component, weighted by the
    component's variance, which over all components is the share of the variance that lies between batches. 1: none
    left; 0: as much as before, or more. Not a number if either is constant or batch explained nothing before (under
    1e-6). A component without variance weighs nothing; scib-metrics then gives no number.

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
    z = as_floats("before", before, 2)
    z_after, batches = _labelled(after, batch, "batch")
    if len(z) != len(z_after):
        raise ValueError(f"before has {len(z)} cells and after {len(z_after)}; the same cells are needed")
    if _n_distinct(batches) < 2:
        return float("nan")
    explained = [_between(x, batches) for x in (z, z_after)]
    if not np.isfinite(explained).all() or explained[0] < 1e-6:
        return float("nan")
    return _unit(1.0 - explained[1] / explained[0])


# private


def _labelled(codes: ArrayLike, labels: ArrayLike, name: str = "labels") -> tuple[Floats, Labels]:
    z = as_floats("codes", codes, 2)
    return z, as_labels(name, labels, len(z))


def _n_distinct(labels: Labels) -> int:
    return len(np.unique(labels))


def _centred(z: Floats) -> Floats:
    z = z - z[0]  # constant columns become exactly zero
    return np.asarray(z - z.mean(axis=0))


def _median_lisi(z: Floats, labels: Labels) -> float:
    """Median effective number of labels in the neighbourhoods: 1 / Σ_label (Σ_neighbours with it p)².

    ``p ∝ exp(-β distance)``, β such that the entropy is log(k // 3), by doubling or halving and then bisection. In
    single precision, as scib-metrics: where so many neighbours tie that no β will do, the outcome hangs on underflow.
    """
    graph = neighbours(z, K_LISI)
    k, n_labels = graph.indices.shape[1], int(labels.max()) + 1
    aim = np.log(np.float32(k // 3))
    effective = np.empty(len(z))
    for rows in _chunks(len(z), max(k, n_labels)):
        distances, of_neighbours = graph.distances[rows, 1:].astype(np.float32), labels[graph.indices[rows, 1:]]
        beta, low, high = (np.full(len(distances), value, dtype=np.float32) for value in (1.0, 0.0, np.inf))
        p, entropy = _probabilities(distances, beta)
        for _ in range(MAX_TRIES):
            off = np.flatnonzero(np.abs(entropy - aim) >= TOLERANCE)
            if not len(off):
                break
            wide = entropy[off] > aim
            low[off], high[off] = np.where(wide, beta[off], low[off]), np.where(wide, high[off], beta[off])
            # halving is bisection from 0
            beta[off] = np.where(np.isinf(high[off]), 2 * beta[off], (low[off] + high[off]) / 2)
            p[off], entropy[off] = _probabilities(distances[off], beta[off])
        place = np.arange(len(p))[:, None] * n_labels + of_neighbours
        shares = np.bincount(place.ravel(), p.ravel(), len(p) * n_labels).reshape(len(p), n_labels)
        effective[rows] = 1.0 / np.where(entropy == 0, -1.0, np.sum(shares**2, axis=1))
    return float(np.median(effective))


def _probabilities(
    distances: NDArray[np.float32], beta: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights of the neighbours, (n_cells, k), and their entropy, (n_cells,); both 0 where all weights underflow."""
    p = np.exp(-distances * beta[:, None])
    p[p < np.finfo(np.float32).tiny] = 0.0  # as compiled code has it
    total = p.sum(axis=1)
    none = total == 0
    total[none] = 1
    entropy = np.log(total) + beta * np.sum(distances * p, axis=1) / total
    return p / total[:, None], np.where(none, np.float32(0), entropy)


def _within_labels(silhouettes: Any, z: Floats, labels: Labels, batches: Labels) -> float:
    """Mean over labels of 1 - |silhouette of the batches within the label|, of the labels where there is such."""
    means = []
    for own in (labels == name for name in np.unique(labels)):
        # neither one batch, nor each cell one
        if 1 < _n_distinct(batches[own]) < own.sum():
            means.append(1 - np.abs(silhouettes(z[own], np.unique(batches[own], return_inverse=True)[1])).mean())
    return _unit(np.mean(means)) if means else float("nan")


def _silhouettes(z: Floats, groups: Labels, cells: NDArray[np.int64] | None = None) -> Floats:
    """Euclidean silhouettes of some cells (by default all): to their own group and to the nearest other one."""
    z = _centred(z)
    cells = np.arange(len(z)) if cells is None else cells
    members, norms, sizes = np.eye(groups.max() + 1)[groups], np.sum(z**2, axis=1), np.bincount(groups)
    widths = np.empty(len(cells))
    for rows in _chunks(len(cells), len(z)):
        asked = cells[rows]
        distances = norms[asked, None] + norms - 2.0 * z[asked] @ z.T
        distances[np.arange(len(asked)), asked] = 0.0
        totals = np.sqrt(np.maximum(distances, 0.0, out=distances), out=distances) @ members
        widths[rows] = _widths(totals, groups[asked], sizes, lambda others: (others / sizes).min(axis=1))
    return widths


def _cosine_silhouettes(z: Floats, groups: Labels) -> Floats:
    """Silhouettes by cosine distance, to their own group and to all others.

    A sum of cosine distances to a group is that to the sum of the group's unit vectors: no pairs are needed.
    """
    members, sizes = np.eye(groups.max() + 1)[groups], np.bincount(groups)
    with np.errstate(invalid="ignore"):
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)  # a cell at the origin has no distance to any
        totals = sizes - unit @ (members.T @ unit).T
    totals[totals <= RESOLUTION * sizes] = 0.0

    def all_others(others: Floats) -> Floats:
        finite = np.where(np.isinf(others), np.nan, others)
        return np.asarray(np.nansum(finite, axis=1) / (len(z) - sizes[groups]))

    return _widths(totals, groups, sizes, all_others)


def _widths(totals: Floats, own: Labels, sizes: Labels, to_others: Any) -> Floats:
    """(b - a) / max(a, b) of the mean distances a to the own group and b to others, 0 where there is none.

    ``totals`` are the sums of the distances to each group, (n_cells, n_groups).
    """
    rows = np.arange(len(own))
    with np.errstate(divide="ignore", invalid="ignore"):
        within = totals[rows, own] / (sizes[own] - 1)
        totals[rows, own] = np.inf
        between = to_others(totals)
        return np.nan_to_num((between - within) / np.maximum(within, between))


@shared
def umap_graph(z: Floats, k: int) -> Any:
    """UMAP's weights (McInnes et al. 2018) of the edges of the graph of k neighbours, sparse (n_cells, n_cells).

    ``w + wᵀ - w ∘ wᵀ``, ``w_ij = exp(-max(0, d_ij - ρ_i) / σ_i)``, ρ_i the nearest distance above 0 and σ_i such that
    the sum of a row is log2 k. In single precision and in umap-learn's order of steps, whose numba takes four
    seconds to compile.
    """
    graph = neighbours(z, k)
    indices, d = graph.indices, graph.distances.astype(np.float32)
    k = indices.shape[1]
    rho = np.min(d, axis=1, initial=np.inf, where=d > 0)
    rho[np.isinf(rho)] = 0
    beyond = d - rho[:, None]
    low, high, sigma = (np.full(len(d), value, dtype=np.float32) for value in (0.0, np.inf, 1.0))
    off = np.arange(len(d))
    for _ in range(64):
        total = _membership(beyond[off, 1:], sigma[off]).cumsum(axis=1)[:, -1] if k > 1 else np.zeros(len(off))
        missed = np.abs(total - np.log2(k)) >= 1e-5
        off, above = off[missed], (total > np.log2(k))[missed]
        if not len(off):
            break
        low[off], high[off] = np.where(above, low[off], sigma[off]), np.where(above, sigma[off], high[off])
        sigma[off] = np.where(np.isinf(high[off]), 2 * sigma[off], (low[off] + high[off]) / 2)
    sigma = np.maximum(sigma, 1e-3 * np.where(rho > 0, d.mean(axis=1), d.mean()))
    weights = _membership(beyond, sigma)
    weights[:, 0] = 0.0  # the cell itself
    directed = _rows(indices, weights)
    directed.eliminate_zeros()
    directed.sort_indices()  # Leiden depends on the order of edges
    union = directed + directed.T - directed.multiply(directed.T)
    union.eliminate_zeros()
    return union


def _membership(beyond: NDArray[np.float32], sigma: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.exp(-np.maximum(beyond, 0) / sigma[:, None])


@shared
def _leiden_agreement(z: Floats, labels: Labels, seed: int) -> dict[str, float]:
    import random

    import igraph
    from scipy.sparse import csr_matrix
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    graph = igraph.Graph.Weighted_Adjacency(csr_matrix(umap_graph(z, K_GRAPH)), mode="directed")
    graph.to_undirected(mode="each")
    best = {"nmi": -1.0}
    for resolution in RESOLUTIONS:
        igraph.set_random_number_generator(random.Random(seed))
        clusters = graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution
        ).membership
        nmi = float(normalized_mutual_info_score(labels, clusters))
        if nmi > best["nmi"]:
            best = {"ari": float(adjusted_rand_score(labels, clusters)), "nmi": nmi}
    return best


def _diffusion(graph: Any, n_components: int) -> Floats:
    """Diffusion map, (n_cells, n_components), of a weighted graph: distances in it are diffusion distances.

    Eigenvectors of the transitions, each times λ / (1 - λ), summed thus over all numbers of steps; single precision
    makes the first λ, of the stationary distribution, exactly 1.
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    density = diags_array(1.0 / graph.sum(axis=0))
    kernel = density @ graph @ density
    root = diags_array(1.0 / np.sqrt(kernel.sum(axis=0)))
    start = np.random.default_rng(0).normal(size=graph.shape[0])
    values, vectors = eigsh((root @ kernel @ root).astype(np.float64), k=n_components, which="LM", v0=start)
    values = values.astype(np.float32) + np.float32(1e-8)
    scale = np.where(values == 1, 1.0, values / np.where(values == 1, 1.0, 1 - values))
    return np.asarray(vectors.astype(np.float32) * scale, dtype=np.float64)


def _accepted(near: NDArray[np.int64], batches: Labels) -> float:
    """Share of the neighbourhoods (n_cells, k) whose batches a χ² test finds as frequent as in all cells."""
    from scipy.special import chdtrc

    frequency = np.bincount(batches) / len(batches)
    counts = np.stack([(batches[near] == batch).sum(axis=1) for batch in range(len(frequency))], axis=1)
    expected = frequency * near.shape[1]
    p = chdtrc(len(frequency) - 1, np.sum((counts - expected) ** 2 / expected, axis=1))
    return float(np.mean(p >= ALPHA))


def _between(z: Floats, batches: Labels) -> float:
    """Share of the total variance that lies between the batches; not a number where all is constant."""
    z = _centred(z)
    sizes = np.bincount(batches)
    sums = np.zeros((len(sizes), z.shape[1]))
    np.add.at(sums, batches, z)
    total = np.sum(z**2)
    return float(np.sum(sums**2 / sizes[:, None]) / total) if total > 0 else float("nan")


def _rows(indices: NDArray[np.int64], values: NDArray[Any]) -> Any:
    """Sparse (n_cells, n_cells) of the values at each row's indices."""
    from scipy.sparse import csr_array

    n, k = indices.shape
    return csr_array((values.flatten(), indices.flatten(), np.arange(0, n * k + 1, k)), shape=(n, n))


def _chunks(n: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK_ENTRIES // width)
    return (slice(start, start + step) for start in range(0, n, step))


def _unit(score: Any) -> float:
    """A float in [0, 1], rid of rounding; what is not a number stays so."""
    return float(np.clip(float(score), 0.0, 1.0))
