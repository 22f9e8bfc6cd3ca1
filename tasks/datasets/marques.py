"""The oligodendrocyte lineage in regions of the mouse brain (Marques et al. 2016).

2,618 cells and 8,691 genes, UMI counts, as shipped by the R package scX: half of the regions of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import categories, from_dgc, read_rda

if TYPE_CHECKING:
    from anndata import AnnData


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``marques`` from scX's SingleCellExperiment. ``condition`` says if the mouse had been stressed."""
    import pandas as pd
    from anndata import AnnData

    (file,) = raw
    experiment = read_rda(file)["sce"]
    counts = experiment.assays.data.listData["counts"]
    genes, cells = counts.Dimnames
    about = experiment.colData.listData
    obs = categories(
        {
            "region": about["source_name"],
            "age": about["age"],
            "cell_type": about["inferred_cell_type"],
            "sex": about["sex"],
            "strain": about["strain"],
            "treatment": about["treatment"],
        },
        cells,
    )
    obs["pseudotime"] = about["pseudotime"]
    obs["condition"] = pd.Categorical(np.where(obs["treatment"] == "No", "control", "acute_stress_6h"))
    return AnnData(
        from_dgc(counts),
        obs=obs,
        var=pd.DataFrame(index=genes.astype(object)),
        uns={"X_units": "raw UMI counts"},
    )


MARQUES = RealDataset(
    name="marques",
    summary="mouse oligodendrocyte lineage, 6 brain regions, 13 cell types: 2,618 x 8,691",
    paper="Marques et al. 2016, Science 352:1326 (GSE75330); shipped by the R package scX",
    licence="MIT of the repository; the data are open-access GEO",
    fields=Fields(environment="region", content="cell_type"),
    sources=(
        Source.github(
            "chernolabs/scX",
            "110b664ed05e2d37dc6cca6871378ce3d83ca979",
            "data/sce.rda",
            3_414_572,
            "c48ca6623af32e186b59785222e5b5d75054455d56c24f72223121cd367affbd",
        ),
    ),
    builder="tasks.datasets.marques:build",
    prepare="tasks.datasets.reading:prepare_counts",
    n_genes=2000,
)
