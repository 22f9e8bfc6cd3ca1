"""Files made once and read often, each with the SHA-256 of what was written beside it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def write(data: AnnData, file: Path) -> None:
    """Write cells as h5ad, with strings as plain arrays: so pandas 2 and 3 make the same file, and both read it.

    anndata writes pandas 3's type for strings in another form, or (0.12) not at all. The frames of ``data`` are changed
    in place.
    """
    import pandas as pd

    for frame in (data.obs, data.var):
        for name, column in list(frame.items()):
            if isinstance(column.dtype, pd.StringDtype):
                frame[name] = column.astype(object)
        frame.index = pd.Index(frame.index.to_numpy(object), dtype=object, name=frame.index.name)
    data.write_h5ad(file)


def made(file: Path, make: Callable[[Path], object]) -> bool:
    """Let ``make`` write a file, at a temporary path, unless it is there and whole; return whether it was made now.

    If several processes ask at once, one makes the file and the others wait for it.
    """
    from filelock import FileLock

    if is_whole(file):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if is_whole(file):
            return False
        with replacing(file, place) as temporary:
            make(temporary)
    return True


@contextmanager
def replacing(file: Path, put: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """Yield a temporary path in the directory of ``file``, and rename it to ``file`` if all went well."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as directory:
        temporary = Path(directory, file.name)
        yield temporary
        put(temporary, file)


def place(temporary: Path, file: Path) -> None:
    """Let a file that has been written take its place."""
    _record(file).write_text(sha256(temporary))
    os.replace(temporary, file)


def is_there(file: Path) -> bool:
    """Return whether a file and its SHA-256 are there, which is told at once."""
    return file.is_file() and _record(file).is_file()


def is_whole(file: Path) -> bool:
    """Return whether a file is there and is what was written; without its SHA-256 nothing says that it is."""
    return is_there(file) and _record(file).read_text(errors="replace") == sha256(file)


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
