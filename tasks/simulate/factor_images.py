"""Small images of one shape with five independent factors, rendered here; after dSprites (Matthey et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]

SHAPES = ("ellipse", "rectangle", "triangle")
FACTORS = ("shape", "scale", "rotation", "x", "y")
N_LIBRARY = 20_000
SUBPIXELS = 4
"""Each pixel is the mean of SUBPIXELS² points of the scene, 0 or 1 each: anti-aliasing."""


def inside(shape: NDArray[np.int64], u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Tell which points of the plane lie in a shape.

    In its own frame, with its size as the unit, the ellipse has half axes 1 and .5; the rectangle is |u| ≤ .9,
    |v| ≤ .45; the triangle has its corners at (1, 0), (−.8, .7) and (−.8, −.7). None is the same after a
    rotation by less than a half turn.

    Parameters
    ----------
    shape
        Number in ``SHAPES``, (n,).
    u, v
        Coordinates in the shape's frame, (n, ...).
    """
    number = shape.reshape(-1, *[1] * (u.ndim - 1))
    ellipse = u**2 + (v / 0.5) ** 2 <= 1
    rectangle = (np.abs(u) <= 0.9) & (np.abs(v) <= 0.45)
    triangle = (u >= -0.8) & (np.abs(v) <= 0.7 * (1 - u) / 1.8)
    return np.where(number == 0, ellipse, np.where(number == 1, rectangle, triangle))


def render(factors: Floats, side: int = 16) -> Floats:
    """Return the images (n_images, side, side), grey levels in [0, 1]: the share of each pixel that the shape covers.

    Parameters
    ----------
    factors
        In the order of ``FACTORS``, (n_images, 5): number of the shape; size in pixels; rotation in radians,
        from the x axis towards the y axis; centre in pixels, from the left (x) and from the top (y).
    side
        Pixels in a row.
    """
    points = (np.arange(side * SUBPIXELS) + 0.5) / SUBPIXELS
    images = np.empty((len(factors), side, side))
    for start in range(0, len(factors), 500):  # the scenes of all images at once would take gigabytes
        shape, scale, rotation, x, y = (f[:, None, None] for f in factors[start : start + 500].T)
        dx, dy = points[None, None, :] - x, points[None, :, None] - y
        u = (np.cos(rotation) * dx + np.sin(rotation) * dy) / scale
        v = (np.cos(rotation) * dy - np.sin(rotation) * dx) / scale
        scene = inside(shape[:, 0, 0].astype(np.int64), u, v)
        images[start : start + 500] = scene.reshape(-1, side, SUBPIXELS, side, SUBPIXELS).mean(axis=(2, 4))
    return images


def draw_factors(rng: np.random.Generator, n_images: int, side: int) -> Floats:
    """Return independent factors (n_images, 5), in the order of ``FACTORS``, as :func:`simulate` says."""
    unit, middle = side / 16, side / 2
    return np.column_stack(
        [
            rng.integers(0, len(SHAPES), n_images),
            rng.uniform(3 * unit, 5 * unit, n_images),
            rng.uniform(-np.pi / 4, np.pi / 4, n_images),
            rng.uniform(middle - 3 * unit, middle + 3 * unit, n_images),
            rng.uniform(middle - 3 * unit, middle + 3 * unit, n_images),
        ]
    )


def factors_of(x: NDArray[Any], structure: Mapping[str, Any]) -> Floats:
    """Return the factors of the nearest of 20,000 images without noise, rendered here, (n_images, 5)."""
    from sklearn.neighbors import NearestNeighbors

    factors, images = _library(int(structure["side"]))
    return factors[NearestNeighbors(n_neighbors=1, algorithm="brute").fit(images).kneighbors(x)[1][:, 0]]


@cache
def _library(side: int) -> tuple[Floats, Floats]:
    factors = draw_factors(np.random.default_rng(92), N_LIBRARY, side)
    return factors, render(factors, side).reshape(N_LIBRARY, -1)


def simulate(rng: np.random.Generator, n_cells: int = 3000, side: int = 16, noise: float = 0.02) -> AnnData:
    """Draw independent factors and render them.

    Shape: one of three. Scale: uniform from 3 to 5 pixels of 16. Rotation: uniform within 45° of the x axis, to either
    side, so that no two angles look alike. x and y: uniform within 3 pixels of 16 from the middle.

    Parameters
    ----------
    rng
        Source of all randomness.
    n_cells, side
        Number of images; pixels in a row.
    noise
        Standard deviation of the Gaussian noise of each pixel.

    Returns
    -------
    AnnData
        ``X`` grey levels, row by row; ``obsm["factors"]`` (n_cells, 5) in the order of ``uns["factor_names"]``, the
        shape as its number; ``uns["structure"]``, for :func:`factors_of`. The environment is one for all.
    """
    import pandas as pd
    from anndata import AnnData

    factors = draw_factors(rng, n_cells, side)
    x = render(factors, side).reshape(n_cells, -1) + noise * rng.standard_normal((n_cells, side * side))
    obs = pd.DataFrame({"environment": np.repeat("all", n_cells)}, index=[f"image{i}" for i in range(n_cells)])
    data = AnnData(x.astype(np.float32), obs=obs, obsm={"factors": factors.astype(np.float32)})
    data.var_names = [f"row{row}_column{column}" for row in range(side) for column in range(side)]
    data.uns.update(factor_names=np.array(FACTORS), structure={"side": side}, X_units="grey level, 0 to 1, with noise")
    return data


FACTOR_IMAGES = Simulated(
    name="factor-images",
    summary="16 x 16 images of one shape: shape, scale, rotation, x and y, independent",
    paper="this suite; after dSprites, Matthey et al. 2017, github.com/deepmind/dsprites-dataset",
    fields=Fields(environment="environment", content=""),
    simulate=simulate,
    sizes={"smoke": {"n_cells": 500}, "paper": {"n_cells": 10_000}},
)
