"""GPUs as PyTorch and the driver see them. Both are asked in another process, as either may crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from bench.environment import ROOT

#: Seconds that each may take to answer; a driver may hang.
PATIENCE = 60
#: Seconds of the speed test.
SECONDS = 1.0


def rows() -> list[tuple[str, str]]:
    """Return rows (item, state): the build of PyTorch, and each GPU or the reason why there is none."""
    seen, failure = _answer([sys.executable, "-m", "bench.gpus"])
    silent = {"build": f"PyTorch does not start: {failure}", "gpus": [], "error": ""}
    said: dict[str, Any] = silent if failure else json.loads(seen)
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    listed, silence = _answer(query)
    drivers = sorted({line.rpartition(",")[2].strip() for line in listed.splitlines()} if not silence else ())
    driver = f", driver {', '.join(drivers)}" if drivers else ""
    build = ("PyTorch's build", str(said["build"]))
    if said["gpus"]:
        gpus = [(f"GPU {i}", f"{gpu}{driver}") for i, gpu in enumerate(said["gpus"])]
        speed, silence = _answer([sys.executable, "-m", "bench.gpus", "speed"])
        return [build, *gpus, ("a step there", speed or f"fails: {silence}")]
    why = [f"PyTorch says: {said['error']}"] if said["error"] else []
    if not silence and listed:
        why.append(f"nvidia-smi sees {'; '.join(listed.splitlines())}, which PyTorch cannot use")
    elif silence:
        why.append(silence)
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        why.append(f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r}")
    return [build, ("GPU", "; ".join(["no GPU", *why]))]


def of_torch() -> dict[str, Any]:
    """Return what PyTorch is built for, its GPUs, and its message about a driver that it cannot use."""
    import torch

    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    build = f"for CUDA {cuda}" if cuda else f"for ROCm {hip}" if hip else "for the CPU"
    gpus, error = [], ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
                about = torch.cuda.get_device_properties(i)
                gpus.append(f"{about.name}, {about.total_memory / 2**30:.1f} GiB")
        except RuntimeError as problem:
            error = str(problem)
    error = error or next((str(warning.message) for warning in caught), "")
    return {"build": build, "gpus": gpus, "error": (error.splitlines() or [""])[0]}


def speed() -> str:
    """Return how long a training step of a small network takes on a GPU, recorded and not; measured for a second."""
    import torch

    from methods.nn import graphs

    where = torch.device("cuda")
    network = torch.nn.Sequential(
        torch.nn.Linear(2000, 128),
        torch.nn.SiLU(),
        torch.nn.Linear(128, 128),
        torch.nn.SiLU(),
        torch.nn.Linear(128, 2000),
    ).to(where)
    optimizer = torch.optim.Adam(network.parameters(), fused=True, capturable=True)
    data = torch.randn(4096, 2000, device=where)

    def step(cells: torch.Tensor) -> torch.Tensor:
        x = data.index_select(0, cells)
        optimizer.zero_grad()
        loss = (network(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    with graphs.recording(where):
        recorded = graphs.Replayed(step, [], torch.cuda.graph_pool_handle())
        steps: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"recorded": recorded, "by operations": step}
        cells, times = torch.arange(128, device=where), []
        for name, take in steps.items():
            for _ in range(2 * graphs.WARM):
                take(cells)
            torch.cuda.synchronize()
            count, clock = 0, time.perf_counter()
            while time.perf_counter() - clock < SECONDS / len(steps):
                take(cells).item()
                count += 1
            times.append(f"{1e3 * (time.perf_counter() - clock) / count:.2f} ms {name}")
    return f"{', '.join(times)} (2,000 genes, 2×128, minibatch 128)"


def _answer(command: list[str]) -> tuple[str, str]:
    """Return the output of a command, and why it failed; both are empty where there is no such command."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment, errors="replace"
        )
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        return "", f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not answer within {PATIENCE} s"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    said = (done.stderr or done.stdout).strip().splitlines()
    return "", said[-1] if said else f"{command[0]} ended with code {done.returncode}"


if __name__ == "__main__":
    print(speed() if sys.argv[1:] == ["speed"] else json.dumps(of_torch()))
