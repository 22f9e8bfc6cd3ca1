"""Metrics of curvature: how far the manifold that a decoder spans in expression space is from a flat, even sheet.

All take Gram matrices of the decoder's derivatives at points z of the latent space: f: z → x, J_i = ∂f/∂z_i and
H_ij = ∂²f/∂z_i∂z_j, the rows being J_1 … J_d, then H_ij for i ≤ j, row by row; k = d + d(d + 1)/2 rows. x is in units
in which the data that the decoder was fitted to have a total variance of 1: derivatives of genes scaled to a mean
variance of 1 are divided by √n_genes. The curvatures are then dimensionless: 1 is the bend of a circle whose radius is
the root mean square distance of the data from their mean, 0 is none.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from metrics.arrays import Floats
from metrics.base import MetricInfo, family

ACTIVE = 1e-3
"""Squared length, relative to the longest, under which the decoded step in latent space counts as none."""

_REFERENCE = (
    "Kim, Sethna, Cohen, Sun (2026), bioRxiv 10.64898/2026.02.07.704615, Eq. {}; Bates & Watts (1980), "
    "J. R. Stat. Soc. B 42:1"
)


@family(
    extrinsic_curvature=MetricInfo(
        "lower",
        0.0,
        np.inf,
        _REFERENCE.format(4),
        "Squared curvature that belongs to the decoded manifold itself, however its latent space is laid out.",
    ),
    parameter_effects_curvature=MetricInfo(
        "lower",
        0.0,
        np.inf,
        _REFERENCE.format(3),
        "Squared curvature of the latent coordinates within the decoded manifold: how unevenly they rule it.",
    ),
)
def curvature(gram: Annotated[Floats, "n_points n_rows n_rows"], n_latent: int) -> dict[str, float]:
    """Compute both curvatures of a decoder from inner products of its first and second derivatives.

    With ``g = JᵀJ`` and N the projection on the directions normal to all J, medians over points:

    - ``extrinsic_curvature``: ``(N H_μν · N H_ρσ) g^μρ g^νσ``: 0 for a plane in any coordinates, 2/R² for a sphere,
      1/R² for a cylinder of radius R.
    - ``parameter_effects_curvature``: ``Γ_κμν Γ_λρσ g^κλ g^μρ g^νσ``, ``Γ_κμν = J_κ · H_μν``: the part of the second
      derivatives tangent to the manifold, which another layout of the latent space could remove. 0 if equal steps in
      latent space are equal steps in expression, 3/r² for a plane in polar coordinates, 0 for a cylinder in cylindrical
      ones.

    See the module for units. The median is used because the few points at which g nearly degenerates rule the mean.
    Only the eigenvectors of g count whose eigenvalue is above 0.001 of the largest: along a collapsed latent the
    decoder hardly moves, and the bend of so short a path says nothing. A point at which the decoder does not move at
    all has no curvature and is left out; not a number if all are.

    Caveat. Any linear decoder has 0, and so has a piecewise linear one (ReLU), which bends in its creases alone: read
    both beside the reconstruction, and do not ask them of a piecewise linear decoder.

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
    return {
        "extrinsic_curvature": _median(np.maximum(whole - tangent, 0.0)),
        "parameter_effects_curvature": _median(tangent),
    }


def _squared_second_derivatives(inner: Floats, n_latent: int) -> tuple[Floats, Floats]:
    """Squared norm of the second derivative along orthonormal tangents, its tangent part and the whole, (n_points,).

    Not a number where the decoder does not move.
    """
    k = n_latent + n_latent * (n_latent + 1) // 2
    if n_latent < 1 or inner.shape[1:] != (k, k):
        raise ValueError(f"gram has shape {inner.shape}; (n_points, {k}, {k}) is needed for n_latent={n_latent}")
    lengths, axes = np.linalg.eigh(inner[:, :n_latent, :n_latent])
    active = lengths > ACTIVE * lengths[:, -1:]
    # columns: latent steps that decode to orthonormal tangents; zero for directions that do not count
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
