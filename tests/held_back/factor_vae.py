"""FactorVAE's discriminator: what it tells of the codes, and how far they are disentangled."""

import math

import numpy as np

from tests.held_back.scoring import fit_all, spread, table, task_of

METHODS = ("factor-vae@gamma=30.0", "vae")
TASKS = ("factors/factor-expression",)


def show(name, methods, draws, seeds):
    """Print the discriminator's loss at the end and the primary metrics, a row a method."""
    print(f"\n{name}, draws {draws}, seeds {seeds}; log 2 is {math.log(2):.4f}\n")
    task, rows = task_of(name), []
    parts = [(f"draw{draw}", seed) for draw in draws for seed in seeds]
    trainings = [task.training_data(*part) for part in parts]
    for label in methods:
        models, seconds = fit_all(label, task, trainings, [seed for _, seed in parts])
        found = []
        for (unit, seed), fitted in zip(parts, models, strict=True):
            scores = task.evaluate(lambda data, fitted=fitted: fitted, unit, seed)
            loss = np.mean(fitted.history.get("discriminator", [np.nan])[-10:])
            found.append([loss, scores["mig"], scores["dci_disentanglement"]])
        rows.append([label, *(spread(column) for column in np.transpose(found)), f"{seconds:.0f}"])
    table(["method", "loss of the discriminator", "MIG", "DCI-D", "seconds a fit"], rows)
