"""Write bench/plan/seconds.json, the times from which another machine's first run is estimated.

    python -m tests.benchmarks.seconds OUT

OUT is the directory of a finished run on this machine with two jobs at a time. It should be idle now, as the yardstick
is measured anew.
"""

import json
import sys
from pathlib import Path

import pandas as pd

from bench.plan.known import FILE, yardstick


def measured(rows: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean seconds of a job by preset, task and method; jobs that were never begun are left out."""
    jobs = rows.drop_duplicates("job_id")
    spent = (pd.to_datetime(jobs["finished"]) - pd.to_datetime(jobs["started"])).dt.total_seconds()
    jobs = jobs.assign(seconds=spent / jobs["n_stacked"].clip(lower=1))[spent > 0]
    means = jobs.groupby(["preset", "task", "method"])["seconds"].mean()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (preset, task, method), seconds in means.items():
        found.setdefault(preset, {}).setdefault(task, {})[method] = round(float(seconds), 3)
    return found


if __name__ == "__main__":
    rows = pd.read_parquet(Path(sys.argv[1]) / "results.parquet")
    run = f"commit {rows['git_commit'].dropna().iloc[0][:7]}, {rows['cpu'].dropna().iloc[0]}"
    FILE.write_text(json.dumps({"run": run, "yardstick": yardstick(2), "seconds": measured(rows)}, indent=1) + "\n")
    print(f"{FILE}: {run}")
