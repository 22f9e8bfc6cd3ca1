"""Real data sets: their original public files, how they are fetched and checked, and the data set built from them.

Two directories are used. The *data directory* holds the original files, byte for byte, and may be
read-only; the *built directory* holds one ``.h5ad`` per data set, made from them once by its builder.

A file whose publisher states no checksum is trusted on first use: its SHA-256 is written beside it, as
``sha256sum`` prints it, and every later copy must have the same.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from metrics.cache import cache_directory, user_cache
from tasks.command_line import command
from tasks.datasets.base import DataError, Fields
from tasks.datasets.built import is_there, made, replacing, sha256, write
from tasks.datasets.checks import check_expression, check_fields
from tasks.datasets.reading import of_genes

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

#: How often a failed download is tried again, with a pause that grows by a second each time.
RETRIES = 3

_SHARED = "tasks.datasets.reading:"  # the module that all loaders use


def data_directory() -> Path:
    """Return where the original files are: ``BENCH_DATA_DIR``, else ``data`` in the user's cache."""
    chosen = os.environ.get("BENCH_DATA_DIR")
    return Path(chosen).expanduser() if chosen else user_cache() / "data"


def built_directory() -> Path:
    """Return where built data sets are kept: ``built`` in ``BENCH_CACHE_DIR``, else in the user's cache."""
    return cache_directory("built")


@dataclass(frozen=True)
class Source:
    """One original file.

    Attributes
    ----------
    path
        The file's place inside the data directory.
    bytes
        Its size; None where it is not known.
    sha256
        Its SHA-256, in hexadecimal digits; None for a file that is trusted on first use.
    url
        The address it is downloaded from; empty for a file that the user brings with ``data add``.
    """

    path: str
    bytes: int | None = None
    sha256: str | None = None
    url: str = ""

    @classmethod
    def github(cls, repository: str, commit: str, path: str, bytes: int, sha256: str) -> Source:
        """Return a file of a public GitHub repository (``owner/name``), pinned to a full commit hash."""
        url = f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"
        return cls(f"raw/{repository}/{commit}/{path}", bytes, sha256, url)

    @classmethod
    def first_use(cls, url: str, directory: str, name: str = "") -> Source:
        """Return a file without a published checksum; ``name`` is its name where the address has none."""
        return cls(f"raw/{directory}/{name or url.rpartition('/')[2]}", url=url)

    @property
    def place(self) -> Path:
        """The file's place now, inside ``data_directory()``."""
        return data_directory() / self.path

    @property
    def record(self) -> Path:
        """Where the checksum of a file is kept that was trusted on first use."""
        return self.place.with_name(f"{self.place.name}.sha256")

    def expected(self) -> str | None:
        """Return the SHA-256 that the file must have, published or recorded; None before its first use."""
        if self.sha256 is not None or not self.record.is_file():
            return self.sha256
        recorded = self.record.read_text(errors="replace").partition(" ")[0].strip()
        if not re.fullmatch("[0-9a-f]{64}", recorded):
            raise DataError(
                f"{self.record}: starts with {recorded[:80]!r}, not with the 64 hexadecimal digits of a SHA-256; "
                "delete it, and the next use of the file writes it anew"
            )
        return recorded


