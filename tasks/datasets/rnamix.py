"""RNA of three lung cancer cell lines, mixed in known proportions and amounts (Tian et al. 2019).

636 wells and the 13,906 genes that both protocols measured, UMI counts. A well holds RNA of H2228, H1975 and HCC827 in
one of seven mixtures, 3.75 to 30 pg of it, sequenced by CEL-seq2 or SORT-seq. So what a well is made of is known, and
no model made it. 26 of the genes are ERCC spike-ins, as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import are_counts, categories, prepare_counts, reading, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

PROTOCOLS = ("celseq2", "sortseq")
LINES = ("H2228", "H1975", "HCC827")
AMOUNT = "mRNA_amount"


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``rnamix`` from counts and metadata of CEL-seq2, then of SORT-seq.

    Names of wells repeat between the protocols, so that the protocol goes before them. A mixture is named by its
    proportions in per cent, of the lines in the order of :data:`LINES`: "68:16:16".
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    parts = [_protocol(*files) for files in (raw[:2], raw[2:])]
    (first, _), (second, _) = parts
    genes = first.index[first.index.isin(second.index)]
    about = pd.concat([metadata for _, metadata in parts], keys=PROTOCOLS)
    names = [f"{protocol}-{well}" for protocol, well in about.index]
    proportions = about[[f"{line}_prop" for line in LINES]].to_numpy(float)
    mixtures = [":".join(f"{100 * share:.0f}" for share in well) for well in proportions]
    obs = categories({"protocol": about.index.get_level_values(0), "mixture": mixtures}, names)
    obs[AMOUNT] = about[AMOUNT].to_numpy(float)
    for line, share in zip(LINES, proportions.T, strict=True):
        obs[line] = share
    counts = np.vstack([matrix.loc[genes].to_numpy(np.float32).T for matrix, _ in parts])
    return AnnData(
        csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes.astype(object)), uns={"X_units": "raw UMI counts"}
    )


def _protocol(counts_file: Path, metadata_file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the counts (genes x wells) and the metadata (a row a well) of one protocol."""
    import pandas as pd

    with reading(counts_file, "gzip-compressed csv"):
        counts = pd.read_csv(counts_file, index_col=0)
    with reading(metadata_file, "gzip-compressed csv"):
        metadata = pd.read_csv(metadata_file, index_col=0)
    require_columns(metadata, [*(f"{line}_prop" for line in LINES), AMOUNT], metadata_file)
    if list(counts.columns) != list(metadata.index):
        raise DataError(
            f"{counts_file}: has {counts.shape[1]} wells, and {metadata_file.name} describes {len(metadata)}, in "
            "another order or others; expected a row for each well, in the order of the columns: take both files from "
            "the same commit"
        )
    if not are_counts(counts.to_numpy()):
        raise DataError(f"{counts_file}: has values that are not whole numbers from zero up, expected UMI counts")
    return counts, metadata


def prepare(built: AnnData) -> AnnData:
    """Move counts to their layer, and add the truth.

    ``obsm["proportions"]`` (636, 3) is in the order of :data:`LINES`; ``obsm["factors"]`` and ``obsm["z"]`` (636, 5)
    are the proportions, log2 of the amount, and the protocol (SORT-seq is 1).
    """
    data = prepare_counts(built)
    proportions = data.obs[list(LINES)].to_numpy(float)
    amount, protocol = np.log2(data.obs[AMOUNT].to_numpy(float)), data.obs["protocol"] == PROTOCOLS[1]
    factors = np.column_stack([proportions, amount, protocol]).astype(np.float32)
    data.obsm.update({"proportions": proportions, "factors": factors, "z": factors})
    return data


_REPOSITORY = ("LuyiTian/sc_mixology", "7d00ffb0bd043467f365a9358d7312f294f13c9f")

RNAMIX = RealDataset(
    name="rnamix",
    summary="RNA of three cell lines in 7 known mixtures, 4 amounts and 2 protocols: 636 wells x 13,906",
    paper="Tian et al. 2019, Nat Methods 16:479 (GSE118767)",
    licence="MIT",
    fields=Fields(environment="protocol", content=""),
    sources=(
        Source.github(
            *_REPOSITORY,
            "data/csv/RNAmix_celseq2.count.csv.gz",
            2_130_546,
            "3bc1323f10f74779e69f068cbfd052633049745f69107bba4133368a01ec24b9",
        ),
        Source.github(
            *_REPOSITORY,
            "data/csv/RNAmix_celseq2.metadata.csv.gz",
            21_123,
            "b4dfd97335bb24691d22b16748410d42ea08c7dee634d2d9d2584ef2d9e60956",
        ),
        Source.github(
            *_REPOSITORY,
            "data/csv/RNAmix_sortseq.count.csv.gz",
            1_902_439,
            "81a2c15fc0fc1216328fa348ad3375b0b2faa604fce9811330b78a190cdfd3d0",
        ),
        Source.github(
            *_REPOSITORY,
            "data/csv/RNAmix_sortseq.metadata.csv.gz",
            18_852,
            "1ea8edd24736c3efdf7dec102e42b01b75df18a811084cfcfd2ea5c87b89fead",
        ),
    ),
    builder="tasks.datasets.rnamix:build",
    prepare="tasks.datasets.rnamix:prepare",
    n_genes=2000,
)
