"""Where cells run. An executor takes cells and reports each one's result, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bench.plan import Cell
from bench.store import Store

#: Called when a cell starts.
OnStart = Callable[[Cell], None]
#: Called with a cell's result when it ends, after the result is on disk.
OnDone = Callable[[Cell, dict[str, Any]], None]


class ExecutorError(Exception):
    """Cells cannot be run as was asked; the message says why and what to do."""


class Executor(Protocol):
    """Runs cells; every cell ends with a result on disk, however it ends."""

    def run(self, cells: Sequence[Cell], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Run all cells and return when the last has ended."""
