"""Names are data wherever they go, and nothing that is read from disk is run."""

import ast
import os
import shlex
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from bench.jobs.job import readable
from bench.keep.store import Store, replay_command
from bench.keep.tracking import _key, quiet_environment
from bench.plan import choose_methods, choose_tasks, make_plan
from tests.bench.conftest import ROOT
from tests.bench.test_imports import PACKAGES
from tests.bench.test_run import TASK, TINY, runs

NAMES = [
    "<script>alert(1)</script>",
    "'; DROP TABLE runs;--",
    "$(touch pwned) `touch pwned` | # * _x_",
    "[bold]m[/bold]",
]
PLUGIN = f"""
import numpy as np
from methods import register_method
from methods.base import Method


class Odd(Method):
    tags = frozenset({{"odd"}})

    def fit(self, data, seed):
        self.history = {{"<b>loss</b>/../x": [1.0, float("nan")], "..": [np.float32(2.0)]}}
        self.note("<img src=x onerror=alert(1)> \\x1b[31m \\udcff")
        return self

    def embed(self, data):
        if self.name.startswith("$"):
            raise ValueError(self.name + "\\x00 \\x1b[2J \\udcff" + "long " * 5000)
        return np.asarray(data.X)[:, :2]


for name in {NAMES!r}:
    register_method(type("Named", (Odd,), {{"name": name}}))
"""

#: What runs code from a file, and what makes it safe.
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


def calls_that_run_what_they_read(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in FORBIDDEN:
            yield node.module
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            runs = called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle")
            unpickles = called == "torch.load" and options.get("weights_only") != "True"
            if runs or unpickles or options.get("shell") == "True" or options.get("allow_pickle", "False") != "False":
                yield ast.unparse(node)


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_read_from_disk_is_run(package):
    found = {
        str(file.relative_to(ROOT)): called
        for file in (ROOT / package).rglob("*.py")
        for called in calls_that_run_what_they_read(ast.parse(file.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)", "eval(text)",
     "np.load(f, allow_pickle=True)", "pd.read_pickle(f)", "subprocess.run(c, shell=True)", "import yaml"],
)  # fmt: skip
def test_what_is_looked_for_is_found(code):
    assert list(calls_that_run_what_they_read(ast.parse(code)))


def test_names_are_text_everywhere(inside, plugin, tmp_path):
    done = inside("run", "--methods", "odd", "--plugin", plugin(PLUGIN), *TINY, "--executor", "inline")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for name in NAMES:
        assert name in done.stdout
    assert not list(tmp_path.rglob("pwned"))

    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(NAMES) <= set(rows["method"])
    assert set(rows.loc[rows["method"] == NAMES[0], "status"]) == {"ok"}
    page = (tmp_path / "out" / "leaderboard.html").read_text()
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    table = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "<script>" not in table
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in table

    _, children, (parent,) = runs(tmp_path)
    assert parent.info.status == "FAILED"
    assert {run.data.tags["method"] for run in children.values()} >= set(NAMES)
    assert len(children) == rows["job_id"].nunique()
    (one, *_) = (run for run in children.values() if run.data.tags["method"] == NAMES[0])
    assert {name for name in one.data.metrics if name.startswith("curve")} == {
        f"curve/{_key(NAMES[0])}/_b_loss__b__.._x",
        f"curve/{_key(NAMES[0])}/_",
    }

    replay = next(iter(rows.loc[rows["method"] == NAMES[2], "replay"]))
    shown = subprocess.run(["sh", "-c", f"set -- {replay}; printf '%s\\0' \"$@\""], cwd=tmp_path, capture_output=True)
    words = shown.stdout.decode().split("\0")
    assert words[words.index("--methods") + 1] == NAMES[2]
    assert not list(tmp_path.rglob("pwned"))
    again = inside(*shlex.split(replay)[3:], "--dry-run")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "pwned").exists()


def test_a_replay_command_is_quoted():
    specs, plugins = choose_methods("beta-vae@beta=2", "smoke", [])
    (job, *_) = make_plan(specs, choose_tasks(TASK), "smoke", 1, plugins, {}).jobs
    own = {"file": "/my file.h5ad", "environment": "a;b", "content": "it's", "control": "", "n_genes": "9", "x": "log"}
    words = shlex.split(replay_command(replace(job, plugins=("/a b/$(x).py",), task="reembedding/my file", own=own)))
    columns = "environment=a;b,unit=it's,x=log"
    for flag, value in (("--data", "/my file.h5ad"), ("--columns", columns), ("--plugin", "/a b/$(x).py")):
        assert words[words.index(flag) + 1] == value
    assert words[words.index("--set") + 1] == "beta-vae.beta=2"


@pytest.mark.parametrize("name", ["a,b", "a@b", "a=b", " a", "a ", "", "a\n", "a\x1b"])
def test_a_name_that_cannot_be_asked_for_is_refused(name):
    from methods import Method, register_method

    with pytest.raises(ValueError, match="is needed"):
        register_method(type("Named", (Method,), {"name": name}))


def test_readable_text_is_left_as_it_is():
    assert readable("Γ-VAE · β = ½\n\t'x' 🧬") == "Γ-VAE · β = ½\n\t'x' 🧬"
    assert readable("\x00\x1b[2J\udcff\x85\r") == r"\x00\x1b[2J\udcff\x85\r"


def test_the_ui_binds_to_loopback(tmp_path, monkeypatch):
    import bench.cli

    Store(tmp_path)
    seen = []
    monkeypatch.setattr("os.execv", lambda program, command: seen.append(command))
    monkeypatch.setattr("bench.keep.ui.has_browser", lambda: False)
    for name in quiet_environment():
        monkeypatch.delenv(name, raising=False)
    bench.cli.ui(out=tmp_path, mlflow_uri=None, port=5000)
    (command,) = seen
    assert command[0] == sys.executable
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
