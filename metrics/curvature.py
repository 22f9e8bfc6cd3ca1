"""Metrics of curvature: how far the manifold that a decoder spans in expression space is from a flat, even sheet.

All take Gram matrices of the decoder's derivatives at points z of the latent space: f: z → x, J_i = ∂f/∂z_i and
H_ij = ∂²f/∂z_i∂z_j, the rows being J_1 … J_d, then H_ij for i ≤ j, row by row; k = d + d(d + 1)/2 rows. x is in units
in which the data that the decoder was fitted to have a total variance of 1: derivatives of genes scaled to a mean
variance of 1 are divided by √n_genes. The curvatures are then dimensionless: 1 is the bend of a circle whose radius is
the root mean square distance of the data from their mean, 0 is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.arrays import Floats, as_floats
from metrics.base import metric

ACTIVE = 1e-3
"""Squared length, relative to the longest, under which what a step in latent space decodes to counts as nothing."""


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    reference="Kim, Sethna, Cohen, Sun (2026), bioRxiv 10.64898/2026.02.07.704615, Eq. 4; Bates & Watts (1980), "
    "J. R. Stat. Soc. B 42:1",
)
def extrinsic_curvature(gram: ArrayLike, n_latent: int) -> float:
    """Squared curvature that belongs to the decoded manifold itself, however its latent space is laid out.

    ``median over points of (N H_μν · N H_ρσ) g^μρ g^νσ``, ``g = JᵀJ``, N the projection on what is normal to all J: 0
    for a plane in any coordinates, 2/R² for a sphere, 1/R² for a cylinder of radius R. See the module for units.

    The median, as the mean is ruled by the few points at which g nearly degenerates. Of g only the eigenvectors count
    whose eigenvalue is above 0.001 of the largest: along a collapsed latent the decoder hardly moves, and how much
    that bends, for its length, says nothing. A point at which the decoder does not move at all has no curvature and is
    left out; not a number if all are.

    Caveat. Any linear decoder has 0, and so has a piecewise linear one (ReLU), which bends in its creases alone: this
    is to be read beside the reconstruction, and not to be asked of the latter.

    Parameters
    ----------
    gram
        Inner products of first and second derivatives at each point, (n_points, k, k).
    n_latent
        d.

    Raises
    ------
    ValueError
        If the shape is not of that many latents, or values are not finite.
    """
    tangent, whole = _squared_second_derivatives(gram, n_latent)
    return _median(np.maximum(whole - tangent, 0.0))


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    reference="Kim, Sethna, Cohen, Sun (2026), bioRxiv 10.64898/2026.02.07.704615, Eq. 3; Bates & Watts (1980), "
    "J. R. Stat. Soc. B 42:1",
)
def parameter_effects_curvature(gram: ArrayLike, n_latent: int) -> float:
    """Squared curvature of the latent coordinates within the decoded manifold: how unevenly they rule it.

    ``median over points of Γ_κμν Γ_λρσ g^κλ g^μρ g^νσ``, ``Γ_κμν = J_κ · H_μν``, ``g = JᵀJ``: the part of the second
    derivatives tangent to the manifold, which another layout of the latent space could remove. 0 if equal steps in
    latent space are equal steps in expression, 3/r² for a plane in polar coordinates, 0 for a cylinder in cylindrical
    ones. See the module for units, and :func:`extrinsic_curvature` for the median, for collapsed latents and for the
    caveat, which all hold here.

    Parameters
    ----------
    gram
        Inner products of first and second derivatives at each point, (n_points, k, k).
    n_latent
        d.

    Raises
    ------
    ValueError
        If the shape is not of that many latents, or values are not finite.
    """
    return _median(_squared_second_derivatives(gram, n_latent)[0])


def _squared_second_derivatives(gram: ArrayLike, n_latent: int) -> tuple[Floats, Floats]:
    """Squared norm of the second derivative along orthonormal tangents, its tangent part and the whole, (n_points,).

    Not a number where the decoder does not move.
    """
    inner = as_floats("gram", gram, 3)
    k = n_latent + n_latent * (n_latent + 1) // 2
    if n_latent < 1 or inner.shape[1:] != (k, k):
        raise ValueError(f"gram has shape {inner.shape}; (n_points, {k}, {k}) is needed for n_latent={n_latent}")
    lengths, axes = np.linalg.eigh(inner[:, :n_latent, :n_latent])
    active = lengths > ACTIVE * lengths[:, -1:]
    # columns: latent steps that decode to orthonormal tangents; zero for what does not count
    steps = axes * np.where(active, 1 / np.sqrt(np.where(active, lengths, 1.0)), 0.0)[:, None]
    i, j = np.triu_indices(n_latent)
    along = steps[:, i, :, None] * steps[:, j, None, :]
    along += (i != j)[:, None, None] * along.swapaxes(2, 3)
    along = along.reshape(len(inner), len(i), -1)
    tangent = steps.swapaxes(1, 2) @ inner[:, :n_latent, n_latent:] @ along
    whole = (inner[:, n_latent:, n_latent:] @ along) * along
    moves = np.where(active.any(axis=1), 1.0, np.nan)
    return moves * (tangent**2).sum(axis=(1, 2)), moves * whole.sum(axis=(1, 2))


def _median(values: Floats) -> float:
    """Median of the values that are numbers; not a number if there is none."""
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else float("nan")
