"""Handwritten digits, plain and with a changed stroke (Morpho-MNIST, Castro et al. 2019).

- ``morpho-mnist``: the ``global`` set of the authors, 70,000 digits, each plain, thinned or thickened. Its six
  files come in one archive from a shared drive that no script can fetch.
- ``morpho-mnist-global``: made of MNIST with the authors' code and the recipe of that set: 18,000 training
  digits in one style each, and 1,500 test digits in all three (a local file).

``X`` is the grey level of 28 x 28 pixels, row by row, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import categories, read_idx, reading

if TYPE_CHECKING:
    from anndata import AnnData

SIDE = 28
STYLES = ("plain", "thin", "thick", "swollen", "fractured")  # the codes 0 to 4 of the perturbation files


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``morpho-mnist`` from images, digits and perturbations, of the training and of the test set."""
    images: list[np.ndarray] = []
    digits: list[np.ndarray] = []
    styles: list[np.ndarray] = []
    splits: list[np.ndarray] = []
    for split, (image_file, digit_file, style_file) in zip(("train", "test"), (raw[:3], raw[3:]), strict=True):
        images.append(_checked_images(read_idx(image_file, 3), image_file))
        for file, found, n_values in ((digit_file, digits, 10), (style_file, styles, len(STYLES))):
            codes = read_idx(file, 1)
            if len(codes) != len(images[-1]):
                raise DataError(
                    f"{file}: has {len(codes)} labels, expected {len(images[-1])}, one for each image of {image_file}; "
                    "take both from the same archive"
                )
            if codes.max(initial=0) >= n_values:
                raise DataError(
                    f"{file}: has the label {codes.max()}, expected 0 to {n_values - 1}; get the original file again"
                )
            found.append(codes)
        splits.append(np.repeat(split, len(images[-1])))
    columns = {
        "digit": np.concatenate(digits),
        "style": np.array(STYLES)[np.concatenate(styles)],
        "split": np.concatenate(splits),
    }
    return _made(np.concatenate(images), columns)


def build_global(raw: Sequence[Path]) -> AnnData:
    """Build ``morpho-mnist-global`` from its arrays; ``source`` is the digit that an image was made of."""
    (file,) = raw
    with reading(file, "an .npz file"), np.load(file) as stored:
        arrays = dict(stored)
    parts: dict[str, list[np.ndarray]] = {"x": [], "y": [], "style": [], "source_index": [], "thickness_original": []}
    splits = ("train", "test")
    absent = [f"{part}_{split}" for part in parts for split in splits if f"{part}_{split}" not in arrays]
    if absent or "style_names" not in arrays:
        raise DataError(
            f"{file}: has no array {', '.join(absent or ['style_names'])}, expected it among {', '.join(arrays)}; give "
            "the file that the catalogue names"
        )
    for part, found in parts.items():
        found.extend(arrays[f"{part}_{split}"] for split in splits)
    split = np.repeat(splits, [len(each) for each in parts["x"]])
    source = np.concatenate(parts["source_index"])
    columns = {
        "digit": np.concatenate(parts["y"]),
        "style": arrays["style_names"][np.concatenate(parts["style"])],
        "split": split,
        "source": [f"{where}-{index}" for where, index in zip(split, source, strict=True)],
    }
    data = _made(np.concatenate([_checked_images(each, file) for each in parts["x"]]), columns)
    data.obs["thickness_original"] = np.concatenate(parts["thickness_original"])
    return data


def _checked_images(images: np.ndarray, file: Path) -> np.ndarray:
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{file}: has images of {images.shape[1:]}, expected {SIDE} x {SIDE}; get the original file")
    return images.reshape(len(images), -1)


def _made(images: np.ndarray, columns: dict[str, Any]) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    pixels = [f"row{row:02}_column{column:02}" for row in range(SIDE) for column in range(SIDE)]
    return AnnData(
        images,
        obs=categories(columns, np.arange(len(images))),
        var=pd.DataFrame(index=pixels),
        uns={"X_units": "grey level, 0 to 255"},
    )


def prepare(built: AnnData) -> AnnData:
    """Divide the grey levels by 255."""
    built.X = built.X.astype(np.float32) / np.float32(255)
    built.uns["X_units"] = "grey level, 0 to 1"
    return built


_REFERENCE = "Castro et al. 2019, J Mach Learn Res 20(178):1"

MORPHO_MNIST = RealDataset(
    name="morpho-mnist",
    summary="handwritten digits, plain, thinned or thickened (the authors' files): 70,000 x 784",
    paper=_REFERENCE,
    licence="MIT of the repository; MNIST is CC BY-SA 3.0",
    fields=Fields(environment="style", content="digit", control="plain"),
    sources=tuple(
        Source(f"raw/morpho-mnist/global/{split}-{part}-ubyte.gz")
        for split in ("train", "t10k")
        for part in ("images-idx3", "labels-idx1", "pert-idx1")
    ),
    builder="tasks.datasets.morpho:build",
    prepare="tasks.datasets.morpho:prepare",
)

MORPHO_MNIST_GLOBAL = RealDataset(
    name="morpho-mnist-global",
    summary="handwritten digits, plain, thinned or thickened (a local file made of MNIST): 22,500 x 784",
    paper=_REFERENCE,
    licence="MIT of the code that made it; MNIST is CC BY-SA 3.0",
    fields=Fields(environment="style", content="digit", replicate="source", control="plain"),
    sources=(
        Source(
            "morpho_mnist_global.npz", 4_074_665, "562e4af417f8bf41523cfbadf37c2d98876dfbad5c57d30d953170035b8ccc38"
        ),
    ),
    builder="tasks.datasets.morpho:build_global",
    prepare="tasks.datasets.morpho:prepare",
)
