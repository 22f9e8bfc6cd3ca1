"""Commands that are printed work in the shell that they are printed in, and each way to fail says what to do."""

import ast
import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from bench import __main__ as program
from tests.bench.conftest import ROOT, process_environment

TASK = "reembedding/pancancer-sim"
SMALL = ("run", "--methods", "pca", "--tasks", TASK, "--preset", "smoke", "--draws", "1", "--executor", "inline")


@pytest.fixture
def shell(tmp_path):
    """Run a line in a shell, with what ``env`` changes in its environment."""

    def run(line, **changes):
        environment = process_environment(tmp_path, **changes)
        return subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def script(tmp_path):
    """The command ``bench`` as an installation makes it, in a directory whose name has a space."""
    file = tmp_path / "my bin" / "bench"
    file.parent.mkdir()
    file.write_text(f"#!{sys.executable}\nfrom bench.__main__ import main\nmain()\n")
    file.chmod(0o755)
    return file


def from_path(tmp_path, script):
    return "bench", {"PATH": f"{script.parent}:{os.environ['PATH']}"}, "bench"


def by_its_place(tmp_path, script):
    return "'my bin/bench'", {}, "'my bin/bench'"


def by_an_interpreter(tmp_path, script):
    interpreter = shlex.quote(os.path.relpath(sys.executable, tmp_path))
    return f"{interpreter} -m bench", {}, f"{interpreter} -m bench"


def with_a_flag(tmp_path, script):
    return f"{shlex.quote(sys.executable)} -B -m bench", {}, f"{shlex.quote(sys.executable)} -m bench"


@pytest.mark.parametrize("how", [from_path, by_its_place, by_an_interpreter, with_a_flag])
def test_a_command_for_copying_names_the_program_as_it_was_started(shell, script, tmp_path, how):
    started, changes, named = how(tmp_path, script)
    done = shell(f"{started} data add {shlex.quote(str(script))}", **changes)
    assert done.returncode == 2
    (said,) = re.findall(r"`(.*?) data list`", done.stderr)
    assert said == named
    assert shell(f"{said} data list", **changes).returncode == 0


def test_the_command_that_a_run_prints_last_works_there(shell, tmp_path):
    out = "results of Bob's & mine"
    interpreter = os.path.relpath(sys.executable, tmp_path)
    run = shell(shlex.join([interpreter, "-m", "bench", *SMALL, "--out", out]))
    assert run.returncode == 0, run.stderr
    command = run.stdout.splitlines()[-1].removeprefix("MLflow UI: ")
    assert shlex.split(command) == [interpreter, "-m", "bench", "ui", "--out", out]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = process_environment(tmp_path)
    ui = subprocess.Popen(
        ["sh", "-c", f"{command} --port {port}"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert ui.stdout.readline().startswith(f"MLflow UI (Ctrl-C ends it): http://127.0.0.1:{port}/#/experiments/")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ui.pid, signal.SIGKILL)
        ui.wait()
        ui.stdout.close()


def test_no_message_spells_out_how_the_program_is_started():
    """What is stored with results, and read elsewhere, is the exception: it names no place of this machine."""
    stored = {"bench/keep/boards.py", "bench/keep/store.py", "bench/new.py"}
    found = set()
    for package in program.OURS:
        for file in (ROOT / package).rglob("*.py"):
            name = str(file.relative_to(ROOT))
            if name not in stored and not name.startswith("bench/templates/"):
                found |= {f"{name}: {text}" for text in texts(ast.parse(file.read_text())) if "python -m bench" in text}
    assert found == set()


def texts(tree):
    """The strings of a module that are no docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    described = [node.body[0] for node in ast.walk(tree) if isinstance(node, holders) and node.body]
    docstrings = {id(node.value) for node in described if isinstance(node, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [node.value for node in strings if isinstance(node.value, str)]


# ---------------------------------------------------------------------------- no data


def test_where_no_task_has_its_data_nothing_runs_and_no_other_table_is_shown(inside, tmp_path):
    assert inside(*SMALL, "--out", "out").returncode == 0
    table = (tmp_path / "out" / "leaderboard.md").read_text()
    bench = shlex.join([sys.executable, "-m", "bench"])
    # real data that have been built on this machine are not to be found
    nowhere = {"BENCH_CACHE_DIR": str(tmp_path / "cache")}
    for command in ("run", "tune", "preflight", "calibrate"):
        done = inside(command, "--tasks", "reembedding/tcga-paired,unseen-cell-type/kang", "--out", "out", **nowhere)
        assert done.returncode == 2, command
        assert done.stderr.startswith("error: no task could run\nreembedding/tcga-paired: ")
        assert done.stdout == ""
        fetching = re.findall(r"run `(.*?)`", done.stderr)
        assert fetching == [f"{bench} data fetch tcga-paired", f"{bench} data fetch kang"]
    assert (tmp_path / "out" / "leaderboard.md").read_text() == table


# ---------------------------------------------------------------------------- no environment


def test_without_its_packages_the_program_says_so_in_a_sentence(shell, tmp_path):
    # -S leaves out what has been installed
    done = shell(shlex.join([sys.executable, "-S", "-m", "bench", "list", "methods"]), PYTHONPATH=str(ROOT))
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"error: {sys.executable} has no package 'typer'; make the environment with `make -C ")
    make, enter = re.findall("`(.*?)`", sentence)
    assert shell(f"{make} --dry-run").returncode == 0
    assert enter == f". {shlex.quote(str(ROOT / '.venv' / 'bin' / 'activate'))}"


def test_an_interrupt_while_packages_are_imported_is_one_word(shell, tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = shell(
        shlex.join([sys.executable, "-m", "bench", "list", "methods"]),
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_python_that_is_too_old_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: Python 3.11 or later is needed, and ")


def test_a_module_of_the_suite_that_is_lost_is_not_taken_for_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "bench.cli", None)
    with pytest.raises(ModuleNotFoundError, match=r"bench\.cli"):
        program.main()
