"""A user's own .h5ad through the command line."""

import pandas as pd
import pytest

from tasks.simulate.ifn import IFN


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
    assert set(rows["method"]) == {"pca", "N0", "N1", "P"}
    assert (rows["status"] == "ok").all()
    for part in (f"--data {file}", "--condition arm", "--cell-type type", "--control control"):
        assert part in rows["replay"].iloc[0]

    again = cli("run", "--methods", "pca", *PREDICT, "--data", file, "--preset", "smoke", "--out", "out")
    assert "nothing to run" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tasks", "unseen-cell-type", "--condition", "arm"), "unseen-cell-type on --data needs --cell-type"),
        ((*PREDICT[:-6], "--condition", "armm", *PREDICT[-4:]), "the nearest is 'arm'"),
        ((*PREDICT, "--unit", "type"), "does not take --unit"),
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
    done = cli("run", "--methods", "pca", "--tasks", "ood", "--unit", "type")
    assert done.returncode == 2
    assert "--unit describes the columns of --data, which is not given" in done.stderr
