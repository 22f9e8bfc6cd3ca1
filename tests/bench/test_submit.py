"""Predictions without code: from `split` to a board row, and what is refused on the way."""

import io
import json
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from anndata import AnnData
from rich.console import Console

from bench import run
from bench.keep.store import Store, replay_command
from bench.options import Options
from bench.records import PlanError
from bench.studies.submit.answers import Answers, Refused
from bench.studies.submit.questions import asked_by, of_catalogue
from bench.studies.submit.score import score
from bench.studies.submit.split import split
from methods import METHODS
from tests.bench.conftest import ROOT

TASK = "unseen-cell-type/ifn-sim"
(SCRIPT,) = re.findall(
    r"```python\n# mean_shift.py\n(.*?)```", (ROOT / "docs" / "submitting.md").read_text(), re.DOTALL
)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A split of the task that the page's program has answered, run without this suite on its path."""
    directory = tmp_path_factory.mktemp("submit") / "split"
    split(TASK, "smoke", None, None, directory)
    script = directory.parent / "mean_shift.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-I", script, directory], cwd=directory.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def asked():
    return asked_by(TASK, "smoke", None, None)


@pytest.fixture
def copy(answered, tmp_path):
    return shutil.copytree(answered, tmp_path / "mine")


def scored(directory, tmp_path, name="", task=TASK):
    console = Console(file=io.StringIO(), width=200)
    options = Options(tasks=task, out=tmp_path / "runs", executor="inline")
    return score(task, directory, name, options, console), console.file.getvalue()


def results(tmp_path):
    return [result for result in Store(tmp_path / "runs").results() if result.job.role == "method"]


def answer_of(directory, number=1):
    return directory / "fit001" / f"predict{number}.x.npz"


def rewrite(file, **changes):
    with np.load(file) as arrays:
        content = {**arrays, **changes}
    np.savez(file, **{key: value for key, value in content.items() if value is not None})


# --- what is asked


def test_files_hold_what_a_method_sees_and_no_truth(answered):
    manifest = json.loads((answered / "manifest.json").read_text())
    (fit,) = manifest["fits"]  # one fit answers for both units
    assert fit["units"] == ["draw0/type1", "draw0/type4"]
    with h5py.File(answered / fit["train"]) as file:
        assert set(file["obs"]) == {"_index", "environment", "content", "replicate"}
        assert not any(len(file[key]) for key in ("obsm", "obsp", "varm", "varp"))
        assert set(file["uns"]) == {"control", "X_units"}
        trained = set(file["obs/_index"].asstr()[:])
        held_out = (file["obs/content"].asstr()[:] == "type1") & (file["obs/environment"].asstr()[:] == "stimulated")
        assert not held_out.any()
    for question in fit["questions"]:
        with h5py.File(answered / question["file"]) as file:
            assert set(file["obs/_index"].asstr()[:]) <= trained  # predictions start from trained control cells
            assert file["X"].shape == (question["n_cells"], question["n_genes"])


def test_a_second_fit_of_the_same_cells_is_asked_for_apart():
    asked = asked_by("reembedding/pancancer-sim", "smoke", None, None)
    assert len({fit.digest for fit in asked}) < len(asked)
    assert len({(fit.digest, fit.seed) for fit in asked}) == len(asked)


def test_what_files_cannot_answer_is_refused(tmp_path):
    with pytest.raises(PlanError, match="asks a method to adapt, which depends on what it answered before"):
        split("few-shot-perturbation/sparse-shift", "smoke", None, None, tmp_path / "split")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(PlanError, match="is not an empty directory"):
        split(TASK, "smoke", None, None, tmp_path / "full")
    with pytest.raises(PlanError, match="name one data set, of unseen-cell-type/ifn-sim, unseen-cell-type/digits"):
        of_catalogue("unseen-cell-type")


# --- from split to a row


def test_a_program_that_knows_nothing_of_the_suite_gets_the_row_that_the_same_method_gets_here(answered, tmp_path):
    done, _ = scored(answered, tmp_path, "theirs")
    assert done.refused == {}
    rows = results(tmp_path)
    assert {result.status for result in rows} == {"ok"}
    assert {result.job.method for result in rows} == {"theirs (submitted)"}
    assert rows[0].log[0].startswith("submitted: fitted elsewhere, read from files with SHA-256 ")
    assert "theirs (submitted)" not in METHODS
    assert replay_command(rows[0].job).endswith(f"score {TASK} --predictions DIR --name theirs")
    assert "theirs (submitted)" in (tmp_path / "runs" / "leaderboard.md").read_text()
    # MLflow has it, marked
    from mlflow import MlflowClient

    client = MlflowClient(done.done.uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "bench")
    runs = client.search_runs([experiment.experiment_id], "tags.method = 'theirs (submitted)' and tags.kind = 'job'")
    assert len(runs) == 2
    assert rows[0].log[0] in runs[0].data.tags["log"]
    # again: nothing is run
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs" / "jobs").iterdir()}
    scored(answered, tmp_path, "theirs")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "runs" / "jobs").iterdir()} == before
    # the suite's own mean shift, scored by the same code
    run(methods="mean-shift", tasks=TASK, preset="smoke", out=tmp_path / "own", executor="inline")
    own = {r.job.unit: r.scores for r in Store(tmp_path / "own").results() if r.job.method == "mean-shift"}
    for result in rows:
        for metric in ("skill", "energy_distance", "deg_auprc"):
            assert result.scores[metric] == pytest.approx(own[result.job.unit][metric], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".h5ad"])
