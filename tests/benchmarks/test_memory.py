"""Peak memory of a whole cell, and of training on data that are large, each in a process of its own."""

import json
import subprocess
import sys

import pytest

from tests.bench.conftest import ROOT
from tests.benchmarks.data import sparse_counts

#: What every cell holds besides its data: Python, PyTorch, jax and what they compile.
BASE_MB = 700
#: Peak of this process alone; getrusage's would be its parent's, where that was larger.
PEAK_MB = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024 / 1e6"

CELL = f"""
import json, sys
from bench.jobs.job import run_job
from bench.plan import choose_methods, choose_own_tasks, make_plan

method, file = sys.argv[1:]
columns = {{"condition": "environment", "cell_type": "content", "control": "0"}}
specs, plugins = choose_methods(method, "smoke", [])
tasks, own = choose_own_tasks("unseen-cell-type", file, columns, n_genes=0)
plan = make_plan(specs, tasks, "smoke", 1, plugins, {{}}, own)
cell = next(cell for job in plan.jobs if job.role == "method")
result = run_job(cell, None)
assert result["status"] == "ok", result["reason"]
print(json.dumps([{PEAK_MB}, result["n_cells"], result["n_genes"]]))
"""

LARGE = f"""
import json
from methods.vaes import VAE
from tests.benchmarks.data import sparse_counts

data = sparse_counts(100_000, 2000)
VAE(VAE.configure(likelihood="negative-binomial", steps=704)).fit(data, 0)
print(json.dumps([{PEAK_MB}, *data.shape]))
"""


def in_a_fresh_process(code, *arguments):
    """Run a script that prints its peak (MB), cells and genes as JSON on its last line."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def megabytes(values):
    return f"{values[0]:,.0f} MB"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Counts of 20,000 × 2,000 in a file, as a user has them."""
    data = sparse_counts(20_000, 2000)
    data.X = data.layers.pop("counts")
    data.write_h5ad(path := tmp_path_factory.mktemp("data") / "counts.h5ad")
    return path


@pytest.mark.parametrize("method", ["pca", "vae", "trvae", "gamma-vae", "svae-plus"])
def test_peak_memory_of_a_cell(line, method, file):
    line.describe(f"peak memory, {method}, 20,000 × 2,000, against dense training matrix + {BASE_MB} MB", at_most=2)
    peak, n_cells, n_genes = line.once(lambda: in_a_fresh_process(CELL, method, str(file)))
    line.compare(peak, n_cells * n_genes * 4 / 1e6 + BASE_MB, spell=megabytes)
    line.judge()


def test_peak_memory_of_large_sparse_data(line):
    line.describe("peak memory, training on 100,000 × 2,000 as CSR, against 4 GiB", at_most=1)
    peak, *_ = line.once(lambda: in_a_fresh_process(LARGE))
    line.compare(peak, 4 * 2**30 / 1e6, spell=megabytes)
    line.judge()
