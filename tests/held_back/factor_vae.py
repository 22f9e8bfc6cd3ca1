"""FactorVAE's discriminator: what it tells of the codes, and how far they are disentangled."""

import math

import numpy as np

from tests.held_back.scoring import fit_all, spread, table, task_of

METHODS = ("factor-vae@gamma=30.0", "vae")
TASKS = ("factors/factor-expression",)


def show(name, methods, draws, seeds):
    """Print the discriminator's loss at the end and the primary metrics, a row a method."""
    print(f"\n{name}, draws {draws}, seeds {seeds}; log 2 is {math.log(2):.4f}\n")
    rows, parts = [], [(task_of(name, draw), seed) for draw in draws for seed in seeds]
    trainings = [task.training_data(task.units()[0], seed) for task, seed in parts]
    for label in methods:
        models, seconds = fit_all(label, parts[0][0], trainings, [seed for _, seed in parts])
        found = []
        for (task, seed), fitted in zip(parts, models, strict=True):
            scores = task.evaluate(lambda data, fitted=fitted: fitted, task.units()[0], seed)
            loss = np.mean(fitted.history.get("discriminator", [np.nan])[-10:])
            found.append([loss, scores["mig"], scores["dci_disentanglement"]])
        rows.append([label, *(spread(column) for column in np.transpose(found)), f"{seconds:.0f}"])
    table(["method", "loss of the discriminator", "MIG", "DCI-D", "seconds a fit"], rows)
