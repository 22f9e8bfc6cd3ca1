"""Metrics of geometry: does a code keep local distances, and is it alike another code?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.arrays import RESOLUTION, Floats, as_floats, require_same_length
from metrics.base import metric


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    reference="Spread of the local log-expansion; cf. bi-Lipschitz distortion, Bourgain (1985), Israel J. Math. 52:46",
)
def local_distortion(reference: ArrayLike, z: ArrayLike, k: int = 15) -> float:
    """How unevenly the code stretches the distances between near samples.

    ``std of log(‖z_a - z_b‖ / ‖x_a - x_b‖)`` over all pairs of a sample a and one of its k nearest b in the
    reference space (Euclidean). 0: near distances are kept up to one scale for all, as by any isometry
    followed by a scaling; s: they are stretched by factors spread like ``exp(± s)``. Blind to that scale, to
    rotation and to what happens far apart.

    Pairs that coincide in the reference space are left out. A pair that coincides in the code counts with
    single precision's share (1.2e-7) of the root mean square distance of all pairs, which costs dearly. A
    constant code has no local distances: not a number, as when no pair is left. k is at most n_samples - 1.

    Parameters
    ----------
    reference
        Samples in the space whose distances are to be kept, (n_samples, n_features).
    z
        The same samples' codes, (n_samples, n_latent).
    k
        Number of neighbours.

    Raises
    ------
    ValueError
        If the samples differ in number or are fewer than 2, values are not finite, or k is under 1.
    """
    from sklearn.neighbors import NearestNeighbors

    x, z = as_floats("reference", reference, 2), as_floats("z", z, 2)
    require_same_length(0, reference=x, z=z)
    if k < 1 or len(x) < 2:
        raise ValueError(f"k is {k} for {len(x)} sample(s); at least 1 neighbour and 2 samples are needed")
    k = min(k, len(x) - 1)
    neighbours = NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)
    d_x, d_z = _distances(x, neighbours), _distances(z, neighbours)
    apart = d_x > RESOLUTION * np.linalg.norm(x, axis=1).mean()
    d_x, d_z = d_x[apart], d_z[apart]
    floor = RESOLUTION * np.linalg.norm(z, axis=1).mean()
    if not (d_z > floor).any():
        return float("nan")
    d_z = np.maximum(d_z, RESOLUTION * np.sqrt(np.mean(d_z**2)))
    return float(np.std(np.log(d_z) - np.log(d_x)))


@metric(
    better="higher",
    low=0.0,
    high=1.0,
    reference="Kornblith et al. (2019), ICML, PMLR 97:3519, linear CKA; caveats: Davari et al. (2023), ICLR",
)
def cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear centred kernel alignment of two codes of the same samples; shown with its caveat.

    ``‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖)`` (Frobenius norms) of the centred codes: 1 if they agree up to rotation, shift and one
    scale. 0 if either is constant.

    Caveat. It is no evidence of disentanglement, being blind to rotation. Directions count by their variance
    *squared*: one dominant direction in both gives nearly 1, whatever the others do, and a few outliers or a
    shift of one cluster move it at will. It has a positive bias, towards 1 where the codes are about as wide
    as the samples are many. High CKA is not low displacement, nor the reverse.

    Parameters
    ----------
    x, y
        The same samples' codes, (n_samples, n_x), (n_samples, n_y).

    Raises
    ------
    ValueError
        If the samples differ in number, or values are not finite.
    """
    a, b = as_floats("x", x, 2), as_floats("y", y, 2)
    require_same_length(0, x=a, y=b)
    centred = []
    for code in (a, b):
        size = np.linalg.norm(code)
        code = code - code.mean(axis=0)
        if np.linalg.norm(code) <= RESOLUTION * size:
            return 0.0
        centred.append(code / np.linalg.norm(code))
    a, b = centred
    return float(np.clip(np.sum((a.T @ b) ** 2) / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)), 0.0, 1.0))


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    reference="distance to the k nearest training samples: Sun et al. (2022), ICML, arXiv 2204.06507, relative here",
)
def ood_distance(held_out: ArrayLike, training: ArrayLike, k: int = 15) -> float:
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

    new, known = as_floats("held_out", held_out, 2), as_floats("training", training, 2)
    require_same_length(1, held_out=new, training=known)
    if k < 1 or len(known) < 2:
        raise ValueError(
            f"k is {k} for {len(new)} held-out and {len(known)} training sample(s); at least 1 neighbour and 2 "
            "training samples are needed"
        )
    k = min(k, len(known) - 1)
    index = NearestNeighbors(n_neighbors=k).fit(known)
    usual = float(np.median(index.kneighbors()[0][:, -1]))
    if usual <= RESOLUTION * np.linalg.norm(known, axis=1).mean():
        return float("nan")
    return float(np.median(index.kneighbors(new)[0][:, -1])) / usual


def _distances(points: Floats, neighbours: NDArray[np.int64]) -> Floats:
    """Distance of every point to each of its neighbours, (n_samples, k), one neighbour at a time."""
    return np.stack([np.linalg.norm(points - points[column], axis=1) for column in neighbours.T], axis=1)
