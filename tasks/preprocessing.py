"""Gene selection: fitted to the training cells of a split alone, once, and kept on disk.

Normalisation is not part of it: log1p(CP10k) divides each cell by its total, over all genes, and has nothing to fit.
Nor is scaling, which a method fits to its training cells.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.built import made
from tasks.datasets.catalogue import built_directory

if TYPE_CHECKING:
    from anndata import AnnData

#: Shares of the genes in the local regression of variance on mean: Seurat's, and all of them.
SPANS = (0.3, 1.0)
#: The trend needs at least this many varying genes; with three, scikit-misc 0.5.3 crashes the process.
MIN_TREND = 20
_BLOCK = 1024  # cells taken into double precision at once


def select_genes(training: AnnData, n_genes: int) -> np.ndarray:
    """Return the indices of the most variable genes, in ascending order.

    With ``layers["counts"]`` genes are ranked as by Seurat v3 (Stuart et al. 2019, Cell 177:1888; scanpy's
    ``seurat_v3``): by the variance of counts standardised with the mean and the variance that a local regression of
    log variance on log mean expects, clipped at √n_cells. Where that regression is singular (most genes share
    a few means) it is fitted to all genes at once. Without counts, or where it is singular even so, genes are ranked by
    the variance of X. Ties go to the gene that comes first.

    Parameters
    ----------
    training
        Training cells; ``X`` and counts are dense or CSR.
    n_genes
        How many genes to choose.

    Returns
    -------
    np.ndarray
        All genes if there are at most ``n_genes``. Else at most ``n_genes`` of them: a gene that does not vary in
        training is never chosen.
    """
    if training.n_vars <= n_genes:
        return np.arange(training.n_vars)
    spread = _standardised_variances(training.layers["counts"]) if "counts" in training.layers else None
    spread = _variances(training.X) if spread is None else spread
    ranked = np.argsort(-spread, kind="stable")[:n_genes]
    return np.sort(ranked[spread[ranked] > 0])


def _standardised_variances(counts: Any) -> np.ndarray | None:
    """Return scanpy's ``variances_norm`` (n_genes,), or None where its trend cannot be fitted."""
    import scanpy
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    counts = csr_matrix(counts)
    varies = _variances(counts) > 0
    if varies.sum() < MIN_TREND:
        return None
    for span in SPANS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ranked = scanpy.pp.highly_variable_genes(
                    AnnData(counts), flavor="seurat_v3", n_top_genes=1, span=span, inplace=False
                )
        except ValueError:  # the regression is singular
            continue
        return np.where(varies, ranked["variances_norm"], 0.0)
    return None


def _variances(x: Any) -> np.ndarray:
    """Return each gene's variance in double precision, (n_genes,); of a constant gene exactly 0."""
    mean = np.asarray(x.mean(axis=0, dtype=np.float64)).ravel()
    total, low, high = np.zeros(len(mean)), np.full(len(mean), np.inf), np.full(len(mean), -np.inf)
    for start in range(0, x.shape[0], _BLOCK):
        block = x[start : start + _BLOCK]
        block = block.toarray() if hasattr(block, "toarray") else np.asarray(block)
        total += np.square(block - mean).sum(axis=0)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    return np.where(low < high, total / x.shape[0], 0.0)


def chosen_genes(
    training: Callable[[], AnnData], n_genes: int, key: Sequence[str], sources: Iterable[Path]
) -> np.ndarray:
    """Return the genes that are selected on the training cells of a split: selected once, then read from the cache.

    A file of the cache holds an index a line; a damaged file is made anew. Its name covers all that the choice depends
    on: ``key``, number of genes, source code and the versions of the libraries.

    Parameters
    ----------
    training
        Returns the training cells; called only where the cache has no answer.
    n_genes
        How many are wanted.
    key
        What names the split: task, digest of the data, unit and seed.
    sources
        Files with the code that makes the split; those of this package are added.
    """
    parts = [*key, str(n_genes), *(version(name) for name in ("scanpy", "scikit-misc"))]
    parts += sorted(_checksum(source) for source in {*sources, *Path(__file__).parent.glob("*.py")})
    file = built_directory() / "genes" / f"{_checksum(','.join(parts))[:32]}.txt"
    made(file, lambda temporary: temporary.write_text("\n".join(map(str, select_genes(training(), n_genes)))))
    return np.array(file.read_text().split(), dtype=np.int64)


def _checksum(what: str | Path) -> str:
    return hashlib.sha256(what.read_bytes() if isinstance(what, Path) else what.encode()).hexdigest()
