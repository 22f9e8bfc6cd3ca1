"""Files as users have them: each a kind of file that once gave a wrong number, a traceback or an unclear refusal."""

import dataclasses

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import write_elem
from scipy.sparse import csr_matrix

from bench.plan import choose_own_tasks, make_plan
from methods import METHODS
from tasks import load_task
from tasks.class_content import ClassContent
from tasks.datasets.base import DataError, Fields
from tasks.datasets.memory import Memory
from tasks.datasets.own import OwnData
from tasks.datasets.reading import copies_of, log1p_cp10k, taken_for
from tasks.factors import Factors
from tasks.fate import Fate
from tasks.latent_recovery import LatentRecovery
from tasks.reembedding import Reembedding
from tasks.shared_private import SharedPrivate
from tasks.simulate.doubles import DOUBLES
from tasks.simulate.factor_expression import FACTOR_EXPRESSION
from tasks.simulate.fate_tree import FATE_TREE
from tasks.simulate.sparse_shift import SPARSE_SHIFT
from tasks.splits import dealt, halves, once
from tasks.unseen_cell_type import UnseenCellType
from tasks.unseen_perturbation import FewShotPerturbation, UnseenPerturbation

FIELDS = Fields("arm", "type", control="ctrl")
PREDICT = ("--tasks", "unseen-cell-type", "--condition", "arm", "--cell-type", "type", "--control", "ctrl")


def cells(n_types=4, n_cells=24, n_genes=40, names=None, seed=0):
    """Counts of cell types in two conditions, ``n_cells`` of each."""
    rng = np.random.default_rng(seed)
    types = np.repeat([f"t{i}" for i in range(n_types)], 2 * n_cells)
    arms = np.tile(np.repeat(["ctrl", "stim"], n_cells), n_types)
    means = rng.gamma(2.0, 2.0, (n_types, n_genes))[np.repeat(np.arange(n_types), 2 * n_cells)]
    means[arms == "stim", : n_genes // 4] *= 3.0
    obs = pd.DataFrame({"arm": arms, "type": types}, index=names or [f"cell{i}" for i in range(len(types))])
    data = ad.AnnData(csr_matrix(rng.poisson(means).astype(np.float32)), obs=obs)
    data.var_names = [f"g{i}" for i in range(n_genes)]
    return data


def written(data, directory, name="mine"):
    """The file that a user has."""
    data.write_h5ad(directory / f"{name}.h5ad")
    return directory / f"{name}.h5ad"


def read(file, **changes):
    """The file as a data set."""
    return OwnData(str(file), FIELDS, 0, **changes)


def linear(data):
    return METHODS["pca"]().fit(data, 0)


# --- cells are told apart by position


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize("cls", [Reembedding, SharedPrivate, UnseenCellType, ClassContent])
def test_names_that_repeat_change_no_score(tmp_path, cls):
    data = cells()
    repeated = [f"cell{i // 2}" for i in range(data.n_obs)]
    files = [written(data, tmp_path, "unique"), written(cells(names=repeated), tmp_path, "repeated")]
    scores = []
    for file in files:
        task = cls(read(file), "smoke")
        unit = task.units()[0]
        fits = [linear, *(task.reference_fit(c.name, unit, 0) for c in task.references_here if not c.methods)]
        scores.append([task.evaluate(fit, unit, 0) for fit in fits])
    for one, other in zip(*scores, strict=True):
        assert one == pytest.approx(other, abs=0, nan_ok=True)
    # the floor is not the baseline
    assert scores[0][0][cls.primary[-1]] != scores[0][1][cls.primary[-1]]


# --- exact copies of a cell


def test_copies_have_the_same_expression_and_counts():
    data = cells()
    data.layers["counts"] = data.X.copy()
    data.X = log1p_cp10k(data.X)
    assert copies_of(data.copy()).tolist() == list(range(data.n_obs))
    again = ad.concat([data, data[:3]])
    for kept in (again, dense_of(again)):
        assert copies_of(kept).tolist() == [*range(data.n_obs), 0, 1, 2]
    doubled = dense_of(again)
    del doubled.uns["copies"]
    doubled.layers["counts"][-1] *= 2  # the same shares from more counts
    assert copies_of(doubled).tolist() == [*range(data.n_obs), 0, 1, data.n_obs + 2]


def dense_of(data):
    out = data.copy()
    out.X, out.layers["counts"] = data.X.toarray(), data.layers["counts"].toarray()
    return out


def test_cells_that_are_alike_in_the_chosen_genes_alone_are_no_copies(tmp_path):
    file = written(cells(), tmp_path)
    few = read(file).load(genes=np.array([0]))
    assert len(np.unique(few.X, axis=0)) < few.n_obs
    assert few.uns["copies"].tolist() == list(range(few.n_obs))


@pytest.mark.parametrize("n_copies", [1, 2, 3])
def test_halves_keep_copies_together_and_stay_even(n_copies):
    copies = np.repeat(np.arange(20), n_copies)
    order = np.arange(len(copies))
    for replicates in (None, np.tile(["a", "b"], len(order))[: len(order)]):
        first, second = halves(order, replicates, np.random.default_rng(0), copies)
        assert set(copies[first]).isdisjoint(copies[second])
        assert sorted([*first, *second]) == order.tolist()
        if replicates is None:
            assert abs(len(first) - len(second)) <= n_copies
    shuffled = np.random.default_rng(1).permutation(order)
    first, second = dealt(shuffled, 7, copies)
    assert 7 <= len(first) < 7 + n_copies
    assert set(copies[first]).isdisjoint(copies[second])
    assert len(once(shuffled, copies)) == 20


def test_without_copies_splits_are_what_they_were():
    order = np.random.default_rng(2).permutation(31)
    for n_first in (0, 10, 31):
        for part, whole in zip(dealt(order, n_first, np.arange(31)), (order[:n_first], order[n_first:]), strict=True):
            np.testing.assert_array_equal(part, whole)


def doubled(simulator, seed=0, **parameters):
    """Each cell of a simulator twice, some of the copies under the label of another cell, in random order."""
    data = dataclasses.replace(simulator, parameters={**simulator.parameters, **parameters}, sizes={}).load()
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.tile(np.arange(data.n_obs), 2))
    twice = data[rows].copy()
    twice.obs_names = [f"cell{i}" for i in range(twice.n_obs)]
    return twice


