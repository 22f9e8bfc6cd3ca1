"""Cells in this very process, one after another: for a debugger."""

from __future__ import annotations

from collections.abc import Sequence

from bench.cell import run_cell
from bench.executors import OnDone, OnStart
from bench.plan import Cell
from bench.store import Store


class InlineExecutor:
    """No process, no limits: a breakpoint in a method is hit, and a crash takes everything along."""

    def run(self, cells: Sequence[Cell], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Run all cells here."""
        for cell in cells:
            on_start(cell)
            result = run_cell(cell, store.fits)
            store.write(result)
            on_done(cell, result)
