"""Numbers and verdicts of the tables as people read them."""

import numpy as np
import pandas as pd

DASH = "—"
ARROWS = {"higher": "↑", "lower": "↓"}


def verdicts(frame: pd.DataFrame) -> list[str]:
    """The verdicts against the baseline; ● marks the methods that nothing is shown to beat."""
    best = frame["best"].astype(bool) & (frame["role"] == "method")
    pairs = zip(frame["verdict"], best, strict=True)
    return [f"{verdict}{' ●' if marked else ''}".strip() or DASH for verdict, marked in pairs]


def probability(value: float) -> str:
    """A probability in two decimals, never rounded to certainty."""
    return (
        DASH
        if not np.isfinite(value)
        else "> .99"
        if value > 0.99
        else "< .01"
        if value < 0.01
        else fixed(value, 2)[1:]
    )


def spans(low: pd.Series, high: pd.Series) -> list[str]:
    """Ranges of whole numbers as "2–5", or "2" where both ends are the same."""
    pairs = zip(low.astype(float), high.astype(float), strict=True)
    return [DASH if np.isnan(a) else f"{a:g}" if a == b else f"{a:g}–{b:g}" for a, b in pairs]


def p_value(value: float) -> str:
    """A p value in three decimals."""
    return "< .001" if value < 0.001 else fixed(value, 3).removeprefix("0")


def with_interval(frame: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    """A column of values, each with its interval where it has one."""
    texts = []
    for centre, lower, upper in frame[[value, low, high]].itertuples(index=False):
        ends = f"{_end(lower)}, {_end(upper)}"
        texts.append(fixed(centre, 2) + (f" [{ends}]" if np.isfinite(lower) else ""))
    return texts


def _end(value: float) -> str:
    """An end of an interval; where the interval is much too wide, digits would say nothing."""
    return "> 100" if value > 100 else fixed(value, 2)


def fixed(value: float, digits: int) -> str:
    """A number with this many decimals."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else DASH


def raw(value: float) -> str:
    """Three significant digits, at most three decimals; powers of ten only where they must be, rounding noise as 0."""
    if not np.isfinite(value):
        return DASH
    size = abs(value) if abs(value) > 1e-6 else 0.0
    if size != 0 and not 1e-3 <= size < 1e6:
        return f"{value:.2e}"
    return fixed(value, 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0)
