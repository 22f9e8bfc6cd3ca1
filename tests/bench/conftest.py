import contextlib
import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import pytest

from bench.cli import main
from methods import METHODS
from metrics import METRICS
from tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
#: What the suite itself registers.
OURS = [(registry, set(registry)) for registry in (METHODS, TASKS, METRICS)]


@pytest.fixture(autouse=True)
def only_ours():
    """Forget what a test's plugins registered in this process; a plugin that is named again is imported again."""
    yield
    for registry, names in OURS:
        for name in set(registry) - names:
            registry.forget(name)
    for name in [name for name in sys.modules if name.startswith("bench_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def inside(tmp_path):
    """Run the command line as :func:`cli` does, in this process, which spares the start of another."""
    return partial(run_inside, tmp_path)


def run_inside(directory, *arguments, **environment):
    """Run the command line in a directory and in this process; returns what a finished process would be."""
    words = list(map(str, arguments))
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(directory)
        patch.setattr(sys, "argv", ["bench", *words])
        patch.setattr(sys, "orig_argv", [sys.executable, "-m", "bench", *words])
        for name, value in process_environment(directory, **environment).items():
            patch.setenv(name, value)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def cli(tmp_path):
    """Run ``python -m bench`` with arguments in a directory of its own; returns the finished process."""

    def run(*arguments, timeout=240, **environment):
        return subprocess.run(
            [sys.executable, "-m", "bench", *map(str, arguments)],
            cwd=tmp_path,
            env=process_environment(tmp_path, **environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def start(tmp_path):
    """Start ``python -m bench`` and return the process; it and what it started are ended with the test."""
    started = []

    def run(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *map(str, arguments)],
            cwd=tmp_path,
            env=process_environment(tmp_path, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # tests that a script runs in its background inherit an ignored SIGINT
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def cpu_seconds(command, **options):
    """Processor seconds of a command, which a busy machine does not stretch as it does the wall's."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def process_environment(tmp_path, **changes):
    """The environment of a child: the checkout importable, an empty data directory unless one is given."""
    empty = tmp_path / "no-data"
    empty.mkdir(exist_ok=True)
    return {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_DATA_DIR": str(empty), **changes}


@pytest.fixture
def plugin(tmp_path):
    """Write a plugin file and return its path."""

    def write(text, name="plugin.py"):
        file = tmp_path / name
        file.write_text(text)
        return file

    return write
