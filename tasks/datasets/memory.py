"""Data sets made of others: cells held in memory, and some genes; and the digest of what a method can see of cells."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Dataset, Fields
from tasks.datasets.reading import of_genes

if TYPE_CHECKING:
    from anndata import AnnData


class Memory:
    """A data set held in memory: the rest of another data set, or cells that a user brought."""

    simulated = False
    paper = ""
    licence = ""

    def __init__(self, data: AnnData, name: str, n_genes: int = 0):
        self.name = name
        self.n_genes = n_genes
        self.summary = name
        self.fields = Fields.of(data)
        self._data = data

    def load(self, preset: str = "default", draw: int = 0, genes: np.ndarray | None = None) -> AnnData:
        """Return the cells."""
        return self._data if genes is None else of_genes(self._data, genes)

    def digest(self, preset: str = "default") -> str:
        """Return the digest of the cells' values and labels."""
        return digest(self._data)

    def missing(self) -> str | None:
        """Return None: the cells are here."""
        return None


class Selected:
    """A data set restricted to some of its genes."""

    n_genes = 0

    def __init__(self, whole: Dataset, genes: np.ndarray):
        self.whole, self.genes = whole, genes
        self.name, self.summary, self.paper = whole.name, whole.summary, whole.paper
        self.licence, self.simulated, self.fields = whole.licence, whole.simulated, whole.fields

    def load(self, preset: str = "default", draw: int = 0, genes: np.ndarray | None = None) -> AnnData:
        """Return the cells with these genes; ``genes`` chooses among them."""
        return self.whole.load(preset, draw, self.genes if genes is None else self.genes[genes])

    def digest(self, preset: str = "default") -> str:
        """Return the digest of the whole data set and of the genes."""
        return hashlib.sha256(self.whole.digest(preset).encode() + self.genes.tobytes()).hexdigest()

    def missing(self) -> str | None:
        """Return what the whole data set says."""
        return self.whole.missing()


def digest(data: AnnData) -> str:
    """Return the SHA-256 of everything in ``data`` that a method can see."""
    hashed = hashlib.sha256()
    x = np.ascontiguousarray(data.X)
    hashed.update(f"{x.shape}{x.dtype}".encode())
    hashed.update(x.data)
    if "counts" in data.layers:
        counts = data.layers["counts"]
        parts = (counts.data, counts.indices, counts.indptr) if hasattr(counts, "indptr") else (counts,)
        for part in parts:
            hashed.update(np.ascontiguousarray(part).data)
    for name in data.obs:
        hashed.update("\x1f".join([str(name), *data.obs[name].astype(str)]).encode())
    for names in (data.obs_names, data.var_names):
        hashed.update("\x1f".join(names).encode())
    about = [data.uns["fields"], str(data.uns.get("X_units", ""))]
    hashed.update(json.dumps(about, sort_keys=True).encode())
    return hashed.hexdigest()
