"""How long cells take: from what has been measured in the out directory, else scaled from a preflight, else a guess."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan import Cell
from bench.resources import uses_gpu
from bench.schedule import longest_first, makespan, passes
from bench.store import FINISHED

if TYPE_CHECKING:
    import pandas as pd

#: Seconds a cell and million values (cells × genes), of a trained network and of anything else: guesses, on the
#: long side (12 minutes were said for a default run that took 7), used until something has been measured.
ROUGH = {"smoke": (1.5, 0.5), "default": (8.0, 0.8), "paper": (60.0, 2.0)}

#: Where a preflight has its cells, in an out directory.
PREFLIGHT = "preflight"
#: Of a fit in a preflight so many seconds, and at most that part of it, go on what does not grow with data and epochs;
#: early stopping ends a fit after so much of its epochs, as a rule. With these, the default cells of three autoencoders
#: on two simulated tasks were said to take 1 to 4 times what they took.
STARTUP, STARTUP_PART, EPOCHS_USED = 0.3, 0.75, 0.5

#: Seconds of a run before its first cell and after its last, and between two cells until that has been measured.
AROUND, BETWEEN = 8.0, 0.05

#: How well the time of some cells is known, from the best to the worst.
MEASURED, TRIED, GUESSED = (
    "from earlier cells here",
    "from a preflight: rough",
    "rough: not all of it has been measured here yet",
)


class Estimate:
    """Seconds that a cell is expected to take.

    Parameters
    ----------
    rows
        Tidy results of earlier runs; may be empty.
    sizes
        Million values of each task's data.
    tried
        Tidy results of a preflight (:mod:`bench.preflight`), of the smoke preset.
    """

    def __init__(self, rows: pd.DataFrame, sizes: Mapping[str, float], tried: pd.DataFrame | None = None):
        self.sizes = sizes
        #: Seconds and number of cells by task, preset and method, and by these and the unit.
        self._spent: dict[tuple[str, ...], tuple[float, int]] = {}
        ended = rows[rows["status"].isin(FINISHED)].drop_duplicates("cell_id")
        starts, ends = ([_moment(text) for text in ended[name]] for name in ("started", "finished"))
        for row, start, end in zip(ended.to_dict("records"), starts, ends, strict=True):
            self._add(row, (end - start) / row["replicas"])
        self.between = _between(starts, ends)
        self._tried: dict[tuple[str, str], Mapping[str, float]] = {}
        if tried is not None:
            for row in tried[tried["status"] == "ok"].drop_duplicates("cell_id").to_dict("records"):
                self._tried[row["task"], row["method"]] = {
                    "fit": row["fit_seconds"],
                    "evaluate": row["evaluate_seconds"],
                    "values": row["n_cells"] * row["n_genes"] / 1e6,
                    "epochs": json.loads(row["config"]).get("max_epochs", 1),
                }

    def learn(self, result: Mapping[str, Any]) -> None:
        """Take in how long a cell took."""
        if result["status"] in FINISHED:
            spent = _moment(result["finished"]) - _moment(result["started"])
            self._add(result["cell"], spent / max(1, len(result["cell"]["replicas"])))

    def _add(self, cell: Mapping[Any, Any], seconds: float) -> None:
        kind = cell["task"], cell["preset"], cell["method"]
        for key in (kind, (*kind, cell["unit"])):
            total, number = self._spent.get(key, (0.0, 0))
            self._spent[key] = total + seconds, number + 1

    def seconds(self, cell: Cell) -> float:
        """Return the mean of the method's cells on that unit, or task, else what a preflight or a guess says.

        That is of the time that went by, so that fits which other cells had made are in it as they were found.
        """
        for key in ((*_kind(cell), cell.unit), _kind(cell)):
            if key in self._spent:
                total, number = self._spent[key]
                return total / number
        tried = self._tried.get((cell.task, cell.method))
        if tried is not None:
            return self._scaled(cell, tried)
        return ROUGH[cell.preset][0 if uses_gpu(cell) else 1] * max(1.0, self.sizes[cell.task])

    def costs(self, cells: Iterable[Cell]) -> dict[str, float]:
        """Return the seconds of each cell by its id; those of a pass pay for all of its replicas."""
        return {
            cell.id: self.seconds(cell) * max(1, len(cell.replicas)) / len(together)
            for together in passes(cells)
            for cell in together
        }

    def _scaled(self, cell: Cell, tried: Mapping[str, float]) -> float:
        """Scale the smoke cell's fit by values and epochs.

        Its evaluation is taken as it is: that of small data is mostly what does not grow, and real data are as large
        in a preflight as in a run.
        """
        larger = max(1.0, self.sizes[cell.task] / tried["values"]) if tried["values"] else 1.0
        longer = max(1.0, EPOCHS_USED * cell.config.get("max_epochs", 1) / tried["epochs"])
        growing = tried["fit"] - min(STARTUP, STARTUP_PART * tried["fit"])
        return tried["evaluate"] + tried["fit"] + growing * (larger * longer - 1)

    def left(self, cells: Iterable[Cell], jobs: int) -> float:
        """Return the seconds until the last of ``jobs`` processes ends, the longest cells first."""
        cells = list(cells)
        costs = self.costs(cells)
        together = passes(longest_first(cells, costs))
        return makespan([self.between + sum(costs[cell.id] for cell in one) for one in together], jobs)

    def total(self, cells: Iterable[Cell], jobs: int) -> tuple[float, str]:
        """Return the seconds of a run of all cells on ``jobs`` processes, and how well they are known."""
        cells = list(cells)
        unmeasured = [cell for cell in cells if _kind(cell) not in self._spent]
        tried = all((cell.task, cell.method) in self._tried for cell in unmeasured)
        basis = MEASURED if not unmeasured else TRIED if tried else GUESSED
        return AROUND + self.left(cells, jobs), basis


def tried(out: Path) -> pd.DataFrame | None:
    """Return the rows of the preflight in an out directory, if there has been one."""
    import pandas as pd

    file = out / PREFLIGHT / "results.parquet"
    return pd.read_parquet(file) if file.exists() else None


def _between(starts: Iterable[float], ends: Iterable[float]) -> float:
    """Return the seconds from a cell's end to the start of the next in its place, as a rule.

    Each start is put to the last end before it that has no start yet. Of these gaps the lower quartile is taken: some
    hold a pause between runs, or cells whose results are gone.
    """
    free, gaps = list[float](), list[float]()
    for moment, is_start in sorted([*((one, 0) for one in ends), *((one, 1) for one in starts)]):
        if not is_start:
            free.append(moment)
        elif free:
            gaps.append(moment - free.pop())
    return sorted(gaps)[len(gaps) // 4] if gaps else BETWEEN


def _moment(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _kind(cell: Cell) -> tuple[str, ...]:
    """Return what cells have in common that take about as long."""
    return cell.task, cell.preset, cell.method
