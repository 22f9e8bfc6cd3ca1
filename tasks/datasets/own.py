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

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class OwnData:
    """Cells in a file of the user's, whose columns are named on the command line.

    Whole non-negative numbers in ``X`` are taken for counts: they go to ``layers["counts"]`` and ``X`` becomes
    log1p of counts per 10,000. Any other ``X`` is used as it is.

    Attributes
    ----------
    file
        Path of the ``.h5ad``.
    fields
        Which of its ``obs`` columns mean what.
    """

    file: str
    fields: Fields
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

    def load(self, preset: str = "default", draw: int = 0) -> AnnData:
        """Read, check and return the cells; ``DataError`` names the file and the column that is not right."""
        import anndata

        try:
            data = anndata.read_h5ad(self.file)
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.file}: not a readable .h5ad ({error})") from error
        x = data.X
        if x is None:
            raise DataError(f"{self.file}: X is empty")
        dense = np.ascontiguousarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float32)
        if np.all(dense >= 0) and np.array_equal(dense, np.floor(dense)):
            data.layers["counts"] = dense
            dense = np.log1p(dense * (1e4 / np.maximum(dense.sum(axis=1, keepdims=True), 1)))
            data.uns["X_units"] = "log1p of counts per 10,000"
        data.X = dense
        check_expression(data, self.file)
        check_fields(data, self.fields, self.file)
        return self.fields.attach(data)

    @cached_property
    def _digest(self) -> str:
        hashed = hashlib.sha256(repr(self.fields).encode())
        hashed.update(Path(self.file).read_bytes())
        return hashed.hexdigest()

    def digest(self, preset: str = "default") -> str:
        """Return the digest of the file and of what its columns are taken for."""
        return self._digest

    def missing(self) -> str | None:
        """Return None if the file is there, else that it is not."""
        return None if Path(self.file).is_file() else f"there is no file {self.file}"
