"""iVAE, sVAE and sVAE+ beside the VAE with their likelihood: what they recover, and what they predict."""

import numpy as np

from methods import CannotFit
from metrics import METRICS
from tests.held_back.scoring import fit_all, spread, table, task_of

METHODS = ("svae-plus", "svae", "ivae", "vae@likelihood=negative-binomial")
TASKS = (
    "latent-recovery/sparse-shift",
    "few-shot-perturbation/sparse-shift",
    "unseen-cell-type/digits",
    "unseen-cell-type/ifn-sim",
    "unseen-perturbation/doubles-sim",
)


def show(name, methods, draws, seeds):
    """Print the table of one task: a row a method, mean and standard deviation over draws and seeds."""
    print(f"\n{name}, draws {draws}, seeds {seeds}\n")
    (recovery if name.startswith("latent-recovery") else prediction)(name, methods, draws, seeds)


def recovery(name, methods, draws, seeds):
    headers = ["method", "masks on", "MCC", "MCC, rotated", "F1", "AUPRC", "R²", "epochs", "seconds a fit"]
    rows, parts = [], [(task_of(name, draw), seed) for draw in draws for seed in seeds]
    trainings = [task.training_data(task.units()[0], seed) for task, seed in parts]
    for label in methods:
        models, seconds = fit_all(label, parts[0][0], trainings, [seed for _, seed in parts])
        found = []
        for (task, seed), training, fitted in zip(parts, trainings, models, strict=True):
            (unit,) = task.units()
            scores = task.evaluate(lambda data, fitted=fitted: fitted, unit, seed)
            targets = fitted.intervention_targets() if hasattr(fitted, "intervention_targets") else None
            z, codes = task.test_codes(fitted, unit, seed)
            turn = varimax(mean_shifts(fitted.embed(training), training))
            found.append(
                [
                    np.nan if targets is None else (targets > 0.5).mean(),
                    scores["mcc"],
                    METRICS["mcc"](z, codes @ turn),
                    scores.get("target_f1", np.nan),
                    scores["target_auprc"],
                    scores["latent_r2"],
                    len(fitted.history["reconstruction"]),
                ]
            )
        *scored, epochs = np.transpose(found)
        rows.append([label, *(spread(column) for column in scored), f"{epochs.mean():.0f}", f"{seconds:.0f}"])
    of_truth = []
    for task, seed in parts:
        data = task.data
        z = data.obsm["z"]
        rotation = np.linalg.qr(np.random.default_rng([seed, 87]).standard_normal((z.shape[1], z.shape[1])))[0]
        of_truth.append([data.uns["targets"][: task._n_seen(data)].mean(), METRICS["mcc"](z, z @ rotation)])
    share, mcc = np.transpose(of_truth)
    rows.append(["the truth, rotated at random", spread(share), spread(mcc), *["–"] * (len(headers) - 3)])
    table(headers, rows)


def prediction(name, methods, draws, seeds):
    rows = []
    parts = [(task_of(name, draw), seed) for draw in draws for seed in seeds]
    units = [(task, seed, unit) for task, seed in parts for unit in task.units()]
    trainings = [task.training_data(unit, seed) for task, seed, unit in units]
    for label in methods:
        models, seconds = fit_all(label, parts[0][0], trainings, [seed for _, seed, _ in units])
        skills = {part: [] for part in parts}
        try:
            for (task, seed, unit), fitted in zip(units, models, strict=True):
                scores = task.evaluate(lambda data, fitted=fitted: fitted, unit, seed)
                skills[task, seed].append(scores["skill"])
        except CannotFit as error:
            rows.append([label, f"refused: {error}", "–", f"{seconds:.0f}"])
            continue
        means = [np.mean(of_units) for of_units in skills.values()]
        rows.append([label, spread(means), ", ".join(f"{mean:.3f}" for mean in means), f"{seconds:.0f}"])
    table(["method", "skill", "of each draw and seed", "seconds a fit"], rows)


def mean_shifts(codes, data):
    """Return the perturbations' mean codes, centred, (n_perturbations, n_latent)."""
    labels = data.obs[data.uns["fields"]["environment"]].to_numpy(str)
    means = np.stack([codes[labels == label].mean(axis=0) for label in np.unique(labels)])
    return means - means.mean(axis=0)


def varimax(loadings, n_steps=200):
    """Return the rotation (n, n) after which the squares of ``loadings`` (n_rows, n) vary most (Kaiser 1958)."""
    turn = np.eye(loadings.shape[1])
    for _ in range(n_steps):
        turned = loadings @ turn
        gradient = loadings.T @ (turned**3 - turned * np.mean(turned**2, axis=0))
        u, _, vt = np.linalg.svd(gradient)
        turn = u @ vt
    return turn
