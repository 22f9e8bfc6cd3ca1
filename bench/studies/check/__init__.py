"""Checks whether a method is sound: those that every registered method passes, for a user's method."""

from __future__ import annotations

import inspect
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.studies.check.checks import CHECKS
from bench.studies.check.subject import CheckFailed, Missing, NotApplicable, Subject

__all__ = ["CHECKS", "CheckFailed", "Missing", "NotApplicable", "Outcome", "Subject", "check", "say"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check. The remark of a failure is one sentence: what was seen, and what to do."""

    check: str
    status: Literal["passed", "failed", "not applicable", "skipped"]
    remark: str


def check(subject: Subject) -> Iterator[Outcome]:
    """Make all checks of a method, and yield what each found.

    Without a fit nothing else can be checked; a method whose package is not installed is skipped from there on.
    """
    for name in CHECKS:
        outcome = _outcome(name, subject)
        yield outcome
        if outcome.status == "skipped" or (name == "fit" and outcome.status == "failed"):
            return


def say(label: str, outcomes: Iterable[Outcome], console: Console) -> bool:
    """Print what the checks of a method found, and return whether none failed."""
    outcomes = list(outcomes)
    failures = [outcome for outcome in outcomes if outcome.status == "failed"]
    table = Table(label, "", "", box=None, pad_edge=False)
    for outcome in outcomes:
        remark = "" if outcome in failures else outcome.remark
        table.add_row(Text(outcome.check), Text(outcome.status), Text(remark))
    console.print(table)
    for failure in failures:
        console.print(Text(f"{failure.check}: {failure.remark}"), style="red", soft_wrap=True)
    passed = f"{sum(outcome.status == 'passed' for outcome in outcomes)} checks passed"
    skipped = "skipped" if outcomes[-1].status == "skipped" else passed
    verdict = f"{len(failures)} failed, {passed}" if failures else skipped
    console.print(Text(f"{label}: {verdict}\n"), soft_wrap=True)
    return not failures


def _outcome(name: str, subject: Subject) -> Outcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Outcome(name, "passed", CHECKS[name](subject))
    except CheckFailed as failure:
        return Outcome(name, "failed", str(failure))
    except NotApplicable as reason:
        return Outcome(name, "not applicable", str(reason))
    except Missing as missing:
        return Outcome(name, "skipped", str(missing))
    except Exception as error:  # noqa: BLE001 - whatever a user's code raises is what was found
        return Outcome(name, "failed", _raised(error, subject))


def _raised(error: Exception, subject: Subject) -> str:
    """Say what was raised, and where in the method's own file."""
    file = inspect.getfile(subject.cls)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" in line {lines[-1]} of {Path(file).name}" if lines else ""
    message = str(error).partition("\n")[0]
    return (
        f"it raised {type(error).__name__}: {message}{where}; mend it, or raise CannotFit with the reason where the "
        "data are at fault"
    )
