"""In which order cells run: the longest first, and those that need one fit not at the same time."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence

from bench.plan import Cell


def passes(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return cells whose fits are made in one pass in one list, in order of the first; any other in a list alone."""
    together: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        key = (cell.task, cell.preset, cell.method, cell.unit, cell.replicas) if cell.replicas else (cell.id,)
        together.setdefault(key, []).append(cell)
    return list(together.values())


def longest_first(cells: Iterable[Cell], seconds: Mapping[str, float]) -> list[Cell]:
    """Return cells by the seconds, given by id, of their passes; equal ones stay in the order that they came in."""
    ordered = sorted(passes(cells), key=lambda together: -sum(seconds[cell.id] for cell in together))
    return [cell for together in ordered for cell in together]


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """Return when the last of ``jobs`` workers ends, each of which takes the next piece of work when it is free."""
    ends = [0.0] * jobs
    for one in seconds:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


class Turns:
    """Says which of the waiting passes is to start, so that a worker seldom waits for a fit that another makes.

    Units of a task, and tasks on one data set, may need one fit, as one to all data beside that without the unit.
    Which do, only their data say; those that may are of one method, configuration, data set and seed. The first of
    them is let through alone; what it has made is then on disk.
    """

    def __init__(self) -> None:
        self._made: set[str] = set()

    def next(self, waiting: Sequence[list[Cell]], running: Iterable[list[Cell]]) -> list[Cell] | None:
        """Return the first waiting pass whose fits nobody is making, else the first; None where none waits."""
        making = {_fit(cells[0]) for cells in running} - self._made
        return next((cells for cells in waiting if _fit(cells[0]) not in making), waiting[0] if waiting else None)

    def done(self, cells: list[Cell]) -> None:
        """Note that a pass has ended."""
        self._made.add(_fit(cells[0]))


def _fit(cell: Cell) -> str:
    if cell.role == "control":
        return cell.id
    return json.dumps([cell.data_digest, cell.name, cell.config, cell.replicas or cell.seed], sort_keys=True)
