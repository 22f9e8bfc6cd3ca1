"""SLURM jobs on a cluster whose nodes share the out directory.

The head (this process) submits jobs as job arrays through submitit, one array for each resource class, and takes
each result as soon as it is on disk. What it has submitted is in ``slurm/state.json`` of the out directory, so that the
head may end: the same command takes up what is queued or runs, and submits nothing twice.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.jobs.executors import ExecutorError, OnDone, OnStart
from bench.jobs.executors.local import LocalExecutor
from bench.jobs.job import result_of
from bench.keep.files import read_sealed, write_sealed
from bench.keep.store import Store
from bench.plan.plugins import load_plugin
from bench.plan.resources import Resources
from bench.records import Job, PlanError, Result, Status

#: Short jobs share a SLURM job while their minutes sum up to no more.
BUNDLE_MINUTES = 60
#: Minutes and memory of a SLURM job beyond those of its jobs: for its start, and for the processes that watch them.
START_MINUTES, OVERHEAD_MB = 3, 1024
#: Array tasks of a job array; SLURM's own default limit is 1001.
ARRAY = 1000
#: How often the memory of a job that outgrew it is doubled.
DOUBLINGS = 3
#: How often a job is begun again whose SLURM job was lost: preempted, or its node failed.
AGAIN = 3
#: Seconds between two looks at the results, and between two questions to SLURM.
LOOK, ASK = 1.0, 5.0

#: States of a SLURM job that has not ended.
ALIVE = (
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    *("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"),
)
#: Line of slurmstepd in the log of a SLURM job that it ends for its memory; not every set-up has a state for it.
MEMORY_KILL = re.compile(r"slurmstepd.*(exceeded (job )?memory limit|oom.kill)", re.IGNORECASE)


@dataclass
class Task:
    """One task of a job array: the jobs that it runs one after another, and that have no result yet."""

    slurm_id: str
    jobs: list[str]
    #: Whether it had ended when SLURM was last asked. It is judged at the next look, when its last files are visible.
    ended: bool = False


@dataclass
class Submission:
    """A job array of one resource class; without tasks while it is being submitted."""

    resources: Resources
    tasks: list[Task] = field(default_factory=list)


class State:
    """The jobs that SLURM has, kept on disk: submissions by name, and how often each job's memory was doubled."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.file = directory / "state.json"
        self.attempts = directory / "attempts"
        self.attempts.mkdir(parents=True, exist_ok=True)
        kept = read_sealed(self.file) if self.file.exists() else {"submissions": {}, "doubled": {}}
        if kept is None or not {"submissions", "doubled"} <= set(kept):
            raise ExecutorError(
                f"{self.file}: not what was written there, so that it is not known which SLURM jobs are there; end "
                "those that squeue shows as bench-… (scancel), then remove it"
            )
        self.doubled: dict[str, int] = kept["doubled"]
        self._written: dict[str, Any] = {}
        self.submissions = {
            name: Submission(Resources(**one["resources"]), [Task(**task) for task in one["tasks"]])
            for name, one in kept["submissions"].items()
        }

    def write(self) -> None:
        """Keep it, without what has no jobs left."""
        for name, submission in list(self.submissions.items()):
            if submission.tasks and not any(task.jobs for task in submission.tasks):
                del self.submissions[name]
        content = {"submissions": {k: asdict(v) for k, v in self.submissions.items()}, "doubled": dict(self.doubled)}
        if content != self._written:
            write_sealed(content, self.file)
            self._written = content

    def tasks(self) -> list[tuple[Submission, Task]]:
        """Return all tasks that have jobs left."""
        return [(one, task) for one in self.submissions.values() for task in one.tasks if task.jobs]

    def tidy(self) -> None:
        """Remove the scripts, pickles and logs of earlier submissions."""
        for folder in self.directory.glob("bench-*"):
            if folder.name not in self.submissions:
                shutil.rmtree(folder)

    def slurm_ids(self) -> list[str]:
        """Return the SLURM jobs, arrays once, that have jobs left."""
        return sorted({task.slurm_id.partition("_")[0] for _, task in self.tasks()}, key=int)


