"""A real data set of two tiny files, with its loader; ``TINY_LOG`` names the file that counts the builds."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tasks.datasets.base import Fields
from tasks.datasets.catalogue import RealDataset, Source

CONTENTS = {"matrix.txt": b"1 2\n3 4\n5 6\n7 8\n", "cells.txt": b"B control\nB treated\nNK control\nNK treated\n"}


def dataset(server: str = "http://127.0.0.1:9", published: bool = True) -> RealDataset:
    """``published`` False: no checksums are known; ``server`` empty: the user brings the files."""
    return RealDataset(
        name="tiny",
        summary="four cells",
        paper="none",
        licence="none",
        fields=Fields(environment="condition", content="cell_type", control="control"),
        sources=tuple(
            Source(
                f"raw/tiny/{name}",
                len(content) if published else None,
                hashlib.sha256(content).hexdigest() if published else None,
                f"{server}/{name}" if server else "",
            )
            for name, content in CONTENTS.items()
        ),
        builder="tiny_loader:build",
        prepare="tiny_loader:prepare",
    )


def build(raw: list[Path]) -> AnnData:
    matrix, cells = raw
    time.sleep(0.2)  # long enough for a second process to come along
    with open(os.environ["TINY_LOG"], "a") as log:
        log.write("built\n")
    obs = pd.read_csv(cells, sep=" ", names=["cell_type", "condition"])
    obs.index = obs.index.astype(str)
    return AnnData(np.loadtxt(matrix), obs=obs)


def build_nothing(raw: list[Path]) -> AnnData:
    raise RuntimeError("no data set today")


def prepare(built: AnnData) -> AnnData:
    built.X = np.log1p(built.X).astype(np.float32)
    return built
