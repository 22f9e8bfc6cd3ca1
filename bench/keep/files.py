"""Files that are written whole or not at all, and JSON with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_START, _END = b'{"sha256": "', b'", '
_LENGTH = len(_START) + 64 + len(_END)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``file``, which replaces it if all went well and is removed if not."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_sealed(content: Mapping[str, Any], file: Path) -> None:
    """Write an object that is not empty as JSON, with the SHA-256 of the rest of the file as its first member."""
    with replacing(file) as temporary:
        temporary.write_bytes(sealed(json.dumps(content, allow_nan=False).encode()))


def sealed(text: bytes) -> bytes:
    """Return the JSON of an object with its SHA-256 in it."""
    return _START + hashlib.sha256(text).hexdigest().encode() + _END + text[1:]


def read_sealed(file: Path) -> dict[str, Any] | None:
    """Return what :func:`write_sealed` wrote; None where the file is damaged, another one, or cannot be read."""
    try:
        return unsealed(file.read_bytes())
    except OSError:
        return None


def unsealed(content: bytes) -> dict[str, Any] | None:
    """Return the object in the content of a sealed file; None for any other content."""
    text = b"{" + content[_LENGTH:]
    return json.loads(text) if content == sealed(text) else None
