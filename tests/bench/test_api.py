"""``bench.run`` and ``bench.leaderboard`` from scripts, which have no ``if __name__ == "__main__"``."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

import bench
from bench import api
from bench.keep.store import StoreError
from bench.plan import choose_methods
from bench.records import PlanError
from methods import METHODS
from methods.base import Method
from methods.errors import ConfigError
from metrics import UnknownName
from tasks.datasets import DataError
from tests.bench.conftest import process_environment

TASK = "reembedding/pancancer-sim"
NOTEBOOK_CLASS = """
import numpy as np
from methods.base import Method

class FirstGenes(Method):
    name = "first-genes"
    def fit(self, data, seed):
        return self
    def embed(self, data):
        return np.asarray(data.X)[:, :3]
"""


def script(tmp_path, text, **environment):
    file = tmp_path / "script.py"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env=process_environment(tmp_path, **environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_a_script_gets_the_rows_of_its_plan_and_says_nothing(tmp_path, inside):
    done = script(
        tmp_path,
        f"""
import bench
rows = bench.run(["random-projection", "pca"], ["{TASK}"], preset="smoke", jobs=2, out="out",
                 settings={{"pca": {{"n_latent": 5}}}})
rows.to_pickle("rows.pkl")
bench.leaderboard("out").tasks.to_pickle("tasks.pkl")
bench.run("random-projection", "{TASK}", preset="smoke", out="out").to_pickle("fewer.pkl")
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = pd.read_pickle(tmp_path / "rows.pkl")
    assert set(rows["status"]) == {"ok"}
    assert set(rows["method"]) == {"floor", "baseline", "structure", "ceiling", "random-projection", "pca@n_latent=5"}
    assert {json.loads(c)["n_latent"] for c in rows.loc[rows["method"].str.startswith("pca"), "config"]} == {5}
    stored = pd.read_parquet(tmp_path / "out" / "results.parquet")
    pd.testing.assert_frame_equal(rows, stored)
    tables = bench.leaderboard(rows)
    pd.testing.assert_frame_equal(tables.tasks, pd.read_pickle(tmp_path / "tasks.pkl"))
    written = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert tables.tasks["method"].tolist() == written["method"].tolist()
    assert tables.tasks["relative_error"].tolist() == pytest.approx(written["relative_error"].tolist())
    assert tables.suites.empty
    assert set(pd.read_pickle(tmp_path / "fewer.pkl")["method"]) == {
        "floor",
        "baseline",
        "structure",
        "ceiling",
        "random-projection",
    }
    same = inside(
        "run", "--methods", "random-projection,pca", "--tasks", TASK, "--preset", "smoke", "--out", "out",
        "--set", "pca.n_latent=5",
    )  # fmt: skip
    assert "nothing to run" in same.stdout


def test_settings_are_read_as_the_command_line_reads_them():
    ours = api._as_set({"vae": {"hidden": (16, 8), "likelihood": "auto", "dropout": 0}})
    theirs = ["vae.hidden=16,8", "vae.likelihood=auto", "vae.dropout=0"]
    of_ours, of_theirs = (dict(choose_methods("vae", "smoke", given)[0][0].changes) for given in (ours, theirs))
    assert of_ours == of_theirs == {"hidden": [16, 8], "likelihood": "auto", "dropout": 0}


def test_a_class_of_the_script_is_run_inline_or_refused(tmp_path):
    done = script(
        tmp_path,
        NOTEBOOK_CLASS
        + f"""
import bench
from methods import METHODS
from bench.records import PlanError
try:
    bench.run(FirstGenes, "{TASK}", preset="smoke", out="out")
except PlanError as error:
    print(error)
assert "first-genes" not in METHODS
for turn in (1, 2):
    rows = bench.run(FirstGenes, "{TASK}", preset="smoke", out="out", executor="inline")
    rows[rows["method"] == "first-genes"].to_pickle(f"{{turn}}.pkl")
""",
        OMP_NUM_THREADS="4",
    )
    assert done.returncode == 0, done.stderr
    assert "cannot import; put the class into a file and name it 'file.py:Class'" in done.stdout
    assert "numpy was imported before bench.run" in done.stderr
    first, second = (pd.read_pickle(tmp_path / f"{turn}.pkl") for turn in (1, 2))
    assert set(first["status"]) == {"ok"}
    assert set(first["job_id"]).isdisjoint(second["job_id"])
    assert first.sort_values(["unit", "metric"])["value"].tolist() == pytest.approx(
        second.sort_values(["unit", "metric"])["value"].tolist()
    )