@dataclass(frozen=True)
class RealDataset:
    """A data set made from public files; it fulfils :class:`tasks.datasets.base.Dataset`.

    Attributes
    ----------
    name, summary, paper, licence, fields
        See :class:`tasks.datasets.base.Dataset`.
    sources
        The original files.
    builder
        ``"module:function"``; the function takes the paths of the original files, in the order of
        ``sources``, and returns the data set as an AnnData.
    prepare
        ``"module:function"``; the function turns a built AnnData into the canonical one, but leaves sparse matrices
        sparse. It runs at every load, so that the file on disk does not depend on the presentation.
    n_genes
        See :class:`tasks.datasets.base.Dataset`; 0 for what was published with its genes selected.
    """

    name: str
    summary: str
    paper: str
    licence: str
    fields: Fields
    sources: tuple[Source, ...]
    builder: str
    prepare: str
    n_genes: int = 0

    simulated: ClassVar[bool] = False

    def digest(self, preset: str = "default") -> str:
        """Return a SHA-256 over the sources' checksums, the loaders' source code and the fields.

        Every preset loads the same data, so ``preset`` has no influence.
        """
        summed = hashlib.sha256()
        for source in self.sources:
            summed.update((source.expected() or "").encode())
        for address in (self.builder, self.prepare, _SHARED):
            spec = find_spec(address.partition(":")[0])
            if spec is None or spec.origin is None:
                raise ModuleNotFoundError(f"{self.name}: there is no module of {address!r}")
            summed.update(address.encode() + Path(spec.origin).read_bytes())
        summed.update(repr((self.fields, self.n_genes)).encode())
        return summed.hexdigest()

    def path(self) -> Path:
        """Return the built file, or where it would be."""
        return built_directory() / f"{self.name}-{self.digest()[:12]}.h5ad"

    def missing(self) -> str | None:
        """Return None if ``load`` can work, else one sentence with the command that gets the data."""
        try:
            return None if is_there(self.path()) else self._absent()
        except DataError as error:  # a checksum's record is broken
            return f"{self.name}: {error}"

    def _absent(self) -> str | None:
        absent = [source for source in self.sources if not source.place.is_file()]
        if not absent:
            return None
        ways = []
        if any(source.url for source in absent):
            ways.append(f"run `{command('data', 'fetch', self.name)}`")
        by_hand = [source for source in absent if not source.url]
        if by_hand:
            names = ", ".join(source.place.name for source in by_hand)
            ways.append(f"give {names} with `{self._add_command(by_hand[0])}`")
        return (
            f"{self.name}: {len(absent)} of {len(self.sources)} original files are not in {data_directory()}; "
            f"{' and '.join(ways)}, or name a directory that has them with BENCH_DATA_DIR or --data-dir"
        )

    def _add_command(self, source: Source) -> str:
        """Return the command that takes a file: its checksum says whose it is, if it has been published."""
        return command("data", "add", "FILE", *(("--name", self.name) if source.sha256 is None else ()))

    def verify(self) -> None:
        """Raise DataError unless every original file is in place with the right SHA-256.

        The SHA-256 of a file without a published one is written beside it now, if that has not been done.
        """
        if absent := self._absent():
            raise DataError(absent)
        self._trust()
        for source in self.sources:
            got = _sha256(source.place)
            if got != source.expected():
                again = (
                    f"`{command('data', 'fetch', self.name)}` downloads it again"
                    if source.url
                    else f"give the right file with `{self._add_command(source)}`"
                )
                raise DataError(f"{self.name}: {source.place} has SHA-256 {got}, {_expectation(source)}; {again}")

    def _trust(self) -> None:
        """Record the checksums of files that are used for the first time."""
        for source in self.sources:
            if source.place.is_file() and source.expected() is None:
                self._record(source)

    def _record(self, source: Source) -> None:
        try:
            with replacing(source.record) as temporary:
                temporary.write_text(f"{_sha256(source.place)}  {source.place.name}\n")
        except OSError as error:
            raise DataError(
                f"{self.name}: cannot write {source.record}, which is to hold the checksum of a file that has no "
                f"published one ({error}); {_WRITABLE}, or write it there with `sha256sum`"
            ) from error

    def build(self) -> Path:
        """Make the built file from the verified original files, unless it is there; return its path."""
        self._trust()
        built = self.path()
        if made(built, self._make):
            self._remove_all_but(built)
        return built

    def _make(self, file: Path) -> None:
        self.verify()
        write(_function(self.builder)([source.place for source in self.sources]), file)

    def _remove_all_but(self, built: Path) -> None:
        """Remove what earlier builds of this data set left, and the lock files.

        Whoever still waits for one of the locks finds the built file, so that a second lock does no harm.
        """
        ours = re.compile(rf"{re.escape(self.name)}-[0-9a-f]{{12}}\.(h5ad|h5ad\.sha256|lock)")
        for file in built.parent.iterdir():
            if not file.name.startswith(built.name) and ours.fullmatch(file.name):
                with suppress(OSError):  # another user's, in a shared directory
                    file.unlink()

    def load(self, preset: str = "default", draw: int = 0, genes: np.ndarray | None = None) -> AnnData:
        """Return the canonical AnnData; the built file is made first if it is not there.

        Parameters
        ----------
        preset
            Ignored: a real data set has one size.
        draw
            Must be 0: a real data set has one draw.
        genes
            Indices of the genes to keep; None keeps all, in a data set with ``n_genes`` as they are stored.
        """
        if draw != 0:
            raise ValueError(f"{self.name} is a real data set and has draw 0 alone, not {draw}")
        import anndata

        data = _function(self.prepare)(anndata.read_h5ad(self.build()))
        if genes is not None or not self.n_genes:
            data = of_genes(data, genes)
        check_expression(data, self.name)
        check_fields(data, self.fields, self.name)
        return self.fields.attach(data)

    def fetch(self, progress: bool = False) -> Path:
        """Download the original files that are absent or wrong, then build; return the built file.

        Parameters
        ----------
        progress
            Draw a progress bar for each file.
        """
        for source in self.sources:
            if source.url and not _holds(source):
                self._download(source, progress)
        return self.build()

    def _download(self, source: Source, progress: bool) -> None:
        import pooch
        import requests

        def download(url: str, file: str, caller: pooch.Pooch) -> None:
            pooch.HTTPDownloader(progressbar=progress)(url, file, caller)
            if source.sha256 is None:
                _check_start(Path(file), source)

        pooch.get_logger().setLevel("WARNING")
        expected = source.expected()
        # pooch writes to a temporary name beside the file and renames it if the checksum is right.
        fetcher = pooch.create(
            path=source.place.parent,
            base_url="",
            registry={source.place.name: f"sha256:{expected}" if expected else None},
            urls={source.place.name: source.url},
            retry_if_failed=RETRIES,
        )
        try:
            fetcher.fetch(source.place.name, downloader=download)
            source.place.chmod(0o644)  # pooch leaves it to its owner alone, and data directories are shared
        except requests.RequestException as error:
            raise DataError(
                f"{self.name}: {source.url} could not be downloaded ({error}); once the network is back run "
                f"`{command('data', 'fetch', self.name)}` again, or give a copy of the file with "
                f"`{self._add_command(source)}`"
            ) from error
        except ValueError as error:
            raise DataError(
                f"{self.name}: what {source.url} sent was refused, {_expectation(source)} ({error}); a proxy or a "
                "guard against scripts may have answered in its place: get the file with a browser and give it "
                f"with `{self._add_command(source)}`"
            ) from error
        except OSError as error:
            raise DataError(f"{self.name}: cannot write {source.place} ({error}); {_WRITABLE}") from error
        if expected is None:
            self._record(source)

    def add(self, file: Path) -> Path:
        """Copy a file that the user has to its place; return that place.

        It is recognised by its SHA-256. A file without a published one is recognised by its name, or is the
        only original file of the data set, and its SHA-256 is recorded.

        Raises
        ------
        DataError
            If it is none of the original files of this data set.
        """
        got = _sha256(file)
        known = [source for source in self.sources if source.expected() == got]
        if known:
            self._copy(file, known[0])
            return known[0].place
        unknown = [source for source in self.sources if source.sha256 is None]
        named = [source for source in unknown if source.place.name == file.name]
        if not named and len(self.sources) == len(unknown) == 1:
            named = unknown
        if named and named[0].expected() is None:
            try:
                _check_start(file, named[0])
            except ValueError as error:
                raise DataError(f"{self.name}: {file} is not {named[0].place.name}: {error}") from error
            self._copy(file, named[0])
            self._record(named[0])
            return named[0].place
        same_name = [source for source in self.sources if source.place.name == file.name]
        expected = "\n".join(
            f"  {source.expected() or 'any SHA-256, with this file name'}  {source.path}"
            for source in same_name or self.sources
        )
        recorded = f"; delete {named[0].record} if another version of the file is meant" if named else ""
        raise DataError(
            f"{self.name}: {file} has SHA-256 {got}, which is none of its original files{recorded}; "
            f"expected\n{expected}"
        )

    def _copy(self, file: Path, source: Source) -> None:
        try:
            source.place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(source.place) as temporary:
                shutil.copyfile(file, temporary)
        except OSError as error:
            raise DataError(f"{self.name}: cannot write {source.place} ({error}); {_WRITABLE}") from error


