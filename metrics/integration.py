"""Metrics of integration: are batches mixed, and are labels kept? Computed by scib-metrics (Luecken et al. 2022).

Batch removal alone is gameable: a constant code has mixed batches by ``ilisi``, ``bras``, ``kbet_per_label`` and
nearly so by ``graph_connectivity``. Read each of these beside a metric that asks for the labels (``clisi``,
``ari_leiden``).

All metrics of a code use one graph of nearest neighbours (``metrics.neighbours``), of which LISI takes 90, kBET 50 and
the others 15, the cell itself included, or all there are: the numbers that the benchmark of scib-metrics uses.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from functools import cache
from typing import Annotated, Any

import numpy as np

from metrics.arrays import RESOLUTION, Floats, Labels
from metrics.base import MetricInfo, family, share
from metrics.cache import cache_directory
from metrics.neighbours import neighbours

K_LISI, K_KBET, K_GRAPH = 90, 50, 15
CHUNK = 2048
"""Cells whose distances to all others ``bras`` computes at once; each size of a chunk is compiled anew."""

_SCIB = "scib-metrics; Luecken et al. (2022), Nat. Methods 19:41"
_LISI = "scib-metrics; Korsunsky et al. (2019), Nat. Methods 16:1289"
_KBET = "scib-metrics; Büttner et al. (2019), Nat. Methods 16:43"


@family(
    ilisi=share(_LISI, "Integration LISI: how many batches there are, effectively, in a neighbourhood."),
    pcr_comparison=share(f"{_SCIB}; {_KBET[14:]}", "Share of the variance between batches that the code removes."),
    bras=share(
        "scib-metrics; Rautenstrauch & Ohler (2025), Nat. Biotechnol., BRAS",
        "Batch-removal-adapted silhouette: whether batches overlap within each label.",
    ),
    graph_connectivity=share(
        _SCIB, "Share of each label's cells that lie in one connected piece of the label's graph."
    ),
    kbet_per_label=share(_KBET, "Share of the neighbourhoods within a label whose batches are as frequent as overall."),
    clisi=share(_LISI, "Cell-type LISI: how pure in label the neighbourhoods are."),
    ari_leiden=MetricInfo(
        "higher",
        -0.5,
        1.0,
        f"{_SCIB}; Hubert & Arabie (1985), J. Classif. 2:193",
        "Adjusted Rand index of Leiden clusters with the labels.",
    ),
    nmi_leiden=share(
        f"{_SCIB}; Strehl & Ghosh (2002), JMLR 3:583",
        "Normalised mutual information of Leiden clusters with the labels.",
    ),
    silhouette_label=share(_SCIB, "How far the labels are apart: their mean silhouette."),
    isolated_labels=share(_SCIB, "How far the labels of the fewest batches stand apart."),
)
def integration(
    codes: Annotated[Floats, "n_cells>=3 n_latent"],
    batches: Annotated[Labels, "n_cells"],
    labels: Annotated[Labels, "n_cells"] | None = None,
    before: Annotated[Floats, "n_cells n_features"] | None = None,
    kbet: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Compute the integration metrics of scib-metrics from one graph of neighbours.

    LISI is the effective number of labels (inverse Simpson index, perplexity k / 3) among a cell's 90 neighbours.

    - ``ilisi``: ``(median LISI of batches - 1) / (n_batches - 1)``. 0: one batch in each neighbourhood; 1: all equally,
      which batches of unequal size cannot reach.
    - ``pcr_comparison``: ``1 - V_codes / V_before``, at least 0, where V is the R² of the batch (one-hot) for each
      principal component, weighted by the component's variance. Without ``before`` it is left out.

    The others need labels and are left out without them:

    - ``bras``: ``1 - |s|``, s the silhouette of batches within a label, where the distance to other batches is the mean
      over all their cells; mean over cells, then labels. The distance is the cosine and depends on the origin: the
      codes are taken as they are. A constant code scores 1 up to rounding. Labels in one batch are left out.
    - ``graph_connectivity``: mean over labels of ``largest strongly connected component / cells`` in the graph of 15
      neighbours, restricted to the label.
    - ``kbet_per_label``: share of the cells of a label in whose neighbourhood a χ² test (level .05) does not reject
      that batches are as frequent as in the label; mean over labels. Neighbours are those in diffusion distance within
      the label. It takes 20 to 30 seconds and is left out unless ``kbet`` asks for it.
    - ``clisi``: ``(n_labels - median LISI of labels) / (n_labels - 1)``. 1: one label in each neighbourhood.
    - ``ari_leiden``, ``nmi_leiden``: Leiden by modularity on the UMAP-weighted graph of 15 neighbours, at that of ten
      resolutions (.2 to 2) whose NMI *with the labels* is the best: an optimistic choice, equally so for every method.
      The NMI ``2 I / (H + H')`` is not adjusted for chance.
    - ``silhouette_label``: mean Euclidean silhouette of the labels, scaled to [0, 1]; .5 for a constant code.
    - ``isolated_labels``: the same over the cells of each label that is in the fewest batches, then the mean over these
      labels.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    batches, labels
        (n_cells,).
    before
        The cells before integration, such as principal components of their expression, (n_cells, n_features).
    kbet
        Whether to compute ``kbet_per_label``.
    seed
        Seed of Leiden.

    Returns
    -------
    scores
        By name. Not a number where there is one batch, or one label, and the metric compares several; for
        ``pcr_comparison`` also where codes are constant or ``before`` has no variance between batches.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 3, or values are not finite.
    """
    scib = _scib()
    near = neighbours(codes, K_LISI)
    graph = scib.nearest_neighbors.NeighborsResults(near.indices.copy(), near.distances.copy())
    several_batches = batches.max() > 0
    scores = {"ilisi": scib.ilisi_knn(graph, batches) if several_batches else np.nan}
    if before is not None:
        explained = [_between_batches(x, batches) if several_batches else np.nan for x in (before, codes)]
        scores["pcr_comparison"] = 1 - explained[1] / explained[0] if explained[0] >= 1e-6 else np.nan
    if labels is None:
        return _plain(scores)
    close = graph.subset_neighbors(min(K_GRAPH, graph.n_neighbors))
    centred = codes - codes.mean(axis=0)
    can_mix = [1 < len(np.unique(batches[labels == label])) < np.sum(labels == label) for label in np.unique(labels)]
    scores["graph_connectivity"] = scib.graph_connectivity(close, labels)
    scores["bras"] = scib.bras(codes, labels, batches, chunk_size=CHUNK) if any(can_mix) else np.nan
    if labels.max() > 0:
        leiden = scib.nmi_ari_cluster_labels_leiden(close, labels, seed=seed)
        scores |= {
            "clisi": scib.clisi_knn(graph, labels),
            "ari_leiden": leiden["ari"],
            "nmi_leiden": leiden["nmi"],
            "silhouette_label": scib.silhouette_label(centred, labels),
            "isolated_labels": scib.isolated_labels(centred, labels, batches),
        }
    if kbet and any(can_mix):
        scores["kbet_per_label"] = scib.kbet_per_label(
            graph.subset_neighbors(min(K_KBET, graph.n_neighbors)), batches, labels
        )
    return _plain(scores)