def test_a_class_of_a_file_is_run_in_processes_and_must_not_change_meanwhile(tmp_path):
    (tmp_path / "own_method.py").write_text(NOTEBOOK_CLASS)
    done = script(
        tmp_path,
        f"""
import bench
from own_method import FirstGenes
rows = bench.run([FirstGenes], "{TASK}", preset="smoke", out="out")
print(set(rows.loc[rows["method"] == "first-genes", "status"]))
with open("own_method.py", "a") as stream:
    stream.write("# changed")
bench.run([FirstGenes], "{TASK}", preset="smoke", out="out")
""",
    )
    assert done.stdout.strip() == "{'ok'}"
    assert done.returncode == 1
    assert "has changed since this Python imported it; restart Python" in done.stderr


def test_failed_jobs_are_rows_and_a_warning(tmp_path, plugin):
    file = plugin(NOTEBOOK_CLASS.replace("return np.asarray(data.X)[:, :3]", "raise RuntimeError('broken')"), "bad.py")
    with pytest.warns(UserWarning, match=r"not every job ended well \(2 failed, 8 ok\)"):
        rows = bench.run(f"{file}:FirstGenes", TASK, preset="smoke", out=tmp_path / "out", executor="inline")
    METHODS.forget("first-genes")
    failed = rows[rows["method"] == "first-genes"]
    assert set(failed["status"]) == {"failed"}
    assert set(failed["reason"]) == {"RuntimeError: broken"}


def test_absent_data_are_a_warning(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))  # the machine's own may have what was built there
    asked = {"preset": "smoke", "out": tmp_path / "out", "data_dir": tmp_path, "executor": "inline"}
    with pytest.warns(UserWarning, match="unseen-cell-type/kang was not run: "):
        rows = bench.run("pca", [TASK, "unseen-cell-type/kang"], **asked)
    assert set(rows["task"]) == {TASK}
    with pytest.raises(PlanError, match="no task could run\nunseen-cell-type/kang: "):
        bench.run("pca", "unseen-cell-type/kang", **asked)
    assert "BENCH_DATA_DIR" not in os.environ


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"methods": ["pcaa"]}, UnknownName, "did you mean 'pca'"),
        ({"methods": [3]}, PlanError, "3 is neither a name nor a class"),
        ({"tasks": ["reembeding"]}, UnknownName, "did you mean 'reembedding'"),
        ({"settings": {"pca": {"n_latents": 3}}}, ConfigError, "no config key 'n_latents'"),
        ({"settings": {"vae": {"n_latent": 3}}}, UnknownName, "unknown method 'vae'"),
        ({"executor": "slurm"}, PlanError, "'local' or 'inline' is needed"),
        ({"data_dir": "nowhere"}, DataError, "there is no such directory"),
        ({"columns": {"unit": "cancer"}}, PlanError, "--columns describes --data, which is not given"),
        ({"preset": "huge"}, ConfigError, "one of smoke, default, paper"),
    ],
)
def test_mistakes_raise(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        bench.run(**{"methods": "pca", "tasks": TASK, "out": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


def test_a_class_without_a_name_is_refused(tmp_path, monkeypatch):
    class Nameless(Method):
        def fit(self, data, seed):
            return self

    monkeypatch.setattr(Nameless, "__module__", "__main__")
    with pytest.raises(PlanError, match="Nameless"):
        bench.run(Nameless, TASK, out=tmp_path / "out")


def test_no_results_raise(tmp_path):
    with pytest.raises(StoreError, match="no results there"):
        bench.leaderboard(tmp_path)
