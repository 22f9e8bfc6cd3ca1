"""Gene activation, single and in pairs, in K562 cells (Norman et al. 2019).

- ``norman-mini``: PerturBench's development file: K562 cells of Norman et al. with cells of three glioblastoma
  lines whose genes were repressed (McFaline-Figueroa et al. 2024); 5,961 cells, 500 variable genes,
  log-normalised. K562 and the other lines differ by study, technology and direction too.
- ``norman``: the processed file of the whole screen, about 111,000 cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import (
    are_counts,
    keep_labelled,
    log1p_cp10k,
    note_dropped,
    read_h5ad,
    require_columns,
)

if TYPE_CHECKING:
    from anndata import AnnData

_LABEL = "perturbation_name"


def build_mini(raw: Sequence[Path]) -> AnnData:
    """Build ``norman-mini`` from PerturBench's file: the same cells, genes and columns, as float32."""
    (file,) = raw
    data = read_h5ad(file)
    data.X = data.X.astype(np.float32)
    data.uns = {"X_units": "log1p normalised expression of 500 HVGs, as shipped by PerturBench"}
    return data


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``norman`` from the processed ``.h5ad``.

    ``X`` is kept where it is log-normalised, and made from the counts where it holds these. Counts in
    ``layers["counts"]`` are kept. ``perturbation_name`` ("control", "KLF1", "KLF1+TGFBR2") becomes
    ``perturbation``; ``cell_type`` is K562 for every cell.
    """
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    (file,) = raw
    shipped = read_h5ad(file)
    require_columns(shipped.obs, [_LABEL], file)
    dropped: dict[str, int] = {}
    shipped = keep_labelled(shipped, [_LABEL], dropped)
    x = csr_matrix(shipped.X, dtype=np.float32)
    counts = csr_matrix(shipped.layers["counts"], dtype=np.float32) if "counts" in shipped.layers else None
    if are_counts(x):
        counts, x = x, log1p_cp10k(x)
    elif x.data.min() < 0:
        raise DataError(
            f"{file}: X has values below zero, such as {x.data.min():g}, expected counts or log-normalised expression; "
            "get the processed file that the catalogue names, or undo the scaling"
        )
    obs = shipped.obs.rename(columns={_LABEL: "perturbation"})
    obs["perturbation"] = obs["perturbation"].astype(str).astype("category")
    obs["cell_type"] = np.repeat("K562", len(obs))
    obs["cell_type"] = obs["cell_type"].astype("category")
    return note_dropped(
        AnnData(
            x,
            obs=obs,
            var=shipped.var,
            layers={"counts": counts} if counts is not None and are_counts(counts) else {},
            uns={"X_units": "log1p of normalised counts"},
        ),
        dropped,
        "norman",
    )


_FIELDS = Fields(environment="perturbation", content="cell_type", control="control")

NORMAN_MINI = RealDataset(
    name="norman-mini",
    summary="33 single and double gene perturbations in 4 cell lines: 5,961 x 500",
    paper=(
        "Norman et al. 2019, Science 365:786 (GSE133344); McFaline-Figueroa et al. 2024, Cell Genomics 4:100487 "
        "(GSE225775); shipped by PerturBench, Wu et al. 2024, arXiv 2408.10609"
    ),
    licence="BSD-3-Clause of the repository; the data are open-access GEO",
    fields=_FIELDS,
    sources=(
        Source.github(
            "altoslabs/perturbench",
            "d357dfae3b50968e800e9f5f273ff145080ae67c",
            "src/perturbench/data/resources/devel.h5ad",
            1_142_678,
            "220998f5630c813228c8661c86dd52244b9ac87127511289af90e0d900d8429b",
        ),
    ),
    builder="tasks.datasets.norman:build_mini",
    prepare="tasks.datasets.reading:prepare_shipped",
)

NORMAN = RealDataset(
    name="norman",
    summary="gene activation in K562, singles and doubles, the whole screen: about 111,000 cells",
    paper="Norman et al. 2019, Science 365:786 (GSE133344); the processed file on figshare",
    licence="as stated on figshare; the data are open-access GEO",
    fields=_FIELDS,
    sources=(
        Source.first_use("https://figshare.com/ndownloader/files/34027562", "figshare/34027562", "norman_2019.h5ad"),
    ),
    builder="tasks.datasets.norman:build",
    prepare="tasks.datasets.reading:prepare_shipped",
    n_genes=2000,
)
