"""The commands that messages name, as they work in the shell in which this program was started."""

from __future__ import annotations

import os
import shlex
import shutil
import sys


def command(*words: object) -> str:
    """Return a command of this program, quoted for a shell.

    Parameters
    ----------
    words
        What follows the program's name: ``command("ui", "--out", out)``.
    """
    return shlex.join([*_program(), *map(str, words)])


def _program() -> list[str]:
    """Return how this program was started; where it was not from a shell, as in a notebook, how it can be."""
    script = sys.argv[0]
    if os.path.basename(script) == "bench" and os.path.isfile(script):
        installed = shutil.which("bench")
        return ["bench"] if installed and os.path.samefile(installed, script) else [script]
    if sys.orig_argv[1:3] == ["-m", "bench"]:
        return sys.orig_argv[:3]
    return [sys.executable, "-m", "bench"]
