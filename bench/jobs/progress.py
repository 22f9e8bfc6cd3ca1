"""Live progress in a terminal, plain lines elsewhere, and a note on disk for ``bench status``."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench.keep.status import duration
from bench.keep.store import Store
from bench.plan.cost import Estimate
from bench.records import Job, Result, Status

#: Seconds between two plain lines, unless something fails.
EVERY = 15.0
#: Seconds after which the time that is left is computed again.
RECKON = 2.0


class RunProgress:
    """Counts jobs done, failed, skipped and left, and says what runs now and how long it may take.

    A context manager: the display stands while it is entered.
    """

    def __init__(self, jobs: Sequence[Job], n_workers: int, estimate: Estimate, store: Store, console: Console):
        self.store = store
        self.console = console
        self.n_workers = n_workers
        self.estimate = estimate
        self.left = {job.id: job for job in jobs}
        self.running: dict[str, tuple[Job, str]] = {}
        self.counts: Counter[str] = Counter()
        self._said = time.monotonic()
        self._reckoned, self._left_seconds = float("-inf"), 0.0
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)
        self._task = self._bar.add_task("", total=len(jobs))
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> RunProgress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def start(self, job: Job) -> None:
        """Note that a job runs."""
        self.running[job.id] = job, datetime.now(UTC).isoformat()
        self._note()

    def done(self, result: Result) -> None:
        """Note how a job ended, and say so at once if it failed."""
        job, status = result.job, result.status
        self.running.pop(job.id, None)
        self.left.pop(job.id, None)
        self.estimate.learn(result)
        self.counts["done" if status == Status.OK else "skipped" if status == Status.SKIPPED else "failed"] += 1
        self._bar.advance(self._task)
        self._note()
        if not status.final:
            line = Text(f"{status}: {job.title}: {(result.reason.splitlines() or [''])[0]}")
            self.console.print(line, style="red", soft_wrap=True)
        elif not self.console.is_terminal and time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            self.console.print(Text(self._summary()), soft_wrap=True)

    def _note(self) -> None:
        """Store what runs now."""
        running = [{"job": job.id, "title": job.title, "started": at} for job, at in self.running.values()]
        with contextlib.suppress(OSError):  # a full disk costs the note, not the run
            self.store.write_now(running, time.time() + self._seconds_left())

    def _summary(self) -> str:
        counts = self.counts
        seconds = self._seconds_left()
        return (
            f"{counts['done']} done, {counts['failed']} failed, {counts['skipped']} skipped, {len(self.left)} left, "
            f"about {duration(seconds)}"
        )

    def _seconds_left(self) -> float:
        """Return the estimate of the time that is left, computed again every few seconds."""
        now = time.monotonic()
        if now > self._reckoned + RECKON:
            self._reckoned, self._left_seconds = now, self.estimate.left(list(self.left.values()), self.n_workers)
        return self._left_seconds

    def _render(self) -> Group:
        self._bar.update(self._task, description=self._summary())
        return Group(self._bar, *(Text(f"  {job.title}", style="dim") for job, _ in list(self.running.values())))
