"""A user's ``.h5ad`` or ``.zarr`` as a data set."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.checks import check_columns, check_expression, check_fields, listed
from tasks.datasets.reading import MOST_LOG, OF_COUNTS, are_counts, log1p_cp10k, of_genes, read_h5ad, summed

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Genes that are used of a user's file unless something else is asked for, as of the catalogue's data.
N_GENES = 2000
#: What a user may say of X: look at it, counts, or on a log scale.
SCALES = ("auto", "counts", "log")
#: A column with so many different numbers holds measurements, no clusters or donors.
MOST_NUMBERS = 100


@dataclass(frozen=True)
class OwnData:
    """Cells in a file of the user's, whose columns are named on the command line.

    Whole non-negative numbers in ``X`` are taken for counts: they go to ``layers["counts"]`` and ``X`` becomes
    log1p of counts per 10,000. Any other ``X`` is used as it is, if it can be on a log scale: without negative values
    it is refused above :data:`tasks.datasets.reading.MOST_LOG`. Nothing but expression, counts and the named columns
    is read, so that what a file happens to hold is never taken for a simulator's truth, and does no harm.

    Attributes
    ----------
    file
        Path of the ``.h5ad``, or of a ``.zarr`` directory.
    fields
        Which of its ``obs`` columns mean what.
    n_genes
        How many genes are used; 0 for all.
    x
        What ``X`` is, of :data:`SCALES`. ``counts`` takes numbers with decimals (of SoupX, say) for counts and rounds
        them, as likelihoods of counts need whole ones; where ``X`` is empty it takes ``layers["counts"]``. ``log``
        uses ``X`` as it is, whatever its values.
    """

    file: str
    fields: Fields
    n_genes: int = N_GENES
    x: str = "auto"
    paper: str = ""
    licence: str = ""
    simulated: bool = False

    @property
    def name(self) -> str:
        """The file's name, without the suffix."""
        return Path(self.file).stem

    @property
    def summary(self) -> str:
        """Where it is."""
        return self.file

    def load(self, preset: str = "default", draw: int = 0, genes: np.ndarray | None = None) -> AnnData:
        """Read, check and return the cells; ``DataError`` names the file and the column that is not right."""
        named = [name for name in (self.fields.environment, self.fields.content, self.fields.replicate) if name]
        if len(set(named)) < len(named):
            raise DataError(f"{self.file}: of the columns {', '.join(named)} each is to mean one thing; name others")
        with _opened(self.file) as store:
            data = self._read(store, named)
        check_expression(data, self.file)
        check_fields(data, self.fields, self.file)
        self.fields.attach(data)
        return of_genes(data, genes) if genes is not None or not self.n_genes else data

    def _read(self, store: Any, named: list[str]) -> AnnData:
        """Return expression, counts and the columns ``named`` of an open file."""
        import anndata
        import pandas as pd

        cells, genes = (_Table(store, axis, self.file) for axis in ("obs", "var"))
        check_columns(cells.columns, genes.columns, self.fields, self.file)
        x, counts = (_matrix(store, where, self.file) for where in ("X", "layers/counts"))
        layers = list(store["layers"]) if "layers" in store else []
        if x is None and not (counts is not None and self.x == "counts"):
            taken = "add x=counts to --columns to take layers['counts'], or " if counts is not None else ""
            other = (
                f"; the layers are {listed(layers)}: {taken}move one of them to X" if layers else " and has no layers"
            )
            raise DataError(f"{self.file}: X is empty{other}")
        x, counts, units = self._scaled(counts if x is None else x, counts, "layers['counts']" if x is None else "X")
        obs = pd.DataFrame({name: pd.Series(cells.column(name)) for name in named})
        var = pd.DataFrame(index=pd.Index(genes.names()).astype(str))
        for n_rows, axis, n in ((len(obs), "obs", x.shape[0]), (len(var), "var", x.shape[1])):
            if n_rows != n:
                raise DataError(
                    f"{self.file}: X is {x.shape[0]} cells x {x.shape[1]} genes, and {axis} has {n_rows} rows"
                )
        obs.index = obs.index.astype(str)
        data = anndata.AnnData(x, obs=obs, var=var)
        if counts is not None:
            data.layers["counts"] = counts
        if units:
            data.uns["X_units"] = units
        return data

    def _scaled(self, x: Any, counts: Any, where: str) -> tuple[Any, Any, str]:
        """Return X on the scale that methods see, counts (None where there are none), and the unit of X."""
        from scipy.sparse import csr_matrix

        values = x.data if hasattr(x, "indptr") else x
        whole = are_counts(x)
        low, high = (float(limit) for limit in (np.min(values, initial=0), np.max(values, initial=0)))
        if self.x == "log" or not (whole or self.x == "counts"):
            if self.x == "auto" and low >= 0 and MOST_LOG < high < np.inf:
                raise DataError(
                    f"{self.file}: X has values with decimals up to {high:g}: no whole counts, and too large for a log "
                    f"scale (at most {MOST_LOG:g}); add x=counts to --columns to take them for counts and round them, "
                    "or make X log1p of normalised counts (scanpy.pp.normalize_total, scanpy.pp.log1p); x=log uses it "
                    "as it is"
                )
            return x, counts, ""
        units = OF_COUNTS + (f", of {where}" if where != "X" else "")
        if not whole:
            if low < 0:
                raise DataError(
                    f"{self.file}: {where} has negative values, such as {low:g}, and x=counts was given; counts are "
                    "0 or more: leave x=counts out, or give counts"
                )
            values = np.rint(values)
            x = csr_matrix((values, x.indices, x.indptr), x.shape) if hasattr(x, "indptr") else values
            units += ", rounded to whole numbers"
        counts = csr_matrix(x)
        return log1p_cp10k(counts), counts, units

    @cached_property
    def _digest(self) -> str:
        hashed = hashlib.sha256(repr((self.fields, self.n_genes, self.x)).encode())
        place = Path(self.file)
        for file in sorted(part for part in place.rglob("*") if part.is_file()) if place.is_dir() else [place]:
            hashed.update(f"{file.relative_to(place).as_posix()} {file.stat().st_size} ".encode())
            hashed.update(file.read_bytes())
        return hashed.hexdigest()

    def digest(self, preset: str = "default") -> str:
        """Return the digest of the file and of what its columns are taken for."""
        return self._digest

    def missing(self) -> str | None:
        """Return None if the file is there, else that it is not."""
        return None if is_data_file(Path(self.file)) else f"there is no .h5ad file or .zarr directory {self.file}"


