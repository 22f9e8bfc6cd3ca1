"""Ask whether other defaults would serve a network better, on development draws alone.

    python -m tests.defaults OUT [METHOD…]

For every network of the mission the same number of trials: its default and points of its search space. All are fitted
on one development draw of seven embedded tasks; the default and the best of the others then meet three draws that
chose nothing. What counts is a task's error as a share of its best simple method's, in logarithms, averaged over
tasks, since a method has one default for all tasks. The other configuration takes the default's place where it is
better by more than two standard errors, for these tasks; a person then writes it into the method's ``Config``. Two
tasks are left out: digits, whose development draws deal the images that a board shows, and class-content, which scores
the fits of unseen-cell-type by the same error (decision 0030).

OUT keeps every job, so that a study that was cut off goes on. The trials are written to ``methods/defaults.csv``.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from bench.environment import describe, limit_threads
from bench.jobs.execute import estimate_of, executor_for
from bench.jobs.runner import run_jobs
from bench.keep.store import Store
from bench.options import Options
from bench.records import Status
from bench.studies.tune import skill, trials_of
from methods import METHODS
from tasks import TASKS

FILE = Path(__file__).resolve().parents[1] / "methods" / "defaults.csv"
NETWORKS = ("beta-vae", "gamma-vae", "dhsic-vae", "multigroup-vi", "trvae", "vae", "svae-plus")
TASKS_ASKED = (
    "unseen-cell-type/ifn-sim",
    "unseen-perturbation/doubles-sim",
    "few-shot-perturbation/sparse-shift",
    "reembedding/pancancer-sim",
    "latent-recovery/sparse-shift",
    "factors/factor-expression",
    "shared-private/splatter-groups",
)
#: A method that has an encoder for each environment needs four minutes for a fit of 80 perturbations.
LEFT_OUT = ("multigroup-vi", "latent-recovery/sparse-shift")
#: Trials of a method, its default among them, and the draws of both stages.
N_TRIALS = 6
FIRST, OTHERS = (1000,), (1001, 1002, 1003)


def trials(method: str) -> list[dict[str, float]]:
    """Return what each trial of a method changes."""
    return trials_of(method, METHODS[method].search_space(), N_TRIALS)


def label(method: str, changes: dict[str, float]) -> str:
    """Return the label of a method with changes, as ``--methods`` takes it."""
    return method + "".join(f"@{key}={value}" for key, value in sorted(changes.items()))


def run(labels: list[str], draws: tuple[int, ...], out: Path, console: Console) -> pd.DataFrame:
    """Return the error of each label on each task and draw: log of its share of the best simple method's error.

    Of tasks where units need fits of their own the first unit of a draw is enough.
    """
    options = Options(methods=",".join(labels), tasks=",".join(TASKS_ASKED), draws=draws, seeds=1, out=out)
    store = Store(out)
    with store.lock():
        plan = options.plan(store.index())
        first: dict[tuple[str, int | None], str] = {}
        for job in plan.jobs:
            first.setdefault((job.task, job.draw), job.unit)
        jobs = [
            job
            for job in plan.jobs
            if not job.skip and job.method in ("baseline", *labels) and (job.name, job.task) != LEFT_OUT
            if TASKS[job.task.partition("/")[0]].one_fit or job.unit == first[job.task, job.draw]
        ]
        estimate = partial(estimate_of, store, plan, options.n_workers)
        results = run_jobs(jobs, store, executor_for(options, plan.sizes, estimate, console), estimate, console)
    scores: dict[tuple[str, int | None, str], dict[str, dict]] = {}
    for result in results.values():
        if result.status == Status.OK:
            scores.setdefault((result.job.task, result.job.draw, result.job.method), {})[result.job.unit] = (
                result.scores
            )
    rows = []
    for (task, draw, method), by_unit in scores.items():
        simple = scores[task, draw, "baseline"]
        if method != "baseline":
            error = -skill(task, list(by_unit.values()), [simple[unit] for unit in by_unit])
            rows.append({"method": method, "task": task, "draw": draw, "log_error": error})
    return pd.DataFrame(rows)


def study(method: str, out: Path, console: Console) -> pd.DataFrame:
    """Return the log error of each trial of one method, on each task and draw that it met; print the comparison."""
    labels = [label(method, changes) for changes in trials(method)]
    first = run(labels, FIRST, out, console)
    means = first.pivot_table(index="method", columns="task", values="log_error").dropna().mean(axis=1)
    best = str(means.drop(method).idxmin())
    rows = pd.concat([first, run([method, best], OTHERS, out, console)], ignore_index=True)
    said = compare(rows[rows["draw"].isin(OTHERS)], method)
    console.print(said.to_string(index=False), highlight=False, soft_wrap=True)
    return rows


def compare(rows: pd.DataFrame, default: str) -> pd.DataFrame:
    """Return for each other configuration its error as a share of the default's, with the standard error in logs.

    Draws are a sample and tasks are not: the error is of the mean over these tasks, from the spread of draws in each.
    """
    table = rows.pivot_table(index=["task", "draw"], columns="method", values="log_error")
    differences = table.drop(columns=default).sub(table[default], axis=0)
    of_task = differences.groupby("task")
    mean = of_task.mean().mean()
    error = np.sqrt((of_task.var() / of_task.count()).sum()) / of_task.ngroups
    return pd.DataFrame(
        {
            "method": mean.index,
            "share_of_default_s_error": np.exp(mean).round(3).to_numpy(),
            "standard_error": error.round(3).to_numpy(),
            "takes_its_place": (mean < -2 * error).to_numpy(),
        }
    )


def main(out: Path, methods: tuple[str, ...]) -> None:
    """Study methods one after another, and write their trials beside those of the others."""
    console = Console()
    for method in methods:
        rows = study(method, out, console)
        rows = rows.assign(network=method, commit=describe()["git_commit"][:7], log_error=rows["log_error"].round(4))
        kept = pd.read_csv(FILE) if FILE.exists() else rows[:0]
        tables = [kept[kept["network"] != method], rows]
        pd.concat(tables).sort_values(["network", "method", "task", "draw"]).to_csv(FILE, index=False)


if __name__ == "__main__":
    limit_threads()
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or NETWORKS)
