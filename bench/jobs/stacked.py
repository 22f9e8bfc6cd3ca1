"""Stacked fits: jobs that differ in their seed, on a GPU also in their unit, whose networks are trained side by side.

Each job is evaluated in a thread of its own, and one thread runs at a time, so that a task may do anything between its
fits. A thread that comes to a fit waits until all threads have come to one; then the fits are made and all go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

    from methods.base import Method


@dataclass
class StackedFit:
    """A fit that a job waits for, with its outcome; ``place`` is the job's among those of the stack."""

    method: Method
    data: AnnData
    seed: int
    place: int
    seconds: float = 0.0
    error: Exception | None = None
    made: threading.Event = field(default_factory=threading.Event)


class Stack:
    """The place where the threads of jobs meet.

    Parameters
    ----------
    make
        Fits the methods of requests, which are of one class and configuration, and notes seconds and errors.
    """

    def __init__(self, make: Callable[[Sequence[StackedFit]], None]):
        self._make = make
        self._running = threading.Lock()
        self._changed = threading.Condition()
        self._at_work = 0
        self._requests: list[StackedFit] = []
        self._here = threading.local()

    def fit(self, method: Method, data: AnnData, seed: int) -> tuple[Method, float]:
        """Return the method when it has been fitted, and the seconds that it took. Called in a job's thread."""
        request = StackedFit(method, data, seed, self._here.place)
        with self._changed:
            self._requests.append(request)
            self._at_work -= 1
            self._changed.notify()
        self._running.release()
        request.made.wait()
        self._running.acquire()
        if request.error is not None:
            raise request.error
        return request.method, request.seconds

    def run(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Call functions, each of which may call :meth:`fit`, and return their results."""
        results: list[Any] = [None] * len(works)
        failures: list[BaseException] = []

        def do(number: int) -> None:
            self._here.place = number
            with self._running:
                try:
                    results[number] = works[number]()
                except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits for this one
                    failures.append(error)
                with self._changed:
                    self._at_work -= 1
                    self._changed.notify()

        self._at_work = len(works)
        threads = [threading.Thread(target=do, args=(number,), daemon=True) for number in range(len(works))]
        for thread in threads:
            thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._at_work)
                requests, self._requests = self._requests, []
                self._at_work = len(requests)
            if not requests:
                break
            with self._running:
                self._make(sorted(requests, key=lambda request: request.place))
            for request in requests:
                request.made.set()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return results
