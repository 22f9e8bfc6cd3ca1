"""Real data sets: their original public files, how these are fetched and checked, and what is made of them.

Two directories are used. The *data directory* holds the original files, byte for byte, and may be
read-only; the *built directory* holds one ``.h5ad`` per data set, made from them once by its builder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.datasets.base import DataError, Fields
from tasks.datasets.checks import check_expression, check_fields

if TYPE_CHECKING:
    from anndata import AnnData

APPLICATION = "disentanglement-ood-bench"


def _cache_directory() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir(APPLICATION))


def data_directory() -> Path:
    """Return where the original files are: ``BENCH_DATA_DIR``, else ``data`` in the user's cache."""
    chosen = os.environ.get("BENCH_DATA_DIR")
    return Path(chosen).expanduser() if chosen else _cache_directory() / "data"


def built_directory() -> Path:
    """Return where built data sets are kept: ``built`` in ``BENCH_CACHE_DIR``, else in the user's cache."""
    chosen = os.environ.get("BENCH_CACHE_DIR")
    return (Path(chosen).expanduser() if chosen else _cache_directory()) / "built"


@dataclass(frozen=True)
class Source:
    """One original file, pinned to a commit of a public GitHub repository.

    Attributes
    ----------
    repository
        ``owner/name``.
    commit
        The full commit hash.
    path
        The file's path inside the repository.
    bytes
        Its size.
    sha256
        Its SHA-256, in hexadecimal digits.
    """

    repository: str
    commit: str
    path: str
    bytes: int
    sha256: str

    @property
    def url(self) -> str:
        """The address the file is downloaded from."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.path}"

    @property
    def relative(self) -> Path:
        """The file's place inside the data directory."""
        return Path("raw", self.repository, self.commit, self.path)

    @property
    def place(self) -> Path:
        """The file's place now, inside ``data_directory()``."""
        return data_directory() / self.relative


