import subprocess
import sys

import pytest

from tests.bench.conftest import ROOT, cpu_seconds

PACKAGES = ("bench", "methods", "tasks", "metrics", "leaderboard")
HEAVY = ("torch", "jax", "umap", "mlflow", "anndata", "sklearn", "pandas", "scipy", "submitit")


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


@pytest.mark.parametrize("what", ["methods", "tasks", "metrics"])
def test_list_answers_in_under_a_second(what):
    assert cpu_seconds([sys.executable, "-m", "bench", "list", what], cwd=ROOT) < 1.0
