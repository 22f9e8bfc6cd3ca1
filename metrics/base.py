"""What every metric says of itself: direction, range, reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

F = TypeVar("F", bound=Callable[..., float])


@dataclass(frozen=True)
class MetricInfo:
    """What a reader of a score must know.

    Attributes
    ----------
    better
        Which direction is better.
    low, high
        The range of possible values; infinities where it is open.
    reference
        Where the metric is defined.
    """

    better: Literal["higher", "lower"]
    low: float
    high: float
    reference: str


def metric(*, better: Literal["higher", "lower"], low: float, high: float, reference: str) -> Callable[[F], F]:
    """Mark a function as a metric: it then carries its :class:`MetricInfo` as ``function.info``."""

    def mark(function: F) -> F:
        function.info = MetricInfo(better, low, high, reference)  # type: ignore[attr-defined]
        return function

    return mark
