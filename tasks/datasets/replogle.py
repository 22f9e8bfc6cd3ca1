"""Gene repression in K562 cells, genome-wide (Replogle et al. 2022): some perturbations of the whole screen.

The file of UMI counts has 1,989,578 cells and 8,248 genes, 66 GB. It is read in blocks of rows, of which the
cells of ``PERTURBATIONS`` and some of the control cells are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import are_counts, note_dropped, reading, require_columns

if TYPE_CHECKING:
    from anndata import AnnData

CONTROL = "non-targeting"

#: Our choice, small enough for a workstation: parts of the Integrator complex, which the paper tells apart
#: by their expression profiles (C7orf26 with INTS10, INTS13 and INTS14), and regulators of the erythroid line.
PERTURBATIONS = (
    *("INTS1", "INTS2", "INTS3", "INTS4", "INTS5", "INTS6", "INTS7", "INTS8", "INTS9", "INTS12"),
    *("INTS10", "INTS13", "INTS14", "C7orf26"),
    *("GATA1", "GFI1B", "KLF1", "LDB1", "LMO2", "MYB", "RUNX1", "TAL1"),
)

#: Number of the 75,328 control cells that are kept, evenly spaced over the file, so that every batch takes part.
MAX_CONTROLS = 10_000

_BLOCK = 4096  # rows read at once; 135 MB of the dense file


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``replogle`` from the cells of ``PERTURBATIONS``; a listed one that is absent is reported."""
    (file,) = raw
    return read_perturbations(file, PERTURBATIONS)


def read_perturbations(file: Path, perturbations: Sequence[str], max_controls: int = MAX_CONTROLS) -> AnnData:
    """Read the control cells and those of some perturbations of a screen that does not fit into memory.

    Parameters
    ----------
    file
        An ``.h5ad`` of counts with the column ``gene`` ("non-targeting" for control cells).
    perturbations
        The genes to keep.
    max_controls
        At most so many control cells are kept.
    """
    import warnings

    import anndata
    from scipy.sparse import csr_matrix, vstack

    with reading(file, "an .h5ad file"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says of every element how old the file is
        shipped = anndata.read_h5ad(file, backed="r")
    try:
        require_columns(shipped.obs, ["gene"], file)
        labels = shipped.obs["gene"].astype(str).to_numpy()
        kept, dropped = _chosen(file, labels, perturbations, max_controls)
        blocks = []
        with reading(file, "an .h5ad file"):
            for start in range(0, len(labels), _BLOCK):
                rows = kept[(kept >= start) & (kept < start + _BLOCK)]
                if len(rows):
                    block = shipped.X[start : start + _BLOCK]
                    blocks.append(csr_matrix(block[rows - start], dtype=np.float32))
        obs, var = shipped.obs.iloc[kept].copy(), shipped.var.copy()
    finally:
        shipped.file.close()
    counts = vstack(blocks, format="csr")
    if not are_counts(counts):
        raise DataError(
            f"{file}: X has values that are not whole numbers from zero up, expected UMI counts; get the raw "
            "single-cell file, not the normalised one"
        )
    obs = obs.rename(columns={"gene": "perturbation"})
    obs["perturbation"] = obs["perturbation"].astype(str).astype("category")
    obs["cell_type"] = np.repeat("K562", len(obs))
    obs["cell_type"] = obs["cell_type"].astype("category")
    data = anndata.AnnData(counts, obs=obs, var=var, uns={"X_units": "raw UMI counts"})
    return note_dropped(data, dropped, "replogle")


def _chosen(
    file: Path, labels: np.ndarray, perturbations: Sequence[str], max_controls: int
) -> tuple[np.ndarray, dict[str, int]]:
    """Return the rows to keep, in order, and how many of what are left out."""
    controls = np.flatnonzero(labels == CONTROL)
    listed = np.flatnonzero(np.isin(labels, list(perturbations)))
    for what, rows in ((f"control cells ({CONTROL!r})", controls), ("cells of a listed perturbation", listed)):
        if not len(rows):
            shown = ", ".join(repr(str(label)) for label in np.unique(labels)[:10])
            raise DataError(
                f"{file}: column 'gene' has no {what}, expected some among its values ({shown}); get the file that the "
                "catalogue names, or list other perturbations"
            )
    n_controls = min(max_controls, len(controls))
    some = controls[np.linspace(0, len(controls) - 1, n_controls).astype(int)]
    dropped = {
        "cells of perturbations that are not listed": len(labels) - len(controls) - len(listed),
        "control cells": len(controls) - n_controls,
        "listed perturbations without a cell": len(set(perturbations) - set(labels[listed])),
    }
    return np.sort(np.concatenate([some, listed])), dropped


REPLOGLE = RealDataset(
    name="replogle",
    summary=(
        "gene repression in K562, 22 genes of the genome-wide screen (a file of 66 GB); no task uses it: it has single "
        "perturbations in one cell type"
    ),
    reference="Replogle et al. 2022, Cell 185:2559",
    licence="as stated on figshare",
    fields=Fields(environment="perturbation", content="cell_type", control=CONTROL),
    sources=(
        Source.first_use(
            "https://plus.figshare.com/ndownloader/files/35775507",
            "figshare/35775507",
            "K562_gwps_raw_singlecell_01.h5ad",
        ),
    ),
    builder="tasks.datasets.replogle:build",
    prepare="tasks.datasets.reading:prepare_counts",
    n_genes=2000,
)
