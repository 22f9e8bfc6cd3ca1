"""The state of this machine, for ``python -m bench doctor``."""

from __future__ import annotations

import os

import bench
from bench import gpus
from bench.environment import describe
from tasks import DATASETS
from tasks.datasets.catalogue import built_directory, data_directory


def rows() -> list[tuple[str, str]]:
    """Return rows (item, state): versions, processor, memory, disk, GPUs, data, and how to get what is missing."""
    import psutil

    environment = describe()
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(os.getcwd())
    cores = len(os.sched_getaffinity(0))
    return [
        ("suite", f"{bench.__version__}, commit {environment['git_commit'] or 'unknown'}"),
        ("python", environment["python"]),
        *(
            (name, version or f"missing: run make env, or pip install {name}")
            for name, version in environment["versions"].items()
        ),
        ("processor", f"{environment['cpu']}, {cores} cores; {environment['threads']} thread a job"),
        ("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"),
        ("disk here", f"{disk.free / 2**30:.1f} GiB free"),
        *gpus.rows(),
        ("data directory", str(data_directory())),
        ("built data", str(built_directory())),
        *((f"data {name}", dataset.missing() or "here") for name, dataset in DATASETS.items()),
    ]