def digests(data):
    return {row.tobytes() for row in np.asarray(data.X)}


class Asked:
    """A method that notes the cells it is shown once it is fitted."""

    def __init__(self, data):
        self.trained, self.asked, self.fitted = digests(data), [], linear(data)

    def embed(self, data):
        self.asked.append(data)
        return self.fitted.embed(data)


TWICE = {
    "factors": (Factors, FACTOR_EXPRESSION, {"n_cells": 300, "n_genes": 40}),
    "latent-recovery": (LatentRecovery, SPARSE_SHIFT, {"n_perturbations": 10, "n_cells": 20}),
    "fate": (Fate, FATE_TREE, {"n_clones": 200, "n_genes": 40}),
}


@pytest.mark.parametrize("name", TWICE)
def test_no_copy_of_a_scored_cell_was_trained_on_in_a_random_split(name):
    cls, simulator, parameters = TWICE[name]
    task = cls(Memory(doubled(simulator, **parameters), name))
    if name == "fate":  # a copy in another clone
        task.data.obs["clone"] = np.random.default_rng(1).permutation(task.data.obs["clone"].to_numpy(str))
    unit, fits = task.units()[0], []

    def fit(data):
        fits.append(Asked(data))
        return fits[-1]

    task.evaluate(fit, unit, 0)
    (fitted,) = fits
    shown = [digests(data) for data in fitted.asked]
    scored = [rows for rows in shown if not rows <= fitted.trained]
    assert scored
    assert all(rows.isdisjoint(fitted.trained) for rows in scored)


