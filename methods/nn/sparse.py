"""Cells stored by their non-zeros; a minibatch is made dense where a network reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    width
        Entries of each row of a selection, which are then :class:`PaddedRows`; 0 for as many as its cells have.
    """

    width = 0

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

    def padded(self) -> SparseRows:
        """Return the same matrix with selections of one width: their arrays have a size that no cell changes.

        A step that is recorded once and replayed (:mod:`methods.nn.graphs`) needs that.
        """
        column, value = (torch.cat([part, part.new_zeros(1)]) for part in (self.column, self.value))
        whole = SparseRows(column, value, self.count, self.shape)
        whole.width, whole._start = max(1, int(self.count.max())), self.count.cumsum(0) - self.count
        return whole

    def mapped(self, function: Callable[[Tensor], Tensor]) -> SparseRows:
        """Return a padded matrix with ``function`` of its tensors in their place."""
        whole = SparseRows(function(self.column), function(self.value), function(self.count), self.shape)
        whole.width, whole._start = self.width, function(self._start)
        return whole

    def index_select(self, axis: int, cells: Tensor) -> SparseRows:
        """Return the rows ``cells`` (n,) of a matrix."""
        if not hasattr(self, "_start"):
            self._start = self.count.cumsum(0) - self.count
        count, shape = self.count.index_select(0, cells), (len(cells), self.shape[-1])
        if self.width:
            place = torch.arange(self.width, device=count.device)
            start = self._start.index_select(0, cells).unsqueeze(1)
            # the last entry is the zero that rows are filled up with
            at = (start + place).masked_fill_(place >= count.unsqueeze(1), len(self.value) - 1).view(-1)
            return PaddedRows(self.column.index_select(0, at), self.value.index_select(0, at), count, shape)
        row = torch.repeat_interleave(count)
        shift = self._start.index_select(0, cells) - count.cumsum(0) + count
        at = torch.arange(len(row), device=row.device) + shift.index_select(0, row)
        chosen = SparseRows(self.column.index_select(0, at), self.value.index_select(0, at), count, shape)
        chosen._row = row
        return chosen

    def view(self, *shape: int) -> SparseRows:
        """Return the same values with rows along several axes."""
        viewed = type(self)(self.column, self.value, self.count, shape)
        viewed._row = self.row
        return viewed

    @property
    def row(self) -> Tensor:
        """Row of each non-zero, with all leading axes flattened."""
        if not hasattr(self, "_row"):
            self._row = self._rows()
        return self._row

    def _rows(self) -> Tensor:
        return torch.repeat_interleave(self.count)

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

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` at the non-zeros of each row, (n_rows,)."""
        # index_add would sum in no fixed order on a GPU
        return torch.segment_reduce(values, "sum", lengths=self.count)

    def clear(self, dense: Tensor) -> None:
        """Set a contiguous tensor of this shape to 0 at the non-zeros."""
        dense.view(-1).index_fill_(0, self.at, 0.0)

    def double(self) -> SparseRows:
        """Return the same in double precision."""
        return SparseRows(self.column, self.value.double(), self.count, self.shape)

    def equal(self, other: SparseRows) -> bool:
        """Return whether both are the same matrix."""
        same = self.shape == other.shape and self.count.equal(other.count)
        return same and self.column.equal(other.column) and self.value.equal(other.value)


class PaddedRows(SparseRows):
    """Rows with equally many entries each: behind the non-zeros of a row come zeros in its first column."""

    def _rows(self) -> Tensor:
        n_rows = self.shape[:-1].numel()
        numbers = torch.arange(n_rows, device=self.device)
        return numbers.unsqueeze(1).expand(n_rows, len(self.value) // n_rows).reshape(-1)

    def _filled(self, values: Tensor) -> Tensor:
        dense = torch.zeros(self.shape, dtype=values.dtype, device=values.device)
        # whatever the order, as all but one of the values at a place are 0
        dense.view(-1).index_add_(0, self.at, values)
        return dense

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` at the non-zeros of each row, (n_rows,)."""
        return values.masked_fill(self.value == 0, 0.0).view(self.shape[:-1].numel(), -1).sum(-1)

    def clear(self, dense: Tensor) -> None:
        """Set a tensor of this shape to 0 at the non-zeros."""
        dense.masked_fill_(self._filled(self.value) != 0, 0.0)


def gathered(tensors: Mapping[str, Any], cells: Tensor) -> dict[str, Tensor]:
    """Return the rows of ``cells``, (n,) or for stacked fits (n_fits, n)."""
    flat = cells.reshape(-1)
    return {key: value.index_select(0, flat).view(*cells.shape, *value.shape[1:]) for key, value in tensors.items()}
