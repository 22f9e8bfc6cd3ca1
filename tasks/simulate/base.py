"""A simulator as a data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.base import Fields
from tasks.datasets.built import made, write
from tasks.datasets.catalogue import built_directory
from tasks.datasets.reading import copies_of, of_genes

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Simulated:
    """A data set that a function of ours makes.

    Attributes
    ----------
    simulate
        ``simulate(rng, **parameters) -> AnnData`` with ``X``, ``layers["counts"]`` where there are counts,
        and the truth in ``obsm`` and ``uns``.
    parameters
        Arguments of every preset.
    sizes
        Arguments that a preset adds or replaces.
    """

    name: str
    summary: str
    paper: str
    fields: Fields
    simulate: Callable[..., AnnData]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    n_genes: int = 0
    simulated: bool = True
    licence: str = "BSD-3-Clause"

    def arguments(self, preset: str) -> dict[str, Any]:
        """Return the simulator's arguments at a preset."""
        return {**self.parameters, **self.sizes.get(preset, {})}

    def load(self, preset: str = "default", draw: int = 0, genes: np.ndarray | None = None) -> AnnData:
        """Return draw number ``draw``: simulated once, then read from the cache of built data sets."""
        import anndata

        file = built_directory() / "simulated" / f"{self.name}-{self.digest(preset)[:12]}-draw{draw}.h5ad"
        made(file, lambda temporary: write(self.make(preset, draw), temporary))
        data = anndata.read_h5ad(file)
        return data if genes is None else of_genes(data, genes)

    def make(self, preset: str = "default", draw: int = 0) -> AnnData:
        """Simulate draw number ``draw``."""
        data = self.simulate(np.random.default_rng([draw, 2024]), **self.arguments(preset))
        copies_of(data)  # stored with the cells, so that no job looks for them again
        return self.fields.attach(data)

    def digest(self, preset: str = "default") -> str:
        """Return the digest of the simulators' sources and this one's arguments: they determine the cells."""
        source = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
        arguments = json.dumps(self.arguments(preset), sort_keys=True)
        return hashlib.sha256(source + arguments.encode() + self.name.encode()).hexdigest()

    def missing(self) -> str | None:
        """Return None: it is made here."""
        return None


def log1p_cp10k(counts: np.ndarray) -> np.ndarray:
    """Return log(1 + counts · 10⁴ / library) as float32; a cell without counts stays at zero."""
    library = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.log1p(counts * (1e4 / library)).astype(np.float32)
