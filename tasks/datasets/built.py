"""Files made once and read often, each with the SHA-256 of what was written beside it."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path


def place(temporary: Path, file: Path) -> None:
    """Let a file that has been written take its place."""
    os.replace(temporary, file)
    _record(file)


def is_whole(file: Path) -> bool:
    """Return whether a file is there and is what was written; one that has no SHA-256 beside it gets one now."""
    if not file.is_file():
        return False
    recorded = file.with_name(f"{file.name}.sha256")
    if not recorded.is_file():
        _record(file)
        return True
    return recorded.read_text(errors="replace") == _sha256(file)


def _record(file: Path) -> None:
    with suppress(OSError):  # where it cannot be written the file is taken as it is
        file.with_name(f"{file.name}.sha256").write_text(_sha256(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
