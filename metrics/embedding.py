"""Metrics of an embedding, and of how it changes when the unit it shows was left out of the fit.

Stability alone is gameable: a frozen random projection is perfectly stable. Read ``neighbour_agreement`` and
``displacement`` with ``knn_recall``. Neighbours are defined with fractional ties: if m samples tie for the last q
places among the k nearest, each of them counts as q/m of a neighbour. A collapsed code, in which all samples tie, thus
scores exactly what chance does, and never by the order of the samples. Neighbours are those of
``metrics.neighbours``, approximate beyond 50,000 samples; ranks and ties are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import RESOLUTION, Floats, pearson
from metrics.base import MetricInfo, checked, family, metric, share
from metrics.neighbours import neighbours

Reference = Annotated[Floats, "n_samples>=3 n_genes"]
Codes = Annotated[Floats, "n_samples n_latent"]
Expression = Annotated[Floats, "n_samples n_genes"]

CHUNK_ENTRIES = 4_000_000
"""Distances computed at once; a chunk of them takes 32 MB."""
MAX_PAIRWISE = 2_000
"""Samples beyond which ``distance_spearman`` takes a subsample."""
TIE = 1e-12
"""Squared distances closer than this share of the squared norms involved are ties."""

_PROCRUSTES = "Procrustes residual: Schönemann & Carroll (1970), Psychometrika 35:245; task reembedding"
_OVERLAP = "Overlap of neighbourhoods, as Lee & Verleysen (2009), Neurocomputing 72:1431; task reembedding"


@checked
def procrustes(
    source: Annotated[Floats, "n_samples d_source"], target: Annotated[Floats, "n_samples d_target"]
) -> tuple[Floats, float, Floats, Floats]:
    """Fit the similarity that takes ``source`` closest to ``target``.

    ``min Σ‖(target - target_mean) - scale · (source - source_mean) rotation‖²``, the rotation being
    orthogonal (reflections allowed): with ``U S Vᵀ`` the SVD of ``source_cᵀ target_c`` it is ``U Vᵀ``, and
    the scale is ``Σ S / ‖source_c‖²``. The narrower input is padded with zero columns to the width d of the
    wider. A constant source has no direction: its scale is 0, which sends every point to ``target_mean``.
    In directions that neither input spans the rotation is arbitrary.

    Parameters
    ----------
    source, target
        Paired samples, (n, d_source) and (n, d_target).

    Returns
    -------
    rotation, scale, source_mean, target_mean
        (d, d), float, (d,), (d,), where d = max(d_source, d_target). A point x goes to
        ``scale * (x - source_mean) @ rotation + target_mean``.

    Raises
    ------
    ValueError
        If the numbers of samples differ, or values are not finite.

    References
    ----------
    Schönemann & Carroll (1970), Psychometrika 35:245.
    """
    width = max(source.shape[1], target.shape[1])
    source, target = _pad(source, width), _pad(target, width)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    if _is_constant(source):
        return np.eye(width), 0.0, source_mean, target_mean
    centred = source - source_mean
    u, singular, vt = np.linalg.svd(centred.T @ (target - target_mean))
    return u @ vt, float(singular.sum() / np.sum(centred**2)), source_mean, target_mean


@metric(better="lower", low=0.0, high=np.inf, paper=_PROCRUSTES)
def displacement(
    z_in: Annotated[Floats, "n_held_out n_latent_in"],
    z_out: Annotated[Floats, "n_held_out n_latent_out"],
    train_in: Annotated[Floats, "n_train n_latent_in"],
    train_out: Annotated[Floats, "n_train n_latent_out"],
) -> float:
    """How far held-out samples move when their unit is left out of the fit, in units of the whole embedding's variance.

    ``ε = mean‖z_in - T z_out‖² / v``, the mean over held-out samples, where T is the Procrustes map (rotation,
    reflection, scale, shift) from the out-space to the in-space, fitted on *training* samples only, and v the variance
    of the in-embedding: the mean squared distance of all samples, training and held-out, from their mean. 0: embedded
    as if trained on. The unit's own variance in the denominator would make a tight unit look far off.

    A collapsed code cannot win: if the in-embedding is constant, ε is not a number; if only the out-model
    collapsed, T sends every sample to the training mean.

    Parameters
    ----------
    z_in, z_out
        Held-out samples embedded by the model fitted with and without them, (n_held_out, n_latent_in) and
        (n_held_out, n_latent_out). Unequal widths are padded with zeros.
    train_in, train_out
        The same training samples embedded by the two models, (n_train, n_latent_in), (n_train, n_latent_out).

    Raises
    ------
    ValueError
        If samples are not paired, an embedding's width differs between held-out and training samples, or
        values are not finite.
    """
    everything = np.vstack([z_in, train_in])
    if _is_constant(everything):
        return float("nan")
    rotation, scale, source_mean, target_mean = procrustes(train_out, train_in)
    width = len(rotation)
    mapped = scale * (_pad(z_out, width) - source_mean) @ rotation + target_mean
    moved = np.mean(np.sum((_pad(z_in, width) - mapped) ** 2, axis=1))
    return float(moved / everything.var(axis=0).sum())


@metric(better="lower", low=0.0, high=1.0, paper=_PROCRUSTES)
def training_drift(
    train_in: Annotated[Floats, "n_train n_latent_in"], train_out: Annotated[Floats, "n_train n_latent_out"]
) -> float:
    """How far the training samples themselves move when the unit is left out of the fit.

    ``displacement`` with the training samples in the place of the held-out ones: the difference between two fits that
    has nothing to do with the unit. It is 1 if ``train_out`` is constant. Not a number if ``train_in`` is constant.

    Parameters
    ----------
    train_in, train_out
        The same training samples embedded by the model fitted with and without the held-out unit,
        (n_train, n_latent_in), (n_train, n_latent_out).

    Raises
    ------
    ValueError
        If samples are not paired, or values are not finite.
    """
    return displacement(train_in, train_out, train_in, train_out)


@metric(better="higher", low=0.0, high=1.0, paper=_OVERLAP)
def neighbour_agreement(
    z_in: Annotated[Floats, "n_held_out n_latent_in"],
    z_out: Annotated[Floats, "n_held_out n_latent_out"],
    train_in: Annotated[Floats, "n_train n_latent_in"],
    train_out: Annotated[Floats, "n_train n_latent_out"],
    k: int = 15,
) -> float:
    """Share of a held-out sample's nearest training samples that two embeddings have in common.

    ``mean over i of Σ_j w_ij v_ij / k``, where w and v say which of the training samples j are among the k nearest
    (Euclidean) of the held-out sample i in the one and in the other embedding: 0, 1, or a fraction where samples tie,
    so that it is what ties broken at random would give on average. No map between the embeddings is needed. If either
    or both are constant the value is exactly k / n_train, which is chance; k is at most n_train. A frozen embedding has
    1, whatever it shows: read it with ``knn_recall``.

    Parameters
    ----------
    z_in, z_out
        Held-out samples embedded by the model fitted with and without them, (n_held_out, n_latent_in) and
        (n_held_out, n_latent_out).
    train_in, train_out
        The same training samples embedded by the two models, (n_train, n_latent_in), (n_train, n_latent_out).
    k
        Number of neighbours.

    Raises
    ------
    ValueError
        If samples are not paired, an embedding's width differs between held-out and training samples, values are not
        finite, or k is under 1.
    """
    k = _neighbours_of(k, len(train_in))
    both = zip(_nearest_training(z_in, train_in, k), _nearest_training(z_out, train_out, k), strict=True)
    return sum(float(np.sum(w * v)) for w, v in both) / (k * len(z_in))


@family(
    displacement_two_seeds=MetricInfo("lower", 0.0, np.inf, _PROCRUSTES, "``displacement`` between the two fits."),
    agreement_two_seeds=share(_OVERLAP, "``neighbour_agreement`` of the two fits."),
)
def two_seeds(
    z_in: Annotated[Floats, "n_held_out n_latent_in"],
    z_again: Annotated[Floats, "n_held_out n_latent_again"],
    train_in: Annotated[Floats, "n_train n_latent_in"],
    train_again: Annotated[Floats, "n_train n_latent_again"],
) -> dict[str, float]:
    """Compare two fits that both have the unit and differ by their seed: how much training alone changes.

    Parameters
    ----------
    z_in, z_again
        Held-out samples embedded by the first and by the second fit, (n_held_out, n_latent_in) and
        (n_held_out, n_latent_again).
    train_in, train_again
        The same training samples embedded by the two fits, (n_train, n_latent_in), (n_train, n_latent_again).

    Raises
    ------
    ValueError
        As :func:`displacement`.
    """
    return {
        "displacement_two_seeds": displacement(z_in, z_again, train_in, train_again),
        "agreement_two_seeds": neighbour_agreement(z_in, z_again, train_in, train_again),
    }


@metric(
    better="higher",
    low=0.0,
    high=1.0,
    paper="Neighbourhood preservation: Lee & Verleysen (2009), Neurocomputing 72:1431, Q_NX; task reembedding",
)
def knn_recall(
    reference_held_out: Annotated[Floats, "n_held_out n_genes"],
    reference_train: Annotated[Floats, "n_train n_genes"],
    z_held_out: Annotated[Floats, "n_held_out n_latent"],
    z_train: Annotated[Floats, "n_train n_latent"],
    k: int = 15,
) -> float:
    """Share of a held-out sample's nearest neighbours in a reference space that are neighbours in latent space.

    With a reference that shares no noise with what was embedded, this is how faithful the embedding is.

    ``mean over i of Σ_j min(w_ij, v_ij) / k``, where w and v say which of the training and other held-out
    samples j are among the k nearest (Euclidean) of i in the reference space and in latent space: 0, 1, or
    a fraction where samples tie. Without ties this is |intersection| / k. A constant code scores exactly
    k / (n_train + n_held_out - 1), which is chance; k is at most n_train + n_held_out - 1.

    Parameters
    ----------
    reference_held_out, reference_train
        The samples in the fixed reference space, (n_held_out, n_genes), (n_train, n_genes).
    z_held_out, z_train
        The same samples in latent space, (n_held_out, n_latent), (n_train, n_latent).
    k
        Number of neighbours.

    Raises
    ------
    ValueError
        If samples are not paired, widths differ within a space, values are not finite, or k is under 1.
    """
    n_held_out = len(z_held_out)
    k = _neighbours_of(k, n_held_out + len(z_train) - 1)
    spaces = (np.vstack([reference_held_out, reference_train]), np.vstack([z_held_out, z_train]))
    both = zip(*(_neighbourhoods(space, n_held_out, k) for space in spaces), strict=True)
    return sum(float(np.minimum(*weights).sum()) for weights in both) / (k * n_held_out)


@metric(better="higher", low=0.0, high=1.0, paper="Venna & Kaski (2001), ICANN, 485-491")
def trustworthiness(reference: Reference, z: Codes, k: int = 15) -> float:
    """Whether samples that are near in latent space are near in the reference space.

    ``1 - 2 / (n k (2n - 3k - 1)) · Σ_i Σ_{j among the k nearest of i in z} max(0, r(i, j) - k)``, where r is
    the rank of j by its distance to i in the reference space, as in scikit-learn. Ties are averaged over
    their possible orders, so a constant z scores chance, ``1 - (n-1-k)(n-k) / ((n-1)(2n-3k-1))``, about one
    half. k is at most (n - 1) // 2, the largest for which the norm holds.

    Parameters
    ----------
    reference
        Samples in the reference space, (n, n_genes).
    z
        The same samples in latent space, (n, n_latent).
    k
        Number of neighbours.

    Raises
    ------
    ValueError
        If samples are not paired, fewer than 3, values are not finite, or k is under 1.
    """
    n = len(z)
    k = _neighbours_of(k, (n - 1) // 2)
    penalty = 0.0
    chunks = zip(_squared_distances(reference, np.arange(n)), _neighbourhoods(z, n, k), strict=True)
    for (in_reference, tie), near in chunks:
        for row, row_tie, weights in zip(in_reference, tie, near, strict=True):
            chosen = np.flatnonzero(weights)
            penalty += float(weights[chosen] @ _excess_rank(row, row[chosen], float(row_tie[0]), k))
    return 1.0 - 2.0 * penalty / (n * k * (2 * n - 3 * k - 1))


@metric(better="higher", low=0.0, high=1.0, paper="Venna & Kaski (2001), ICANN, 485-491")
def continuity(reference: Reference, z: Codes, k: int = 15) -> float:
    """Whether samples that are near in the reference space stay near in latent space.

    ``trustworthiness`` with the two spaces swapped: it counts neighbours torn apart, where trustworthiness
    counts strangers put together. Ties, chance level and the limit on k are those of ``trustworthiness``.

    Parameters
    ----------
    reference
        Samples in the reference space, (n, n_genes).
    z
        The same samples in latent space, (n, n_latent).
    k
        Number of neighbours.

    Raises
    ------
    ValueError
        If samples are not paired, fewer than 3, values are not finite, or k is under 1.
    """
    return trustworthiness(reference=z, z=reference, k=k)


@metric(
    better="higher",
    low=-1.0,
    high=1.0,
    paper="Spearman (1904), Am. J. Psychol. 15:72, on pairwise distances; task reembedding",
)
def distance_spearman(reference: Reference, z: Codes) -> float:
    """Rank correlation of the pairwise Euclidean distances in the reference space and in latent space.

    Beyond 2,000 samples a fixed random subsample of 2,000 is used. Tied distances share their mean rank. 0
    if the distances are all alike in either space, as in a constant code.

    Parameters
    ----------
    reference
        Samples in the reference space, (n, n_genes).
    z
        The same samples in latent space, (n, n_latent).

    Raises
    ------
    ValueError
        If samples are not paired, fewer than 3, or values are not finite.
    """
    from scipy.stats import rankdata

    if len(z) > MAX_PAIRWISE:
        chosen = np.random.default_rng(0).choice(len(z), MAX_PAIRWISE, replace=False)
        reference, z = reference[chosen], z[chosen]
    pairs = np.triu_indices(len(z), k=1)
    ranks = []
    for space in (reference, z):
        distances = np.vstack([chunk for chunk, _ in _squared_distances(space, np.arange(len(space)))])
        ranks.append(rankdata(distances[pairs]))
    return pearson(*ranks)


@metric(better="lower", low=0.0, high=np.inf, paper="Fraction of variance unexplained, as in PCA; task reembedding")
def reconstruction_error(x: Expression, x_hat: Expression) -> float:
    """Fraction of the held-out samples' variance that the reconstruction leaves.

    ``Σ(x - x̂)² / Σ(x - mean of its gene)²``, summed over samples and genes. 0 is exact, 1 is no better than
    the mean of the held-out samples, and worse is above 1. Not a number if every gene is constant in x.

    Parameters
    ----------
    x, x_hat
        Expression and its reconstruction, (n_held_out, n_genes), on one scale.

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    if _is_constant(x):
        return float("nan")
    return float(np.sum((x - x_hat) ** 2) / np.sum((x - x.mean(axis=0)) ** 2))


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    paper="Fraction of variance unexplained, as in PCA; what a fit keeps, whatever it is asked later",
)
def training_reconstruction_error(x_train: Expression, x_train_hat: Expression) -> float:
    """:func:`reconstruction_error` of training samples, by which methods of unlike capacity are told apart.

    Parameters
    ----------
    x_train, x_train_hat
        Expression and its reconstruction, (n_samples, n_genes), on one scale.

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    return reconstruction_error(x_train, x_train_hat)


@metric(
    better="higher",
    low=0.0,
    high=1.0,
    paper="kNN classifier: Cover & Hart (1967), IEEE Trans. Inf. Theory 13:21; task reembedding",
)
def label_transfer(
    z_train: Annotated[Floats, "n_train n_latent"],
    labels_train: Annotated[NDArray[Any], "n_train"],
    z_held_out: Annotated[Floats, "n_held_out n_latent"],
    labels_held_out: Annotated[NDArray[Any], "n_held_out"],
    k: int = 15,
) -> float:
    """Balanced accuracy of labels carried over from the k nearest training samples.

    Each held-out sample takes the majority label of its k nearest (Euclidean) training samples; the score
    is the mean, over labels among the held-out samples, of the share of that label's samples named right.
    Samples that tie for the last places vote in fractions, and a tie of the vote between m labels counts as
    1/m right if the true one is among them. A constant code thus votes for the most frequent training
    label everywhere. k is at most n_train.

    Parameters
    ----------
    z_train, z_held_out
        Embeddings, (n_train, n_latent), (n_held_out, n_latent).
    labels_train, labels_held_out
        Labels, (n_train,), (n_held_out,). A held-out label unseen in training can never be named: it
        counts, at 0.
    k
        Number of neighbours.

    Raises
    ------
    ValueError
        If shapes do not agree, values are not finite, or k is under 1.
    """
    k = _neighbours_of(k, len(z_train))
    names, codes = np.unique(labels_train, return_inverse=True)
    one_hot = np.eye(len(names))[codes]
    votes = np.vstack([weights @ one_hot for weights in _nearest_training(z_held_out, z_train, k)])
    winners = votes >= votes.max(axis=1, keepdims=True) - 1e-9
    is_own_label = labels_held_out[:, None] == names[None, :]
    right = np.sum(winners & is_own_label, axis=1) / winners.sum(axis=1)
    return float(np.mean([right[labels_held_out == name].mean() for name in np.unique(labels_held_out)]))


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    paper="distance to the k nearest training samples: Sun et al. (2022), ICML, arXiv 2204.06507, relative here",
)
def ood_distance(
    held_out: Annotated[Floats, "n_held_out n_features"],
    training: Annotated[Floats, "n_training>=2 n_features"],
    k: int = 15,
) -> float:
    """How far held-out samples are from the training samples, as a multiple of how far these are from each other.

    ``median over held-out samples of d_k / median over training samples of d_k``, d_k the Euclidean distance to the
    k-th nearest training sample but itself: 1 where the held-out samples are draws of the same distribution. It says
    how hard a unit is, not how good a method is. Not a number where half of the training samples or more have k
    duplicates. k is at most the number of training samples less 1.

    Parameters
    ----------
    held_out, training
        (n_held_out, n_features) and (n_training, n_features).
    k
        Which neighbour.

    Raises
    ------
    ValueError
        If the numbers of features differ, values are not finite, there is no held-out sample or fewer than 2 training
        samples, or k is under 1.
    """
    from sklearn.neighbors import NearestNeighbors

    k = _neighbours_of(k, len(training) - 1)
    index = NearestNeighbors(n_neighbors=k).fit(training)
    usual = float(np.median(index.kneighbors()[0][:, -1]))
    if usual <= RESOLUTION * np.linalg.norm(training, axis=1).mean():
        return float("nan")
    return float(np.median(index.kneighbors(held_out)[0][:, -1])) / usual


def _pad(x: Floats, width: int) -> Floats:
    return np.pad(x, ((0, 0), (0, width - x.shape[1])))


def _is_constant(x: Floats) -> bool:
    """Tell whether every column is constant, up to single precision of the whole."""
    return bool(np.linalg.norm(x - x.mean(axis=0)) <= RESOLUTION * np.linalg.norm(x))


def _neighbours_of(k: int, limit: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; at least 1 neighbour is needed")
    if limit < 1:
        raise ValueError("one sample alone has no neighbours; at least 2 are needed")
    return min(k, limit)


def _squared_distances(points: Floats, queries: NDArray[np.int64]) -> Iterator[tuple[Floats, Floats]]:
    """Squared Euclidean distances of some points (indices) to all points, in chunks of rows.

    Yields
    ------
    distances, tie
        (n_rows, n_points), with infinity for a point's distance to itself, and the differences (n_rows, 1)
        below which two of a row's distances near the query are rounding noise apart.
    """
    # Subtracting a point before the mean makes constant points exactly zero.
    points = points - points[0]
    points = points - points.mean(axis=0)
    norms = np.sum(points**2, axis=1)
    for chunk in _chunks(len(queries), len(points)):
        rows = queries[chunk]
        distances = norms[rows, None] + norms[None, :] - 2.0 * points[rows] @ points.T
        np.maximum(distances, 0.0, out=distances)
        distances[np.arange(len(rows)), rows] = np.inf
        yield distances, _tie(norms, rows)


def _tie(norms: Floats, rows: NDArray[np.int64]) -> Floats:
    return TIE * (norms[rows, None] + norms.mean())


def _chunks(n_rows: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK_ENTRIES // width)
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def _neighbourhoods(points: Floats, n_queries: int, k: int) -> Iterator[Floats]:
    """How much each point is one of the first points' k nearest, ``_membership``, in ``_squared_distances``' chunks.

    Where the graph's last neighbour ties with the k-th, others beyond may as well, and all distances are computed.
    """
    graph = neighbours(points, k + 2) if len(points) > k + 2 else None
    norms = np.sum((points - points.mean(axis=0)) ** 2, axis=1)
    for chunk in _chunks(n_queries, len(points)):
        rows = np.arange(n_queries)[chunk]
        weights = np.zeros((len(rows), len(points)))
        if graph is None:
            open_ended = np.ones(len(rows), dtype=bool)
        else:
            squared, tie = graph.distances[rows, 1:] ** 2, _tie(norms, rows)
            open_ended = squared[:, -1] <= squared[:, k - 1] + tie[:, 0]
            np.put_along_axis(weights, graph.indices[rows, 1:], _membership(squared, tie, k), axis=1)
        at = 0
        for distances, tie in _squared_distances(points, rows[open_ended]):
            some = np.flatnonzero(open_ended)[at : at + len(distances)]
            weights[some] = _membership(distances, tie, k)
            at += len(distances)
        yield weights


def _nearest_training(held_out: Floats, training: Floats, k: int) -> Iterator[Floats]:
    """How much each training sample is one of the held-out samples' k nearest, ``_membership``, in chunks of rows."""
    n_held_out = len(held_out)
    for distances, tie in _squared_distances(np.vstack([held_out, training]), np.arange(n_held_out)):
        yield _membership(distances[:, n_held_out:], tie, k)


def _membership(distances: Floats, tie: Floats, k: int) -> Floats:
    """How much each point is one of the row's k nearest: 0, 1, or a fraction where points tie; sums to k."""
    kth = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    nearer = distances < kth - tie
    tied = np.abs(distances - kth) <= tie
    places = k - nearer.sum(axis=1, keepdims=True)
    weights: Floats = np.where(nearer, 1.0, 0.0) + tied * (places / tied.sum(axis=1, keepdims=True))
    return weights


def _excess_rank(row: Floats, chosen: Floats, tie: float, k: int) -> Floats:
    """Mean of max(0, rank - k) over the ranks in ``row`` that each chosen distance may have by its ties."""
    ordered = np.sort(row[row <= chosen.max() + tie])
    before = np.searchsorted(ordered, chosen - tie, side="left")
    upto: NDArray[np.int64] = np.searchsorted(ordered, chosen + tie, side="right")
    within = np.maximum(before, k)
    # The sum of (rank - k) over ranks within+1 ... upto.
    total = np.maximum(upto - within, 0) * (upto + within + 1 - 2 * k) / 2.0
    mean: Floats = total / (upto - before)
    return mean
