"""Myeloid progenitors of the mouse (Paul et al. 2015), from a file that no address serves.

2,660 cells and 3,004 genes, MARS-seq UMI counts, with the amplification batch of each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.datasets.base import Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import read_h5ad

if TYPE_CHECKING:
    from anndata import AnnData


def build(raw: Sequence[Path]) -> AnnData:
    """Return the file as it is."""
    (file,) = raw
    return read_h5ad(file)


PAUL = RealDataset(
    name="paul15",
    summary=(
        "mouse myeloid progenitors, 7 cell types, 16 batches (a local file): 2,660 x 3,004; no task uses it: without "
        "clones there are no fates to predict, and batches are no conditions"
    ),
    reference="Paul et al. 2015, Cell 163:1663 (GSE72857); shipped by the R package tradeSeq",
    licence="MIT of the repository; the data are open-access GEO",
    fields=Fields(environment="batch", content="cell_type"),
    sources=(
        Source("paul15_myeloid.h5ad", 3_747_813, "aa6041115dbf4e8b9bad5fe7930e7f339cd0a36949f7dbdd59a7986587e59f74"),
    ),
    builder="tasks.datasets.paul:build",
    prepare="tasks.datasets.reading:prepare_counts",
)