def test_other_formats_give_the_same_answers(copy, answered, asked, suffix):
    with np.load(answer_of(copy)) as arrays:
        x, cells, genes = (arrays[key] for key in ("x", "cells", "genes"))
    answer_of(copy).unlink()
    file = answer_of(copy).with_suffix(suffix)
    if suffix == ".h5":
        with h5py.File(file, "w") as stream:
            stream["x"] = x
            stream["cells"], stream["genes"] = cells.astype(object), genes.astype("S")
    else:
        data = AnnData(x)
        data.obs_names, data.var_names = cells, genes
        data.write_h5ad(file)
    first = next(iter(asked[0].questions))
    got, expected = (Answers(directory, asked).answer(asked[0], first) for directory in (copy, answered))
    np.testing.assert_array_equal(got, expected)


def test_codes_are_scored_where_codes_are_asked_for(tmp_path):
    task = "unseen-mixture/rnamix-sim"
    directory = tmp_path / "split"
    split(task, "smoke", None, None, directory)
    for fit in json.loads((directory / "manifest.json").read_text())["fits"]:
        with h5py.File(directory / fit["train"]) as file:
            x = file["X"][:]
            assert set(file["obs"]) == {"_index", "environment"}
        components = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:10]
        for question in fit["questions"]:
            with h5py.File(directory / question["file"]) as file:
                codes, cells = (file["X"][:] - x.mean(axis=0)) @ components.T, file["obs/_index"].asstr()[:].astype(str)
            np.savez(directory / f"{question['answer']}.npz", codes=codes, cells=cells)
    scored(directory, tmp_path, "svd", task)
    of_pca = {r.job.unit: r.scores for r in Store(tmp_path / "runs").results() if r.job.method == "baseline"}
    for result in results(tmp_path):
        ours = of_pca[result.job.unit]["composition_error"]
        assert result.scores["composition_error"] == pytest.approx(ours, rel=1e-3)
        assert "mcc" in result.scores
    assert any(result.picture for result in results(tmp_path))


# --- what is mended, and what is refused


def test_another_order_of_cells_and_genes_is_mended_and_said(copy, answered, asked, tmp_path):
    rng = np.random.default_rng(0)
    with np.load(answer_of(copy)) as arrays:
        cells, genes = rng.permutation(len(arrays["cells"])), rng.permutation(len(arrays["genes"]))
        changed = {"x": arrays["x"][cells][:, genes], "cells": arrays["cells"][cells], "genes": arrays["genes"][genes]}
    rewrite(answer_of(copy), **changed)
    first = next(iter(asked[0].questions))
    got, expected = (Answers(directory, asked).answer(asked[0], first) for directory in (copy, answered))
    np.testing.assert_array_equal(got, expected)
    _, said = scored(copy, tmp_path, "shuffled")
    for what in ("cells", "genes"):
        line = f"predict1.x.npz: {what} were in another order, and were put in that of the question by their names"
        assert f"shuffled: {line}" in said
        assert all(line in result.log for result in results(tmp_path))


