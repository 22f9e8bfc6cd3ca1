"""The decorators that make a function a metric: they check its arrays and say how to read its score."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import Floats, Labels, Mask, as_floats, as_labels, as_mask

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class MetricInfo:
    """How to read a score.

    Attributes
    ----------
    better
        Which direction is better.
    low, high
        The range of possible values; infinities where it is open.
    paper
        Where the metric is defined.
    summary
        The meaning of the metric in a sentence, where it is a member of a family.
    """

    better: Literal["higher", "lower"]
    low: float
    high: float
    paper: str
    summary: str = ""


#: The :class:`MetricInfo` of a metric from 0 to 1, the best, by its paper and its summary.
share = partial(MetricInfo, "higher", 0.0, 1.0)


def metric(
    *, better: Literal["higher", "lower"], low: float, high: float, paper: str
) -> Callable[[Callable[P, float]], Callable[P, float]]:
    """Mark a function as a metric: its arrays are ``checked``, and it carries its :class:`MetricInfo` as ``info``."""

    def mark(function: Callable[P, float]) -> Callable[P, float]:
        call = checked(function)
        call.info = MetricInfo(better, low, high, paper)  # type: ignore[attr-defined]
        return call

    return mark


def family(**members: MetricInfo) -> Callable[[Callable[P, dict[str, float]]], Callable[P, dict[str, float]]]:
    """Mark a function that computes several metrics together and returns their values by name.

    Its arrays are ``checked``. Each member becomes an attribute of the function: a metric that takes the same
    arguments and returns the value of this member, NaN where the family leaves it out.
    """

    def mark(function: Callable[P, dict[str, float]]) -> Callable[P, dict[str, float]]:
        call = checked(function)
        for name, info in members.items():
            setattr(call, name, _member(call, name, info))
        return call

    return mark


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check and convert the arrays that a function is called with, as their annotations say.

    ``Annotated[Floats, "n_cells n_latent"]`` asks for finite numbers in two dimensions. A dimension that occurs twice
    has the same length in both arrays; ``"n_cells>=4"`` asks for at least 4 cells, and without a number for 1.
    ``Floats`` become float64, ``Labels`` of any kind the integers 0, 1, ..., and ``Mask`` booleans. For other arrays
    the shape alone is checked. None, where it is the default, is left alone.

    Raises
    ------
    ValueError
        When the function is called with another array.
    """
    signature = inspect.signature(function)
    arrays = {
        name: (part.__origin__, [_dimension(word) for word in part.__metadata__[0].split()])
        for name, hint in get_type_hints(function, include_extras=True).items()
        for part in (hint, *get_args(hint))  # the hint itself, or within "or None"
        if get_origin(part) is Annotated
    }

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        lengths: dict[str, tuple[int, str]] = {}
        for name, (kind, dimensions) in arrays.items():
            if bound.arguments.get(name) is not None:
                array = np.asarray(bound.arguments[name])
                _check_shape(name, array, dimensions, lengths)
                bound.arguments[name] = _converted(name, array, kind)
        return function(*bound.args, **bound.kwargs)

    return call


def _dimension(word: str) -> tuple[str, int]:
    name, _, least = word.partition(">=")
    return name, int(least or 1)


def _check_shape(
    name: str, array: NDArray[Any], dimensions: list[tuple[str, int]], lengths: dict[str, tuple[int, str]]
) -> None:
    if array.ndim != len(dimensions):
        raise ValueError(f"{name} has shape {array.shape}; ({', '.join(d for d, _ in dimensions)}) is needed")
    for length, (dimension, least) in zip(array.shape, dimensions, strict=True):
        if length < least:
            raise ValueError(f"{name} has shape {array.shape}; {dimension} must be at least {least}")
        known, other = lengths.setdefault(dimension, (length, name))
        if length != known:
            raise ValueError(f"{name} has shape {array.shape}; {dimension} is {length}, but {known} in {other}")


def _converted(name: str, array: NDArray[Any], kind: Any) -> NDArray[Any]:
    if kind == Floats:
        return as_floats(name, array)
    if kind == Labels:
        return as_labels(name, array)
    return as_mask(name, array) if kind == Mask else array


def _member(function: Callable[P, dict[str, float]], name: str, info: MetricInfo) -> Callable[P, float]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> float:
        return function(*args, **kwargs).get(name, float("nan"))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"{info.summary}\n\n{inspect.cleandoc(function.__doc__ or '')}"
    call.info, call.family = info, function  # type: ignore[attr-defined]
    return call
