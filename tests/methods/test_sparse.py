"""Cells kept by their non-zeros."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix

from methods.nn.sparse import SparseRows

DENSE = np.random.default_rng(0).poisson(0.4, (9, 5)).astype(np.float32)
DENSE[4] = 0
CPU = torch.device("cpu")


def repeated():
    """A matrix that stores an entry twice, a zero, and its columns in no order."""
    rows = csr_matrix(DENSE)
    first = csr_matrix(([1.0, 0.0, DENSE[0, 2] - 1.0], [2, 1, 2], [0, 3]), shape=(1, 5)).tolil()[0]
    assert first.shape == (1, 5)
    indices = np.concatenate([[2, 1, 2], rows[1:].indices])
    data = np.concatenate([[1.0, 0.0, DENSE[0, 2] - 1.0], rows[1:].data]).astype(np.float32)
    return csr_matrix((data, indices, np.concatenate([[0], rows[1:].indptr + 3])), shape=DENSE.shape)


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix, csc_matrix])
def test_a_matrix_is_kept_whatever_its_form(kind):
    sparse = SparseRows.of_matrix(kind(DENSE), CPU)
    assert torch.equal(sparse.dense(), torch.from_numpy(DENSE))
    assert sparse.equal(SparseRows.of_tensor(torch.from_numpy(DENSE)))
    assert len(sparse) == 9
    assert sparse.count.tolist() == (DENSE > 0).sum(1).tolist()
    torch.testing.assert_close(sparse.log1p(), torch.from_numpy(np.log1p(DENSE)))


def test_entries_stored_twice_are_added_and_stored_zeros_dropped():
    matrix = repeated()
    before = matrix.copy()
    sparse = SparseRows.of_matrix(matrix, CPU)
    assert torch.equal(sparse.dense(), torch.from_numpy(matrix.toarray()))
    assert bool((sparse.value != 0).all())
    assert (matrix.nnz, matrix.has_canonical_format) == (before.nnz, before.has_canonical_format)


def test_rows_are_chosen_in_any_order_and_more_than_once():
    sparse, dense = SparseRows.of_matrix(DENSE, CPU), torch.from_numpy(DENSE)
    cells = torch.tensor([8, 4, 0, 0, 3, 4])
    chosen = sparse.index_select(0, cells)
    assert torch.equal(chosen.dense(), dense[cells])
    assert torch.equal(chosen.row, dense[cells].nonzero(as_tuple=True)[0])
    assert torch.equal(chosen.view(2, 3, 5).dense(), dense[cells].view(2, 3, 5))
    assert torch.equal(chosen.index_select(0, torch.tensor([5, 2])).dense(), dense[[4, 0]])
    assert torch.equal(chosen.double().dense(), dense[cells].double())
    assert sparse.index_select(0, torch.tensor([], dtype=torch.long)).dense().shape == (0, 5)


def test_matrices_are_joined_and_compared():
    sparse = SparseRows.of_matrix(DENSE, CPU)
    other = SparseRows.of_matrix(DENSE[::-1], CPU)
    joined = SparseRows.cat([sparse, other])
    assert torch.equal(joined.dense(), torch.from_numpy(np.vstack([DENSE, DENSE[::-1]])))
    assert not sparse.equal(other)
    assert not sparse.equal(joined)
    assert sparse.equal(SparseRows.of_matrix(csr_matrix(DENSE), CPU))
