"""Every command in README.md and docs/ is executed, at smoke size, in a directory that has what it names.

What makes a command small is appended to it (of an option that is given twice the last one counts), and a plan keeps
one held-out unit of one task. A new command needs nothing here: it is executed. Only what cannot be run in a test has
an entry in ``INSTEAD``, with the reason.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from bench import options
from bench.cli import app
from bench.new import new
from bench.records import PlanError
from bench.studies import preflight
from tasks import load_task
from tasks.datasets.catalogue import RealDataset
from tests.bench.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TASK = "reembedding/pancancer-sim"
#: What is appended to a command, so that it takes seconds.
SMALL = {
    "run": ("--preset", "smoke", "--seeds", "1", "--executor", "inline"),
    "preflight": ("--preset", "smoke", "--jobs", "1"),
    "tune": ("--preset", "smoke", "--seeds", "1", "--jobs", "1", "--trials", "1", "--folds", "1", "--methods", "vae"),
    "split": ("--preset", "smoke"),
    "calibrate": ("--preset", "smoke", "--seeds", "1", "--tasks", "unseen-perturbation/doubles-sim"),
}
#: Beginnings of commands that a test cannot run as they stand: why, and what changes them (words and stand-ins).
INSTEAD = {
    "run --methods all --tasks ood --executor slurm": (
        "there is no cluster: test_slurm.py submits to an acted one, and to a real one where its daemons are installed",
        lambda argv, patch: [*argv, "--preset", "smoke", "--dry-run"],
    ),
    "run --methods external:drvi": (
        "it installs a package: tests/methods/test_external.py makes environments",
        lambda argv, patch: [*argv, "--preset", "smoke", "--dry-run"],
    ),
    "replay 3f2a": (
        "the id is an example's",
        lambda argv, patch: [argv[0], sorted(os.listdir("runs/jobs"))[0][:6]],
    ),
    "replay vae/": (
        "the row is an example's: test_replay.py finds rows by their names",
        lambda argv, patch: [argv[0], sorted(os.listdir("runs/jobs"))[0][:6], *argv[2:]],
    ),
    "score": (
        "a program answers first: test_submit.py runs the one of the page",
        lambda argv, patch: [*argv, "--help"],
    ),
    "data fetch": (
        "it downloads: tests/tasks/datasets fetches from a server of its own",
        lambda argv, patch: patch.setattr(RealDataset, "fetch", lambda self, progress: self.path()) or argv,
    ),
    "ui": (
        "it stays up: test_mlflow_ui_in_browser.py starts it and looks",
        lambda argv, patch: patch.setattr(os, "execv", lambda program, words: print(*words)) or argv,
    ),
}


def commands():
    """The command lines in code blocks, without their comments, each once."""
    found = {}
    for page in PAGES:
        for line in page.read_text().splitlines():
            match = re.match(r"(?:    )?((?:python -m bench|bench|make) \S.*)$", line)
            if match:
                command = re.sub(r"\s+# .*$", "", match[1])
                found.setdefault(command, page.name)
    return sorted(found.items(), key=lambda item: item[1])


def arguments(command):
    """What the suite is given by a command; None where it is no command of the suite's."""
    argv = shlex.split(command)
    return argv[3:] if argv[:3] == ["python", "-m", "bench"] else None


