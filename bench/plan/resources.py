"""The resources of a job: threads, memory, a GPU, minutes."""

from __future__ import annotations

import math
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from bench.environment import THREADS
from bench.records import Job, PlanError
from methods import METHODS

#: Megabytes of any job, and of a million values (cells × genes) of its data; measured: 0.6 GB and 17 MB a million.
BASE_MB, MB_PER_MILLION = 1024, 40
#: No job asks for less: so little makes no difference to a scheduler, and few classes make few SLURM arrays.
LEAST_MB, LEAST_MINUTES = 2048, 2
#: A job gets so many times its estimated seconds: nodes differ, and so do fits that stop early.
SAFETY = 4.0


@dataclass(frozen=True)
class Resources:
    """The resources that a job gets; jobs with equal resources form a class.

    Attributes
    ----------
    threads
        Threads of numerical libraries.
    memory_mb
        Resident memory of the job's process and its children.
    gpu
        Whether its method trains on a GPU.
    minutes
        Wall-clock time.
    """

    threads: int
    memory_mb: int
    gpu: bool
    minutes: float


def needs(job: Job, millions: float, seconds: float, memory_mb: float | None = None) -> Resources:
    """Return what a job needs, rounded up to powers of two so that alike jobs fall into one class.

    Parameters
    ----------
    job
        A job of a plan.
    millions
        Million values (cells × genes) of its data.
    seconds
        How long it is expected to take.
    memory_mb
        Its memory, where the user has said it.
    """
    values = millions * job.n_stacked
    return Resources(
        threads=int(THREADS["OMP_NUM_THREADS"]),
        memory_mb=math.ceil(memory_mb) if memory_mb else _power(BASE_MB + MB_PER_MILLION * values, LEAST_MB),
        gpu=uses_gpu(job),
        minutes=_power(SAFETY * seconds / 60, LEAST_MINUTES),
    )


def uses_gpu(job: Job) -> bool:
    """Tell whether a job's method trains on a GPU where there is one; references do not."""
    return job.role != "reference" and METHODS[job.name].uses_gpu


def share_mb(n_workers: int) -> float:
    """Return the megabytes of this machine that each of so many jobs at a time may hold."""
    import psutil

    return psutil.virtual_memory().total * 0.9 / n_workers / 2**20


def devices(gpus: int | None) -> list[str] | None:
    """Return the first GPUs of this machine by the names that CUDA_VISIBLE_DEVICES has for them.

    Raises
    ------
    bench.records.PlanError
        There are not so many.
    """
    if gpus is None:
        return None
    import torch

    if gpus > torch.cuda.device_count():
        raise PlanError(f"--resources gpus={gpus}: PyTorch sees {torch.cuda.device_count()} on this machine")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:gpus] if visible else [str(device) for device in range(gpus)]


def visible_gpus(gpus: int | None) -> list[str]:
    """Return the names of the GPUs of this machine that jobs use; the driver is asked, as PyTorch takes seconds.

    Parameters
    ----------
    gpus
        How many GPUs jobs share; None where each job sees what this process sees.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or gpus == 0:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
        return said.stdout.splitlines()[: gpus or None]
    return []


def device_of_fits(gpus: int | None) -> str:
    """Return in words where networks are fitted on this machine; ``gpus`` as :func:`visible_gpus` has them."""
    return f"networks are fitted on {', '.join(visible_gpus(gpus)) or 'the CPU'}"


def _power(value: float, least: int) -> int:
    """Return ``least`` doubled until it is no less than ``value``."""
    while least < value:
        least *= 2
    return least
