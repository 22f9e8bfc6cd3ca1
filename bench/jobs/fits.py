"""The fits of a job, kept on disk: a fit that two jobs need is made once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.keep.files import replacing
from bench.plan.digests import source_digest
from methods import METHODS
from methods.base import Method
from methods.errors import CannotFit

if TYPE_CHECKING:
    from anndata import AnnData

    from bench.jobs.stacked import Stack, StackedFit

#: What is added to a job's seed where a task fits the same data again.
AGAIN = 10_000


class Fits:
    """Fits methods for one job and keeps account of them.

    A method that can hand over its state is looked up in ``directory`` by (method, config, source digest,
    data digest, seed) and, when it is not there, fitted and kept. Files hold arrays and JSON alone
    (safetensors), and their checksum: reading one runs no code, and a spoilt one is fitted anew. A lock lets two
    processes that need one fit make it once.

    Parameters
    ----------
    directory
        Where fits are kept; None keeps none.
    stack
        The other jobs whose fits are stacked with those of this one (:func:`fit_stack`); None where it is alone.

    Attributes
    ----------
    seconds
        Time that the fits took when they were made, whoever made them.
    spent
        Time spent here on fitting, loading and waiting.
    history
        Training curves of the last fit.
    warnings
        Why fits did not converge.
    last
        The last fitted method.
    log
        Remarks of methods on their fits, each once.
    """

    def __init__(self, directory: Path | None, stack: Stack | None = None):
        self.directory = directory
        self.stack = stack
        self.seconds = 0.0
        self.spent = 0.0
        self.history: dict[str, list[float]] = {}
        self.warnings: set[str] = set()
        self.last: Method | None = None
        self.log: list[str] = []

    def of(self, name: str, config: Mapping[str, Any], seed: int) -> Callable[[AnnData], Method]:
        """Return the ``fit`` that a task is handed; its attribute ``again`` is the same with another seed."""
        fit = self._seeded(name, config, seed)
        fit.again = self._seeded(name, config, seed + AGAIN)  # type: ignore[attr-defined]
        return fit

    def _seeded(self, name: str, config: Mapping[str, Any], seed: int) -> Callable[[AnnData], Method]:
        cls = METHODS[name]
        settings = cls.configure(**config)

        def fit(data: AnnData) -> Method:
            clock = time.perf_counter()
            method = cls(settings)
            if self.stack is not None:
                method, seconds = self.stack.fit(method, data, seed)
            elif self.directory is None:
                method.fit(data, seed)
                seconds = time.perf_counter() - clock
            else:
                key = _key(cls, config, _name(data, seed))
                method, seconds = self._cached(method, data, seed, self.directory / f"{key}.safetensors")
            self.seconds += seconds
            self.spent += time.perf_counter() - clock
            self.last, self.history = method, method.history
            if method.unconverged:
                self.warnings.add(method.unconverged)
            self.log += [remark for remark in method.log if remark not in self.log]
            return method

        return fit

    def _cached(self, method: Any, data: AnnData, seed: int, file: Path) -> tuple[Method, float]:
        from filelock import FileLock

        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if file.exists():
                try:
                    return method, load(method, file)
                except SpoiltFit:
                    file.unlink()
            clock = time.perf_counter()
            method.fit(data, seed)
            seconds = time.perf_counter() - clock
            with contextlib.suppress(OSError):  # a full disk costs the cache, not the result
                save(method, seconds, file)
        return method, seconds


def fit_stack(cls: Any, config: Mapping[str, Any], directory: Path | None, requests: Sequence[StackedFit]) -> None:
    """Fit the methods of requests side by side, or take all of them from disk; where neither can be, one by one.

    Requests of one seed and equal data, as of two units that share their training cells, are one fit. The time of a
    stack is shared out evenly. A fit is kept under the seeds and data of its whole stack: another stack would give the
    same but for rounding.
    """
    names = [_name(request.data, request.seed) for request in requests]
    distinct: dict[str, StackedFit] = {}
    for name, request in zip(names, requests, strict=True):
        distinct.setdefault(name, request)
    _fit_distinct(cls, config, directory, list(distinct.values()), list(distinct))
    for name, request in zip(names, requests, strict=True):
        made = distinct[name]
        if made is not request:
            request.method, request.seconds, request.error = deepcopy(made.method), made.seconds, made.error


def _fit_distinct(
    cls: Any, config: Mapping[str, Any], directory: Path | None, requests: Sequence[StackedFit], stack: Sequence[str]
) -> None:
    """Do what :func:`fit_stack` says for requests of which no two are one fit; ``stack`` has their names."""
    seeds = [request.seed for request in requests]
    with contextlib.ExitStack() as locks:
        files: list[Path] = []
        if directory is not None:
            from filelock import FileLock

            directory.mkdir(parents=True, exist_ok=True)
            keys = [_key(cls, config, name, stack) for name in stack]
            files = [directory / f"{key}.safetensors" for key in keys]
            for file in sorted(files):
                locks.enter_context(FileLock(file.with_suffix(".lock")))
            if _all_loaded(requests, files):
                return
        clock = time.perf_counter()
        try:
            methods, datasets = zip(*((request.method, request.data) for request in requests), strict=True)
            errors = cls.fit_stacked(methods, datasets, seeds)
        except (CannotFit, MemoryError):
            for request in requests:
                _fit_alone(request)
            return
        seconds = (time.perf_counter() - clock) / len(requests)
        for request, error in zip(requests, errors, strict=True):
            request.seconds, request.error = seconds, error
        for file, request in zip(files, requests, strict=False):  # no files where none are kept
            if request.error is None:
                with contextlib.suppress(OSError):  # a full disk costs the cache, not the result
                    save(request.method, seconds, file)


def _all_loaded(requests: Sequence[StackedFit], files: Sequence[Path]) -> bool:
    """Take all fits from disk, or none."""
    try:
        seconds = [load(request.method, file) for request, file in zip(requests, files, strict=True)]
    except SpoiltFit:
        for request in requests:
            request.method = type(request.method)(request.method.config)
        return False
    for request, spent in zip(requests, seconds, strict=True):
        request.seconds = spent
    return True


def _fit_alone(request: StackedFit) -> None:
    clock = time.perf_counter()
    request.method = type(request.method)(request.method.config)
    try:
        request.method.fit(request.data, request.seed)
    except Exception as error:  # noqa: BLE001 - raised where the job waits for its fit
        request.error = error
    request.seconds = time.perf_counter() - clock


def _name(data: AnnData, seed: int) -> str:
    """Return the seed and the digest of the data of a fit."""
    from tasks.datasets.memory import digest

    return f"{seed} {digest(data)}"


def _key(cls: type[Method], config: Mapping[str, Any], name: str, stack: Sequence[str] = ()) -> str:
    read = {key: value for key, value in config.items() if key not in cls.unfitted}
    parts = [cls.name, json.dumps(read, sort_keys=True), source_digest(cls), name]
    if len(stack) > 1:
        parts.append(f"stacked with {sorted(stack)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class SpoiltFit(Exception):
    """A file is not the fit that was stored under its name; the fit is made again."""


def save(method: Any, seconds: float, file: Path) -> None:
    """Write the state of a fitted ``method`` to ``file``, whole or not at all."""
    from safetensors.numpy import save_file

    state = method.state()
    if state is None:
        return
    arrays = {key: np.ascontiguousarray(value) for key, value in state.items() if isinstance(value, np.ndarray)}
    rest = {key: value for key, value in state.items() if key not in arrays}
    about = json.dumps(
        {
            "state": rest,
            "seconds": seconds,
            "history": {term: [float(value) for value in values] for term, values in method.history.items()},
            "unconverged": method.unconverged,
            "log": method.log,
        }
    )
    with replacing(file) as temporary:
        save_file(arrays, temporary, metadata={"about": about, "sha256": _seal(file, about, arrays)})


def load(method: Any, file: Path) -> float:
    """Restore ``method`` from ``file`` and return how long its fit took."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stream:
            metadata = stream.metadata() or {}
            arrays = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise SpoiltFit(f"{file}: not readable ({error})") from error
    text = metadata.get("about", "")
    if metadata.get("sha256") != _seal(file, text, arrays):
        raise SpoiltFit(f"{file}: not what was stored there")
    about = json.loads(text)
    method.restore({**about["state"], **arrays})
    method.history, method.unconverged, method.log = about["history"], about["unconverged"], about["log"]
    return about["seconds"]


def _seal(file: Path, about: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all that is stored and of the name that it is stored under."""
    hashed = hashlib.sha256(json.dumps([file.name, about]).encode())
    for key in sorted(arrays):
        hashed.update(f"{key}{arrays[key].dtype}{arrays[key].shape}".encode())
        hashed.update(np.ascontiguousarray(arrays[key]).data)
    return hashed.hexdigest()
