"""The status of an out directory, from its files alone: neither the run at work there nor MLflow is asked."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.keep.store import Store
from bench.keep.tracking import Ledger, default_uri
from bench.records import Result
from bench.records import Status as Ending
from tasks.command_line import command

#: Columns of the table of counts.
COUNTED = (*Ending, "to run", "outdated")
#: Seconds between two plain lines of ``--watch`` outside a terminal.
EVERY = 15.0
#: How many of the last failures are shown, and how many of the running jobs.
FAILURES, RUNNING = 5, 8
#: Seconds between two looks at the disk.
LOOK = 2.0


@dataclass(frozen=True)
class Standing:
    """The content of an out directory.

    Attributes
    ----------
    counts
        For each (task, preset) how many jobs ended how; ``to run`` are planned and have no result, ``outdated``
        have a result of earlier code, data or configuration.
    failures
        The last jobs that failed, latest first: id, title, status, reason.
    at_work
        Whether a run is at work there.
    running
        The jobs that run now: ``job``, ``title`` and ``started``, as :meth:`bench.keep.store.Store.write_now` has them.
    seconds_left
        How long the jobs that are planned may still take; None where nobody has said it.
    not_logged
        For each MLflow address how many results it does not have.
    n_fits, bytes
        Fits in the cache, and what files take on disk: ``fits`` and ``all``.
    out
        The directory.
    """

    counts: dict[tuple[str, str], Counter[str]]
    failures: list[tuple[str, str, str, str]]
    at_work: bool
    running: list[dict[str, str]]
    seconds_left: float | None
    not_logged: dict[str, int]
    n_fits: int
    bytes: dict[str, int]
    out: Path

    @property
    def total(self) -> Counter[str]:
        """The counts of all tasks."""
        return sum(self.counts.values(), Counter())


class Looker:
    """Looks at an out directory, again and again; a result that has not changed since is not read twice."""

    def __init__(self, store: Store):
        self.store = store
        self._seen: dict[Path, tuple[tuple[int, int], Result | None]] = {}

    def look(self) -> Standing:
        """Return how things stand now."""
        at_work = self.store.is_locked()  # before the results, so that the last look has all of them
        results = self._results()
        planned = {job_id: tuple(place) for job_id, place in self.store.plan()["jobs"].items()}
        current = set(planned.values())
        counts: dict[tuple[str, str], Counter[str]] = {}
        for result in results:
            job = result.job
            outdated = job.id not in planned and job.place in current
            of_task = counts.setdefault((job.task, job.preset), Counter())
            of_task["outdated" if outdated else result.status] += 1
        done = {result.job.id for result in results}
        for job_id, (_, _, task, _, _, preset) in planned.items():
            if job_id not in done:
                counts.setdefault((task, preset), Counter())["to run"] += 1
        now = self.store.now() if at_work else {"running": [], "ends": None}
        failed = sorted((r for r in results if not r.status.final), key=lambda r: r.finished, reverse=True)
        return Standing(
            counts=dict(sorted(counts.items())),
            failures=[(r.job.id, r.job.title, r.status, r.reason) for r in failed[:FAILURES]],
            at_work=at_work,
            running=now["running"],
            seconds_left=None if now["ends"] is None else max(0.0, now["ends"] - time.time()),
            not_logged=self._not_logged(results),
            n_fits=sum(1 for _ in self.store.fits.glob("*.safetensors")),
            bytes={"fits": size_of(self.store.fits), "all": size_of(self.store.out)},
            out=self.store.out,
        )

    def _results(self) -> list[Result]:
        """Return all results, without the parts that are large."""
        seen, self._seen = self._seen, {}
        for file in self.store.jobs.glob("*.json"):
            try:
                about = file.stat()
            except FileNotFoundError:  # tried again at this moment
                continue
            stamp = about.st_mtime_ns, about.st_size
            if file in seen and seen[file][0] == stamp:
                self._seen[file] = seen[file]
                continue
            result = self.store.read(file.stem)
            self._seen[file] = stamp, result and replace(result, scores={}, metrics={}, curves={}, picture={})
        return [result for _, result in self._seen.values() if result is not None]

    def _not_logged(self, results: list[Result]) -> dict[str, int]:
        default = default_uri(self.store.out)
        addresses = {entry[0] for entry in Ledger(self.store, default).logged} or {default}
        ledgers = {address: Ledger(self.store, address) for address in sorted(addresses)}
        return {address: sum(not ledger.has(r) for r in results) for address, ledger in ledgers.items()}


def watch(store: Store, console: Console, seconds: float = LOOK) -> Standing:
    """Show the status until no run is at work: in place in a terminal, else a line whenever something has changed."""
    looker = Looker(store)
    status = looker.look()
    if not console.is_terminal:
        said, last = "", -EVERY
        while status.at_work:
            line = summary(status)
            if line != said and time.monotonic() - last > EVERY:
                console.print(Text(line), soft_wrap=True)
                said, last = line, time.monotonic()
            time.sleep(seconds)
            status = looker.look()
        console.print(render(status))
        return status
    with Live(render(status), console=console, auto_refresh=False) as live:
        while status.at_work:
            time.sleep(seconds)
            status = looker.look()
            live.update(render(status), refresh=True)
    return status


def summary(status: Standing) -> str:
    """Return the counts of all tasks, and the time left, in a line."""
    total = status.total
    left = "" if status.seconds_left is None else f"; about {duration(status.seconds_left)} left"
    return (", ".join(f"{total[name]} {name}" for name in COUNTED if total[name]) or "no jobs") + left


def as_document(status: Standing) -> dict[str, Any]:
    """Return what ``status --json`` prints."""
    return {
        "at_work": status.at_work,
        "running": status.running,
        "seconds_left": status.seconds_left,
        "counts": {name.replace(" ", "_"): status.total[name] for name in COUNTED},
        "tasks": [
            {"task": task, "preset": preset, **{name.replace(" ", "_"): counts[name] for name in COUNTED}}
            for (task, preset), counts in status.counts.items()
        ],
        "failures": [
            dict(zip(("job", "title", "status", "reason"), failure, strict=True)) for failure in status.failures
        ],
        "not_logged": status.not_logged,
        "n_fits": status.n_fits,
        "bytes": status.bytes,
    }


def render(status: Standing) -> RenderableType:
    """Return a status as it is printed."""
    names = [name for name in COUNTED if name != "outdated" or status.total["outdated"]]
    table = Table("task", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    several = len({preset for _, preset in status.counts}) > 1
    for (task, preset), counts in status.counts.items():
        table.add_row(Text(f"{task} ({preset})" if several else task), *(str(counts[name]) for name in names))
    if len(status.counts) > 1:
        table.add_row("all", *(str(status.total[name]) for name in names), style="bold")
    left = "" if status.seconds_left is None else f", about {duration(status.seconds_left)} left"
    lines = [Text(f"a run is at work here{left}" if status.at_work else "no run is at work here")]
    for job in status.running[:RUNNING]:
        since = (datetime.now(UTC) - datetime.fromisoformat(job["started"])).total_seconds()
        lines.append(Text(f"  {job['title']}, for {duration(since)} (job {job['job']})", style="dim"))
    if len(status.running) > RUNNING:
        lines.append(Text(f"  and {len(status.running) - RUNNING} more", style="dim"))
    for job_id, name, how, reason in status.failures:
        lines.append(Text(f"{how}: {name}: {(reason.splitlines() or [''])[0]} (job {job_id})", style="red"))
    for address, number in status.not_logged.items():
        elsewhere = () if address == default_uri(status.out) else ("--mlflow-uri", address)
        how = f" ({command('sync', '--out', status.out, *elsewhere)} logs them)" if number else ""
        lines.append(Text(f"MLflow at {address}: {number} results not logged{how}"))
    lines.append(Text(f"{status.n_fits} fits, {mb(status.bytes['fits'])}; {mb(status.bytes['all'])} in all"))
    return Group(table, *lines)


def duration(seconds: float) -> str:
    """Return seconds in words: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size_of(directory: Path) -> int:
    """Return the bytes of all files below a directory; a file that vanishes meanwhile counts as none."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def mb(size: int) -> str:
    """Return a number of bytes in megabytes."""
    return f"{size / 1e6:,.1f} MB"
