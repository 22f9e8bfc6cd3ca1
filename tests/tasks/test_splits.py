"""Splitting cells, handing them over, and the digest of what was handed over."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from tasks.datasets.base import Fields
from tasks.datasets.memory import Memory, digest
from tasks.splits import halves, handed

#: Labels of more cells than any test splits, none a copy of another.
NO_COPIES = np.arange(10_000)


def assert_halves(first, second, cells):
    assert set(first).isdisjoint(second)
    assert len(first) == len(set(first))
    assert len(second) == len(set(second))
    assert set(first) | set(second) == set(cells)


@pytest.mark.parametrize("n_cells", [2, 3, 40, 41])
def test_halves_without_replicates_are_disjoint_complete_and_even(n_cells):
    cells = np.arange(100, 100 + n_cells)
    first, second = halves(cells, None, np.random.default_rng(0), NO_COPIES)
    assert_halves(first, second, cells)
    assert len(first) == n_cells // 2
    np.testing.assert_array_equal(first, np.sort(first))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [(10, 10), (30, 20, 10), (5, 6, 7, 8, 9, 10, 11, 12), (1,) * 20, (30, 10)])
def test_halves_keep_donors_whole_where_possible(sizes, seed):
    rng = np.random.default_rng(seed)
    donors = rng.permutation(np.repeat([f"donor{i}" for i in range(len(sizes))], sizes))
    cells = rng.permutation(1000)[: len(donors)]
    first, second = halves(cells, donors, rng, NO_COPIES)
    assert_halves(first, second, cells)
    donor_of = dict(zip(cells, donors, strict=True))
    assert {donor_of[cell] for cell in first}.isdisjoint(donor_of[cell] for cell in second)
    assert min(len(first), len(second)) >= len(cells) / 4


def test_halves_of_equal_donors_have_as_many_donors():
    donors = np.repeat([f"donor{i}" for i in range(6)], 10)
    first, second = halves(np.arange(60), donors, np.random.default_rng(0), NO_COPIES)
    assert len(first) == len(second) == 30


@pytest.mark.parametrize("sizes", [(40,), (40, 5), (90, 3, 3, 3)])
def test_halves_fall_back_to_cells_when_one_donor_dominates(sizes):
    donors = np.repeat([f"donor{i}" for i in range(len(sizes))], sizes)
    cells = np.arange(len(donors)) * 3
    first, second = halves(cells, donors, np.random.default_rng(0), NO_COPIES)
    assert_halves(first, second, cells)
    assert abs(len(first) - len(second)) <= 1
    donor_of = dict(zip(cells, donors, strict=True))
    assert "donor0" in {donor_of[c] for c in first} & {donor_of[c] for c in second}


def test_halves_depend_on_the_generator_alone():
    cells, donors = np.arange(60), np.repeat([f"donor{i}" for i in range(6)], 10)
    uneven = np.repeat([f"donor{i}" for i in range(5)], [20, 16, 12, 8, 4])
    for replicates in (None, donors, uneven):
        splits = [halves(cells, replicates, np.random.default_rng(seed), NO_COPIES)[0] for seed in (0, 0, 1, 2, 3)]
        np.testing.assert_array_equal(splits[0], splits[1])
        assert any(not np.array_equal(splits[0], other) for other in splits[2:])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (12, 5)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(["control", "stimulated"] * 6),
            "cell_type": ["a", "b", "c"] * 4,
            "donor": np.arange(12) % 4,
            "secret": rng.random(12),
        },
        index=[f"cell{i}" for i in range(12)],
    )
    out = AnnData(np.log1p(counts), obs=obs, layers={"counts": counts, "other": counts * 2})
    out.var["symbol"] = list("ABCDE")
    out.obsm["z"] = rng.random((12, 3))
    out.varm["loadings"] = rng.random((5, 2))
    out.uns.update(truth={"a": 1}, X_units="log1p of counts")
    return Fields("condition", "cell_type", "donor", "control").attach(out)


def layers(data):
    """Names of the layers; anndata 0.13 counts X among them, as None."""
    return [name for name in data.layers if name is not None]


@pytest.mark.parametrize("as_mask", [True, False])
def test_handed_over_are_the_chosen_cells_without_anything_else(data, as_mask):
    cells = np.array([1, 4, 7])
    out = handed(data, np.isin(np.arange(12), cells) if as_mask else cells)
    assert list(out.obs_names) == ["cell1", "cell4", "cell7"]
    assert list(out.var_names) == list(data.var_names)
    np.testing.assert_array_equal(out.X, data.X[cells])
    np.testing.assert_array_equal(out.layers["counts"], data.layers["counts"][cells])
    assert list(out.obs) == ["condition", "cell_type", "donor"]
    assert out.obs["donor"].tolist() == ["1", "0", "3"]
    assert all(type(value) is str for name in out.obs for value in out.obs[name])
    assert layers(out) == ["counts"]
    assert list(out.var) == []
    assert len(out.obsm) == len(out.varm) == 0
    assert set(out.uns) == {"fields", "X_units"}
    assert out.uns["X_units"] == "log1p of counts"


def test_handed_over_share_no_memory(data):
    before = digest(data), data.X.copy()
    for cells in (np.arange(12), np.ones(12, dtype=bool)):
        out = handed(data, cells)
        assert not np.shares_memory(out.X, data.X)
        assert not np.shares_memory(out.layers["counts"], data.layers["counts"])
        out.X[:] = 0
        out.layers["counts"][:] = 0
        out.uns["fields"]["content"] = "changed"
    assert digest(data) == before[0]
    np.testing.assert_array_equal(data.X, before[1])


def test_handed_over_of_sparse_counts_and_of_data_without_counts(data):
    dense = data.layers["counts"]
    data.layers["counts"] = csr_matrix(dense)
    np.testing.assert_array_equal(handed(data, np.array([3, 2])).layers["counts"].toarray(), dense[[3, 2]])
    del data.layers["counts"]
    assert layers(handed(data, np.array([3, 2]))) == []


def test_handed_over_follow_the_order_of_indices(data):
    assert list(handed(data, np.array([5, 0, 9])).obs_names) == ["cell5", "cell0", "cell9"]


def test_unnamed_fields_are_no_columns(data):
    Fields("condition", "").attach(data)
    assert list(handed(data, np.arange(3)).obs) == ["condition"]


# --- digest


def change_x(data):
    data.X[3, 2] += 1e-6


def change_counts(data):
    data.layers["counts"][3, 2] += 1


def drop_counts(data):
    del data.layers["counts"]


def change_label(data):
    data.obs.loc["cell3", "cell_type"] = "b"


def rename_column(data):
    data.obs = data.obs.rename(columns={"donor": "patient"})


def rename_gene(data):
    data.var_names = [*data.var_names[:-1], "another"]


def swap_genes(data):
    data.var_names = [*data.var_names[1:], data.var_names[0]]


def change_field(data):
    data.uns["fields"]["control"] = "stimulated"


CHANGES = [change_x, change_counts, drop_counts, change_label, rename_column, rename_gene, swap_genes, change_field]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_digest_changes_with(change, data):
    first = handed(data, np.arange(12))
    second = handed(data, np.arange(12))
    assert digest(first) == digest(second)
    change(second)
    assert digest(first) != digest(second)


@pytest.mark.parametrize("labels", [("1", "11"), ("11", "1")])
def test_digest_tells_labels_apart_that_string_together_alike(labels, data):
    first = handed(data, np.arange(2))
    second = first.copy()
    first.obs["donor"] = ["1", "11"]
    second.obs["donor"] = list(labels)
    assert (digest(first) == digest(second)) == (labels == ("1", "11"))


def test_digest_of_sparse_counts_changes_with_value_and_place(data):
    first = handed(data, np.arange(12))
    first.layers["counts"] = csr_matrix(np.eye(12, 5, dtype=np.float32))
    value, place = first.copy(), first.copy()
    value.layers["counts"].data[0] = 7
    place.layers["counts"] = csr_matrix(np.eye(12, 5, 1, dtype=np.float32))
    assert len({digest(first), digest(value), digest(place)}) == 3


def test_digest_depends_on_the_order_of_cells(data):
    assert digest(handed(data, np.array([0, 1]))) != digest(handed(data, np.array([1, 0])))


def test_memory_is_a_data_set_of_the_given_cells(data):
    memory = Memory(data, "mine")
    assert memory.load("smoke") is data
    assert memory.fields == Fields("condition", "cell_type", "donor", "control")
    assert memory.missing() is None
    assert memory.digest() == digest(data)