class SlurmExecutor:
    """Job arrays on a SLURM cluster.

    Parameters
    ----------
    settings
        SLURM's settings (:data:`bench.options.SLURM`): ``time`` is the longest that a SLURM job may ask for, in
        minutes, ``gpus`` how many each job asks for that uses one, 0 for none.
    needs
        The resources of a job. One that outgrows its memory gets double, up to three times; one that outruns its
        minutes gets ``time_limit``, once.
    time_limit
        Minutes that a job may take.
    say
        Prints a line for the user.

    Raises
    ------
    ExecutorError
        SLURM's commands are not on this machine.
    PlanError
        ``time`` is too short to start a SLURM job.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        needs: Callable[[Job], Resources],
        time_limit: float,
        say: Callable[[str], None],
    ):
        if shutil.which("sbatch") is None:
            raise ExecutorError("--executor slurm: there is no sbatch here; run on a login node, or --executor local")
        if settings.get("time", math.inf) <= START_MINUTES:
            raise PlanError(
                f"--resources time={settings['time']}: a SLURM job needs more than {START_MINUTES} minutes to start"
            )
        self.settings = dict(settings)
        self.n_workers = self.settings["array_parallelism"]
        self.longest = self.settings.pop("time", math.inf) - START_MINUTES
        self.gpus = self.settings.pop("gpus", 0)
        self.needs = needs
        self.silent = False
        self.time_limit = min(time_limit, self.longest)
        self.say = say

    def run(self, jobs: Sequence[Job], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Submit the jobs that SLURM does not have yet and wait for all; an interrupt ends this head, not the jobs."""
        self.store, self.on_start, self.on_done = store, on_start, on_done
        self.jobs = {job.id: job for job in jobs}
        self.state = State(store.out / "slurm")
        self.started: set[str] = set()
        #: Results of jobs that have been submitted again with more memory or time.
        self.mended: dict[str, Result] = {}
        try:
            left = self._take_up()
            # unit by unit: jobs that share a fit fall into one bundle
            alike = sorted(jobs, key=lambda job: (job.task, job.unit, (*job.stack, job.seed)[0]))
            fresh = [job for job in alike if job.id not in left]
            for job in fresh:
                # what an earlier run left must not be taken for a result of this one
                (self.state.attempts / job.id).unlink(missing_ok=True)
                self.state.doubled.pop(job.id, None)
            self._submit({job.id: self._given(self.needs(job)) for job in fresh})
            asked = -math.inf
            while self._left():
                again = self._look()
                if time.monotonic() - asked > ASK:
                    again |= self._judge()
                    asked = time.monotonic()
                self._submit(again)
                self.state.write()
                time.sleep(LOOK)
        except KeyboardInterrupt:
            if slurm_ids := self.state.slurm_ids():
                self.say(f"SLURM jobs go on without this command; to end them: scancel {' '.join(slurm_ids)}")
            raise

    def _given(self, needs: Resources) -> Resources:
        """Return the resources of a job's first attempt, given its needs."""
        return replace(needs, gpu=needs.gpu and self.gpus > 0, minutes=min(needs.minutes, self.time_limit))

    def _left(self) -> set[str]:
        """Return the jobs asked for that are with SLURM."""
        return {job_id for _, task in self.state.tasks() for job_id in task.jobs if job_id in self.jobs}

    def _take_up(self) -> set[str]:
        """Go on from what an earlier head left; return the jobs asked for that are with SLURM."""
        for name, submission in list(self.state.submissions.items()):
            if not submission.tasks:
                # the head died while it submitted: whether SLURM has its jobs or not, their numbers are lost
                cancel(name)
                del self.state.submissions[name]
        ended = self._ended()
        for _, task in self.state.tasks():
            if ended.get(task.slurm_id) and not set(task.jobs) & set(self.jobs):
                task.jobs.clear()
        self.state.write()
        self.state.tidy()
        left = self._left()
        if left:
            self.say(f"{len(left)} jobs are with SLURM already, in SLURM jobs {', '.join(self.state.slurm_ids())}")
        return left

    def _ended(self) -> dict[str, Ended | None]:
        """Ask SLURM about its jobs that have jobs left; without an answer their state stays unknown."""
        try:
            ended = ask_slurm([task.slurm_id for _, task in self.state.tasks()])
        except subprocess.CalledProcessError as error:
            if not self.silent:
                self.say(f"SLURM does not answer ({error.stderr.strip()}); waiting for it")
            self.silent = True
            return {}
        self.silent = False
        return ended

    def _submit(self, wanted: Mapping[str, Resources]) -> None:
        """Submit jobs, each with its resources; a job that was begun before gets a SLURM job for itself."""
        begun = {job_id for job_id in wanted if attempts(self.store.out, job_id)}
        for resources, bundles in bundle(wanted, begun, min(BUNDLE_MINUTES, self.longest)).items():
            for first in range(0, len(bundles), ARRAY):
                self._submit_array(resources, bundles[first : first + ARRAY])

    def _submit_array(self, resources: Resources, bundles: list[list[str]]) -> None:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError

        name = f"bench-{uuid.uuid4().hex[:12]}"
        self.state.submissions[name] = submission = Submission(resources)
        self.state.write()
        jobs = [job_id for one in bundles for job_id in one]
        for job_id in jobs:
            self.store.file(job_id).unlink(missing_ok=True)
            self.started.discard(job_id)
        minutes = math.ceil(max(map(len, bundles)) * resources.minutes + START_MINUTES)
        memory_mb = resources.memory_mb + OVERHEAD_MB
        executor = AutoExecutor(self.state.directory / name, cluster="slurm")
        executor.update_parameters(
            name=name,
            timeout_min=minutes,
            mem_gb=memory_mb / 1024,
            cpus_per_task=resources.threads,
            # srun would make a step, which nothing here needs, and to which alone submitit's signals go
            slurm_use_srun=False,
            slurm_stderr_to_stdout=True,
            slurm_additional_parameters={"requeue": True},
            **({"gpus_per_node": self.gpus} if resources.gpu else {}),
            **{f"slurm_{key}": value for key, value in self.settings.items()},
        )
        work = [[self.jobs[job_id] for job_id in one] for one in bundles]
        n = len(bundles)
        try:
            slurm_jobs = executor.map_array(run_bundle, work, [resources] * n, [self.store.out] * n)
        except FailedJobError as error:
            del self.state.submissions[name]
            said = " ".join(str(error).split())
            self._refused(jobs, f"sbatch refused a SLURM job of {memory_mb} MB and {minutes} minutes: {said}")
            return
        submission.tasks = [Task(slurm_job.job_id, one) for slurm_job, one in zip(slurm_jobs, bundles, strict=True)]
        self.state.write()
        self.say(
            f"{len(jobs)} jobs in {n} tasks of SLURM job {slurm_jobs[0].job_id.partition('_')[0]}, each job with "
            f"{resources.memory_mb} MB, {resources.minutes:g} min{', GPU' if resources.gpu else ''}"
        )

    def _refused(self, jobs: Sequence[str], reason: str) -> None:
        """Accept results of jobs that more memory or time might have saved."""
        for job_id in jobs:
            if job_id not in self.mended:
                raise ExecutorError(f"{reason}; change --resources")
            result = replace(self.mended[job_id], reason=f"{self.mended[job_id].reason}; {reason}")
            self.store.write(result)
            self._report(result)

    def _report(self, result: Result) -> None:
        """Hand over a job's final result."""
        self.state.doubled.pop(result.job.id, None)
        self.on_done(result)

    def _look(self) -> dict[str, Resources]:
        """Take the results that are on disk; return the jobs to submit again."""
        there = {file.stem for file in self.store.jobs.glob("*.json")}
        begun = {file.name for file in self.state.attempts.iterdir()}
        again: dict[str, Resources] = {}
        for submission, task in self.state.tasks():
            for job_id in [job_id for job_id in task.jobs if job_id in self.jobs]:
                if job_id in begun - self.started:
                    self.started.add(job_id)
                    self.on_start(self.jobs[job_id])
                result = self.store.read(job_id) if job_id in there else None
                if result is not None:
                    again |= self._settle(task, job_id, submission.resources, result)
        return again

    def _judge(self) -> dict[str, Resources]:
        """Settle the jobs whose SLURM jobs have ended and left no result; return those to submit again."""
        ended = self._ended()
        again: dict[str, Resources] = {}
        for submission, task in self.state.tasks():
            how = ended.get(task.slurm_id)
            if how is not None and task.ended:
                again |= self._close(submission.resources, task, *how.status(self._log(task.slurm_id)))
            # judged next time: on a shared file system its last results may take a moment to be seen
            task.ended = how is not None
        return again

    def _close(self, resources: Resources, task: Task, status: str, reason: str) -> dict[str, Resources]:
        """Settle the jobs that a SLURM job has left without a result.

        The failure is theirs that had begun; the others of the bundle are submitted again. Where none had begun
        it is put down to all of them, so that nothing goes round for ever.
        """
        again: dict[str, Resources] = {}
        left = [job_id for job_id in task.jobs if job_id in self.jobs]
        begun = [job_id for job_id in left if task.slurm_id in attempts(self.store.out, job_id)]
        for job_id in left:
            if status == "lost" and not begun:
                note_attempt(self.store.out, job_id, task.slurm_id)
            number = len(attempts(self.store.out, job_id))
            innocent = begun and job_id not in begun and status != "cancelled"
            if innocent or (status == "lost" and number <= AGAIN):
                task.jobs.remove(job_id)
                again[job_id] = resources
                continue
            kept = Status.KILLED if status in ("lost", "cancelled") else Status(status)
            times = f" for the {number}th time" if status == "lost" else ""
            result = result_of(self.jobs[job_id], kept, f"SLURM job {task.slurm_id} {reason}{times}")
            self.store.write(result)
            again |= self._settle(task, job_id, resources, result)
        return again

    def _settle(self, task: Task, job_id: str, resources: Resources, result: Result) -> dict[str, Resources]:
        """Report a job's result, unless more memory or time may save the job: then return its new resources."""
        task.jobs.remove(job_id)
        (self.state.attempts / job_id).unlink(missing_ok=True)
        status, doubled = result.status, self.state.doubled.get(job_id, 0)
        if status == Status.OUT_OF_MEMORY and doubled < DOUBLINGS:
            self.state.doubled[job_id] = doubled + 1
            more = replace(resources, memory_mb=2 * resources.memory_mb)
        elif status == Status.TIMEOUT and resources.minutes < self.time_limit:
            more = replace(resources, minutes=self.time_limit)
        else:
            self._report(result)
            return {}
        self.mended[job_id] = result
        return {job_id: more}

    def _log(self, slurm_id: str) -> Path:
        """Return the file that a task's SLURM job prints to."""
        from submitit.core.utils import JobPaths

        names = [
            name for name, one in self.state.submissions.items() if slurm_id in [task.slurm_id for task in one.tasks]
        ]
        return JobPaths(self.state.directory / names[0], slurm_id).stdout