def label_columns(file: str) -> pd.DataFrame:
    """Return the columns of a file's cells that hold labels, as text; NaN where a cell has none.

    Those are columns with two labels or more, and fewer than there are cells, that are no measurements: numbers with
    decimals, or :data:`MOST_NUMBERS` different numbers, such as the counts of a cell. Expression is not read.

    Raises
    ------
    tasks.datasets.base.DataError
        The file cannot be opened, or is no AnnData file.
    """
    import pandas as pd

    found: dict[str, pd.Series] = {}
    with _opened(file) as store:
        cells = _Table(store, "obs", file)
        n_cells = len(cells.names())
        for name in cells.columns:
            try:
                column = pd.Series(cells.column(name)).astype(object)
            except DataError:  # no column of labels
                continue
            given = column.dropna()
            numbers = pd.to_numeric(given, errors="coerce")
            measured = (numbers % 1).fillna(0).any() or numbers.nunique() >= MOST_NUMBERS
            text = given.astype(str).str.strip()
            text = text[text != ""]
            if 1 < text.nunique() < n_cells and not measured:
                found[name] = text.reindex(column.index)
    frame = pd.DataFrame(found, index=range(n_cells))
    return frame.set_axis(frame.index.astype(str), axis=0)


def is_data_file(path: Path) -> bool:
    """Return whether ``path`` is a file, or a directory that is the root of a zarr store (of version 2 or 3)."""
    return path.is_file() or any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    """Open an ``.h5ad`` or a ``.zarr`` as a tree of elements."""
    import h5py
    import zarr

    kind, opener = (".zarr", zarr.open_group) if Path(file).is_dir() else (".h5ad", h5py.File)
    try:
        store: Any = opener(file, mode="r")
    except (OSError, ValueError, LookupError) as error:
        raise DataError(f"{file}: not a readable {kind} ({error})") from error
    try:
        yield store
    finally:
        if kind == ".h5ad":
            store.close()


def _element(store: Any, path: str, file: str) -> Any:
    """Return one element of an open file; None where it is absent."""
    from anndata.io import read_elem

    if path not in store:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata says of every element how old the file is
            return read_elem(store[path])
    except Exception as error:  # the readers of h5py, zarr and anndata raise what they like, a TypeError among them
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{file}: {path} cannot be read ({reason[:200]}); write the file anew with the anndata that made it, "
            f"{path} as plain numbers or labels"
        ) from error


def _matrix(store: Any, path: str, file: str) -> Any:
    """Return a matrix of an open file as float32, dense or CSR, each value once; None where it is absent."""
    from scipy.sparse import csr_matrix, issparse

    matrix = _element(store, path, file)
    if matrix is None:
        return None
    kind = getattr(getattr(matrix, "dtype", None), "kind", "")
    if kind not in ("b", "i", "u", "f") or getattr(matrix, "ndim", 0) != 2:
        raise DataError(f"{file}: {path} is no matrix of numbers (cells x genes); write expression there")
    return summed(csr_matrix(matrix, dtype=np.float32)) if issparse(matrix) else np.asarray(matrix, dtype=np.float32)


class _Table:
    """``obs`` or ``var`` of an open file, of which no column is read before it is asked for."""

    def __init__(self, store: Any, axis: str, file: str):
        self.store, self.axis, self.file = store, axis, file
        if axis not in store:
            raise DataError(f"{file}: has no {axis}, so that it is no AnnData file; write it with anndata")
        #: The whole of it, where the file is of an anndata before 0.8: there columns do not stand for themselves.
        self.whole: pd.DataFrame | None = None
        if not hasattr(store[axis], "keys"):
            self.whole = getattr(read_h5ad(Path(file)), axis)
        elif "__categories" in store[axis]:
            self.whole = _element(store, axis, file)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, without that of the index."""
        if self.whole is not None:
            return [str(name) for name in self.whole.columns]
        return [str(name) for name in self.store[self.axis] if name != self._index]

    @property
    def _index(self) -> str:
        return str(self.store[self.axis].attrs.get("_index", "_index"))

    def column(self, name: str) -> Any:
        """Return the labels of a column."""
        return self.whole[name].array if self.whole is not None else self._part(name)

    def names(self) -> Any:
        """Return the index."""
        return self.whole.index if self.whole is not None else self._part(self._index)

    def _part(self, name: str) -> Any:
        part = _element(self.store, f"{self.axis}/{name}", self.file)
        if getattr(part, "ndim", 0) != 1:
            raise DataError(f"{self.file}: {self.axis}/{name} is no column of labels; write it anew with anndata")
        return part