def test_no_copy_of_a_scored_perturbed_cell_was_trained_on():
    data = doubled(DOUBLES, n_cells=40, n_genes=60, n_truth=100)
    task = UnseenPerturbation(Memory(data, "doubles"))
    unit = task.units()[0]
    parts, copies = task.cells(unit, 0), copies_of(task.data)
    assert set(copies[parts.weights]).isdisjoint(copies[parts.truth])
    assert set(copies[parts.source]).isdisjoint(copies[parts.control])
    few = FewShotPerturbation(Memory(doubled(SPARSE_SHIFT, n_perturbations=20, n_cells=30), "sparse"))
    known, scored = few.cells(few.units()[0], 0)
    assert set(copies_of(few.data)[known]).isdisjoint(copies_of(few.data)[scored])


@pytest.mark.parametrize("cls", [UnseenCellType, ClassContent, SharedPrivate, Reembedding])
def test_copies_in_a_users_file_are_counted_and_never_on_both_sides(tmp_path, cls):
    data = cells()
    more = data[::2].copy()
    more.obs["arm"] = np.random.default_rng(0).permutation(more.obs["arm"].to_numpy(str))  # some under another label
    both = ad.concat([data, more])
    both.obs_names_make_unique()
    task = cls(read(written(both, tmp_path)), "smoke")
    assert task.notes()[0].startswith(f"{more.n_obs} of {both.n_obs} cells are exact copies of another cell")
    copies = copies_of(task.data)
    for unit in task.units():
        seen = task.data.obs_names.isin(task.training_data(unit, 0).obs_names)
        if cls is SharedPrivate:
            scored = task._split(unit, 0)[1]
            assert len(set(copies[scored])) == len(scored)
        elif cls is Reembedding:
            scored = np.flatnonzero(task._held_out(unit))
        else:
            parts = task.cells(unit, 0)
            scored = np.concatenate([parts.control, parts.weights, parts.truth])
            assert set(copies[parts.weights]).isdisjoint(copies[parts.truth])
            assert set(copies[parts.source]).isdisjoint(copies[parts.control])
        assert set(copies[seen]).isdisjoint(copies[scored])
        if cls is ClassContent:
            probed = task._probed(unit, 0)
            assert len(set(copies[probed])) == len(probed)


@pytest.mark.parametrize("cls", [UnseenCellType, SharedPrivate, Reembedding])
def test_copies_of_one_cell_make_no_type_large(tmp_path, cls):
    data = cells(n_types=3)
    for name in ("t0", "t1", "t2"):
        for arm in ("ctrl", "stim"):
            rows = np.flatnonzero((data.obs["type"] == name) & (data.obs["arm"] == arm))
            data.X[rows] = data.X[rows[[0] * len(rows)]]
    task = cls(read(written(data, tmp_path)))
    with pytest.raises(DataError, match=r"has 0 labels with 20 or more|are needed; there are 0 pairs"):
        _ = task.data, task.units()


def test_a_file_whose_training_cells_are_all_copies_of_held_out_ones_is_refused(tmp_path):
    data = cells(n_types=2)
    data.X[48:] = data.X[:48]
    with pytest.raises(DataError, match="each of 48 training cells is an exact copy of a held-out one"):
        Reembedding(OwnData(str(written(data, tmp_path)), Fields("arm", "type"), 0)).training_data("t0", 0)


# --- what X was taken for


def normalised(data, log):
    x = data.X.toarray()
    x = 1e4 * x / x.sum(axis=1, keepdims=True)
    data.X = np.log1p(x) if log else x
    return data


