"""CUDA graphs: a training step is recorded once and replayed, and a check on any machine whether it can be.

A step of a small network launches hundreds of kernels, and a GPU works for a tenth of the time that launching takes. A
recorded step is launched as a whole. It computes on the same memory each time, so that nothing in it may depend on
values: no shape (``nonzero``, boolean indexing), no branch (``.item()``, ``if tensor``), and no tensor made of Python
numbers, which would be copied from memory that is gone when the step is replayed. What changes from step to step is in
tensors that are refilled: the numbers of the cells, the progress of the fit, learning rates.

After a failed attempt PyTorch's generators refuse to draw. So :func:`obstacle` decides beforehand, with tensors that
have shapes and no values (PyTorch's fake tensors), which raise where a value is asked for.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from methods.nn.sparse import SparseRows, gathered

#: Calls of a function for cells of a shape before it is recorded, in which libraries allocate what they keep.
WARM = 3
HOST_DATA = "a tensor is made of host data: make it a buffer of the network"

#: Functions that wait for the GPU inside, where fake tensors do not see it.
_WAITING = (
    *(
        torch.segment_reduce,
        torch.cholesky_inverse,
        torch.linalg.eigh,
        torch.linalg.eigvalsh,
        torch.linalg.svd,
        torch.linalg.svdvals,
    ),
    *(Tensor.cpu, Tensor.numpy, Tensor.cuda),
)
#: What :func:`obstacle` found in the fits of a :func:`checking` block; None outside of one.
_found: list[str] | None = None


class Replayed:
    """A function of the numbers of cells, recorded as a CUDA graph for each shape of them and then replayed.

    Its output is overwritten by the next call. It must be called on a stream of :func:`recording`.

    Parameters
    ----------
    function
        Maps numbers of cells (n,) or (n_fits, n) to a tensor without gradient.
    generators
        All that it draws from besides PyTorch's own generator.
    pool
        Memory that graphs share which are replayed one after another, from ``torch.cuda.graph_pool_handle()``.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], generators: Sequence[Generator], pool: Any):
        self.function, self.generators, self.pool = function, generators, pool
        self.calls: dict[torch.Size, int] = {}
        self.recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, cells: Tensor) -> Tensor:
        """Return the function of ``cells``."""
        shape = cells.shape
        self.calls[shape] = self.calls.get(shape, 0) + 1
        if self.calls[shape] <= WARM:
            return self.function(cells)
        if shape not in self.recorded:
            self.recorded[shape] = self._record(cells)
        graph, given, output = self.recorded[shape]
        given.copy_(cells)
        graph.replay()
        return output

    def _record(self, cells: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        graph, given = torch.cuda.CUDAGraph(), cells.clone()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self.pool, stream=torch.cuda.current_stream()):
            output = self.function(given)
        return graph, given, output


def can_record(where: torch.device) -> bool:
    """Return whether a device can record at all."""
    return where.type == "cuda"


@contextmanager
def recording(where: torch.device) -> Iterator[None]:
    """Compute on a stream of its own, as nothing can be recorded on the default stream."""
    side, before = torch.cuda.Stream(where), torch.cuda.current_stream(where)
    side.wait_stream(before)
    with torch.cuda.stream(side):
        yield
    before.wait_stream(side)


@contextmanager
def checking() -> Iterator[list[str]]:
    """Check the steps of all fits within, on any device; the list gets what stands in the way of each, or "".

    A fit on a GPU checks its steps in any case.
    """
    global _found
    before, _found = _found, []
    try:
        yield _found
    finally:
        _found = before


def asked() -> bool:
    """Return whether fits on the CPU check their steps."""
    return _found is not None


def obstacle(model: Any, network: nn.Module, tensors: Mapping[str, Any], cells: Tensor, adversary: Any) -> str:
    """Return why the steps of a fit cannot be recorded, "" if they can; nothing is computed or drawn.

    Parameters
    ----------
    model, network, tensors, adversary
        Those of the fit (:func:`methods.nn.training.train_stacked`), sparse rows padded.
    cells
        Numbers of the cells of a minibatch.
    """
    values = FakeTensorMode()

    def fake(tensor: Tensor) -> Tensor:
        return values.from_tensor(tensor, static_shapes=True)

    try:
        with FakeCopyMode(values):
            shadow = deepcopy(network)
        shadows = {
            key: part.mapped(fake) if isinstance(part, SparseRows) else fake(part) for key, part in tensors.items()
        }
        numbers, progress = fake(cells), fake(torch.zeros((), device=cells.device))
        with values, _Dispatched(), _Called():
            minibatch = gathered(shadows, numbers)
            if adversary is not None:
                with torch.no_grad():
                    shown = adversary.reads(shadow.train(), minibatch)
                adversary.loss(shadow, shown).backward()
            terms = model.loss_terms(shadow.train(), minibatch, progress)
            torch.stack(list(terms.values())).sum().backward()
            with torch.no_grad():
                model.loss_terms(shadow.eval(), gathered(shadows, numbers), 1.0)
        reason = ""
    except Exception as error:  # noqa: BLE001 - a fit that fails in any way without values says so when it is made
        reason = _sentence(error)
    if _found is not None:
        _found.append(reason)
    return reason


class _Obstacle(Exception):
    """A step does what cannot be recorded."""


class _Dispatched(TorchDispatchMode):
    """Raises where a step makes tensors of host data, checks for errors of linear algebra, or writes by a mask."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "lift_fresh":
            raise _Obstacle(HOST_DATA)
        if name == "_linalg_check_errors":
            raise _Obstacle("linear algebra that checks for errors waits for the GPU: use a function that ends in _ex")
        if name in ("index_put", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1]):
            raise _Obstacle("entries are set by a mask, whose number depends on the data: use masked_fill")
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    """Raises where a step indexes by host data, or waits for the GPU where no fake tensor shows it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__) and _of_host_data(args[1]):
            raise _Obstacle(HOST_DATA)
        if func in _WAITING:
            raise _Obstacle(f"{getattr(func, '__name__', func)} waits for the GPU")
        if func in (torch.prod, Tensor.prod) and torch.is_grad_enabled() and args[0].requires_grad:
            raise _Obstacle("the gradient of prod asks whether there is a 0: use methods.nn.kernels.product")
        if func in (torch.where, Tensor.where) and sum(isinstance(arg, int | float) for arg in args) == 1:
            raise _Obstacle("where copies a number to the GPU: use masked_fill")
        return func(*args, **(kwargs or {}))


def _of_host_data(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list | np.ndarray) for part in parts)


def _sentence(error: Exception) -> str:
    """Say what was raised, and in which line outside of PyTorch."""
    said = str(error).partition("\n")[0]
    if isinstance(error, DataDependentOutputException):
        said = f"a value is asked for ({said})"
    elif isinstance(error, DynamicOutputShapeException):
        said = f"a shape depends on values ({said})"
    elif not isinstance(error, _Obstacle):
        said = f"{type(error).__name__}: {said}"
    library = str(Path(torch.__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(library)]
    inside = [frame for frame in frames if frame.filename != __file__]
    return f"{said} (line {inside[-1].lineno} of {Path(inside[-1].filename).name})" if inside else said
