"""Whether a method is sound: the checks that every registered method passes, made of anybody's."""

from __future__ import annotations

import inspect
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.check.checks import CHECKS
from bench.check.subject import CheckFailed, Missing, NotApplicable, Subject

__all__ = ["CHECKS", "CheckFailed", "Missing", "NotApplicable", "Outcome", "Subject", "check"]


@dataclass(frozen=True)
class Outcome:
    """What one check found; of a failure, one sentence: what was seen, and what to do."""

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