def test_what_x_was_taken_for_is_printed_and_in_every_row(inside, tmp_path):
    file = written(cells(), tmp_path)
    command = ("--methods", "mean-shift,umap", *PREDICT, "--preset", "smoke", "--executor", "inline", "--out", "out")
    done = inside("run", *command, "--data", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine: X was taken for counts\n" in done.stdout
    log = written(normalised(cells(), log=True), tmp_path, "log")
    done = inside("run", *command, "--data", log)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet").groupby("task")["x_taken_for"].unique()
    high = float(normalised(cells(), log=True).X.max())
    assert f"log: X was taken for log scale, 0 to {high:.3g}\n" in done.stdout
    # umap cannot predict: the row says so without a look at the data, and says what X was taken for
    assert rows["unseen-cell-type/mine"].tolist() == ["counts"]
    assert rows["unseen-cell-type/log"].tolist() == [f"log scale, 0 to {high:.3g}"]


def test_scaled_data_and_those_of_the_suite_say_what_they_are(tmp_path):
    data = normalised(cells(), log=True)
    data.X -= data.X.mean(axis=0)
    assert taken_for(read(written(data, tmp_path)).load()) == "scaled, with negative values"
    plan = make_plan([], ["reembedding/pancancer-sim", "unseen-cell-type/ifn-sim"], "smoke", 1, (), {})
    assert {job.task: job.x_taken_for for job in plan.jobs}["unseen-cell-type/ifn-sim"] == "counts"
    assert "ifn-sim: X was taken for counts" in plan.notes
    assert any(note.startswith("pancancer-sim: X was taken for log2 expression, -") for note in plan.notes)


def fractional(data, seed=0):
    data.X = data.X.toarray() * np.random.default_rng(seed).uniform(5, 20, data.shape).astype(np.float32)
    return data


@pytest.mark.parametrize("kind", [fractional, lambda data: normalised(data, log=False)], ids=["soupx", "cp10k"])
def test_what_is_neither_counts_nor_on_a_log_scale_is_refused_before_any_fit(inside, tmp_path, kind):
    data = kind(cells())
    done = inside("run", "--methods", "mean-shift", *PREDICT, "--data", written(data, tmp_path), "--out", "out")
    assert done.returncode == 2
    assert f"mine.h5ad: X has values with decimals up to {data.X.max():g}" in done.stderr
    assert "x=counts" in done.stderr
    assert "scanpy.pp.log1p" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("jobs/*"))


