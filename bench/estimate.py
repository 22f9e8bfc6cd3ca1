"""How long cells take: from what has been measured in the out directory, else a rough guess."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bench.plan import Cell
from methods import METHODS

if TYPE_CHECKING:
    import pandas as pd

#: Seconds a cell and million values (cells × genes), of a trained network and of anything else: guesses, on the
#: long side (12 minutes were said for a default run that took 7), used until something has been measured.
ROUGH = {"smoke": (1.5, 0.5), "default": (8.0, 0.8), "paper": (60.0, 2.0)}


class Estimate:
    """Seconds that a cell is expected to take.

    Parameters
    ----------
    rows
        Tidy results of earlier runs; may be empty.
    sizes
        Million values of each task's data.
    """

    def __init__(self, rows: pd.DataFrame, sizes: Mapping[str, float]):
        self.sizes = sizes
        ok = rows[rows["status"] == "ok"].drop_duplicates("cell_id")
        spent = ok["fit_seconds"] + ok["evaluate_seconds"]
        self._spent: dict[tuple[str, ...], tuple[float, int]] = {}
        for *kind, seconds in zip(ok["task"], ok["preset"], ok["method"], spent, strict=True):
            self._add(tuple(kind), seconds)

    def learn(self, cell: Cell, seconds: float) -> None:
        """Take in how long a cell took."""
        self._add(_kind(cell), seconds)

    def _add(self, kind: tuple[str, ...], seconds: float) -> None:
        total, number = self._spent.get(kind, (0.0, 0))
        self._spent[kind] = total + seconds, number + 1

    def seconds(self, cell: Cell) -> float:
        """Return the mean of the method's cells on that task and preset, or the guess."""
        if _kind(cell) in self._spent:
            total, number = self._spent[_kind(cell)]
            return total / number
        trained = cell.name in METHODS and "vae" in METHODS[cell.name].tags
        return ROUGH[cell.preset][0 if trained else 1] * max(1.0, self.sizes[cell.task])

    def total(self, cells: Iterable[Cell], jobs: int) -> tuple[float, bool]:
        """Return the seconds of all cells on ``jobs`` processes, and whether all of them have been measured."""
        cells = list(cells)
        measured = all(_kind(cell) in self._spent for cell in cells)
        return sum(self.seconds(cell) for cell in cells) / jobs, measured


def _kind(cell: Cell) -> tuple[str, ...]:
    """Return what cells have in common that take about as long."""
    return cell.task, cell.preset, cell.method