def add(file: Path, name: str = "") -> Path:
    """Give a file that the user has to the data set that it belongs to; return where it has been copied to.

    Parameters
    ----------
    file
        The file. Its SHA-256 says which registered data set it belongs to.
    name
        The data set, which must be named for a file that has no published checksum.
    """
    from tasks.datasets import DATASETS

    if name:
        dataset = DATASETS[name]
        if not isinstance(dataset, RealDataset):
            raise DataError(f"{name}: is simulated and has no original files; leave {file} where it is")
        return dataset.add(file)
    got = _sha256(file)
    real = [dataset for dataset in DATASETS.values() if isinstance(dataset, RealDataset)]
    places = [(dataset, source) for dataset in real for source in dataset.sources]
    for dataset, source in places:
        if source.expected() == got:
            return dataset.add(file)
    close = difflib.get_close_matches(file.name, [source.place.name for _, source in places], n=1)
    if not close:
        raise DataError(
            f"{file} has SHA-256 {got}, which no registered data set expects, and no original file has a similar "
            f"name; `{command('data', 'list')}` shows the data sets, and `data add FILE --name NAME` takes a file "
            "without a published checksum"
        )
    dataset, source = next(place for place in places if place[1].place.name == close[0])
    nearest = f"the nearest by name is {close[0]} of {dataset.name}"
    raise DataError(
        f"{file} has SHA-256 {got}, which no registered data set expects; {nearest}, "
        + (
            f"which has no published checksum: `{command('data', 'add', file, '--name', dataset.name)}` takes it"
            if source.sha256 is None
            else f"{_expectation(source)}: get that file again"
        )
    )


