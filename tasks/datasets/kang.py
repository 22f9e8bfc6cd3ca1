"""Peripheral blood cells of eight lupus patients, with and without interferon beta (Kang et al. 2018).

- ``kang``: the 1,975 cells and 6,998 genes of scGen's validation file, with the patient of each cell from
  demuxlet.
- ``kang-full``: the curated file of all 24,673 cells, UMI counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import are_counts, keep_labelled, note_dropped, read_h5ad, require_columns

if TYPE_CHECKING:
    from anndata import AnnData

# scGen scaled each cell to this sum of counts (over all genes) before the logarithm. Found from the file:
# with it every count is within 7e-4 of a whole number.
LIBRARY = 1832.5


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``kang`` from scGen's file and demuxlet's calls for the control and the stimulated cells.

    Counts are recovered from ``X`` = log1p(count * 1832.5 / n_counts). A cell's donor is the one that
    demuxlet found, or ``doublet`` where it found two (326 cells).
    """
    import anndata
    import pandas as pd

    expression, *calls = raw
    shipped = read_h5ad(expression)
    obs = shipped.obs.copy()
    # An observation's name is its barcode, the number of the sample and the condition: AAAC-1-control.
    barcode = obs.index.str.rsplit("-", n=1).str[0]
    donor = pd.Series(index=obs.index, dtype=object)
    for condition, file in zip(("control", "stimulated"), calls, strict=True):
        best = pd.read_csv(file, sep="\t", index_col="BARCODE", usecols=["BARCODE", "BEST"])["BEST"]
        # BEST is SNG-<donor> for a single cell, DBL-<donor>-<donor>-<share> for a doublet.
        called = best.where(best.str.startswith("SNG-"), "doublet").str.removeprefix("SNG-")
        here = (obs["condition"] == condition).to_numpy()
        donor[here] = called.loc[barcode[here]].to_numpy()
    obs["donor"] = pd.Categorical(donor)
    obs["barcode"] = pd.Categorical(barcode)

    counts = shipped.X.copy()
    n_counts = np.repeat(obs["n_counts"].to_numpy(np.float64), np.diff(counts.indptr))
    counts.data = np.rint(np.expm1(counts.data.astype(np.float64)) * n_counts / LIBRARY).astype(np.float32)
    return anndata.AnnData(
        shipped.X,
        obs=obs,
        var=pd.DataFrame(index=shipped.var_names),
        layers={"counts": counts},
        uns={"X_units": "log1p of counts normalised per cell (as shipped by scGen)"},
    )


def prepare(built: AnnData) -> AnnData:
    """Make ``X`` (float32) and ``layers["counts"]`` dense."""
    built.X = built.X.toarray()
    built.layers["counts"] = built.layers["counts"].toarray()
    built.uns["X_units"] = f"log1p of counts per {LIBRARY:g} (over all genes), as shipped by scGen"
    return built


def build_full(raw: Sequence[Path]) -> AnnData:
    """Build ``kang-full`` from the curated ``.h5ad``: UMI counts, and the columns as shipped."""
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    (file,) = raw
    shipped = read_h5ad(file)
    labels = ["label", "cell_type", "replicate"]
    require_columns(shipped.obs, labels, file)
    if not are_counts(shipped.X):
        raise DataError(
            f"{file}: X has values that are not whole numbers from zero up, expected UMI counts; get the curated file "
            "that the catalogue names, before normalisation"
        )
    dropped: dict[str, int] = {}
    shipped = keep_labelled(shipped, labels, dropped)
    for column in labels:
        shipped.obs[column] = shipped.obs[column].astype(str).astype("category")
    counts = csr_matrix(shipped.X, dtype=np.float32)
    data = AnnData(counts, obs=shipped.obs, var=shipped.var, uns={"X_units": "raw UMI counts"})
    return note_dropped(data, dropped, "kang-full")


_DEMUXLET = ("yelabucsf/demuxlet_paper_code", "ec493d3a4fdb78a1141588c196358dfab1030935")

KANG = RealDataset(
    name="kang",
    summary="blood cells of 8 patients, 7 cell types, control and interferon beta: 1,975 x 6,998",
    paper=(
        "Kang et al. 2018, Nat Biotechnol 36:89 (GSE96583); shipped by scGen, Lotfollahi et al. 2019, "
        "Nat Methods 16:715"
    ),
    licence="GPL-3 of scGen's repository; none stated for the donors; the data are open-access GEO",
    fields=Fields(environment="condition", content="cell_type", replicate="donor", control="control"),
    sources=(
        Source.github(
            "theislab/scgen",
            "dd7e178f9b42b9dfef9eb18d0da4b8e3caea4cf7",
            "data/valid.h5ad",
            2_321_480,
            "83f89f5356a4c01f65bbcee225eb45d8d8b13b6c962724431a26c1bf568ff09e",
        ),
        Source.github(
            *_DEMUXLET,
            "fig3/ye1.ctrl.8.10.sm.best",
            2_357_149,
            "2eb8556fa52ed03b598463ac844af68e09492d963960e4c260503fad6b00c393",
        ),
        Source.github(
            *_DEMUXLET,
            "fig3/ye2.stim.8.10.sm.best",
            2_338_588,
            "dbed385727f880920a35acf82e3354161ca51a00bddeea4e7fac6fcdde73dfb5",
        ),
    ),
    builder="tasks.datasets.kang:build",
    prepare="tasks.datasets.kang:prepare",
)

KANG_FULL = RealDataset(
    name="kang-full",
    summary="blood cells of 8 patients, control and interferon beta, all of the study: 24,673 cells",
    paper="Kang et al. 2018, Nat Biotechnol 36:89 (GSE96583); the curated file on figshare",
    licence="as stated on figshare; the data are open-access GEO",
    fields=Fields(environment="label", content="cell_type", replicate="replicate", control="ctrl"),
    sources=(
        Source.first_use("https://figshare.com/ndownloader/files/34464122", "figshare/34464122", "kang_2018.h5ad"),
    ),
    builder="tasks.datasets.kang:build_full",
    prepare="tasks.datasets.reading:prepare_counts",
    n_genes=2000,
)
