"""Every method, inline and in two processes at a time: the same scores, bit for bit."""

import subprocess
import sys

import pandas as pd
import pytest

from tests.bench.conftest import process_environment

TASKS = "reembedding/pancancer-sim,unseen-cell-type/ifn-sim"


@pytest.mark.timeout(1800)
def test_all_methods_score_alike_whatever_the_executor(tmp_path):
    scores = {}
    for executor, jobs in (("inline", 1), ("local", 2)):
        command = [sys.executable, "-m", "bench", "run", "--methods", "all", "--tasks", TASKS, "--preset", "smoke",
                   "--executor", executor, "--jobs", str(jobs), "--out", executor]  # fmt: skip
        subprocess.run(command, cwd=tmp_path, env=process_environment(tmp_path), check=True)
        rows = pd.read_parquet(tmp_path / executor / "results.parquet")
        scores[executor] = rows.set_index(["task", "method", "unit", "seed", "metric"])["value"].sort_index()
    assert scores["inline"].notna().sum() > 1000
    pd.testing.assert_series_equal(scores["inline"], scores["local"], check_exact=True)
