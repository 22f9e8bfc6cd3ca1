"""A user's own .h5ad through the command line."""

import dataclasses
import shlex

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from bench.options import Options, read_pairs
from bench.plan import choose_asked_tasks
from bench.plan.offers import offers
from bench.records import PlanError
from tasks import TASKS
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


def test_a_users_file_is_scored_as_the_catalogues_are(inside, tmp_path, file):
    done = inside("run", "--methods", "pca", *PREDICT, "--data", file, "--preset", "smoke", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(rows["task"]) == {"unseen-cell-type/mine"}
    assert set(rows["method"]) == {"pca", "pca@shift=regression", "floor", "baseline", "ceiling"}
    assert (rows["status"] == "ok").all()
    for part in (f"--data {file}", "--columns condition=arm,cell_type=type,control=control,x=auto"):
        assert part in rows["replay"].iloc[0]

    again = inside("run", "--methods", "pca", *PREDICT, "--data", file, "--preset", "smoke", "--out", "out")
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
def test_what_a_users_file_or_command_lacks_is_said(inside, file, arguments, message):
    done = inside("run", "--methods", "pca", *arguments, "--data", file, "--out", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_alone_is_answered_with_the_tasks_that_it_can_serve(monkeypatch, file):
    monkeypatch.chdir(file.parent)
    data = ad.read_h5ad(file)
    data.obs["donor"] = pd.Categorical(np.array(["d1", "d2", "d3"])[np.arange(data.n_obs) % 3])
    data.obs["depth"], data.obs["barcode"] = np.arange(data.n_obs) / 2, [f"b{n}" for n in range(data.n_obs)]
    data.obs["n_counts"], data.obs["cluster"] = 900 + np.arange(data.n_obs) // 2, np.arange(data.n_obs) % 4
    data.obs["note"] = [" " if n % 2 else "good" if n % 4 else "poor" for n in range(data.n_obs)]
    data.write_h5ad(file)
    with pytest.raises(PlanError) as refused:
        choose_asked_tasks("", "mine.h5ad", {}, None)
    text = str(refused.value)
    lines = text.splitlines()
    n = data.n_obs
    assert lines[1] == f"mine.h5ad has {n} cells. Its columns of labels, with the number of cells of each label:"
    assert f"  arm: 'control' ({n // 2}), 'stimulated' ({n // 2})" in lines
    assert (
        f"  note: 'poor' ({n // 4}), 'good' ({n // 4}); {n // 2} cells have none, so that no task can use it" in lines
    )
    assert not any(line.startswith(("  depth", "  barcode", "  n_counts")) for line in lines)
    assert f"  cluster: '0' ({n // 4}), '1' ({n // 4}), '2' ({n // 4}), '3' ({n // 4})" in lines
    # every command that is offered is one that can be planned
    commands = [shlex.split(line) for line in lines if " --columns " in line]
    assert len(commands) == sum(bool(TASKS[name].columns) for name in TASKS)
    for words in commands:
        given = {key: words[words.index(key) + 1] for key in ("--tasks", "--data", "--columns")}
        options = Options(tasks=given["--tasks"], data=given["--data"], methods="pca,mean-shift",
                          columns=read_pairs("--columns", given["--columns"]))  # fmt: skip
        assert any(not job.skip for job in options.plan({}).jobs)
    assert any("condition=arm,cell_type=type,control=control,replicate=donor" in line for line in lines)


def test_asking_what_a_file_can_serve_is_no_mistake(inside, file):
    done = inside("run", "--data", file, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Nothing is run: --data needs --tasks and --columns.\n")
    assert not (file.parent / "out").exists()


def test_a_task_that_a_file_cannot_serve_is_listed_with_the_reason(file):
    data = ad.read_h5ad(file)
    data.obs = data.obs[["type"]]
    data.write_h5ad(file)
    text = offers(str(file), ["unseen-cell-type"])
    assert "Tasks that it cannot serve:\n  unseen-cell-type: two columns are needed, condition and cell_type, " in text
    data.obs["arm"] = ["control" if n < 5 else "stimulated" for n in range(data.n_obs)]
    data.write_h5ad(file)
    assert "  unseen-cell-type: this file: obs['type'] has 0 labels with " in offers(str(file), ["unseen-cell-type"])


def test_labels_are_listed_at_the_first_error(file):
    with pytest.raises(DataError, match="add control=… to --columns: one of 'control', 'stimulated'"):
        Options(tasks="unseen-cell-type", data=file, columns={"condition": "arm", "cell_type": "type"}).plan({})
    with pytest.raises(PlanError, match=r"cell_type=…; its --columns are (.|\n)*  type: 'type0' \("):
        choose_asked_tasks("unseen-cell-type", file, {"condition": "arm"}, None)


def test_a_file_that_is_none_is_named(inside, tmp_path):
    (tmp_path / "broken.h5ad").write_text("no")
    done = inside("run", "--methods", "pca", *PREDICT, "--data", "broken.h5ad", "--out", "out")
    assert done.returncode == 2
    assert "broken.h5ad: not a readable .h5ad" in done.stderr
    assert inside("run", *PREDICT, "--data", "absent.h5ad").returncode == 2


def test_columns_without_data_are_refused(inside):
    done = inside("run", "--methods", "pca", "--tasks", "ood", "--columns", "unit=type")
    assert done.returncode == 2
    assert "--columns describes --data, which is not given" in done.stderr
    done = inside("run", "--methods", "pca", "--tasks", "ood", "--n-genes", "100")
    assert done.returncode == 2
    assert "--n-genes describes --data, which is not given" in done.stderr


def test_shared_and_private_variation_in_a_users_groups(inside, tmp_path):
    data = dataclasses.replace(SPLATTER_GROUPS, parameters={"n_cells": 300, "n_genes": 150}, sizes={}).make()
    data.X = data.layers.pop("counts")
    data.obs = data.obs.rename(columns={"cell_type": "t", "group": "g"})
    data.write_h5ad(tmp_path / "f.h5ad")
    command = ("run", "--methods", "pca", "--tasks", "shared-private", "--data", "f.h5ad", "--preset", "smoke")
    done = inside(*command, "--group", "g", "--cell-type", "t", "--executor", "inline", "--out", "out")
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


def test_genes_are_chosen_in_each_training_split_and_said_to_be(inside, tmp_path, file):
    smoke = ("--preset", "smoke", "--executor", "inline", "--out", "out")
    shared = ("run", "--methods", "mean-shift", *PREDICT, "--data", file, *smoke)
    done = inside(*shared, "--n-genes", "40", BENCH_CACHE_DIR=str(tmp_path / "cache"))
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
