"""How far scores move between instruction sets, beside their spread over seeds.

``python -m tests.held_back.processors RUNS OTHER [OTHER …]``: RUNS is the out directory of a run with several seeds on
the machine's own instructions, each OTHER that of the same run with fewer (``ATEN_CPU_CAPABILITY=default``, say).
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate


def scores(directory):
    """Return the mean over units of each method's primary metrics, by task, method, metric and seed."""
    rows = pd.read_parquet(Path(directory) / "results.parquet")
    rows = rows[(rows["status"] == "ok") & rows["primary"].astype(bool) & (rows["role"] == "method")]
    return rows.groupby(["task", "method", "metric", "seed"], observed=True)["value"].mean()


def compare(runs, others):
    """Return a row for each task, method and metric: mean, spread over seeds, and the move of each other run."""
    own, moved = scores(runs), [scores(other) for other in others]
    table = []
    for (task, method, metric), of_seeds in own.groupby(level=["task", "method", "metric"]):
        moves = []
        for other in moved:
            both = of_seeds.index.intersection(other.index)
            moves.append(np.nan if both.empty else float(np.abs(other[both] - of_seeds[both]).mean()))
        table.append([task, method, metric, of_seeds.mean(), of_seeds.std(ddof=1), *moves])
    return table


def main():
    runs, *others = sys.argv[1:]
    headers = ["task", "method", "metric", "mean", "sd over seeds", *(f"moved in {Path(name).name}" for name in others)]
    print(tabulate(compare(runs, others), headers, tablefmt="github", floatfmt=".3f"))


if __name__ == "__main__":
    main()
