"""Metrics of fate separation: is a clone's later fate in the codes of its early cells?

A probe is fitted on the early cells of some clones and asked about those of others, so that no clone is on both sides.
All cells of a clone share one answer: every clone weighs the same in the fit, and is one prediction, the mean of the
probabilities of its cells. There are two probes. Both choose on inner folds of clones how strongly they shrink towards
the fates of the training clones, so that a code that knows nothing scores chance instead of paying for overfitting:

- linear: logistic regression on standardised codes, ridge penalty 1 / (2C), C of ``PENALTIES``;
- kNN: p(fate) = (Σ_neighbours w [their fate] + m · base rate) / (Σ_neighbours w + m) over the ``N_NEIGHBOURS`` nearest
  early cells (Euclidean, codes as they are), w one over the clone's number of cells, m of ``PSEUDOCOUNTS``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import RESOLUTION, Floats
from metrics.base import MetricInfo, family, share

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of the linear probe, from the strongest penalty."""
PSEUDOCOUNTS = (1000.0, 100.0, 10.0, 1.0, 0.1)
"""m of the kNN probe, from the strongest shrinkage."""
N_NEIGHBOURS = 30
N_FOLDS = 5
"""Inner folds of clones, dealt within each fate."""

Probe = Literal["linear", "knn"]
TrainCodes = Annotated[Floats, "n_train n_latent"]
TrainLabels = Annotated[NDArray[Any], "n_train"]
Codes = Annotated[Floats, "n_cells n_latent"]
CellLabels = Annotated[NDArray[Any], "n_cells"]

_SKILL = "Log-loss skill as in forecast verification (Benedetti 2010, Mon. Weather Rev. 138:203); task fate"
_AUROC = "Hand & Till (2001), Machine Learning 45:171, one against the rest; fates: Weinreb et al. (2020), Science 367"


@family(
    fate_skill=MetricInfo("higher", -np.inf, 1.0, _SKILL, "Log-loss skill of the linear probe over the base rates."),
    fate_auroc=share(_AUROC, "AUROC of the linear probe, each fate against the rest, averaged over fates."),
)
def linear_fates(
    train_codes: TrainCodes,
    train_fates: TrainLabels,
    train_clones: TrainLabels,
    codes: Codes,
    fates: CellLabels,
    clones: CellLabels,
) -> dict[str, float]:
    """Score the fates of clones that the linear probe predicts.

    - ``fate_skill``: ``1 - Σ_c log p_c(fate of c) / Σ_c log b(fate of c)`` over the scored clones c, b the share of
      each fate among the training clones: 1 is certain and right, 0 is what the base rates give, negative is worse.
      Scored clones of a fate that no training clone has are left out; not a number if none is left, or training has
      one fate.
    - ``fate_auroc``: the chance that a clone of the fate has a higher predicted probability of it than another clone,
      ties counting half. 0.5 knows nothing. Fates that all or none of the scored clones have are left out; not a
      number if none is left.

    Parameters
    ----------
    train_codes, train_fates, train_clones
        Early cells that the probe is fitted on: codes (n_train, n_latent), labels (n_train,).
    codes, fates, clones
        Early cells that are scored: codes (n_cells, n_latent), labels (n_cells,).

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, a clone has two fates or is on both sides, or a training
        fate has a single clone.
    """
    predicted = clone_probabilities("linear", train_codes, train_fates, train_clones, codes, fates, clones)
    return {"fate_skill": _skill(*predicted), "fate_auroc": _auroc(*predicted)}


@family(
    fate_skill_knn=MetricInfo("higher", -np.inf, 1.0, _SKILL, "``fate_skill`` of the kNN probe."),
    fate_auroc_knn=share(_AUROC, "``fate_auroc`` of the kNN probe."),
)
def knn_fates(
    train_codes: TrainCodes,
    train_fates: TrainLabels,
    train_clones: TrainLabels,
    codes: Codes,
    fates: CellLabels,
    clones: CellLabels,
) -> dict[str, float]:
    """Score the fates of clones that the kNN probe predicts, as :func:`linear_fates` scores those of the linear one.

    It asks for neighbours of one fate, which a direction of small variance does not give, however clear it is to
    a linear probe.

    Parameters
    ----------
    train_codes, train_fates, train_clones
        Early cells that the probe is fitted on: codes (n_train, n_latent), labels (n_train,).
    codes, fates, clones
        Early cells that are scored: codes (n_cells, n_latent), labels (n_cells,).

    Raises
    ------
    ValueError
        As :func:`linear_fates`.
    """
    predicted = clone_probabilities("knn", train_codes, train_fates, train_clones, codes, fates, clones)
    return {"fate_skill_knn": _skill(*predicted), "fate_auroc_knn": _auroc(*predicted)}


def _skill(probabilities: Floats, base_rates: Floats, truth: NDArray[np.intp]) -> float:
    known = truth >= 0
    base = base_rates[truth[known]]
    if not known.any() or (base == 1.0).all():
        return float("nan")
    return 1.0 - float(np.log(_of_fate(probabilities[known], truth[known])).sum() / np.log(base).sum())


def _auroc(probabilities: Floats, base_rates: Floats, truth: NDArray[np.intp]) -> float:
    from scipy.stats import rankdata

    areas = []
    for fate, scores in enumerate(probabilities.T):
        has = truth == fate
        n_has, n_other = int(has.sum()), int((~has).sum())
        if n_has and n_other:
            areas.append((rankdata(scores)[has].sum() - n_has * (n_has + 1) / 2) / (n_has * n_other))
    return float(np.mean(areas)) if areas else float("nan")