OURS = [pytest.param(argv, id=f"{page}: {line}") for line, page in commands() if (argv := arguments(line)) is not None]
OTHERS = [line for line, _ in commands() if arguments(line) is None]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory with all that the commands name: results, the pages' examples and a data file."""
    directory = tmp_path_factory.mktemp("commands")
    for page in PAGES:
        for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page.read_text(), re.DOTALL):
            (directory / name).write_text(text)
    new("method", "my_vae", directory)
    data = load_task(TASK, "smoke").data.copy()
    data.obs["cancer_type"] = data.obs[data.uns["fields"]["content"]].astype(str)
    data.obs["study"] = data.obs[data.uns["fields"]["environment"]].astype(str)
    data.obs["type"] = data.obs["cancer_type"]
    data.obs["arm"] = ["control" if number % 2 else "stimulated" for number in range(data.n_obs)]
    data.obs["region"] = ["east" if number % 2 else "west" for number in range(data.n_obs)]
    data.write_h5ad(directory / "my.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        made = invoke(patch, ["run", "--methods", "pca", "--tasks", TASK, "--out", "runs", *SMALL["run"]])
        assert made.exit_code == 0, made.output
        shutil.copytree("runs", "elsewhere/runs")
        shutil.copytree("runs", "development")
        os.mkdir("leaderboard")
        shutil.copy("runs/results.parquet", "leaderboard/RESULTS.parquet")
    return directory


def invoke(patch, argv):
    """Run the suite in this process, with plans that keep one unit of the first task and its quickest methods."""
    small = functools.partial(thinned, options.make_plan)
    patch.setattr(options, "make_plan", small)
    patch.setattr(preflight, "make_plan", small)
    patch.setattr(sys, "argv", ["bench", *argv])
    return CliRunner().invoke(app, argv)


def thinned(make, *given):
    whole = make(*given)
    first = next((job for job in whole.jobs if not job.skip), None)
    methods = dict.fromkeys(job.method for job in whole.jobs if job.role == "method" and not job.skip)
    kept = {"floor", "baseline", "ceiling", *list(methods)[:2]}
    jobs = [c for c in whole.jobs if first and (c.task, c.unit, c.seed) == (first.task, first.unit, first.seed)]
    return replace(whole, jobs=tuple(job for job in jobs if job.method in kept))


@pytest.mark.parametrize("argv", OURS)
def test_command(directory, monkeypatch, tmp_path, argv):
    monkeypatch.chdir(tmp_path if argv[0] == "new" else directory)  # what it writes is in the directory already
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path))
    line = shlex.join(argv)
    instead = next((change for start, (_, change) in INSTEAD.items() if line.startswith(start)), None)
    argv = instead(argv, monkeypatch) if instead else [*argv, *SMALL.get(argv[0], ())]
    if argv[0] == "run" and "--minutes" in argv:
        argv += ["--minutes", "0.01"]
    if argv[0] in ("run", "preflight", "tune") and "--out" not in argv:
        argv += ["--out", str(tmp_path / "runs")]  # or each command's page would show what all before it have run
    done = invoke(monkeypatch, argv)
    if isinstance(done.exception, PlanError):  # of real data alone, which are not here; or a question to a file
        assert str(done.exception).startswith(
            ("no task could run\n", "Nothing is run: --data needs --tasks and --columns.\n")
        )
        return
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    assert done.output


def test_every_stand_in_is_of_a_command():
    lines = [shlex.join(arguments(line)) for line, _ in commands() if arguments(line)]
    assert [start for start in INSTEAD if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.parametrize("line", OTHERS)
def test_other_command(tmp_path, line):
    """make's targets are there (they run whole suites, this one among them); completion is put where bash looks."""
    if line.startswith("make "):
        command = [*shlex.split(line), "--dry-run"]
        assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
        return
    program = tmp_path / "bench"
    program.write_text(f"#!{sys.executable}\nfrom bench.cli import main\nmain()\n")
    program.chmod(0o755)
    here = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    # a shell that stays, for the program to find as its parent
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit $?"], env={**os.environ, **here}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bash_completions" in (tmp_path / ".bashrc").read_text()


def mentioned():
    """Commands in running text and in table cells, which are not executed but must be ones."""
    return sorted({line for page in PAGES for line in re.findall(r"`python -m bench ([^`…]+)`", page.read_text())})


@pytest.mark.parametrize("line", mentioned())
def test_a_command_in_running_text_is_one(line):
    group = typer.main.get_command(app)
    name, *words = shlex.split(line)
    with group.make_context("bench", [name]) as context:
        while True:
            command = group.get_command(context, name)
            assert command is not None, line
            if not hasattr(command, "commands"):
                break
            group, (name, *words) = command, words
        command.make_context(name, words, parent=context)
