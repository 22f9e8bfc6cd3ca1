"""Handwritten digits, plain and with thickened strokes: the image form of an unseen-condition problem.

The images are scikit-learn's (1,797 of 8 x 8 pixels, Alpaydin & Kaynak 1998), which ship with the dependency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated

if TYPE_CHECKING:
    from anndata import AnnData

SIDE = 8


def dilated(images: np.ndarray, size: int = 2) -> np.ndarray:
    """Return the grey dilation of images (n_images, side, side): each pixel the largest of its neighbourhood.

    The neighbourhood is the square of ``size`` pixels that has the pixel at its upper left (``size`` 2) or in its
    centre (3); it ends at the border. It thickens strokes by ``size`` − 1 pixels.
    """
    from scipy.ndimage import grey_dilation

    return grey_dilation(images, size=(1, size, size), mode="nearest")


def simulate(rng: np.random.Generator, n_per_digit: int = 170, size: int = 2) -> AnnData:
    """Deal the images of each digit to two styles: half of them stay plain, the other half are thickened.

    Each image occurs in one style alone, so there are no pairs.

    Parameters
    ----------
    rng
        Which images are taken, and which of them thickened.
    n_per_digit
        Images of each digit; there are 174 of the rarest.
    size
        Width of the dilation: how far the thick style is from the plain one.

    Returns
    -------
    AnnData
        ``X`` grey levels, pixel / 16, of the pixels row by row; ``uns["truth"]`` maps ``"digit|style"`` to the mean
        image (64,) of *all* images of the digit in that style, so that both styles are of the same digits.
    """
    import pandas as pd
    from anndata import AnnData
    from sklearn.datasets import load_digits

    source = load_digits()
    plain = source.images / 16.0
    thick = dilated(plain, size)
    chosen = [rng.permutation(np.flatnonzero(source.target == digit))[:n_per_digit] for digit in range(10)]
    images = np.concatenate(chosen)
    is_thick = np.concatenate([np.arange(len(own)) >= len(own) // 2 for own in chosen])
    x = np.where(is_thick[:, None, None], thick[images], plain[images]).reshape(len(images), -1)

    digits = source.target.astype(str)
    obs = pd.DataFrame(
        {"digit": digits[images], "style": np.where(is_thick, "thick", "plain")},
        index=[f"image{i}" for i in images],
    )
    data = AnnData(np.ascontiguousarray(x, dtype=np.float32), obs=obs)
    data.var_names = [f"row{row}_column{column}" for row in range(SIDE) for column in range(SIDE)]
    data.uns["truth"] = {
        f"{digit}|{style}": versions[digits == digit].mean(axis=0).ravel()
        for digit in np.unique(digits)
        for style, versions in (("plain", plain), ("thick", thick))
    }
    data.uns["X_units"] = "grey level, 0 to 1: pixel / 16"
    return data


DIGITS = Simulated(
    name="digits",
    summary="handwritten digits (scikit-learn's, 8 x 8), plain or with strokes thickened by a grey dilation",
    paper="Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI data set 80",
    fields=Fields(environment="style", content="digit", control="plain"),
    simulate=simulate,
    sizes={"smoke": {"n_per_digit": 80}},
    licence="CC BY 4.0 (the images); BSD-3-Clause of scikit-learn, which ships them",
)
