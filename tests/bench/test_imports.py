import ast
import os
import subprocess
import sys

import pytest

from tests.bench.conftest import ROOT, cpu_seconds

PACKAGES = ("bench", "methods", "tasks", "metrics", "leaderboard")
ALLOWED = {
    "metrics": {"metrics"},
    "leaderboard": {"leaderboard"},
    "methods": {"methods", "metrics"},
    "tasks": {"tasks", "metrics"},
    "bench": set(PACKAGES),
}
HEAVY = ("torch", "jax", "umap", "mlflow", "anndata", "sklearn", "pandas", "scipy", "submitit")


def imported_packages(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / package).rglob("*.py")
        for name in imported_packages(file)
        if name in PACKAGES and name not in ALLOWED[package]
    ]
    assert wrong == []


def test_listing_imports_no_heavy_library():
    code = f"""
import sys
sys.argv = ["bench", "list", "methods"]
from bench.cli import app
app(standalone_mode=False)
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_fork_server_imports_no_jax():
    """JAX cannot be forked once it has started: the process of a job that asks for integration metrics imports it."""
    code = "import sys, bench.jobs.executors.preload; print('torch' in sys.modules, 'jax' in sys.modules)"
    environment = os.environ | {"BENCH_PRELOAD": "pca,vae,umap"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("what", ["methods", "tasks", "metrics"])
def test_list_answers_in_under_a_second(what):
    assert cpu_seconds([sys.executable, "-m", "bench", "list", what], cwd=ROOT) < 1.0