def test_counts_with_decimals_are_rounded_where_the_user_says_that_they_are_counts(inside, tmp_path):
    data = fractional(cells())
    file = written(data, tmp_path)
    taken = read(file, x="counts").load()
    np.testing.assert_array_equal(taken.layers["counts"], np.rint(data.X))
    np.testing.assert_allclose(taken.X, log1p_cp10k(csr_matrix(np.rint(data.X))).toarray(), rtol=1e-6)
    assert taken_for(taken) == "counts, rounded to whole numbers"
    as_it_is = read(file, x="log").load()
    np.testing.assert_array_equal(as_it_is.X, data.X)
    assert not as_it_is.layers
    assert len({read(file, x=x).digest() for x in ("auto", "counts", "log")}) == 3
    command = ("--methods", "mean-shift", *PREDICT, "--data", file, "--preset", "smoke", "--executor", "inline")
    done = inside("run", *command, "--columns", "x=counts", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine: X was taken for counts, rounded to whole numbers\n" in done.stdout
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert all(",x=counts " in replay for replay in rows["replay"])
    done = inside("run", "--methods", "pca", "--tasks", "ood", "--columns", "x=counts")
    assert done.returncode == 2
    assert "--columns describes --data, which is not given" in done.stderr


def test_negative_values_are_no_counts(tmp_path):
    data = normalised(cells(), log=True)
    data.X[3, 2] = -1.5
    with pytest.raises(DataError, match=r"mine.h5ad: X has negative values, such as -1.5, and x=counts was given"):
        read(written(data, tmp_path), x="counts").load()


def test_several_values_of_one_cell_and_gene_are_summed(tmp_path):
    data = cells()
    x = data.X
    parts = csr_matrix(data.shape, dtype=np.float32)
    # every count above 1 as a 1 and the rest of it
    rest = np.where(x.data > 1, x.data - 1, 0)
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    order = np.argsort(np.concatenate([rows, rows]), kind="stable")
    parts.data = np.concatenate([x.data - rest, rest])[order].astype(np.float32)
    parts.indices = np.concatenate([x.indices, x.indices])[order].astype(np.int32)
    parts.indptr = np.concatenate([[0], np.cumsum(2 * np.diff(x.indptr))]).astype(np.int32)
    whole = read(written(data, tmp_path)).load()
    for name in ("X", "counts"):
        stored = ad.AnnData(parts.copy(), obs=data.obs, var=data.var)
        if name == "counts":
            stored.X, stored.layers["counts"] = log1p_cp10k(x), parts.copy()
        found = read(written(stored, tmp_path, "parts")).load()
        np.testing.assert_array_equal(found.layers["counts"], whole.layers["counts"])
        np.testing.assert_allclose(found.X, whole.X, rtol=1e-6)
    np.testing.assert_allclose(np.expm1(found.X).sum(axis=1), 1e4, rtol=1e-4)


# --- reading what is needed and nothing else


def test_an_odd_element_that_is_not_needed_does_no_harm(tmp_path):
    file = written(cells(), tmp_path)
    whole = read(file).load()
    with h5py.File(file, "r+") as store:
        store["uns/odd"] = 1.0
        store["uns/odd"].attrs["encoding-type"], store["uns/odd"].attrs["encoding-version"] = "of-the-future", "9"
        store["obs/odd"] = np.zeros(3)
        store["committed"] = np.dtype("f8")
    np.testing.assert_array_equal(read(file).load().X, whole.X)
    with h5py.File(file, "r+") as store:
        del store["obs/type"]
        store["obs/type"] = 1.0
        store["obs/type"].attrs["encoding-type"], store["obs/type"].attrs["encoding-version"] = "of-the-future", "9"
    with pytest.raises(DataError, match=r"mine.h5ad: obs/type cannot be read \(IORegistryError") as caught:
        read(file).load()
    assert "\n" not in str(caught.value)


def test_a_column_of_another_length_is_refused(tmp_path):
    file = written(cells(), tmp_path)
    with h5py.File(file, "r+") as store:
        for name in ("arm", "type"):
            del store[f"obs/{name}"]
            write_elem(store["obs"], name, np.array(["ctrl", "t0", "t1"], dtype=object))
    with pytest.raises(DataError, match="X is 192 cells x 40 genes, and obs has 3 rows"):
        read(file).load()


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_directory_is_read_as_a_file_is(tmp_path, version):
    data = cells()
    file, directory = written(data, tmp_path), tmp_path / "mine.zarr"
    with ad.settings.override(zarr_write_format=version):
        data.write_zarr(directory)
    assert zarr.open_group(directory, mode="r").metadata.zarr_format == version
    columns = {"condition": "arm", "cell_type": "type", "control": "ctrl"}
    for spelt in (directory, f"{directory}/"):
        names, own = choose_own_tasks("unseen-cell-type", str(spelt), columns)
        assert names == ["unseen-cell-type/mine"]
    task = load_task(names[0], "smoke", own)
    found, expected = task.dataset.load(), read(file).load()
    np.testing.assert_array_equal(found.X.toarray(), expected.X)
    assert found.obs.astype(str).equals(expected.obs.astype(str))
    before = read(directory).digest()
    assert read(directory).digest() == before
    part = next(path for path in sorted(directory.rglob("*")) if path.is_file())
    part.write_bytes(part.read_bytes() + b" ")
    assert read(directory).digest() != before


@pytest.mark.parametrize("whole", [False, True], ids=["0.7", "before 0.7"])
def test_files_of_old_versions_are_read(tmp_path, whole):
    data = cells()
    file = tmp_path / "old.h5ad"
    index = data.obs_names.to_numpy(dtype="S8")
    labels = {name: pd.Categorical(data.obs[name]) for name in ("arm", "type")}
    with h5py.File(file, "w") as store:
        store["X"] = data.X.toarray()
        if whole:
            columns = [("index", "S8"), *((name, "S8") for name in labels)]
            store["obs"] = np.array(
                list(zip(index, *(data.obs[n].to_numpy(dtype="S8") for n in labels), strict=True)), columns
            )
            store["var"] = np.array([(name,) for name in data.var_names.to_numpy(dtype="S8")], [("index", "S8")])
        else:
            for axis, names in (("obs", index), ("var", data.var_names.to_numpy(dtype="S8"))):
                table = store.create_group(axis)
                table["_index"] = names.astype(h5py.string_dtype())
                table.attrs.update({"_index": "_index", "encoding-type": "dataframe", "encoding-version": "0.1.0"})
                table.attrs["column-order"] = np.array(list(labels) if axis == "obs" else [], dtype=h5py.string_dtype())
            for name, values in labels.items():
                store[f"obs/__categories/{name}"] = values.categories.to_numpy(dtype="S8").astype(h5py.string_dtype())
                store[f"obs/{name}"] = values.codes
                store[f"obs/{name}"].attrs["categories"] = store[f"obs/__categories/{name}"].ref
    found = read(file).load()
    np.testing.assert_array_equal(found.layers["counts"], data.X.toarray())
    assert found.obs["arm"].astype(str).tolist() == data.obs["arm"].tolist()
    assert list(found.var_names) == list(data.var_names)


# --- sentences


def test_genes_as_rows_are_named(inside, tmp_path):
    done = inside("run", "--methods", "pca", *PREDICT, "--data", written(cells().T, tmp_path), "--out", "out")
    assert done.returncode == 2
    assert "mine.h5ad: obs has no column 'arm'" in done.stderr
    assert "cells and genes look exchanged" in done.stderr


def test_an_unused_layer_is_offered_and_taken(tmp_path):
    data = cells()
    data.layers["counts"], data.layers["raw"] = data.X, data.X
    data.X = None
    file = written(data, tmp_path)
    with pytest.raises(DataError) as caught:
        read(file).load()
    assert "mine.h5ad: X is empty; the layers are 'counts', 'raw': add x=counts" in str(caught.value)
    taken = read(file, x="counts").load()
    np.testing.assert_array_equal(taken.layers["counts"], data.layers["raw"].toarray())
    assert taken_for(taken) == "counts, of layers['counts']"
    del data.layers["counts"]
    with pytest.raises(DataError, match="X is empty; the layers are 'raw': move one of them to X"):
        read(written(data, tmp_path), x="counts").load()
    del data.layers["raw"]
    with pytest.raises(DataError, match="X is empty and has no layers"):
        read(written(data, tmp_path)).load()


@pytest.mark.parametrize("label", ["", "  ", None])
def test_cells_without_a_label_are_no_condition_of_their_own(inside, tmp_path, label):
    data = cells()
    data.obs["arm"] = data.obs["arm"].astype(object).where(data.obs["arm"] != "ctrl", label)
    arguments = ("--tasks", "reembedding", "--unit", "type", "--environment", "arm")
    done = inside("run", "--methods", "pca", *arguments, "--data", written(data, tmp_path), "--out", "out")
    assert done.returncode == 2
    assert "mine.h5ad: obs['arm'] is empty for 96 of 192 cells" in done.stderr


def test_x_that_is_no_matrix_of_numbers_is_refused(tmp_path):
    file = written(cells(), tmp_path)
    with h5py.File(file, "r+") as store:
        del store["X"]
        write_elem(store, "X", np.array([["a", "b"]], dtype=object))
    with pytest.raises(DataError, match="X is no matrix of numbers"):
        read(file).load()
    (tmp_path / "no.zarr").mkdir()
    (tmp_path / "no.zarr" / "zarr.json").write_text("{")
    with pytest.raises(DataError, match=r"no.zarr: not a readable .zarr"):
        read(tmp_path / "no.zarr").load()
