"""Results in one file that moves between machines.

An archive is a gzipped tar of ``manifest.json`` (format, and size and SHA-256 of every file), ``jobs/<id>.json`` and,
where asked for, ``fits/<key>.safetensors``. Nothing else is in it: Parquet and leaderboard are made anew from the
results, and so are the rows of MLflow, by ``sync``; no database is moved. The same results make the same bytes.

An archive may come from anywhere. Nothing is written before all of it has been read once and found to be what its
manifest says: regular files with names of the two kinds above and no other, each there once, of the size and digest
stated, and results that can be read. A digest says that a file has arrived whole, not who made it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.files import replacing, unsealed
from bench.job import FORMAT
from bench.status import STATUSES
from bench.store import FINISHED, Store, StoreError, gather

MANIFEST = "manifest.json"
#: What may be in an archive, and how large a file of that kind may be: results hold curves and pictures.
KINDS = {re.compile(r"jobs/[0-9a-f]{16}\.json"): 2**26, re.compile(r"fits/[0-9a-f]{32}\.safetensors"): 2**33}
LARGEST_MANIFEST = 2**26
CHUNK = 2**20
#: What a tar file adds: a header of a block to every file, filled up to blocks, and two records at the end.
BLOCK, RECORDS = tarfile.BLOCKSIZE, 2 * tarfile.RECORDSIZE


class ArchiveError(StoreError):
    """An archive that is not taken; the message says what is wrong with it."""


@dataclass
class Merged:
    """What an import did: ids of jobs that were new, that were here already, and that were here and differed."""

    new: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    fits: int = 0


def export(store: Store, file: Path, fits: bool = False) -> dict[str, int]:
    """Write an archive of the results, and of the fits where asked for; the caller holds the lock.

    Returns
    -------
    dict
        The size of each file in it.
    """
    jobs = [store.file(result["job"]["id"]) for result in store.results()]
    members = jobs + (sorted(store.fits.glob("*.safetensors")) if fits else [])
    files = {str(member.relative_to(store.out)): member for member in members}
    about: dict[str, Any] = {
        name: {"bytes": member.stat().st_size, "sha256": _sha256(member)} for name, member in files.items()
    }
    manifest = json.dumps({"format": FORMAT, "files": about}, indent=1).encode()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with (
            temporary.open("wb") as raw,
            # neither name nor time in the header, so that the same results make the same bytes
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            tar.addfile(_member(MANIFEST, len(manifest)), io.BytesIO(manifest))
            for name, member in files.items():
                with member.open("rb") as stream:
                    tar.addfile(_member(name, about[name]["bytes"]), stream)
        os.replace(temporary, file)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
    return {name: one["bytes"] for name, one in about.items()}


def check(file: Path, out: Path) -> None:
    """Read a whole archive that is to go into an out directory; nothing is written.

    Raises
    ------
    ArchiveError
        It is not what its manifest says, holds what no archive of ours does, or there is no room for it.
    """
    reading = MANIFEST

    def results() -> Iterator[dict[str, Any]]:
        nonlocal reading
        for name, content in archive.members():
            if name.startswith("jobs/"):
                text, reading = b"".join(content), name
                yield _result(name, text)
            else:
                for _ in content:
                    pass
        reading = "one of its results"  # it is as a table that they are not right

    try:
        with _opened(file) as archive:
            _check_space(archive.manifest, out)
            gather(results())
    except ArchiveError as error:
        raise ArchiveError(f"{error}; nothing was written") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"{reading} cannot be read ({type(error).__name__}: {error})"
        raise ArchiveError(f"{file}: {what}; nothing was written") from error


def merge(store: Store, file: Path) -> Merged:
    """Put the files of an archive that :func:`check` has passed into an out directory; the caller holds the lock.

    Of a job that is here already and differs, a result that ended well is kept before one that did not, and else
    the one that finished later.
    """
    done = Merged()
    with _opened(file) as archive:
        for name, content in archive.members():
            target = store.out / name
            if name.startswith("fits/"):
                if not target.exists():
                    _write(target, content)
                    done.fits += 1
                continue
            text = b"".join(content)
            theirs, ours = unsealed(text) or {}, store.read(target.stem)
            if ours is None:
                done.new.append(target.stem)
            elif ours == theirs:
                done.same.append(target.stem)
                continue
            elif _rank(ours) >= _rank(theirs):
                done.kept.append(target.stem)
                continue
            else:
                done.replaced.append(target.stem)
            _write(target, [text])
    return done


class _Bounded:
    """A stream that gives no more than it may: what a small archive unpacks to is known before it is unpacked."""

    def __init__(self, stream: gzip.GzipFile, limit: int):
        self.stream = stream
        self.left = limit

    def read(self, size: int) -> bytes:
        content = self.stream.read(min(size, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            raise ArchiveError("more comes out of it than its manifest says")
        return content


class _Archive:
    """An archive that is read from the beginning to the end, once, with every check that there is.

    ``tarfile`` only reads: no name of an archive ever becomes a path but one of :data:`KINDS`, which is more than its
    ``data`` filter asks for.
    """

    def __init__(self, stream: gzip.GzipFile):
        self.stream = _Bounded(stream, LARGEST_MANIFEST + BLOCK)
        self.tar = tarfile.open(fileobj=self.stream, mode="r|")  # type: ignore[call-overload] # noqa: SIM115
        first = self.tar.next()
        if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST_MANIFEST:
            raise ArchiveError(f"it does not begin with a {MANIFEST}; is it one that `bench export` made?")
        self.manifest = _manifest(b"".join(self._content(first)))
        files = self.manifest["files"]
        needed = sum(about["bytes"] for about in files.values())
        self.stream.left = needed + (len(files) + 1) * 2 * BLOCK + RECORDS

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Return each file's name and content; a content that is read to its end has the right digest."""
        lacking = dict(self.manifest["files"])
        while (member := self.tar.next()) is not None:
            about = lacking.pop(member.name, None)
            if about is None:
                raise ArchiveError(f"{member.name!r} is not in its manifest, or twice in it")
            if not member.isreg():
                raise ArchiveError(f"{member.name!r} is no regular file")
            if member.size != about["bytes"]:
                raise ArchiveError(f"{member.name} is {member.size} bytes; its manifest says {about['bytes']}")
            yield member.name, self._content(member, about["sha256"])
        if lacking:
            raise ArchiveError(f"{len(lacking)} files of its manifest are not in it, as {next(iter(lacking))}")
        while self.stream.read(CHUNK):  # to the checksum at the end
            pass

    def _content(self, member: tarfile.TarInfo, sha256: str = "") -> Iterator[bytes]:
        hashed = hashlib.sha256()
        stream = self.tar.extractfile(member)
        while chunk := stream.read(CHUNK):
            hashed.update(chunk)
            yield chunk
        if sha256 and hashed.hexdigest() != sha256:
            raise ArchiveError(f"{member.name} has SHA-256 {hashed.hexdigest()}; its manifest says {sha256}")


