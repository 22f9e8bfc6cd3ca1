"""Cells in this very process, one after another: for a debugger."""

from __future__ import annotations

from collections.abc import Sequence

from bench.cell import run_cells
from bench.executors import OnDone, OnStart
from bench.plan import Cell
from bench.schedule import passes
from bench.store import Store


class InlineExecutor:
    """No process, no limits: a breakpoint in a method is hit, and a crash takes everything along."""

    def run(self, cells: Sequence[Cell], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Run all cells here."""
        for together in passes(cells):
            for cell in together:
                on_start(cell)
            for cell, result in zip(together, run_cells(together, store.fits), strict=True):
                store.write(result)
                on_done(cell, result)
