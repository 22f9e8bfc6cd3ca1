"""How long the program takes to answer."""

import subprocess
import sys
import time

from tests.bench.conftest import ROOT
from tests.benchmarks.conftest import in_seconds


def test_list_from_a_cold_process(line):
    line.describe("`bench list methods` from a cold process, against 1 s", at_most=1)
    seconds = []

    def list_methods():
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bench", "list", "methods"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
        )
        seconds.append(time.perf_counter() - start)

    line.benchmark.pedantic(list_methods, rounds=7, warmup_rounds=1)
    line.compare(seconds[1:], 1.0, spell=lambda t: in_seconds(t, "call"))
    line.judge()
