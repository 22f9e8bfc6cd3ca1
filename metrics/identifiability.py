"""Metrics of latent recovery: does a learned code carry the true latents, each in one unit?

Latents are identifiable up to order, sign and scale only, so every matching is by *absolute* correlation:
signed matching calls perfect latents with flipped signs poor. Read ``mcc`` with ``mcc_within``: a code that
knows only each perturbation's mean has a high ``mcc`` and nothing within perturbations.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import RESOLUTION, Floats, Labels, Mask, average_precision, halves, unit_columns
from metrics.base import checked, metric

TrueLatents = Annotated[Floats, "n_cells n_true"]
Codes = Annotated[Floats, "n_cells n_latent"]
Targets = Annotated[Mask, "n_perturbations n_true"]
Scores = Annotated[Floats, "n_perturbations n_true"]

THRESHOLD = 0.5
"""Score above which a perturbation is said to target a latent."""

_MCC = "Hyvärinen & Morioka (2016), NeurIPS 29, mean correlation coefficient"
_TARGETS = "Lopez et al. (2023), CLeaR, PMLR 213:662, sparse mechanism shift; task latent-recovery"


@checked
def match_latents(z_true: TrueLatents, z: Codes) -> NDArray[np.int64]:
    """Find the learned latent that stands for each true one.

    The one-to-one assignment with the greatest sum of absolute Pearson correlations (Hungarian algorithm).

    Parameters
    ----------
    z_true, z
        True and learned latents of the same cells, (n_cells, n_true), (n_cells, n_latent).

    Returns
    -------
    match
        (n_true,): the index of the learned latent, or −1 where there is none, because the learned ones are
        fewer, or the latent left over is constant or otherwise of correlation 0.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    match, _ = _match(unit_columns(z_true), unit_columns(z))
    return match


@metric(better="higher", low=0.0, high=1.0, paper=_MCC)
def mcc(z_true: TrueLatents, z: Codes) -> float:
    """Mean absolute correlation of the true latents with the learned ones matched to them.

    ``Σ_{i matched} |corr(z_true_i, z_{m(i)})| / n_true`` with ``match_latents``' m. A true latent left
    without a match, or matched to a constant, counts 0; surplus learned latents cost nothing.

    Parameters
    ----------
    z_true, z
        True and learned latents of the same cells, (n_cells, n_true), (n_cells, n_latent).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    return float(_match(unit_columns(z_true), unit_columns(z))[1].mean())


@metric(better="higher", low=0.0, high=1.0, paper=f"{_MCC}, on residuals; task latent-recovery")
def mcc_within(z_true: TrueLatents, z: Codes, groups: Annotated[Labels, "n_cells"]) -> float:
    """``mcc`` of what the latents do within groups: both are centred in every group, residuals pooled.

    Centring takes away what the group labels give for free. A latent that is constant within every group
    counts as constant.

    Parameters
    ----------
    z_true, z
        True and learned latents of the same cells, (n_cells, n_true), (n_cells, n_latent).
    groups
        Each cell's perturbation, (n_cells,).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    residuals = (
        unit_columns(_centred_within(latents, groups), np.linalg.norm(latents, axis=0)) for latents in (z_true, z)
    )
    return float(_match(*residuals)[1].mean())


