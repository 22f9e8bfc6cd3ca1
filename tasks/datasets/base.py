"""The contract of a data set: where it comes from, what its columns mean, how it is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData


class DataError(ValueError):
    """The data are not what the task needs; the message names the file (or data set) and the column."""


@dataclass(frozen=True)
class Fields:
    """Which ``obs`` columns mean what. It travels inside the AnnData, as ``uns["fields"]``.

    Attributes
    ----------
    environment
        The out-of-distribution domain: condition, perturbation, group or study.
    content
        The content label: cell type, or cancer type.
    replicate
        The biological replicate: donor, patient, clone; empty where the data set has none.
    control
        The value of ``environment`` that is the control; empty where there is none.
    """

    environment: str
    content: str
    replicate: str = ""
    control: str = ""

    def attach(self, data: AnnData) -> AnnData:
        """Write this record into ``data.uns["fields"]`` and return ``data``."""
        data.uns["fields"] = asdict(self)
        return data

    @classmethod
    def of(cls, data: AnnData) -> Fields:
        """Read the record from ``data``."""
        return cls(**data.uns["fields"])


def labels(data: AnnData, role: str) -> np.ndarray:
    """Return each cell's label (n_cells,) as text, of the role "environment", "content" or "replicate"."""
    return data.obs[data.uns["fields"][role]].to_numpy(str)


class Dataset(Protocol):
    """What a task asks of a data set, real or simulated."""

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def summary(self) -> str:
        """What it holds, in a line."""

    @property
    def paper(self) -> str:
        """Whom to cite."""

    @property
    def licence(self) -> str:
        """The terms that the data come under."""

    @property
    def simulated(self) -> bool:
        """Whether a simulator of ours makes it."""

    @property
    def fields(self) -> Fields:
        """Which columns mean what."""

    @property
    def n_genes(self) -> int:
        """How many genes a benchmark uses, chosen anew in each training split; 0: all there are."""

    def load(self, preset: str = "default", draw: int = 0, genes: np.ndarray | None = None) -> AnnData:
        """Return the canonical AnnData: ``X`` C-contiguous float32 on the stated scale, ``uns["fields"]``.

        ``draw`` numbers independent draws of a simulator; a real data set has draw 0 alone. ``genes`` are the indices
        of those that are kept. Without them, in a data set with ``n_genes``, ``X`` and the counts may be sparse (CSR):
        all genes of all cells need not fit into memory.
        """

    def digest(self, preset: str = "default") -> str:
        """Return a SHA-256 that changes whenever what ``load`` returns may change."""

    def missing(self) -> str | None:
        """Return None if ``load`` can work, else the reason with the command that gets the data."""