@contextmanager
def _opened(file: Path) -> Iterator[_Archive]:
    """Open an archive; whatever is wrong with it becomes one message with its name."""
    if not file.is_file():
        raise ArchiveError(f"{file}: there is no such file")
    try:
        with gzip.open(file) as stream:
            yield _Archive(stream)
    except ArchiveError as error:
        raise ArchiveError(f"{file}: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise ArchiveError(f"{file}: not a whole .tar.gz ({error}); copy it again") from error


def _manifest(text: bytes) -> dict[str, Any]:
    """Return a manifest of this format whose files are of the kinds that there are."""
    try:
        manifest = json.loads(text)
        found, files = manifest["format"], manifest["files"]
        for name, about in files.items():
            limit = next((limit for kind, limit in KINDS.items() if kind.fullmatch(name)), None)
            if limit is None:
                raise ArchiveError(f"its manifest names {name!r}; only jobs/<id>.json and fits/<key>.safetensors go in")
            size, sha256 = about["bytes"], about["sha256"]
            if not (type(size) is int and 0 <= size <= limit and re.fullmatch("[0-9a-f]{64}", sha256)):
                raise ArchiveError(f"its manifest gives {name} {size!r} bytes (at most {limit}) and SHA-256 {sha256!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArchiveError(f"its {MANIFEST} cannot be read ({type(error).__name__}: {error})") from error
    if found != FORMAT:
        raise ArchiveError(f"it is in format {found!r}, this version reads {FORMAT}; use the version that made it")
    return manifest


def _result(name: str, text: bytes) -> dict[str, Any]:
    """Return the result that a file holds, which must be that of the job that it is named after."""
    result = json.loads(text, parse_constant=_refuse)
    if unsealed(text) is None:
        raise ArchiveError(f"{name} is not as it was written: the SHA-256 in it is not that of the rest")
    if result["format"] != FORMAT or f"jobs/{result['job']['id']}.json" != name:
        raise ArchiveError(f"{name} is not the result that it is called")
    if result["status"] not in STATUSES:
        raise ArchiveError(f"{name} has status {result['status']!r}; one of {', '.join(STATUSES)} is known")
    _rank(result)
    return result


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _rank(result: dict[str, Any]) -> tuple[bool, float]:
    return result["status"] in FINISHED, datetime.fromisoformat(result["finished"]).timestamp()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(target: Path, content: Any) -> None:
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as temporary, temporary.open("wb") as stream:
        stream.writelines(content)


def _check_space(manifest: dict[str, Any], directory: Path) -> None:
    needed = sum(about["bytes"] for about in manifest["files"].values())
    there = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ArchiveError(f"it unpacks to {needed} bytes, and {there} has {free} free")
