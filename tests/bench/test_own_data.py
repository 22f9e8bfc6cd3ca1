"""A user's own .h5ad through the command line."""

import dataclasses

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from tasks.datasets.base import DataError, Fields
from tasks.datasets.own import OwnData
from tasks.simulate.ifn import IFN
from tasks.simulate.splatter_groups import SPLATTER_GROUPS


@pytest.fixture
def file(tmp_path):
    data = IFN.make("smoke")
    data.X = data.layers.pop("counts")
    data.uns = {}
    data.obs = data.obs.rename(columns={"cell_type": "type", "condition": "arm"})
    data.write_h5ad(tmp_path / "mine.h5ad")
    return tmp_path / "mine.h5ad"


PREDICT = ("--tasks", "unseen-cell-type", "--condition", "arm", "--cell-type", "type", "--control", "control")


def test_a_users_file_is_scored_as_the_catalogues_are(cli, tmp_path, file):
    done = cli("run", "--methods", "pca", *PREDICT, "--data", file, "--preset", "smoke", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(rows["task"]) == {"unseen-cell-type/mine"}
    assert set(rows["method"]) == {"pca", "pca@shift=regression", "floor", "baseline", "ceiling"}
    assert (rows["status"] == "ok").all()
    for part in (f"--data {file}", "--columns condition=arm,cell_type=type,control=control,x=auto"):
        assert part in rows["replay"].iloc[0]

    again = cli("run", "--methods", "pca", *PREDICT, "--data", file, "--preset", "smoke", "--out", "out")
    assert "nothing to run" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--tasks", "unseen-cell-type", "--condition", "arm"),
            "unseen-cell-type on --data needs --columns cell_type=…; its --columns are condition",
        ),
        ((*PREDICT[:-6], "--condition", "armm", *PREDICT[-4:]), "the nearest is 'arm'"),
        ((*PREDICT, "--unit", "type"), "does not take unit"),
        (("--tasks", "latent-recovery"), "unknown task 'latent-recovery'"),
        (("--tasks", "reembedding", "--unit", "type", "--environment", "arm", "--control", "none"), "'none'"),
    ],
)
def test_what_a_users_file_or_command_lacks_is_said(cli, file, arguments, message):
    done = cli("run", "--methods", "pca", *arguments, "--data", file, "--out", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_none_is_named(cli, tmp_path):
    (tmp_path / "broken.h5ad").write_text("no")
    done = cli("run", "--methods", "pca", *PREDICT, "--data", "broken.h5ad", "--out", "out")
    assert done.returncode == 2
    assert "broken.h5ad: not a readable .h5ad" in done.stderr
    assert cli("run", *PREDICT, "--data", "absent.h5ad").returncode == 2


def test_columns_without_data_are_refused(cli):
    done = cli("run", "--methods", "pca", "--tasks", "ood", "--columns", "unit=type")
    assert done.returncode == 2
    assert "--columns describes --data, which is not given" in done.stderr
    done = cli("run", "--methods", "pca", "--tasks", "ood", "--n-genes", "100")
    assert done.returncode == 2
    assert "--n-genes describes --data, which is not given" in done.stderr


def test_shared_and_private_variation_in_a_users_groups(cli, tmp_path):
    data = dataclasses.replace(SPLATTER_GROUPS, parameters={"n_cells": 300, "n_genes": 150}, sizes={}).make()
    data.X = data.layers.pop("counts")
    data.obs = data.obs.rename(columns={"cell_type": "t", "group": "g"})
    data.write_h5ad(tmp_path / "f.h5ad")
    command = ("run", "--methods", "pca", "--tasks", "shared-private", "--data", "f.h5ad", "--preset", "smoke")
    done = cli(*command, "--group", "g", "--cell-type", "t", "--executor", "inline", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(rows["task"]) == {"shared-private/f"}
    assert set(rows["unit"]) == {"split0"}
    assert (rows["status"] == "ok").all()
    # all of them: there are no more than the 2,000 that are used by default
    assert set(rows["n_genes"]) == {data.n_vars}
    values = rows[rows["metric"] == "block_diagonality"].set_index("method")["value"]
    # a file's own column "program" is not taken for the simulator's truth, so that the ceiling knows the groups alone
    assert values["pca"] == 0.0
    assert values["ceiling"] == pytest.approx(1.0, abs=0.05)


def test_genes_are_chosen_in_each_training_split_and_said_to_be(cli, tmp_path, file):
    smoke = ("--preset", "smoke", "--executor", "inline", "--out", "out")
    shared = ("run", "--methods", "mean-shift", *PREDICT, "--data", file, *smoke)
    done = cli(*shared, "--n-genes", "40", BENCH_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    n_all = IFN.make("smoke").n_vars
    assert f"unseen-cell-type/mine: 40 of {n_all} genes are used, chosen anew in each training split" in done.stdout
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(rows["n_genes"]) == {40}
    assert (rows["status"] == "ok").all()
    assert all("--n-genes 40" in replay for replay in rows["replay"])
    # one choice for each of two cell types
    assert len(list((tmp_path / "cache" / "built" / "genes").glob("*.txt"))) == 2
    # another number is another result
    assert len({OwnData(str(file), Fields("arm", "type"), n_genes).digest() for n_genes in (0, 40, 2000)}) == 3


def test_nothing_in_a_users_file_is_taken_for_truth(file):
    data = ad.read_h5ad(file)
    data.obsm["factors"], data.uns["truth"], data.obs["program"] = data.X[:, :3], {"type0": data.X[0]}, "x"
    data.write_h5ad(file)
    read = OwnData(str(file), Fields("arm", "type", control="control"), 0).load()
    assert list(read.obs) == ["arm", "type"]
    assert not read.obsm
    assert set(read.uns) == {"fields", "X_units"}
    np.testing.assert_array_equal(read.layers["counts"], data.X)
    np.testing.assert_allclose(np.expm1(read.X).sum(axis=1), 1e4, rtol=1e-4)
    with pytest.raises(DataError, match="of the columns arm, arm each is to mean one thing"):
        OwnData(str(file), Fields("arm", "arm")).load()
