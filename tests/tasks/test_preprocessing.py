"""Which genes are chosen, on what, and how the choice is kept."""

import dataclasses
import re

import numpy as np
import pytest
import scanpy
from anndata import AnnData
from scipy.sparse import csr_matrix

from tasks.datasets.base import Fields
from tasks.datasets.memory import Memory
from tasks.factors import Factors
from tasks.preprocessing import MIN_TREND, select_genes
from tasks.reembedding import Reembedding
from tasks.simulate.factor_expression import FACTOR_EXPRESSION
from tasks.simulate.pancancer import PANCANCER
from tasks.unseen_cell_type import UnseenCellType


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))


def counted(counts):
    return AnnData(np.log1p(counts).astype(np.float32), layers={"counts": counts.astype(np.float32)})


@pytest.fixture(scope="module")
def counts():
    """Negative binomial counts of 600 genes with means from .1 to 50 and dispersions of their own."""
    rng = np.random.default_rng(0)
    mean, shape = np.exp(rng.uniform(np.log(0.1), np.log(50), 600)), rng.uniform(0.3, 5, 600)
    return rng.poisson(rng.gamma(shape, mean / shape, (300, 600))).astype(np.float32)


# --- the choice


@pytest.mark.parametrize("n_genes", [1, 50, 599])
def test_counts_are_ranked_as_scanpy_does(counts, n_genes):
    expected = scanpy.pp.highly_variable_genes(
        AnnData(counts.copy()), flavor="seurat_v3", n_top_genes=n_genes, inplace=False
    )["highly_variable"]
    got = select_genes(counted(counts), n_genes)
    np.testing.assert_array_equal(got, np.flatnonzero(expected))
    sparse = counted(counts)
    sparse.layers["counts"] = csr_matrix(counts)
    np.testing.assert_array_equal(select_genes(sparse, n_genes), got)


def test_counts_outrank_the_variance_of_x(counts):
    by_variance = select_genes(AnnData(np.log1p(counts)), 50)
    assert len(set(by_variance) & set(select_genes(counted(counts), 50))) < 40


@pytest.mark.parametrize("make", [np.asarray, csr_matrix], ids=["dense", "sparse"])
def test_without_counts_the_greatest_variances_are_chosen(make):
    rng = np.random.default_rng(1)
    spread = np.array([3.0, 0.5, 2.0, 1.0, 4.0])
    x = (100 + rng.standard_normal((4000, 5)) * spread).astype(np.float32)
    np.testing.assert_array_equal(select_genes(AnnData(make(x)), 3), [0, 2, 4])
    np.testing.assert_array_equal(select_genes(AnnData(make(x)), 1), [4])
    # a variance, not a second moment: the mean is no merit
    x[:, 1] += 1000
    np.testing.assert_array_equal(select_genes(AnnData(make(x)), 3), [0, 2, 4])


def test_ties_go_to_the_first():
    column = np.arange(30, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(select_genes(AnnData(np.tile(column, (1, 8))), 3), [0, 1, 2])


def test_a_constant_gene_is_never_chosen(counts):
    constant = counts.copy()
    constant[:, ::2] = 7.0
    got = select_genes(counted(constant), 400)
    np.testing.assert_array_equal(got, np.arange(1, 600, 2))
    x = np.log1p(counts)
    # no binary fraction: the mean of 300 of them is not quite it
    x[:, 10:] = np.float32(0.1) / 3
    np.testing.assert_array_equal(select_genes(AnnData(x), 400), np.arange(10))


def test_where_there_are_fewer_genes_than_asked_for_all_are_kept(counts):
    constant = counts.copy()
    constant[:, 0] = 7.0
    for n_genes in (600, 2000):
        np.testing.assert_array_equal(select_genes(counted(constant), n_genes), np.arange(600))


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.binomial(1, 0.1, (20, 3000)),  # a handful of means
        lambda rng: np.tile(np.arange(10)[:, None], (1, 100)),  # one mean
        lambda rng: rng.poisson(3.0, (50, MIN_TREND - 1)),  # too few genes; with 3 the library crashes
        lambda rng: rng.poisson(3.0, (50, 3)),
    ],
)
def test_counts_without_a_trend_are_ranked_all_the_same(make):
    training = counted(make(np.random.default_rng(0)))
    n_genes = training.n_vars // 2
    got = select_genes(training, n_genes)
    assert len(got) == n_genes
    assert (np.diff(got) > 0).all()


# --- the split


def cancers(n_genes=50, **changes):
    data = dataclasses.replace(PANCANCER, parameters={"n_cancers": 4, "n_tumours": 30, "n_genes": 120, **changes})
    return Memory(data.make(), "cancers", n_genes)


def test_the_choice_is_of_the_training_cells_alone():
    task = Reembedding(cancers())
    unit = task.units()[1]
    got = task.genes(unit, 0)
    np.testing.assert_array_equal(got, select_genes(task.training_data(unit, 0), 50))
    assert set(got) != set(select_genes(task.data, 50))
    assert set(got) != set(task.genes(task.units()[0], 0))


