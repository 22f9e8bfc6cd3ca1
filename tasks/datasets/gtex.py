"""Transcription factors in 26 human tissues, from the Genotype-Tissue Expression project (GTEx).

RNA-seq of 520 samples, 20 of each tissue; 467 genes, log2 expression as shipped by the R package SCIRA. The
file names genes by their Entrez number alone, and so does the data set: ``ENTREZ9496``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import categories, read_rda

if TYPE_CHECKING:
    from anndata import AnnData


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``gtex`` from SCIRA's matrix of genes x samples, whose columns are named by tissue."""
    import pandas as pd
    from anndata import AnnData

    (file,) = raw
    matrix = read_rda(file)["GeneExp"]
    entrez = matrix.coords["dim_0"].to_numpy().astype(object)
    tissue = matrix.coords["dim_1"].to_numpy()
    return AnnData(
        np.ascontiguousarray(matrix.to_numpy().T, dtype=np.float32),
        obs=categories({"tissue": tissue}, [f"s{i}" for i in range(len(tissue))]),
        var=pd.DataFrame({"entrez": entrez}, index=[f"ENTREZ{number}" for number in entrez]),
        uns={"X_units": "log2 expression as shipped"},
    )


def prepare(built: AnnData) -> AnnData:
    """Add the column ``study``: there is one environment."""
    import pandas as pd

    built.obs["study"] = pd.Categorical(["GTEx"] * built.n_obs)
    return built


GTEX = RealDataset(
    name="gtex",
    summary=(
        "RNA-seq of 26 human tissues, transcription factors: 520 x 467; no task uses it: it is healthy tissue of one "
        "study, with no condition to hold out"
    ),
    reference="GTEx Consortium 2015, Science 348:648; shipped by the R package SCIRA (WangNing0420/SCIRA)",
    licence="GPL-3 of the repository; the data are open-access GTEx",
    fields=Fields(environment="study", content="tissue"),
    sources=(
        Source.github(
            "WangNing0420/SCIRA",
            "5a233dc9d998247b52d13dabcfc21b24d5ebd050",
            "data/GeneExp.rda",
            1_536_212,
            "ebf72f96f04ad1ad8e403359411042408288e4bcfd4b5d0179070fcf550688be",
        ),
    ),
    builder="tasks.datasets.gtex:build",
    prepare="tasks.datasets.gtex:prepare",
)