@cache
def _scib() -> Any:
    """Import scib-metrics, on one thread of the processor, with its compiled code kept on disk.

    JAX cannot be forked once it has started. So this is called by the process that needs the values, and by no process
    that starts others.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import jax
    from llvmlite import binding

    jax.config.update("jax_platforms", "cpu")
    # machines of a cluster may share the directory: code for one kind of processor may not run on another
    processor = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
    compiled = cache_directory("compiled") / hashlib.sha256(processor.encode()).hexdigest()[:12]
    with suppress(OSError):  # without a directory that can be written each process compiles anew
        compiled.mkdir(parents=True, exist_ok=True)
    writable = os.access(compiled, os.W_OK)
    if writable:
        jax.config.update("jax_compilation_cache_dir", str(compiled))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    import scib_metrics

    if writable:
        import numba
        from umap import umap_

        numba.config.CACHE_DIR = str(compiled)  # type: ignore[attr-defined]
        for function in (umap_.smooth_knn_dist, umap_.compute_membership_strengths):
            function.enable_caching()  # otherwise they are compiled in every process, for four seconds
    scib_metrics.settings.verbosity = logging.WARNING
    return scib_metrics


def _between_batches(x: Floats, batches: Labels) -> float:
    """Share of the variance of x that lies between batches, over the components that vary; NaN if x is constant."""
    centred = x - x.mean(axis=0)
    tolerance = RESOLUTION * np.linalg.norm(x)
    rank = int(np.linalg.matrix_rank(centred, tol=tolerance))
    if rank == 0:
        return float("nan")
    return float(_scib().utils.principal_component_regression(centred, batches, categorical=True, n_components=rank))


def _plain(scores: dict[str, Any]) -> dict[str, float]:
    """The scores as floats, clipped to their ranges, which rounding may leave."""
    return {name: float(np.clip(value, -0.5 if name == "ari_leiden" else 0.0, 1.0)) for name, value in scores.items()}
