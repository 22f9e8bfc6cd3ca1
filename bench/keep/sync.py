"""Results that MLflow does not have yet, logged now."""

from __future__ import annotations

from dataclasses import dataclass

from bench.keep.boards import board_of
from bench.keep.store import Store, gather
from bench.keep.tracking import Tracker

#: The command's run where no run has been made here, as when result files were copied.
BROUGHT = {"invocation": "sync", "name": "copied results", "command": ""}


@dataclass(frozen=True)
class Synced:
    """How many results were logged now, how many are logged in all, and what went wrong, empty if nothing did."""

    logged: int
    total: int
    left: int
    error: str


def sync(store: Store, uri: str) -> Synced:
    """Log each result that an MLflow address does not have yet; the caller holds the lock.

    The results go with the last command given here, whose run is taken up again or made. What was logged
    before a head died and could not note it is found by its job's id and not made twice.
    """
    run = store.plan()["run"] or BROUGHT
    tracker = Tracker(uri, store, run["invocation"], run["name"], run["command"])
    results = list(store.results())
    lacking = [result for result in results if not tracker.ledger.has(result)]
    for result in lacking:
        tracker.log(result)
    well = all(result.status.final for result in results)
    shown = [store.out / name for name in ("results.parquet", "leaderboard.md", "leaderboard.csv", "leaderboard.html")]
    tracker.finish(
        "FINISHED" if well else "FAILED", [file for file in shown if file.exists()], {}, board_of([gather(results)])
    )
    left = sum(not tracker.ledger.has(result) for result in lacking)
    return Synced(len(lacking) - left, len(results) - left, left, tracker.error)
