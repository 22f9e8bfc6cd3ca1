"""A fresh process for every job on this machine, with a limit on its time and its memory, and a share of a GPU."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import util
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from bench.jobs.executors import OnDone, OnStart
from bench.jobs.job import result_of, run_stack
from bench.keep.store import Store
from bench.plan.order import Turns, stacks
from bench.plan.resources import uses_gpu
from bench.records import Job, Result, Status

#: Tells the fork server, which is started with this environment, what to preload: methods, then plugins.
PRELOAD = "BENCH_PRELOAD"
#: Processes that share a GPU at most: they take turns on it, and 15 took a minute for fits of a few seconds.
MOST_ON_A_GPU = 6
#: How many times the start of a job's process is tried.
ATTEMPTS = 5


@dataclass
class _Running:
    """A process of one job, or of jobs that share a process; ``ended`` says why it was killed, if it was."""

    jobs: list[Job]
    process: BaseProcess
    deadline: float
    device: str | None
    #: Processes that the kernel had killed for lack of memory when this one started.
    kernel_kills: int
    peak_mb: float = 0.0
    ended: tuple[Status, str] | None = field(default=None)


class LocalExecutor:
    """Processes on this machine.

    Each job gets a process forked from a server that has imported the heavy libraries, so that a crash, a
    kill or a runaway allocation takes that job alone and no state leaks between jobs.

    Parameters
    ----------
    n_workers
        Processes at a time.
    time_limit
        Seconds a job may take; beyond, it is ended with status ``timeout``.
    memory_limit_mb
        Resident memory that a job and what it starts may hold; beyond, ``out_of_memory``.
    devices
        GPUs, as CUDA_VISIBLE_DEVICES names them: each job that uses one is given that with the fewest running jobs,
        and waits while all have ``MOST_ON_A_GPU``; any other job is given none. With None a job sees what this process
        sees.
    """

    def __init__(self, n_workers: int, time_limit: float, memory_limit_mb: float, devices: Sequence[str] | None = None):
        self.n_workers = n_workers
        self.time_limit = time_limit
        self.memory_limit_mb = memory_limit_mb
        self.devices = devices

    def run(self, jobs: Sequence[Job], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Run all jobs; on an interrupt end the running ones, whose jobs then have no result."""
        os.environ[PRELOAD] = ",".join(sorted({job.name for job in jobs if _is_ours(job.name)}))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.jobs.executors.preload"])
        (store.out / "logs").mkdir(exist_ok=True)
        waiting, running, ended = stacks(jobs), list[_Running](), list[_Running]()
        turns = Turns()
        try:
            while waiting or running or ended:
                while len(running) < self.n_workers and (chosen := self._choose(waiting, running, turns)):
                    stack, device = chosen
                    waiting.remove(stack)
                    # in the list before it starts: an interrupt in between would leave a process that no one ends
                    running.append(self._prepare(context, stack, device, store))
                    _start(running[-1].process)
                    for job in stack:
                        on_start(job)
                # after the next jobs have started: this takes longer than a start
                for worker in ended:
                    waiting[:0] = self._settle(worker, store, on_done)
                if running:
                    wait([worker.process.sentinel for worker in running], timeout=0.25)
                sessions = _sessions()
                for worker in running:
                    self._watch(worker, sessions)
                ended = [worker for worker in running if worker.process.exitcode is not None]
                for worker in ended:
                    _end_group(worker.process)  # what the job started, or the job itself if the fork server died
                    running.remove(worker)
                    turns.done(worker.jobs)
        finally:
            for worker in running:
                _kill(worker.process)

    def _choose(
        self, waiting: Sequence[list[Job]], running: Sequence[_Running], turns: Turns
    ) -> tuple[list[Job], str | None] | None:
        """Return the next jobs that can start now and the GPU that they get, "" for none."""
        at_work = [worker.jobs for worker in running]
        if self.devices is None:
            jobs = turns.next(waiting, at_work)
            return (jobs, None) if jobs else None
        taken = Counter(worker.device for worker in running)
        freest = min(self.devices, key=lambda device: taken[device])
        if taken[freest] >= MOST_ON_A_GPU:
            waiting = [jobs for jobs in waiting if not uses_gpu(jobs[0])]
        jobs = turns.next(waiting, at_work)
        return (jobs, freest if uses_gpu(jobs[0]) else "") if jobs else None

    def _prepare(self, context: Any, jobs: list[Job], device: str | None, store: Store) -> _Running:
        """Return a process of jobs that has not started."""
        # a result of an earlier attempt must not be taken for this one's
        for job in jobs:
            store.file(job.id).unlink(missing_ok=True)
        process = context.Process(target=_work, args=(jobs, device, store.out, dict(os.environ)), name=jobs[0].title)
        limit = self.time_limit * max(len(jobs), jobs[0].n_stacked)
        return _Running(jobs, process, time.monotonic() + limit, device, _kernel_kills())

    def _watch(self, worker: _Running, sessions: Mapping[int, Sequence[int]]) -> None:
        """End a process that has outrun its time or outgrown its memory."""
        if worker.process.exitcode is not None or worker.ended or worker.process.pid is None:
            return
        held = _memory_mb(sessions.get(worker.process.pid, ()))
        worker.peak_mb = max(worker.peak_mb, held)
        if time.monotonic() > worker.deadline:
            worker.ended = Status.TIMEOUT, f"ran longer than {self.time_limit:g} s (--resources minutes=…)"
        elif held > self.memory_limit_mb:
            worker.ended = (
                Status.OUT_OF_MEMORY,
                f"held {held:.0f} MB, more than {self.memory_limit_mb:.0f} MB (--resources memory=…)",
            )
        if worker.ended:
            _kill(worker.process)

    def _settle(self, worker: _Running, store: Store, on_done: OnDone) -> list[list[Job]]:
        """Report the results that the process wrote, or a result that says how the process ended.

        Where jobs shared the process, those without a result are returned, to be run alone: one may have killed it.
        """
        log, again = _log(store.out, worker.jobs[0]), list[list[Job]]()
        for job in worker.jobs:
            result = store.read(job.id)
            if result is not None:
                if log.exists() and not log.stat().st_size:
                    log.unlink()
            elif job.n_stacked > 1 or len(worker.jobs) > 1:
                again.append([job.alone()])
                continue
            else:
                result = self._ended(worker, job, log)
                store.write(result)
            on_done(result)
        return again

    def _ended(self, worker: _Running, job: Job, log: Path) -> Result:
        """Return a result that says how the process ended without one."""
        code = worker.process.exitcode or 0
        if worker.ended:
            status, reason = worker.ended
        elif code == -signal.SIGKILL and _kernel_kills() > worker.kernel_kills:
            status, reason = (
                Status.OUT_OF_MEMORY,
                f"the kernel ended the process, which last held {worker.peak_mb:.0f} MB",
            )
        elif code < 0:
            status, reason = (
                Status.KILLED,
                f"the process was ended by {signal.Signals(-code).name}; it printed to {log}",
            )
        else:
            status, reason = Status.FAILED, f"the process ended with code {code} and no result; it printed to {log}"
        return result_of(job, status, reason, peak_memory_mb=worker.peak_mb)


