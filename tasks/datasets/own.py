"""A user's own ``.h5ad`` as a data set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.checks import check_expression, check_fields
from tasks.datasets.reading import are_counts, log1p_cp10k, of_genes

if TYPE_CHECKING:
    from anndata import AnnData

#: Genes that are used of a user's file unless something else is asked for, as of the catalogue's data.
N_GENES = 2000


@dataclass(frozen=True)
class OwnData:
    """Cells in a file of the user's, whose columns are named on the command line.

    Whole non-negative numbers in ``X`` are taken for counts: they go to ``layers["counts"]`` and ``X`` becomes
    log1p of counts per 10,000. Any other ``X`` is used as it is. Nothing but expression, counts and the named columns
    is read, so that what a file happens to hold is never taken for a simulator's truth.

    Attributes
    ----------
    file
        Path of the ``.h5ad``.
    fields
        Which of its ``obs`` columns mean what.
    n_genes
        How many genes are used; 0 for all.
    """

    file: str
    fields: Fields
    n_genes: int = N_GENES
    reference: str = ""
    licence: str = ""
    simulated: bool = False

    @property
    def name(self) -> str:
        """The file's name, without the suffix."""
        return Path(self.file).stem

    @property
    def summary(self) -> str:
        """Where it is."""
        return self.file

    def load(self, preset: str = "default", draw: int = 0, genes: np.ndarray | None = None) -> AnnData:
        """Read, check and return the cells; ``DataError`` names the file and the column that is not right."""
        import anndata
        from scipy.sparse import csr_matrix, issparse

        try:
            read = anndata.read_h5ad(self.file)
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.file}: not a readable .h5ad ({error})") from error
        if read.X is None:
            raise DataError(f"{self.file}: X is empty")
        check_fields(read, self.fields, self.file)
        named = [name for name in (self.fields.environment, self.fields.content, self.fields.replicate) if name]
        if len(set(named)) < len(named):
            raise DataError(f"{self.file}: of the columns {', '.join(named)} each is to mean one thing; name others")
        data = anndata.AnnData(obs=read.obs[named], var=read.var[[]])
        if "counts" in read.layers:
            data.layers["counts"] = read.layers["counts"]
        x = csr_matrix(read.X, dtype=np.float32) if issparse(read.X) else np.asarray(read.X, dtype=np.float32)
        if are_counts(x):
            data.layers["counts"] = csr_matrix(x)
            x = log1p_cp10k(data.layers["counts"])
            data.uns["X_units"] = "log1p of counts per 10,000"
        data.X = x
        if genes is not None or not self.n_genes:
            data = of_genes(data, genes)
        check_expression(data, self.file)
        return self.fields.attach(data)

    @cached_property
    def _digest(self) -> str:
        hashed = hashlib.sha256(repr((self.fields, self.n_genes)).encode())
        hashed.update(Path(self.file).read_bytes())
        return hashed.hexdigest()

    def digest(self, preset: str = "default") -> str:
        """Return the digest of the file and of what its columns are taken for."""
        return self._digest

    def missing(self) -> str | None:
        """Return None if the file is there, else that it is not."""
        return None if Path(self.file).is_file() else f"there is no file {self.file}"
