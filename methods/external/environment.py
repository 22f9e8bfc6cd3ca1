"""A Python environment for the package of one recipe: made once, kept in the cache, and named by what is pinned."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from methods.errors import CannotFit
from methods.program import Program
from metrics.cache import cache_directory

#: What an environment's directory holds once it is whole, and what is beside it where it could not be made.
MADE, FAILED = "made.json", ".failed.txt"


class External(Program):
    """A program in a Python environment of its own, beside which stands ``requirements.txt``."""

    command: ClassVar[tuple[str, ...]] = ("program.py",)
    files = ("requirements.txt",)

    @classmethod
    def place(cls) -> Path:
        """Return the environment's directory; its name covers the pins and this Python's version."""
        pins = Path(inspect.getfile(cls)).with_name("requirements.txt").read_bytes()
        key = hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]
        return cache_directory("environments") / f"{cls.name.rpartition(':')[2]}-{key}"

    @classmethod
    def is_made(cls) -> bool:
        """Return whether the environment is there and whole."""
        return (cls.place() / MADE).is_file()

    @classmethod
    def depends(cls) -> str:
        """Add whether the environment is made: what was skipped for lack of it is run once it is there."""
        return f"{super().depends()} {cls.is_made()}"

    @classmethod
    def provide(cls, say: Callable[[str], None]) -> None:
        """Make the environment unless it is made; a failure is noted, and fits are skipped with its reason."""
        from filelock import FileLock

        place = cls.place()
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            if cls.is_made():
                return
            shutil.rmtree(place, ignore_errors=True)  # one whose making was broken off
            failed = place.with_suffix(FAILED)
            failed.unlink(missing_ok=True)
            clock = time.monotonic()
            requirements = Path(inspect.getfile(cls)).with_name("requirements.txt")
            pins = requirements.read_text().split()
            torch = [pin for pin in pins if pin.startswith("torch==")]
            python = place / "bin" / "python"
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            steps = [
                (f"Python {sys.version.split()[0]}", [sys.executable, "-m", "venv", str(place)]),
                # first, and by itself: what is installed already is not looked for in another build
                *([(" ".join(torch), [*install, *torch])] if torch else []),
                (f"{len(pins)} pinned packages", [*install, "--requirement", str(requirements)]),
            ]
            for number, (what, words) in enumerate(steps, 1):
                say(f"{cls.name}: making its environment in {place}, {number} of {len(steps)}: {what}")
                done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
                if done.returncode:
                    reason = _last_error(done.stderr) or f"exit code {done.returncode}"
                    failed.write_text(f"its environment could not be made, at {what}: {reason}")
                    shutil.rmtree(place, ignore_errors=True)
                    say(f"{cls.name}: {failed.read_text()}")
                    return
            seconds, size = time.monotonic() - clock, _megabytes(place)
            (place / MADE).write_text(json.dumps({"seconds": round(seconds, 1), "megabytes": size}))
            say(f"{cls.name}: made in {seconds:.0f} s, {size:,} MB")

    def program(self) -> tuple[str, ...]:
        """Return the environment's Python and the program; raise CannotFit where there is no environment."""
        place = self.place()
        if not self.is_made():
            failed = place.with_suffix(FAILED)
            reason = failed.read_text() if failed.is_file() else "its environment is not made yet; bench run makes it"
            raise CannotFit(f"{self.name}: {reason}")
        return (str(place / "bin" / "python"), *self.command)


def _last_error(text: str) -> str:
    """Return the last line of pip that says what failed, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [""])[-1].removeprefix("ERROR:").strip()[:300]


def _megabytes(place: Path) -> int:
    return round(sum(file.lstat().st_size for file in place.rglob("*") if file.is_file()) / 2**20)
