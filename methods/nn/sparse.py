"""Cells stored by their non-zeros; a minibatch is made dense where a network reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class SparseRows:
    """A matrix (..., n_genes) of cells by genes, as compressed sparse rows that may have several leading axes.

    ``index_select`` and ``view`` do the same as those of a dense tensor.

    Attributes
    ----------
    column, value
        Column and value of all non-zeros, row after row.
    count
        Number of non-zeros of each row.
    shape
        Shape of the dense tensor.
    """

    def __init__(self, column: Tensor, value: Tensor, count: Tensor, shape: Sequence[int]) -> None:
        self.column, self.value, self.count = column, value, count
        self.shape = torch.Size(shape)

    @classmethod
    def of_matrix(cls, matrix: Any, device: torch.device) -> SparseRows:
        """Take a dense or scipy sparse matrix (n_cells, n_genes)."""
        from scipy.sparse import csr_matrix

        rows = csr_matrix(matrix, dtype=np.float32)
        if not rows.has_canonical_format or (rows.data == 0).any():
            rows = rows.copy()
            rows.sum_duplicates()
            rows.eliminate_zeros()
        column, value = torch.from_numpy(rows.indices.astype(np.int64)), torch.from_numpy(rows.data)
        count = torch.from_numpy(np.diff(rows.indptr).astype(np.int64))
        return cls(column.to(device), value.to(device), count.to(device), rows.shape)

    @classmethod
    def of_tensor(cls, x: Tensor) -> SparseRows:
        """Take a dense tensor (..., n_genes)."""
        n_genes = x.shape[-1]
        at = x.bool().reshape(-1).nonzero().squeeze(-1)
        row = at.div(n_genes, rounding_mode="floor")
        count = torch.bincount(row, minlength=x.shape[:-1].numel())
        return cls(at - row * n_genes, x.reshape(-1).index_select(0, at), count, x.shape)

    @staticmethod
    def cat(parts: Sequence[SparseRows]) -> SparseRows:
        """Return the cells of several matrices as one."""
        column, value, count = (
            torch.cat([getattr(part, key) for part in parts]) for key in ("column", "value", "count")
        )
        return SparseRows(column, value, count, (len(count), parts[0].shape[-1]))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return self.value.device

    def index_select(self, axis: int, cells: Tensor) -> SparseRows:
        """Return the rows ``cells`` (n,) of a matrix."""
        if not hasattr(self, "_start"):
            self._start = self.count.cumsum(0) - self.count
        count = self.count.index_select(0, cells)
        row = torch.repeat_interleave(count)
        shift = self._start.index_select(0, cells) - count.cumsum(0) + count
        at = torch.arange(len(row), device=row.device) + shift.index_select(0, row)
        chosen = SparseRows(
            self.column.index_select(0, at), self.value.index_select(0, at), count, (len(cells), self.shape[-1])
        )
        chosen._row = row
        return chosen

    def view(self, *shape: int) -> SparseRows:
        """Return the same values with rows along several axes."""
        viewed = SparseRows(self.column, self.value, self.count, shape)
        viewed._row = self.row
        return viewed

    @property
    def row(self) -> Tensor:
        """Row of each non-zero, with all leading axes flattened."""
        if not hasattr(self, "_row"):
            self._row = torch.repeat_interleave(self.count)
        return self._row

    @property
    def at(self) -> Tensor:
        """Index of each non-zero in the flattened dense tensor."""
        if not hasattr(self, "_at"):
            self._at = torch.add(self.column, self.row, alpha=self.shape[-1])
        return self._at

    def dense(self) -> Tensor:
        """Return all entries."""
        return self._filled(self.value)

    def log1p(self) -> Tensor:
        """Return log1p of all entries, dense."""
        return self._filled(self.value.log1p())

    def _filled(self, values: Tensor) -> Tensor:
        dense = torch.zeros(self.shape, dtype=values.dtype, device=values.device)
        dense.view(-1)[self.at] = values
        return dense

    def double(self) -> SparseRows:
        """Return the same in double precision."""
        return SparseRows(self.column, self.value.double(), self.count, self.shape)

    def equal(self, other: SparseRows) -> bool:
        """Return whether both are the same matrix."""
        same = self.shape == other.shape and self.count.equal(other.count)
        return same and self.column.equal(other.column) and self.value.equal(other.value)
