"""Epithelium of the mouse small intestine (Haber et al. 2017), UMI counts.

- ``haber-regions``: duodenum, jejunum and ileum; about 11,665 cells.
- ``haber-infection``: control, Salmonella, and Heligmosomoides polygyrus at days 3 and 10; about 9,842 cells.

In both files the columns' names say all that is known of the cells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import are_counts, categories, keep_labelled, matrix_rows, note_dropped

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

REGIONS = ("Duodenum", "Ileum", "Jejunum")
CONDITIONS = ("Control", "Hpoly.Day10", "Hpoly.Day3", "Salmonella")

_BARCODE = re.compile(r"[ACGTN]+([-.]\d+)?")


def build_regions(raw: Sequence[Path]) -> AnnData:
    """Build ``haber-regions``. The 2nd part of a column's name is the region and the 4th the cell type.

    One of the other two is of A, C, G and T in every cell: it is the barcode, and the other is the mouse.
    """
    (file,) = raw
    names, counts, genes = _read(file)
    parts = _parts(file, names, "mouse, region, barcode and cell type", 1, REGIONS)
    is_barcode = [all(_BARCODE.fullmatch(value) for value in parts[i]) for i in (0, 2)]
    mouse, barcode = (2, 0) if is_barcode == [True, False] else (0, 2)
    columns = {"region": parts[1], "cell_type": parts[3], "replicate": parts[mouse], "barcode": parts[barcode]}
    return _made(names, columns, counts, genes, "haber-regions")


def build_infection(raw: Sequence[Path]) -> AnnData:
    """Build ``haber-infection``. A column's name is replicate_barcode_condition_celltype."""
    (file,) = raw
    names, counts, genes = _read(file)
    parts = _parts(file, names, "replicate, barcode, condition and cell type", 2, CONDITIONS)
    columns = {"condition": parts[2], "cell_type": parts[3], "replicate": parts[0], "barcode": parts[1]}
    return _made(names, columns, counts, genes, "haber-infection")


def _read(file: Path) -> tuple[list[str], csr_matrix, list[str]]:
    """Return the columns' names, the counts (sparse, cells x genes) and the genes."""
    from scipy.sparse import csc_matrix

    names, rows = matrix_rows(file)
    genes: list[str] = []
    lines: dict[str, int] = {}
    values, cells = [], []
    for line, gene, counts in rows:
        if gene in lines:
            raise DataError(
                f"{file}: line {line} has the gene {gene!r} again (first in line {lines[gene]}), expected one line for "
                "each gene; get the original file again"
            )
        if not are_counts(counts):
            wrong = int(np.flatnonzero((counts < 0) | (counts != np.floor(counts)))[0])
            raise DataError(
                f"{file}: line {line}, column {names[wrong]!r} has {counts[wrong]:g}, expected a UMI count (a whole "
                "number from zero up); get the file of UMI counts"
            )
        lines[gene] = line
        genes.append(gene)
        cells.append(np.flatnonzero(counts).astype(np.int32))
        values.append(counts[cells[-1]])
    starts = np.concatenate([[0], np.cumsum([len(each) for each in cells])])
    matrix = csc_matrix((np.concatenate(values), np.concatenate(cells), starts), shape=(len(names), len(genes)))
    return names, matrix.tocsr(), genes


def _parts(file: Path, names: list[str], what: str, which: int, allowed: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the four parts of the names, checked; part number ``which`` is one of ``allowed``."""
    found = []
    for number, name in enumerate(names, start=1):
        parts = tuple(name.split("_", 3))  # a cell type may contain anything, dots and dashes too
        if len(parts) != 4 or not all(parts):
            raise DataError(
                f"{file}: line 1, column {number} is {name!r}, expected {what}, joined by '_'; get the original file "
                "again"
            )
        if parts[which] not in allowed:
            raise DataError(
                f"{file}: line 1, column {number} is {name!r}, expected one of {', '.join(allowed)} as its part "
                f"{which + 1}; get the file that the catalogue names"
            )
        found.append(parts)
    twice = len(names) - len(set(names))
    if twice:
        raise DataError(f"{file}: line 1 has {twice} names more than once, expected one column for each cell")
    return list(zip(*found, strict=True))


def _made(
    names: list[str], columns: dict[str, tuple[str, ...]], counts: csr_matrix, genes: list[str], name: str
) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    data = AnnData(
        counts,
        obs=categories(columns, names),
        var=pd.DataFrame(index=np.array(genes, dtype=object)),
        uns={"X_units": "raw UMI counts"},
    )
    dropped: dict[str, int] = {}
    return note_dropped(keep_labelled(data, columns, dropped), dropped, name)


_SUPPLEMENT = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE92nnn/GSE92332/suppl"
_REFERENCE = "Haber et al. 2017, Nature 551:333 (GSE92332)"

HABER_REGIONS = RealDataset(
    name="haber-regions",
    summary="mouse intestinal epithelium of duodenum, jejunum and ileum: 11,665 cells",
    paper=_REFERENCE,
    licence="none stated; the data are open-access GEO",
    fields=Fields(environment="region", content="cell_type", replicate="replicate"),
    sources=(Source.first_use(f"{_SUPPLEMENT}/GSE92332_Regional_UMIcounts.txt.gz", "geo/GSE92332"),),
    builder="tasks.datasets.haber:build_regions",
    prepare="tasks.datasets.reading:prepare_counts",
    n_genes=2000,
)

HABER_INFECTION = RealDataset(
    name="haber-infection",
    summary="mouse intestinal epithelium, control and three infections: 9,842 cells",
    paper=_REFERENCE,
    licence="none stated; the data are open-access GEO",
    fields=Fields(environment="condition", content="cell_type", replicate="replicate", control="Control"),
    sources=(Source.first_use(f"{_SUPPLEMENT}/GSE92332_SalmHelm_UMIcounts.txt.gz", "geo/GSE92332"),),
    builder="tasks.datasets.haber:build_infection",
    prepare="tasks.datasets.reading:prepare_counts",
    n_genes=2000,
)