def clone_probabilities(
    probe: Probe,
    train_codes: Floats,
    train_fates: NDArray[Any],
    train_clones: NDArray[Any],
    codes: Floats,
    fates: NDArray[Any],
    clones: NDArray[Any],
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Predict the fate of each scored clone from the codes of its early cells.

    Parameters
    ----------
    probe
        "linear" or "knn".
    train_codes, train_fates, train_clones, codes, fates, clones
        As :func:`linear_fates`.

    Returns
    -------
    probabilities, base_rates, truth
        For the scored clones, sorted, and the training fates, sorted: probabilities (n_clones, n_fates); the fates'
        shares among the training clones (n_fates,); the index of each scored clone's true fate, −1 where no
        training clone has it (n_clones,).

    Raises
    ------
    ValueError
        As :func:`linear_fates`.
    """
    train_names, train_labels, train_group = _clones("train", train_fates, train_clones)
    scored_names, labels, group = _clones("scored", fates, clones)
    if both := sorted(set(train_names) & set(scored_names)):
        raise ValueError(f"{len(both)} clones are fitted and scored, such as {both[0]!r}; each belongs to one side")
    names, fate_of_clone, counts = np.unique(train_labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise ValueError(f"fate {names.tolist()[counts.argmin()]!r} has 1 training clone; at least 2 are needed")
    z_train, z = train_codes, codes
    if probe == "linear":
        spread = z_train.std(axis=0)
        spread[spread <= RESOLUTION * np.abs(z_train).max(axis=0)] = np.inf
        z_train, z = (z_train - z_train.mean(axis=0)) / spread, (z - z_train.mean(axis=0)) / spread
    y = fate_of_clone[train_group]
    weights = 1.0 / np.bincount(train_group)[train_group]
    strengths = PENALTIES if probe == "linear" else PSEUDOCOUNTS

    # the clones of a fate are dealt to the folds in turn, so that the clones outside a fold have every fate
    fold_of_clone = np.empty(len(fate_of_clone), dtype=np.intp)
    fold_of_clone[np.argsort(fate_of_clone, kind="stable")] = np.concatenate([np.arange(n) % N_FOLDS for n in counts])
    losses = np.zeros(len(strengths))
    for fold in np.unique(fold_of_clone):
        left_out = fold_of_clone[train_group] == fold
        asked = np.unique(train_group[left_out], return_inverse=True)[1]
        cells = (z_train[~left_out], y[~left_out], weights[~left_out], z_train[left_out])
        for i, strength in enumerate(strengths):
            right = _clone_means(_predict(probe, strength, *cells), asked)
            losses[i] -= np.log(_of_fate(right, fate_of_clone[fold_of_clone == fold])).sum()
    predicted = _predict(probe, strengths[int(np.argmin(losses))], z_train, y, weights, z)
    position = {name: i for i, name in enumerate(names.tolist())}
    truth = np.array([position.get(label, -1) for label in labels.tolist()], dtype=np.intp)
    return _clone_means(predicted, group), counts / counts.sum(), truth


def _predict(probe: Probe, strength: float, z_train: Floats, y: NDArray[np.intp], w: Floats, z: Floats) -> Floats:
    """Probabilities (n_cells, n_fates) of the fates 0, 1, ... in ``y``, at one strength of shrinking."""
    fates = np.eye(y.max() + 1)[y]
    if fates.shape[1] == 1:
        return np.ones((len(z), 1))
    if probe == "linear":
        from sklearn.linear_model import LogisticRegression

        fitted: Floats = LogisticRegression(C=strength, max_iter=1000).fit(z_train, y, sample_weight=w).predict_proba(z)
        return fitted
    from sklearn.neighbors import NearestNeighbors

    k = min(N_NEIGHBOURS, len(z_train))
    near = NearestNeighbors(n_neighbors=k).fit(z_train).kneighbors(z, return_distance=False)
    base = w @ fates / w.sum()
    votes: Floats = np.einsum("nk,nkf->nf", w[near], fates[near]) + strength * base
    return votes / votes.sum(axis=1, keepdims=True)


def _clones(side: str, labels: NDArray[Any], ids: NDArray[Any]) -> tuple[list[Any], NDArray[Any], NDArray[np.intp]]:
    """Names of the clones, sorted, the fate of each, and the clone of each cell."""
    names, first, group = np.unique(ids, return_index=True, return_inverse=True)
    two = names[np.unique(group[labels != labels[first][group]])]
    if len(two):
        raise ValueError(f"{len(two)} {side} clones have two fates, such as {two.tolist()[0]!r}; a clone has one")
    return names.tolist(), labels[first], group


def _clone_means(probabilities: Floats, group: NDArray[np.intp]) -> Floats:
    sums = np.zeros((group.max() + 1, probabilities.shape[1]))
    np.add.at(sums, group, probabilities)
    means: Floats = sums / np.bincount(group)[:, None]
    return means


def _of_fate(probabilities: Floats, fates: NDArray[np.intp]) -> Floats:
    """The probability of each clone's true fate; a logarithm needs it above zero."""
    chosen: Floats = np.maximum(probabilities[np.arange(len(fates)), fates], np.finfo(np.float64).tiny)
    return chosen
