"""Human blood cells measured with three chemistries of 10x Genomics.

1,200 cells and 1,767 genes, log-normalised, as shipped by the R package symphony.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import categories, from_dgc, read_rda

if TYPE_CHECKING:
    from anndata import AnnData


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``pbmc-3tech`` from symphony's expression matrix and its table of cells.

    The table's ``donor`` is the chemistry: 3' version 1 and 2, and 5'.
    """
    import pandas as pd
    from anndata import AnnData

    expression, about = raw
    slots = read_rda(expression)["pbmcs_exprs_small"]
    table = read_rda(about)["pbmcs_meta_small"]
    genes, cells = slots.Dimnames
    if list(table["cell_id"]) != list(cells):
        raise DataError(
            f"{about}: column 'cell_id' differs from the columns of {expression}, expected the same cells in the same "
            "order; take both files from the same commit"
        )
    columns = {"technology": "donor", "cell_type": "cell_type", "cell_type_broad": "cell_type_broad"}
    obs = categories({new: table[old] for new, old in columns.items()}, cells)
    for name in ("nUMI", "nGene"):
        obs[name] = table[name].to_numpy("int64")
    obs["percent_mito"] = table["percent_mito"].to_numpy()
    return AnnData(
        from_dgc(slots),
        obs=obs,
        var=pd.DataFrame(index=genes.astype(object)),
        uns={"X_units": "log-normalised (as shipped)"},
    )


_SYMPHONY = ("immunogenomics/symphony", "bf7aaf9a2919f660d028f7ec3a775f040238a829")

PBMC = RealDataset(
    name="pbmc-3tech",
    summary="human blood cells, 3 chemistries of 10x Genomics, 9 cell types: 1,200 x 1,767",
    paper="10x Genomics; shipped by the R package symphony, Kang et al. 2021, Nat Commun 12:5890",
    licence="GPL (>= 3) of the repository; the data are of 10x Genomics",
    fields=Fields(environment="technology", content="cell_type"),
    sources=(
        Source.github(
            *_SYMPHONY,
            "data/pbmcs_exprs_small.rda",
            611_984,
            "c64deb8a26e3d7c131196fc4829c62130070fdeff8a0a0a0806930014086c1de",
        ),
        Source.github(
            *_SYMPHONY,
            "data/pbmcs_meta_small.rda",
            25_755,
            "5d0151004629ec2e7d05694109565b79b268b163d74e9bf378fc1ca238cf4dc3",
        ),
    ),
    builder="tasks.datasets.pbmc:build",
    prepare="tasks.datasets.reading:prepare_shipped",
)
