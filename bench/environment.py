"""The machine and the code that made a result."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: One thread a process: two threads on a small network cost more than they give.
THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    # numba's other layers may not be forked once they have run
    "NUMBA_THREADING_LAYER": "workqueue",
}

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "anndata",
    "pandas",
    "scib-metrics",
    "jax",
    "igraph",
    "umap-learn",
    "mlflow",
)


def limit_threads() -> None:
    """Give this process and its children one thread each; must come before numpy is imported."""
    os.environ.update(THREADS)


@cache
def describe() -> dict[str, Any]:
    """Return versions, commit, lock file digest and hardware, as they go into every result."""
    commit, dirty = _git()
    lock = ROOT / "requirements.lock"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": int(THREADS["OMP_NUM_THREADS"]),
        "git_commit": commit,
        "dirty": dirty,
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "",
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _git() -> tuple[str, bool]:
    """Return the commit of the checkout and whether files differ from it; empty outside a checkout."""
    command = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            [*command, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "", False
    return commit.stdout.strip(), bool(status.stdout.strip())


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or sys.platform