def changed(name):
    """Return a function that spoils a directory of answers, and what is said of it."""

    def arrays(directory):
        with np.load(answer_of(directory)) as content:
            return dict(content)

    def manifest(directory, change):
        file = directory / "manifest.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    def of_cells(directory):
        content = arrays(directory)
        rewrite(answer_of(directory), x=content["x"][2:], cells=content["cells"][2:])

    def extra(directory):
        content = arrays(directory)
        more = {key: np.concatenate([content[key], content[key][:1]]) for key in ("x", "cells")}
        rewrite(answer_of(directory), x=more["x"], cells=np.append(content["cells"], "stranger"))

    def twice(directory):
        cells = arrays(directory)["cells"]
        cells[0] = cells[1]
        rewrite(answer_of(directory), cells=cells)

    def of_genes(directory):
        genes = arrays(directory)["genes"]
        genes[0] = "unheard"
        rewrite(answer_of(directory), genes=genes)

    def nan(directory):
        x = arrays(directory)["x"]
        x[0, :3] = np.nan
        rewrite(answer_of(directory), x=x)

    def truncated(directory):
        content = answer_of(directory).read_bytes()
        answer_of(directory).write_bytes(content[: len(content) // 2])

    def truncated_h5(directory):
        content = answer_of(directory)
        with h5py.File(content.with_suffix(".h5"), "w") as stream:
            stream["x"] = arrays(directory)["x"]
        content.unlink()
        whole = content.with_suffix(".h5").read_bytes()
        content.with_suffix(".h5").write_bytes(whole[: len(whole) // 2])

    def pickled(directory):
        np.savez(answer_of(directory), x=np.array([{"a": 1}], dtype=object), cells=["a"], genes=["b"])

    def rescaled(function):
        return lambda directory: rewrite(answer_of(directory), x=function(arrays(directory)["x"]))

    return {
        "digest": (
            lambda d: manifest(d, lambda m: m["fits"][0]["questions"][0].update(cells="0" * 64)),
            "its cells are not those that unseen-cell-type/ifn-sim asks for here",
        ),
        "split file": (
            lambda d: (d / "fit001" / "predict1.h5ad").write_bytes(b"changed"),
            "is not the file that bench split wrote",
        ),
        "task": (lambda d: manifest(d, lambda m: m.update(task="other/one")), "it is of other/one"),
        "no manifest": (lambda d: (d / "manifest.json").write_text("{"), "cannot be read"),
        "old manifest": (lambda d: manifest(d, lambda m: m.update(format=0)), "is no manifest of format 1"),
        "missing answer": (lambda d: answer_of(d).unlink(), "is missing; one is needed, of predict1.x.h5ad"),
        "missing cells": (of_cells, "2 cells are missing"),
        "extra cells": (extra, r"1 cells were not asked for \('stranger'\)"),
        "a name twice": (twice, "have the name of another one"),
        "other genes": (of_genes, "1 genes are missing .* and 1 genes were not asked for"),
        "NaN": (nan, "3 of .* values are no finite numbers"),
        "truncated": (truncated, "cannot be read"),
        "truncated HDF5": (truncated_h5, "cannot be read"),
        "pickle": (pickled, "cannot be read .*allow_pickle"),
        "no genes": (lambda d: rewrite(answer_of(d), genes=None), "lacks an array"),
        "transposed": (rescaled(np.transpose), "R writes matrices transposed"),
        "counts": (rescaled(lambda x: 20 * np.expm1(np.maximum(x, 0))), "is on another scale: a mean of"),
        "standardised": (rescaled(lambda x: (x - x.mean(0)) * 2), "is on another scale: .* below zero"),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "digest", "split file", "task", "no manifest", "old manifest", "missing answer", "missing cells", "extra cells",
        "a name twice", "other genes", "NaN", "truncated", "truncated HDF5", "pickle", "no genes", "transposed",
        "counts", "standardised",
    ],
)  # fmt: skip
def test_a_wrong_answer_is_refused_in_a_sentence_and_nothing_is_scored(name, copy, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.studies.submit.score.asked_by", lambda *request: asked)
    spoil, said = changed(name)
    spoil(copy)
    with pytest.raises(Refused, match=said) as caught:
        scored(copy, tmp_path, "mine")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_later_answers_under_one_name_replace_the_row(copy, tmp_path):
    scored(copy, tmp_path, "mine")
    with np.load(answer_of(copy)) as arrays:
        rewrite(answer_of(copy), x=1.1 * arrays["x"])
    scored(copy, tmp_path, "mine")
    assert len(results(tmp_path)) == 4
    board = (tmp_path / "runs" / "leaderboard.md").read_text()
    assert "with a later result for the same method, unit and seed" in board


def test_of_many_methods_the_right_ones_are_scored_and_the_wrong_ones_named(answered, tmp_path):
    many = tmp_path / "many"
    for name in ("first", "second", "broken"):
        shutil.copytree(answered, many / name)
    rewrite(answer_of(many / "second"), x=np.load(answer_of(many / "second"))["x"] * 1.1)
    answer_of(many / "broken").unlink()
    done, _ = scored(many, tmp_path)
    assert list(done.refused) == ["broken"]
    assert {result.job.method for result in results(tmp_path)} == {"first (submitted)", "second (submitted)"}
    with pytest.raises(Refused, match="holds 3 methods, which are named by their directories"):
        scored(many, tmp_path, "name")
    with pytest.raises(Refused, match=r"there is no manifest\.json, and in none of its directories"):
        scored(tmp_path / "many" / "first" / "fit001", tmp_path)


def test_the_commands_go_from_split_to_the_board(inside, tmp_path):
    done = inside("split", TASK, "--into", "split", "--preset", "smoke")
    assert done.returncode == 0, done.stderr
    assert "bench score unseen-cell-type/ifn-sim --predictions split --name NAME" in done.stdout
    refused = inside("score", TASK, "--predictions", "split", "--name", "mine", "--out", "out")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: mine: split/fit001/predict1.x: is missing")
    (tmp_path / "mean_shift.py").write_text(SCRIPT)
    subprocess.run([sys.executable, "mean_shift.py", "split"], cwd=tmp_path, check=True)
    done = inside("score", TASK, "--predictions", "split", "--name", "mine", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine (submitted)" in done.stdout
