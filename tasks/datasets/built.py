"""Files made once and read often, each with the SHA-256 of what was written beside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def place(temporary: Path, file: Path) -> None:
    """Let a file that has been written take its place."""
    _record(file).write_text(_sha256(temporary))
    os.replace(temporary, file)


def is_there(file: Path) -> bool:
    """Return whether a file and its SHA-256 are there, which is told at once."""
    return file.is_file() and _record(file).is_file()


def is_whole(file: Path) -> bool:
    """Return whether a file is there and is what was written; without its SHA-256 nothing says that it is."""
    return is_there(file) and _record(file).read_text(errors="replace") == _sha256(file)


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
