"""LORD on Kang's cells, beside the mean shift, whose skill is 0: all genes, one cell type held out."""

import numpy as np

from tests.held_back.scoring import fit_all, spread, table, task_of

METHODS = ("lord",)
TASKS = ("unseen-cell-type/kang",)
#: The types whose shift was lost or wrong at commit 956005a.
UNITS = ("CD4T", "Dendritic", "NK")


def show(name, methods, draws, seeds):
    """Print the skill of each held-out type, a row a method; the files must be in ``BENCH_DATA_DIR``."""
    print(f"\n{name}, seeds {seeds}\n")
    task, rows = task_of(name), []
    for label in methods:
        found, took, missed = {}, [], []
        for unit in UNITS:
            trainings = [task.training_data(unit, seed) for seed in seeds]
            models, seconds = fit_all(label, task, trainings, seeds)
            found[unit] = [
                task.evaluate(lambda data, fitted=fitted: fitted, unit, seed)["skill"]
                for seed, fitted in zip(seeds, models, strict=True)
            ]
            took.append(seconds)
            missed += [fitted.unconverged for fitted in models if fitted.unconverged]
        cells = [f"{spread(values)} ({', '.join(f'{value:.2f}' for value in values)})" for values in found.values()]
        rows.append([label, *cells, spread(np.concatenate(list(found.values()))), f"{np.mean(took):.0f}"])
        if missed:
            print(f"{label}: {'; '.join(sorted(set(missed)))}")
    table(["method", *UNITS, "all", "seconds a fit"], rows)