@dataclass(frozen=True)
class Ended:
    """How a SLURM job ended, as SLURM says: its state, exit code and signal."""

    state: str
    code: int = 0
    signal: int = 0

    def status(self, log: Path) -> tuple[str, str]:
        """Return the status of a job that it left without a result, or ``lost`` or ``cancelled``, and the reason."""
        printed = log.read_text(errors="replace") if log.exists() else ""
        if self.state == "OUT_OF_MEMORY" or MEMORY_KILL.search(printed):
            return "out_of_memory", "outgrew its memory and was ended by SLURM"
        if self.state in ("TIMEOUT", "DEADLINE"):
            return "timeout", "outran its time and was ended by SLURM"
        if self.state == "CANCELLED":
            return "cancelled", "was cancelled"
        if self.state in ("FAILED", "COMPLETED"):
            how = f"was ended by {signal.Signals(self.signal).name}" if self.signal else f"ended with code {self.code}"
            return "killed" if self.signal else "failed", f"{how} and no result; it printed to {log}"
        return "lost", f"was lost ({self.state})"


def ask_slurm(slurm_ids: Sequence[str]) -> dict[str, Ended | None]:
    """Return for each SLURM job how it ended, None for one that has not.

    SLURM's controller forgets a SLURM job some minutes after its end, and without accounting (slurmdbd) nothing else
    knows of it: it has then ended as UNKNOWN.

    Raises
    ------
    subprocess.CalledProcessError
        The controller does not answer.
    """
    queue = ["squeue", "--me", "--states=all", "--array", "--noheader", "--Format=JobArrayID:40,State:30,exit_code:20"]
    known: dict[str, Ended | None] = {}
    for line in subprocess.run(queue, check=True, capture_output=True, text=True).stdout.splitlines():
        slurm_id, state, status = line.split()
        code = int(status)
        known[slurm_id] = None if state in ALIVE else Ended(state, code >> 8, code & 127)
    if forgotten := [name for name in slurm_ids if name not in known]:
        account = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,ExitCode"]
        said = subprocess.run([*account, "--jobs", ",".join(forgotten)], check=False, capture_output=True, text=True)
        for line in said.stdout.splitlines() if said.returncode == 0 else []:
            slurm_id, state, status = line.split("|")
            first, second = status.split(":")
            known[slurm_id] = None if state in ALIVE else Ended(state.split()[0], int(first), int(second))
    return {name: known.get(name, Ended("UNKNOWN")) for name in slurm_ids}


