"""Lineage tracing of mouse blood progenitors in culture (Weinreb et al. 2020): day, cell type and clone.

- ``larry-mini``: 781 cells with a clone and 2,481 genes, the test file of the package cospar.
- ``larry``: the cells with a clone of all 130,887, from the files of the paper's site.

In both, ``obsm["X_clone"]`` is the matrix of cells x clones and ``obs["clone"]`` its column for each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import (
    categories,
    lines,
    note_dropped,
    read_h5ad,
    read_mtx,
    read_table,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# A gene is kept if at least this share of the kept cells expresses it.
MIN_SHARE = 0.001

_METADATA = {  # column: its name here
    "Library": "library",
    "Cell barcode": "barcode",
    "Time point": "time",
    "Starting population": "starting_population",
    "Cell type annotation": "cell_type",
    "Well": "well",
}


def build_mini(raw: Sequence[Path]) -> AnnData:
    """Build ``larry-mini`` from cospar's file: normalised counts, clones and the embedding."""
    import pandas as pd
    from anndata import AnnData

    (file,) = raw
    shipped = read_h5ad(file)
    clones = shipped.obsm["X_clone"].astype(np.float32)
    obs = pd.DataFrame(
        {
            "cell_type": shipped.obs["state_info"],
            "time": shipped.obs["time_info"],
            "n_counts": shipped.obs["n_counts"],
            "clone": pd.Categorical(clones.indices.astype(str).astype(object)),
        },
        index=shipped.obs_names,
    )
    return AnnData(
        shipped.X,
        obs=obs,
        var=pd.DataFrame(index=shipped.var_names),
        obsm={"X_clone": clones, "X_emb": shipped.obsm["X_emb"]},
        uns={"X_units": "library-size-normalised counts (not log), as shipped"},
    )


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``larry`` from normalised counts, gene names, clone matrix and metadata.

    Which side of a matrix has the cells follows from the lengths of the metadata and of the gene names.
    Cells without a clone, or with several, have no known fate and are left out; so are genes that fewer than
    one in a thousand of the kept cells express. Every cell is scaled to 10,000 before that. An observation's
    name is the row of the cell in the metadata, from 0.

    All 130,887 cells are in memory while this runs, as triplets of the sparse matrix.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import diags

    expression, gene_names, clone_matrix, metadata = raw
    cells = read_table(metadata, _METADATA)
    genes = [name.decode("utf-8", "replace").strip() for name in lines(gene_names)]
    genes = genes[:-1] if genes and not genes[-1] else genes
    clones = read_mtx(clone_matrix, len(cells), None, "cells of the metadata x clones")
    counts = read_mtx(expression, len(cells), len(genes), "cells of the metadata x gene names")
    _require_days(cells, metadata)

    n_clones = np.diff(clones.indptr)
    kept = np.flatnonzero(n_clones == 1)
    if not len(kept):
        raise DataError(
            f"{clone_matrix}: no cell has exactly one clone, expected one for about a third of them; take all files "
            "from the same release"
        )
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    counts, clones = counts[kept], clones[kept]
    counts = (diags(1e4 / np.maximum(totals[kept], 1e-12)) @ counts).tocsr().astype(np.float32)
    expressed = counts.getnnz(axis=0) >= max(1, MIN_SHARE * len(kept))
    obs = categories({new: cells[old].to_numpy()[kept] for old, new in _METADATA.items()}, kept)
    obs["clone"] = pd.Categorical(clones.indices.astype(str).astype(object))
    data = AnnData(
        counts[:, np.flatnonzero(expressed)],
        obs=obs,
        var=pd.DataFrame(index=np.array(genes, dtype=object)[expressed]),
        obsm={"X_clone": clones},
        uns={"X_units": "counts per 10,000 (not log)"},
    )
    dropped = {
        "cells without a clone": int((n_clones == 0).sum()),
        "cells with several clones": int((n_clones > 1).sum()),
        "genes that fewer than one in a thousand cells express": int((~expressed).sum()),
    }
    return note_dropped(data, dropped, "larry")


def _require_days(cells: pd.DataFrame, metadata: Path) -> None:
    days = cells["Time point"]
    wrong = np.flatnonzero(~days.isin(["2", "4", "6"]))
    if len(wrong):
        raise DataError(
            f"{metadata}: line {wrong[0] + 2}, column 'Time point' has {days.iloc[wrong[0]]!r}, expected 2, 4 or 6 "
            "(days); get the original file again"
        )


def prepare(built: AnnData) -> AnnData:
    """Take log1p of the counts per 10,000."""
    built.X.data = np.log1p(built.X.data)
    built.uns["X_units"] = "log1p of counts per 10,000"
    return built


_REFERENCE = "Weinreb et al. 2020, Science 367:eaaw3381 (GSE140802)"
_FIELDS = Fields(environment="time", content="cell_type", replicate="clone")
_SITE = "https://kleintools.hms.harvard.edu/paper_websites/state_fate2020"

LARRY_MINI = RealDataset(
    name="larry-mini",
    summary="blood progenitors with clones at days 2, 4 and 6: 781 x 2,481",
    paper=f"{_REFERENCE}; shipped by cospar, Wang et al. 2022, Nat Biotechnol 40:1066",
    licence="MIT of the repository; the data are open-access GEO",
    fields=_FIELDS,
    sources=(
        Source.github(
            "AllonKleinLab/cospar",
            "ca54cad8a9db9a72152ba8a8b6d67d57eace4acb",
            "tests/data/test_adata_preprocessed.h5ad",
            1_463_810,
            "3c9a5d728f402ff2b87cfecb3cd6639a7fa342fe3a7d44ad57ac526a5ef674af",
        ),
    ),
    builder="tasks.datasets.larry:build_mini",
    prepare="tasks.datasets.larry:prepare",
)

LARRY = RealDataset(
    name="larry",
    summary="blood progenitors with clones at days 2, 4 and 6, the whole culture experiment (130,887 cells in all)",
    paper=_REFERENCE,
    licence="none stated; the data are open-access GEO",
    fields=_FIELDS,
    sources=tuple(
        Source.first_use(f"{_SITE}/stateFate_inVitro_{part}.gz", "kleintools.hms.harvard.edu/state_fate2020")
        for part in ("normed_counts.mtx", "gene_names.txt", "clone_matrix.mtx", "metadata.txt")
    ),
    builder="tasks.datasets.larry:build",
    prepare="tasks.datasets.larry:prepare",
    n_genes=2000,
)
