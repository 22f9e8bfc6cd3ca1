"""``python -m bench``, and what the command ``bench`` calls."""

import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

OURS = ("bench", "leaderboard", "methods", "metrics", "tasks")


def main() -> None:
    """Run the command line, or say that Python or its packages are not those of the suite's environment."""
    if sys.version_info < (3, 11):  # noqa: UP036 - nothing else keeps an older one from here
        _refuse(f"Python 3.11 or later is needed, and {sys.executable} is {sys.version.split()[0]}")
    try:
        command_line = _imported()
        command_line()
    except KeyboardInterrupt:  # while packages are imported: a command at work says how to go on
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _imported() -> Any:
    try:
        from bench.cli import main as command_line
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OURS:
            raise
        _refuse(f"{sys.executable} has no package {package!r}")
    return command_line


def _refuse(why: str) -> NoReturn:
    root = Path(__file__).resolve().parent.parent
    if (root / "Makefile").exists():  # a checkout
        make = shlex.join(["make", "-C", str(root), "env"])
        activate = shlex.join([".", str(root / ".venv" / "bin" / "activate")])
        mend = f"make the environment with `{make}`, then enter it with `{activate}`"
    else:
        mend = "install the suite and its packages with `pip install --force-reinstall disentanglement-ood-bench`"
    print(f"error: {why}; {mend}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