def _start(process: BaseProcess) -> None:
    """Start a process of jobs; a fork server that was killed is started again."""
    for _ in range(ATTEMPTS):
        try:
            with _no_main():
                process.start()
            return
        except (EOFError, ConnectionError):
            time.sleep(0.2)
    raise ChildProcessError(f"the fork server ended {ATTEMPTS} times as it was to start a job; see what it printed")


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Let a process start without the caller's main module.

    A job needs nothing of it, and multiprocessing would run it again in every process: a script without
    ``if __name__ == "__main__"`` would plan the whole run anew there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(jobs: list[Job], device: str | None, out: Path, environment: dict[str, str]) -> None:
    """Run jobs in this process, which was started for them; its output goes to a file named after the first job."""
    os.setsid()  # so that the job's own children can be ended with it
    # the fork server has the environment of the first run, which may have changed
    os.environ.clear()
    os.environ.update(environment)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    threading.Thread(target=_die_with_head, daemon=True).start()
    try:
        log = os.open(_log(out, jobs[0]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    except OSError as error:
        raise SystemExit(f"{jobs[0].title}: its log cannot be written: {error}") from error
    for stream in (1, 2):
        os.dup2(log, stream)
    faulthandler.enable()
    store = Store(out)
    for result in run_stack(jobs, store.fits):
        store.write(result)
    # otherwise multiprocessing's tracker of semaphores does this at the end of the run, with a warning
    util._run_finalizers()  # type: ignore[attr-defined]  # the stubs lack it
    # tearing the interpreter down would take as long as starting a job
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _kernel_kills() -> int:
    """Return how many processes of this machine the kernel has killed for lack of memory; 0 where it does not say.

    If somebody kills a job just when the kernel ends another process, the job is taken for one that the kernel ended.
    """
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _log(out: Path, job: Job) -> Path:
    return out / "logs" / f"{job.id}.log"


def _die_with_head() -> None:
    """End this process when the head is gone: nobody would take its result, and the next head starts it again."""
    head = multiprocessing.parent_process()
    if head is not None:
        head.join()
        os.killpg(0, signal.SIGKILL)


def _is_ours(name: str) -> bool:
    """Return whether a method is of the suite or of an installed package, and not of a user's file."""
    from methods import METHODS

    return name in METHODS and METHODS[name].__module__.startswith("methods.")


def _sessions() -> dict[int, list[int]]:
    """Return the processes of each session: a job leads one, and what it starts belongs to it.

    One look at all processes serves all jobs; on a node with thousands of them each job's own look would take longer
    than the time between two.
    """
    sessions: dict[int, list[int]] = {}
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            sessions.setdefault(os.getsid(pid), []).append(pid)
    return sessions


def _memory_mb(pids: Iterable[int]) -> float:
    """Return the resident memory of processes; one that is gone holds none."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_info().rss
    return total / 2**20


def _kill(process: BaseProcess) -> None:
    """End a job's process and whatever it has started; one that never started is left."""
    if process.pid is None:
        return
    if process.exitcode is None:
        _end_group(process)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    process.join()


def _end_group(process: BaseProcess) -> None:
    """End a job's process group; before the child has made it, and after it has ended, there is none."""
    if process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
