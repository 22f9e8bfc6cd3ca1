"""What fits cost as data grow: ``python -m tests.benchmarks.growth FILE.svg`` prints a table and draws it.

Each point is measured in a process of its own: seconds of an epoch, as the difference of fits of four and of one, and
the peak of the memory, with the data, until all cells are embedded.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

from tests.bench.conftest import ROOT

METHODS = ("pca", "vae", "vae@likelihood=negative-binomial", "trvae", "gamma-vae", "svae-plus", "multigroup-vi")
#: Cells, genes, environments; one of them grows at a time.
POINTS = (
    *((n_cells, 500, 2) for n_cells in (1_000, 10_000, 100_000)),
    *((10_000, n_genes, 2) for n_genes in (2_000, 20_000)),
    *((10_000, 500, n_environments) for n_environments in (5, 20)),
)
AXES = ("cells", "genes", "environments")

POINT = """
import json, sys, time
import torch
from methods import METHODS
from tests.benchmarks.data import dense, sparse_counts

torch.set_num_threads(1)
name, _, changes = sys.argv[1].partition("@")
n_cells, n_genes, n_environments = map(int, sys.argv[2:])
data = sparse_counts(n_cells, n_genes, n_environments=n_environments)
data.X = data.X.toarray()
settings = dict([changes.split("=")]) if changes else {}
cls = METHODS[name]
has_steps = "steps" in cls.Config.__dataclass_fields__


def fit(**epochs):
    global method
    method, start = cls(cls.configure(**settings, **epochs)), time.process_time()
    method.fit(data, 0)
    return time.process_time() - start


if has_steps:
    a_pass = -(-int(0.9 * n_cells) // 128)
    _, one, four = (fit(steps=epochs * a_pass) for epochs in (1, 1, 4))
    seconds = (four - one) / 3
else:
    seconds = fit()
method.embed(data)
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([seconds, peak]))
"""


def measure(method, point):
    """Return the seconds of an epoch (of a method without epochs: of its fit) and the peak memory in MB."""
    command = [sys.executable, "-c", POINT, method, *map(str, point)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def draw(measured, file):
    """Draw seconds and memory against each axis that grows, both logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.style.use("tableau-colorblind10")
    figure, panels = plt.subplots(2, 3, figsize=(11, 6), sharey="row", layout="constrained")
    for column, axis in enumerate(AXES):
        base = (10_000, 500, 2)
        points = sorted(p for p in POINTS if all(p[i] == base[i] for i in range(3) if i != column))
        for row, what in enumerate(("seconds an epoch", "peak memory, MB")):
            panel = panels[row, column]
            for method, marker in zip(METHODS, "osD^vPX", strict=True):
                values = [measured[method, point][row] for point in points]
                panel.loglog([point[column] for point in points], values, marker=marker, label=method)
            ticks = [point[column] for point in points]
            panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            if row:
                panel.set_yticks([500, 1000, 2000, 4000], ["500", "1,000", "2,000", "4,000"])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            panel.set_xlabel(axis)
            if not column:
                panel.set_ylabel(what)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file)


def main(file):
    """Measure all points, print them and draw them to ``file``."""
    measured = {}
    for point in POINTS:
        for method in METHODS:
            measured[method, point] = measure(method, point)
            print(method, *point, *np.round(measured[method, point], 3), file=sys.stderr, flush=True)
    rows = [[method, *point, f"{seconds:.3g}", f"{peak:,.0f}"] for (method, point), (seconds, peak) in measured.items()]
    print(tabulate(rows, ("method", *AXES, "seconds an epoch", "peak MB"), tablefmt="github"))
    draw(measured, Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
