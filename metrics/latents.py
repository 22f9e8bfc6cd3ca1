"""Scores of single latents against single processes, as in the benchmark of DRVI (Moinfar & Theis 2024).

A matrix of similarities, (n_latent, n_processes), is summed up in three ways. *LMS* matches latents to processes one to
one, so that a latent which stands for several processes counts once; *MSAS* takes each process's best latent, whatever
else that latent holds; *MSGS* is the best latent's lead over the second, so that copies of a process cost.
Similarity is mutual information with a binary process (*SMI*) or absolute rank correlation with a number (*ASC*). A
constant latent, or a process that is constant, is similar to nothing.

Checked against drvi-py 0.2.8, to rounding: ``drvi.utils.metrics``.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from metrics.arrays import Floats, is_discrete
from metrics.base import family, share

Codes = Annotated[Floats, "n_samples n_latent"]
Factors = Annotated[Floats, "n_samples n_factors"]
Processes = Annotated[Floats, "n_samples n_processes"]

#: Bins of equal width that a latent is cut into; drvi-py's.
N_BINS = 10
_DRVI = "Moinfar & Theis 2024, bioRxiv 2024.11.06.622266: Unsupervised deep disentangled representation (DRVI)"


@family(
    lms_smi=share(_DRVI, "Mean scaled mutual information after matching latents to processes one to one."),
    msas_smi=share(_DRVI, "Mean over processes of the scaled mutual information with the most similar latent."),
    msgs_smi=share(_DRVI, "Mean over processes of the most similar latent's lead in scaled mutual information."),
)
def mutual_information(codes: Codes, processes: Processes) -> dict[str, float]:
    """Compute the three scores over I(latent; process) / H(process), latents in ten bins of equal width.

    Parameters
    ----------
    codes
        (n_samples, n_latent).
    processes
        Whether each process is on in a sample, 0 or 1, (n_samples, n_processes); :func:`processes_of` makes them.

    Returns
    -------
    dict
        By name; NaN where no process varies.

    Raises
    ------
    ValueError
        If the samples differ in number, values are not finite, or a process is neither 0 nor 1.
    """
    if not np.isin(processes, (0, 1)).all():
        raise ValueError("processes must be 0 or 1; processes_of makes them of labels or factors")
    processes = processes[:, processes.std(axis=0) > 0]
    similarity = np.zeros((codes.shape[1], processes.shape[1]))
    share_on = processes.mean(axis=0)
    entropy = -share_on * np.log(share_on) - (1 - share_on) * np.log(1 - share_on)
    for i, column in enumerate(codes.T):
        edges = np.linspace(column.min(), column.max(), N_BINS + 1)
        inner = edges[1:-1] if edges[0] < edges[-1] else edges[:0]  # a constant latent has one bin
        bins = np.searchsorted(inner, column, side="right")
        in_bin = bins[:, None] == np.arange(N_BINS)
        of_bin = in_bin.mean(axis=0)[:, None]
        for side, marginal in ((processes, share_on), (1 - processes, 1 - share_on)):
            joint = in_bin.T @ side / len(codes)
            ratio = np.divide(joint, of_bin * marginal, out=np.ones_like(joint), where=joint > 0)
            similarity[i] += np.sum(joint * np.log(ratio), axis=0)
    return _scores(similarity / entropy, "smi")


@family(
    lms_asc=share(_DRVI, "Mean absolute Spearman correlation after matching latents to factors one to one."),
    msas_asc=share(_DRVI, "Mean over factors of the absolute Spearman correlation with the most similar latent."),
    msgs_asc=share(_DRVI, "Mean over factors of the most similar latent's lead in absolute Spearman correlation."),
)
def rank_correlation(codes: Codes, factors: Factors) -> dict[str, float]:
    """Compute the three scores over |Spearman correlation| of latent and factor.

    Parameters
    ----------
    codes, factors
        (n_samples, n_latent) and (n_samples, n_factors), numbers or ordered levels.

    Returns
    -------
    dict
        By name; NaN where no factor varies.

    Raises
    ------
    ValueError
        If the samples differ in number, or values are not finite.
    """
    from scipy.stats import rankdata

    factors = factors[:, factors.std(axis=0) > 0]
    ranks = [rankdata(values, axis=0) for values in (codes, factors)]
    centred = [values - values.mean(axis=0) for values in ranks]
    norms = [np.linalg.norm(values, axis=0) for values in centred]
    product, scale = centred[0].T @ centred[1], np.outer(*norms)
    return _scores(np.abs(np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)), "asc")


def _scores(similarity: np.ndarray, over: str) -> dict[str, float]:
    """Return LMS, MSAS and MSGS of similarities (n_latent, n_processes)."""
    from scipy.optimize import linear_sum_assignment

    names = [f"{name}_{over}" for name in ("lms", "msas", "msgs")]
    if not similarity.shape[1]:
        return dict.fromkeys(names, float("nan"))
    similarity = np.clip(similarity, 0, 1)
    matched = similarity[linear_sum_assignment(similarity, maximize=True)].sum() / similarity.shape[1]
    first, second = np.sort(np.vstack([similarity, np.zeros(similarity.shape[1])]), axis=0)[::-1][:2]
    return dict(zip(names, map(float, (matched, first.mean(), (first - second).mean())), strict=True))


def processes_of(factors: np.ndarray) -> np.ndarray:
    """Return the levels of discrete factors as processes, (n_samples, n_processes) of 0 and 1.

    A factor of two levels is one process, as either says the same; one of more levels has a process for each. Factors
    that are continuous have none.

    Parameters
    ----------
    factors
        Factors (n_samples, n_factors), or labels of any kind (n_samples,).
    """
    columns = factors.T if factors.ndim == 2 else np.unique(factors, return_inverse=True)[1][None]
    processes = []
    for column in columns:
        levels = np.unique(column)
        if factors.ndim == 1 or is_discrete(column):
            processes += [column == level for level in (levels[1:] if len(levels) == 2 else levels)]
    return np.column_stack(processes).astype(float) if processes else np.empty((factors.shape[0], 0))