_WRITABLE = "name a directory that can be written with BENCH_DATA_DIR or --data-dir"

# How files of these kinds start; a server that has no file often sends a page that says so.
_STARTS = {".gz": b"\x1f\x8b", ".h5ad": b"\x89HDF\r\n\x1a\n"}


def _check_start(file: Path, source: Source) -> None:
    """Raise ValueError unless ``file`` starts as one of the kind of ``source`` does."""
    wanted = _STARTS.get(source.place.suffix, b"")
    with file.open("rb") as stream:
        start = stream.read(16)
    if not start.startswith(wanted):
        raise ValueError(f"it starts with {start!r}, a {source.place.suffix} file with {wanted!r}")


def _expectation(source: Source) -> str:
    expected = source.expected()
    if source.sha256 is not None:
        return f"expected SHA-256 {expected}"
    if expected is None:
        return f"expected a {source.place.suffix} file"
    return (
        f"expected SHA-256 {expected}, which it had when it was first used (delete {source.record} if another "
        "version is meant)"
    )


def _function(address: str) -> Callable[..., Any]:
    module, _, name = address.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _sha256(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); give the path of a file") from error


def _holds(source: Source) -> bool:
    """Return whether the file is in place and the right one (or used for the first time)."""
    file = source.place
    if not file.is_file() or source.bytes not in (None, file.stat().st_size):
        return False
    expected = source.expected()
    return expected is None or _sha256(file) == expected