def test_the_prepared_task_is_the_same_task_on_fewer_genes():
    task = Reembedding(cancers(), "smoke", primary_only=True)
    unit = task.units()[1]
    prepared = task.prepared(unit, 0)
    genes = task.genes(unit, 0)
    assert isinstance(prepared, Reembedding)
    assert (prepared.preset, prepared.primary_only) == ("smoke", True)
    assert prepared.units() == task.units()
    assert prepared.dataset.name == task.dataset.name
    assert prepared.dataset.digest() != task.dataset.digest()
    assert list(prepared.data.var_names) == list(task.data.var_names[genes])
    np.testing.assert_array_equal(prepared.data.X, task.data.X[:, genes])
    assert prepared.data.X.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(prepared.training_data(unit, 0).X, task.training_data(unit, 0).X[:, genes])
    # also what lacks nothing, and what is chosen from within, are in this gene space
    handed_over = []

    def fit(data):
        handed_over.append(list(data.var_names))
        return prepared.reference_fit("ceiling", unit, 0)(data)

    prepared.evaluate(fit, unit, 0)
    assert handed_over == [list(prepared.data.var_names)] * 2
    inner = prepared.inner(unit)
    assert list(inner.data.var_names) == list(prepared.data.var_names)
    assert inner.prepared(inner.units()[0], 0) is inner
    assert prepared.prepared(unit, 0) is prepared
    assert Reembedding(cancers(0)).prepared(unit, 0).data.n_vars == 120


def test_truth_and_draws_are_restricted_too():
    data = dataclasses.replace(FACTOR_EXPRESSION, parameters={"n_cells": 200, "n_genes": 60}, sizes={}, n_genes=20)
    task = Factors(data)
    genes = task.genes("draw1", 0)
    assert len(genes) == 20
    training = task.prepared("draw1", 0).training_data("draw1", 0)
    np.testing.assert_array_equal(training.X, task.training_data("draw1", 0).X[:, genes])
    x = AnnData(np.arange(12, dtype=np.float32).reshape(3, 4))
    x.obs["e"], x.uns["truth"] = "a", {"mean": np.arange(4.0)}
    kept = Memory(Fields("e", "").attach(x), "x").load(genes=np.array([1, 3]))
    np.testing.assert_array_equal(kept.uns["truth"]["mean"], [1.0, 3.0])


def test_a_sparse_data_set_is_dense_once_prepared(counts):
    rng = np.random.default_rng(0)
    data = counted(counts)
    data.obs["type"] = np.repeat(["a", "b", "c"], 100)
    data.obs["condition"] = rng.permutation(np.repeat(["control", "stimulated"], 150))
    data.uns["X_units"] = "log1p"
    Fields("condition", "type", control="control").attach(data)
    dense = UnseenCellType(Memory(data, "dense", 100)).prepared("b", 0)
    wide = data.copy()
    wide.X, wide.layers["counts"] = csr_matrix(wide.X), csr_matrix(wide.layers["counts"])
    task = UnseenCellType(Memory(wide, "sparse", 100))
    assert task.units() == ["a", "b", "c"]
    training = task.training_data("b", 0)
    assert isinstance(training.X, csr_matrix)
    assert isinstance(training.layers["counts"], csr_matrix)
    sparse = task.prepared("b", 0)
    np.testing.assert_array_equal(sparse.data.X, dense.data.X)
    np.testing.assert_array_equal(sparse.data.layers["counts"], dense.data.layers["counts"])
    fits = [one.reference_fit("ceiling", "b", 0) for one in (sparse, dense)]
    first, second = (one.evaluate(fit, "b", 0) for one, fit in zip((sparse, dense), fits, strict=True))
    assert first == pytest.approx(second, rel=0, abs=0, nan_ok=True)


# --- the cache


class Once(Memory):
    """A data set that may be read once."""

    loads = 0

    def load(self, *arguments, **named):
        self.loads += 1
        return super().load(*arguments, **named)

    def digest(self, preset="default"):
        return "the same"


def kept(tmp_path):
    return sorted(file for file in (tmp_path / "built" / "genes").iterdir() if file.suffix == ".txt")


def test_a_second_choice_reads_no_data(tmp_path):
    data = cancers().load()
    first, second = Once(data, "x", 50), Once(data, "x", 50)
    unit = Reembedding(first).units()[0]
    genes = Reembedding(first).genes(unit, 0)
    np.testing.assert_array_equal(Reembedding(second).genes(unit, 0), genes)
    assert (first.loads, second.loads) == (2, 0)
    (file,) = kept(tmp_path)
    assert re.fullmatch(r"\d+(\n\d+){49}", file.read_text())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.rpartition("\n")[0],
        lambda text: text.replace("\n", "\n1", 1),
        lambda text: "no number",
    ],
)
def test_a_spoilt_file_is_made_anew(tmp_path, spoil):
    task = Reembedding(cancers())
    unit = task.units()[0]
    genes = task.genes(unit, 0)
    (file,) = kept(tmp_path)
    whole = file.read_text()
    file.write_text(spoil(whole))
    np.testing.assert_array_equal(task.genes(unit, 0), genes)
    assert file.read_text() == whole
    file.write_bytes(b"\xff\xfe")
    np.testing.assert_array_equal(task.genes(unit, 0), genes)


def test_a_choice_is_kept_for_each_thing_that_it_depends_on(tmp_path):
    memory = cancers()
    units = Reembedding(memory).units()

    class Other(Reembedding):
        name = "other"

    Reembedding(memory).genes(units[0], 0)
    Reembedding(memory).genes(units[0], 0)
    assert len(kept(tmp_path)) == 1
    for number, (task, unit, seed) in enumerate(
        [
            (Reembedding(memory), units[1], 0),
            (Reembedding(memory), units[0], 1),
            (Reembedding(cancers(n_genes=40)), units[0], 0),
            (Reembedding(cancers(novelty=0.9)), units[0], 0),
            (Other(memory), units[0], 0),
        ],
        start=2,
    ):
        task.genes(unit, seed)
        assert len(kept(tmp_path)) == number