@dataclass(frozen=True)
class RealDataset:
    """A data set made from public files; it fulfils :class:`tasks.datasets.base.Dataset`.

    Attributes
    ----------
    name, summary, reference, licence, fields
        See :class:`tasks.datasets.base.Dataset`.
    sources
        The original files.
    builder
        ``"module:function"``; the function takes the paths of the original files, in the order of
        ``sources``, and returns the data set as an AnnData.
    prepare
        ``"module:function"``; the function turns a built AnnData into the canonical one. It runs at every
        load, so that what is on disk stays independent of how it is presented.
    """

    name: str
    summary: str
    reference: str
    licence: str
    fields: Fields
    sources: tuple[Source, ...]
    builder: str
    prepare: str

    simulated: ClassVar[bool] = False

    def digest(self, preset: str = "default") -> str:
        """Return a SHA-256 over the sources' checksums, the loader's source code and the fields.

        Every preset loads the same data, so ``preset`` has no influence.
        """
        summed = hashlib.sha256()
        for source in self.sources:
            summed.update(source.sha256.encode())
        for address in (self.builder, self.prepare):
            spec = find_spec(address.partition(":")[0])
            if spec is None or spec.origin is None:
                raise ModuleNotFoundError(f"{self.name}: there is no module of {address!r}")
            summed.update(address.encode() + Path(spec.origin).read_bytes())
        summed.update(repr(self.fields).encode())
        return summed.hexdigest()

    def path(self) -> Path:
        """Return the built file, or where it would be."""
        return built_directory() / f"{self.name}-{self.digest()[:12]}.h5ad"

    def missing(self) -> str | None:
        """Return None if ``load`` can work, else one sentence with the command that gets the data."""
        return None if self.path().is_file() else self._absent()

    def _absent(self) -> str | None:
        absent = [source for source in self.sources if not source.place.is_file()]
        if not absent:
            return None
        return (
            f"{self.name}: {len(absent)} of {len(self.sources)} original files are not in "
            f"{data_directory()}; run `python -m bench data fetch {self.name}`, or name a directory that "
            "has them with BENCH_DATA_DIR or --data-dir"
        )

    def verify(self) -> None:
        """Raise DataError unless every original file is in place with the right SHA-256."""
        if absent := self._absent():
            raise DataError(absent)
        for source in self.sources:
            got = _sha256(source.place)
            if got != source.sha256:
                raise DataError(
                    f"{self.name}: {source.place} has SHA-256 {got}, expected {source.sha256}; "
                    f"`python -m bench data fetch {self.name}` downloads it again"
                )

    def build(self) -> Path:
        """Make the built file from the verified original files, unless it is there; return its path.

        Of several processes that ask at once, one builds and the others wait for it.
        """
        from filelock import FileLock

        built = self.path()
        if built.is_file():
            return built
        built.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(built.with_suffix(".lock")):
            if not built.is_file():
                self.verify()
                data = _function(self.builder)([source.place for source in self.sources])
                with _replacing(built) as temporary:
                    data.write_h5ad(temporary)
        return built

    def load(self, preset: str = "default", draw: int = 0) -> AnnData:
        """Return the canonical AnnData; the built file is made first if it is not there.

        Parameters
        ----------
        preset
            Ignored: a real data set has one size.
        draw
            Must be 0: a real data set has one draw.
        """
        if draw != 0:
            raise ValueError(f"{self.name} is a real data set and has draw 0 alone, not {draw}")
        import anndata

        data = _function(self.prepare)(anndata.read_h5ad(self.build()))
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
            if not _holds(source.place, source):
                self._download(source, progress)
        return self.build()

    def _download(self, source: Source, progress: bool) -> None:
        import pooch
        import requests

        pooch.get_logger().setLevel("WARNING")
        try:
            # pooch writes to a temporary name beside the file and renames it if the checksum is right.
            pooch.retrieve(
                source.url,
                known_hash=f"sha256:{source.sha256}",
                fname=source.place.name,
                path=source.place.parent,
                progressbar=progress,
            )
            source.place.chmod(0o644)  # pooch leaves it to its owner alone, and data directories are shared
        except requests.RequestException as error:
            raise DataError(
                f"{self.name}: {source.url} could not be downloaded ({error}); once the network is back run "
                f"`python -m bench data fetch {self.name}` again, or give a copy of the file with "
                f"`python -m bench data add FILE`"
            ) from error
        except ValueError as error:
            raise DataError(
                f"{self.name}: what {source.url} sent was refused, expected SHA-256 {source.sha256} "
                f"({error}); a proxy may have answered in its place"
            ) from error
        except OSError as error:
            raise DataError(f"{self.name}: cannot write {source.place} ({error}); {_WRITABLE}") from error

    def add(self, file: Path) -> Path:
        """Copy a file that the user has to its place, recognised by its SHA-256; return that place.

        Raises
        ------
        DataError
            If it is none of the original files of this data set.
        """
        got = _sha256(file)
        for source in self.sources:
            if source.sha256 == got:
                try:
                    source.place.parent.mkdir(parents=True, exist_ok=True)
                    with _replacing(source.place) as temporary:
                        shutil.copyfile(file, temporary)
                except OSError as error:
                    raise DataError(f"{self.name}: cannot write {source.place} ({error}); {_WRITABLE}") from error
                return source.place
        same_name = [source for source in self.sources if source.place.name == file.name]
        expected = "\n".join(f"  {source.sha256}  {source.path}" for source in same_name or self.sources)
        raise DataError(
            f"{self.name}: {file} has SHA-256 {got}, which is none of its original files; expected\n{expected}"
        )


_WRITABLE = "name a directory that can be written with BENCH_DATA_DIR or --data-dir"


def _function(address: str) -> Callable[..., Any]:
    module, _, name = address.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _holds(file: Path, source: Source) -> bool:
    return file.is_file() and file.stat().st_size == source.bytes and _sha256(file) == source.sha256


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary path in the directory of ``file``, and rename it to ``file`` if all went well."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as directory:
        temporary = Path(directory, file.name)
        yield temporary
        os.replace(temporary, file)