@metric(
    better="higher",
    low=0.0,
    high=1.0,
    paper=f"{_MCC}; rotation: Kaiser (1958), Psychometrika 23:187, varimax; task latent-recovery",
)
def mcc_rotated(z_true: TrueLatents, z: Codes, shifts: Annotated[Floats, "n_perturbations n_latent"]) -> float:
    """``mcc`` after the one rotation of the codes that makes the shifts of perturbations sparse.

    The rotation is varimax's: it maximises the variance of the squared entries of the centred ``shifts``, which are
    learned, so that no truth enters. Beside ``mcc`` it tells a code that lies in wrong axes from one that lacks what
    the latents are: each perturbation shifts few latents, so that their axes can be found afterwards.

    Parameters
    ----------
    z_true, z
        True and learned latents of the same cells, (n_cells, n_true), (n_cells, n_latent).
    shifts
        Mean learned latents of each training perturbation, (n_perturbations, n_latent).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    return mcc(z_true, z @ _varimax(shifts - shifts.mean(axis=0)))


@metric(
    better="higher",
    low=-np.inf,
    high=1.0,
    paper="Linear identifiability; Lopez et al. (2023), CLeaR, PMLR 213:662, R² here on held-out cells",
)
def latent_r2(z_true: TrueLatents, z: Codes, seed: int = 0) -> float:
    """Held-out R² of the true latents, regressed linearly on the learned ones.

    Ordinary least squares with an intercept on a random half of the cells; on the other half
    ``1 - Σ(z_true - ẑ)² / Σ(z_true - mean z_true)²`` for every true latent, then their mean. Blind to rotation:
    it asks what the code carries, not where. A constant code scores 0 or a little less. True latents that
    are constant on the scored half are left out; not a number if all are.

    Parameters
    ----------
    z_true, z
        True and learned latents of the same cells, (n_cells, n_true), (n_cells, n_latent); 4 cells or more.
    seed
        Seed of the split into halves.

    Raises
    ------
    ValueError
        If the cells differ in number or are fewer than 4, or values are not finite.
    """
    fit, score = halves(len(z), seed)
    mean, mean_true = z[fit].mean(axis=0), z_true[fit].mean(axis=0)
    coefficients = np.linalg.lstsq(z[fit] - mean, z_true[fit] - mean_true, rcond=None)[0]
    predicted = (z[score] - mean) @ coefficients + mean_true
    truth = z_true[score]
    spread = np.sum((truth - truth.mean(axis=0)) ** 2, axis=0)
    varies = spread > (RESOLUTION * np.linalg.norm(truth, axis=0)) ** 2
    if not varies.any():
        return float("nan")
    return float(np.mean(1.0 - np.sum((truth - predicted) ** 2, axis=0)[varies] / spread[varies]))


@metric(better="higher", low=0.0, high=1.0, paper=_TARGETS)
def target_auprc(targets: Targets, scores: Scores) -> float:
    """Average precision with which the learned targets find the true ones.

    Over all (perturbation, latent) entries at once, tied scores entering together; a constant score gives
    the share of targets. Not a number if all or none of the entries are targets.

    Parameters
    ----------
    targets
        1 where the perturbation acts on the true latent, (n_perturbations, n_true).
    scores
        The method's belief in it, (n_perturbations, n_true), its columns brought into the true latents'
        order by ``match_latents``; 0 where there is no match.

    Raises
    ------
    ValueError
        If shapes differ, ``targets`` is not binary, or ``scores`` are not finite.
    """
    return average_precision(targets.ravel(), scores.ravel())


@metric(better="higher", low=0.0, high=1.0, paper=_TARGETS)
def target_f1(targets: Targets, scores: Scores) -> float:
    """F1 of the targets named by scores above ``THRESHOLD``.

    ``2 TP / (2 TP + FP + FN)`` over all (perturbation, latent) entries at once. A score equal to the
    threshold names no target. Not a number if there are no targets and none is named.

    Parameters
    ----------
    targets
        1 where the perturbation acts on the true latent, (n_perturbations, n_true).
    scores
        The method's belief in it, (n_perturbations, n_true), matched as for ``target_auprc``.

    Raises
    ------
    ValueError
        If shapes differ, ``targets`` is not binary, or ``scores`` are not finite.
    """
    named = scores > THRESHOLD
    counted = int(targets.sum() + named.sum())
    return 2.0 * int((targets & named).sum()) / counted if counted else float("nan")


def _match(unit_true: Floats, unit: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Match of each true latent (−1: none) and its absolute correlation (0 then), (n_true,) each."""
    from scipy.optimize import linear_sum_assignment

    correlation = np.minimum(np.abs(unit_true.T @ unit), 1.0)
    rows, columns = linear_sum_assignment(correlation, maximize=True)
    match = np.full(len(correlation), -1, dtype=np.int64)
    strength = np.zeros(len(correlation))
    strength[rows] = correlation[rows, columns]
    match[rows] = columns
    match[strength == 0] = -1
    return match, strength


def _centred_within(latents: Floats, groups: Labels) -> Floats:
    sums = np.zeros((groups.max() + 1, latents.shape[1]))
    np.add.at(sums, groups, latents)
    centred: Floats = latents - (sums / np.bincount(groups)[:, None])[groups]
    return centred


def _varimax(loadings: Floats, n_steps: int = 200) -> Floats:
    """Return the rotation R (k, k) that maximises Σ_columns var((loadings R)²), (n, k)."""
    rotation: Floats = np.eye(loadings.shape[1])
    value = 0.0
    for _ in range(n_steps):
        rotated = loadings @ rotation
        u, singular, vt = np.linalg.svd(loadings.T @ (rotated**3 - rotated * np.mean(rotated**2, axis=0)))
        rotation, before, value = u @ vt, value, float(singular.sum())
        if value <= before * (1 + 1e-8):
            break
    return rotation