def cancel(name: str) -> None:
    """End all SLURM jobs of that name, if there are any."""
    subprocess.run(["scancel", "--name", name], check=True, capture_output=True)


def bundle(wanted: Mapping[str, Resources], alone: Set[str], minutes: float) -> dict[Resources, list[list[str]]]:
    """Return for each resource class its jobs in bundles, each for one SLURM job.

    Parameters
    ----------
    wanted
        Jobs by id with their resources, in the order of the plan: neighbours often share a fit.
    alone
        Jobs that get a SLURM job of their own, however short they are.
    minutes
        Time for all jobs of a bundle; a longer job is a bundle of its own.
    """
    classes: dict[Resources, list[str]] = {}
    for job_id, resources in wanted.items():
        classes.setdefault(resources, []).append(job_id)
    bundles = {}
    for resources, jobs in classes.items():
        shared = [job_id for job_id in jobs if job_id not in alone]
        most = max(1, int(minutes // resources.minutes))
        even = math.ceil(len(shared) / math.ceil(len(shared) / most)) if shared else 1
        bundles[resources] = [shared[first : first + even] for first in range(0, len(shared), even)]
        bundles[resources] += [[job_id] for job_id in jobs if job_id in alone]
    return bundles


def run_bundle(jobs: Sequence[Job], resources: Resources, out: Path) -> None:
    """Run jobs one after another, each in a process of its own: what a SLURM job does on its node.

    A SLURM job that was queued anew goes on where it was, and gives up a job that was begun too often.
    """
    from submitit import JobEnvironment

    store, slurm_id = Store(out), JobEnvironment().job_id
    if not resources.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for plugin in dict.fromkeys(plugin for job in jobs for plugin in job.plugins):
        load_plugin(plugin)
    # SLURM sends SIGTERM to each process of a SLURM job that is preempted or cancelled. A job that ended by it would
    # pass for a failure: jobs inherit from here that it is ignored, and this process ends them and itself.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def on_start(job: Job) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        note_attempt(out, job.id, slurm_id)

    todo = []
    for job in jobs:
        begun = attempts(out, job.id)
        if store.read(job.id) is None and len(begun) > AGAIN:
            store.write(result_of(job, Status.KILLED, f"SLURM job {begun[-1]} was lost for the {len(begun)}th time"))
        elif store.read(job.id) is None:
            todo.append(job)
    runner = LocalExecutor(1, resources.minutes * 60, resources.memory_mb)
    runner.run(todo, store, on_start, lambda result: None)


def attempts(out: Path, job_id: str) -> list[str]:
    """Return the SLURM jobs in which a job was begun, and those that ended before they came to it."""
    file = out / "slurm" / "attempts" / job_id
    return file.read_text().split() if file.exists() else []


def note_attempt(out: Path, job_id: str, slurm_id: str) -> None:
    """Add a SLURM job to the attempts at a job."""
    with (out / "slurm" / "attempts" / job_id).open("a") as stream:
        stream.write(f"{slurm_id}\n")
