"""Shared by the loaders: reading original files, and putting expression on the canonical scale.

A file that cannot be read is refused with a :class:`tasks.datasets.base.DataError` that names the file and,
where there is one, the line and the column.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.base import DataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

logger = logging.getLogger(__name__)

#: The unit of X where it was made of counts.
OF_COUNTS = "log1p of counts per 10,000"
#: The largest value that is plausible on a log scale: ln(1 + x) of it is an x of 5e21.
MOST_LOG = 50.0

# The errors of the libraries when a file is cut off, damaged or of another format.
_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


@contextmanager
def reading(file: Path, kind: str) -> Iterator[None]:
    """Turn a library's error about a damaged file into a DataError; ``kind`` names the expected format."""
    try:
        yield
    except DataError:
        raise
    except _FAULTS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{file}: cannot be read as {kind}, so it is cut off, damaged or another file ({reason[:300]}); delete "
            "it, with the .sha256 beside it if there is one, and fetch or add it again"
        ) from error


def lines(file: Path) -> Iterator[bytes]:
    """Yield the lines of a gzip-compressed text, without their ends (of Unix or of Windows)."""
    with reading(file, "gzip-compressed text"), gzip.open(file, "rb") as stream:
        for line in stream:
            yield line.rstrip(b"\r\n")


def matrix_rows(file: Path) -> tuple[list[str], Iterator[tuple[int, str, np.ndarray]]]:
    """Stream a gzip-compressed, tab-separated matrix of numbers with a header and a name for each row.

    The header may have a field for the column of row names or, as R writes it, none.

    Returns
    -------
    names
        The columns.
    rows
        Yields line number (from 1), row name and float32 values.
    """
    stream = enumerate(lines(file), start=1)
    header = _fields(next(stream, (1, b""))[1])
    number, first = next(stream, (2, b""))
    n_values = first.count(b"\t")
    if len(header) == n_values + 1 and n_values:
        header = header[1:]
    if len(header) != n_values or not n_values:
        raise DataError(
            f"{file}: line 1 has {len(header)} tab-separated fields and line 2 has {n_values + 1}, expected a header "
            "with as many fields as the rows or one fewer, and at least one row; get the original file again"
        )

    def rows() -> Iterator[tuple[int, str, np.ndarray]]:
        line: bytes | None = first
        at = number
        while line is not None:
            if line:
                name, _, text = line.partition(b"\t")
                yield at, _text(name), _numbers(text, file, at, header)
            at, line = next(stream, (at, None))

    return header, rows()


def _fields(line: bytes) -> list[str]:
    return [_text(field) for field in line.split(b"\t")] if line else []


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace").strip().strip('"')


def _numbers(text: bytes, file: Path, line: int, names: list[str]) -> np.ndarray:
    """Return tab-separated numbers; DataError names the line and the column of a value that is not a finite number."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that is no number
            values = np.fromstring(text.decode("ascii"), dtype=np.float32, sep="\t")
    except (DeprecationWarning, ValueError):
        values = np.empty(0, dtype=np.float32)
    if len(values) == len(names) and np.isfinite(values).all():
        return values
    fields = text.split(b"\t")
    if len(fields) != len(names):
        raise DataError(
            f"{file}: line {line} has {len(fields)} values, expected {len(names)}, one for each column of the header; "
            "the file is cut off or a tab is lost: get it again"
        )
    for name, field in zip(names, fields, strict=True):
        try:
            finite = np.isfinite(float(field))
        except ValueError:
            finite = False
        if not finite:
            raise DataError(
                f"{file}: line {line}, column {name!r} has {_text(field)!r}, expected a finite number; get the "
                "original file again"
            )
    raise DataError(f"{file}: line {line} has blanks between its numbers, expected one tab; get the file again")


def read_table(file: Path, columns: Iterable[str], encoding: str = "utf-8") -> pd.DataFrame:
    """Read a tab-separated table with a header, every value as text; ``columns`` are those it must have."""
    import csv

    import pandas as pd

    with reading(file, "a tab-separated table"):
        table = pd.read_csv(
            file, sep="\t", dtype=str, keep_default_na=False, encoding=encoding, quoting=csv.QUOTE_NONE, index_col=False
        )
        table.columns = table.columns.str.strip()
    require_columns(table, columns, file)
    return table.fillna("").apply(lambda column: column.str.strip())  # a short row lacks its last values


def require_columns(table: pd.DataFrame, columns: Iterable[str], file: Path) -> None:
    """Raise DataError unless ``table``, read from ``file``, has all of ``columns``."""
    present = [str(column) for column in table.columns]
    absent = [column for column in columns if column not in present]
    if absent:
        shown = ", ".join(map(repr, present[:20])) + (f" and {len(present) - 20} more" if len(present) > 20 else "")
        raise DataError(
            f"{file}: has no column {', '.join(map(repr, absent))}, expected it among {shown}; get the file that the "
            "catalogue names, or rename the column"
        )


def read_h5ad(file: Path) -> AnnData:
    """Read an ``.h5ad`` file, of any age."""
    import warnings

    import anndata

    with reading(file, "an .h5ad file"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says of every element how old the file is
        data = anndata.read_h5ad(file)
    data.X = summed(data.X)
    for name in filter(None, list(data.layers)):  # anndata 0.13 has X among them, under None
        data.layers[name] = summed(data.layers[name])
    return data


def read_rda(file: Path) -> dict[str, Any]:
    """Read the objects of an R data file, by name; of an S4 object, a namespace of its slots."""
    import warnings

    import rdata

    with reading(file, "an R data file"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Missing constructor for R class")
        return rdata.read_rda(file)


def from_dgc(slots: Any) -> csr_matrix:
    """Return R's ``dgCMatrix`` of genes x cells as cells x genes (the same arrays, read as rows), float32."""
    from scipy.sparse import csr_matrix

    genes, cells = slots.Dim
    return csr_matrix((slots.x.astype(np.float32), slots.i, slots.p), shape=(int(cells), int(genes)))


def read_mtx(file: Path, rows: int, columns: int | None, what: str) -> csr_matrix:
    """Read a Matrix Market file and turn it so that it has ``rows`` rows.

    Parameters
    ----------
    rows, columns
        How many it must have; ``columns`` None: any number. A square matrix is taken as it is.
    what
        What rows and columns are, for messages: "cells x genes".
    """
    from scipy.io import mminfo, mmread
    from scipy.sparse import csr_matrix

    with reading(file, "a Matrix Market file"):
        shape = tuple(mminfo(file)[:2])
        turned = [side for side in (shape, shape[::-1]) if side[0] == rows and columns in (None, side[1])]
        if not turned:
            raise DataError(
                f"{file}: is a matrix of {shape[0]} x {shape[1]}, expected {rows} x {columns or 'any'} ({what}) or the "
                "reverse; take all files from the same release"
            )
        matrix = mmread(file, spmatrix=True)
    return csr_matrix(matrix if turned[0] == shape else matrix.T, dtype=np.float32)


def read_idx(file: Path, n_dimensions: int) -> np.ndarray:
    """Read a gzip-compressed idx file of bytes, the format of MNIST.

    Two zero bytes, the type (8: unsigned bytes), the number of dimensions, each as a big-endian 32-bit
    integer, then the values: http://yann.lecun.com/exdb/mnist/.
    """
    with reading(file, "a gzip-compressed idx file"), gzip.open(file, "rb") as stream:
        content = stream.read()
    expected = bytes([0, 0, 8, n_dimensions])
    if content[:4] != expected or len(content) < 4 + 4 * n_dimensions:
        raise DataError(
            f"{file}: starts with {content[:4]!r}, expected {expected!r} (unsigned bytes, {n_dimensions} dimensions); "
            "get the original file again"
        )
    shape = tuple(np.frombuffer(content, ">i4", n_dimensions, 4).tolist())
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions)
    if len(values) != np.prod(shape):
        raise DataError(
            f"{file}: has {len(values)} values, expected {np.prod(shape)} for its shape {shape}; the file is cut off: "
            "get it again"
        )
    return values.reshape(shape)


def summed(matrix: Any) -> Any:
    """Return ``matrix``; of a sparse one the values that are stored for one cell and gene are added up, in place.

    A sparse file may hold several of them: the value is their sum, which neither a logarithm nor a look at the stored
    values gives.
    """
    if hasattr(matrix, "sum_duplicates"):
        matrix.sum_duplicates()
    return matrix


def are_counts(matrix: Any) -> bool:
    """Return whether every value, of a sparse or dense matrix, is a whole number and none is negative."""
    values = matrix.data if hasattr(matrix, "indptr") else np.asarray(matrix)
    return bool((values >= 0).all() and (values == np.floor(values)).all())


def log1p_cp10k(counts: csr_matrix) -> csr_matrix:
    """Return log1p of counts per ten thousand, float32; a cell without counts stays zero."""
    from scipy.sparse import csr_matrix

    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    factors = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)
    values = np.log1p(counts.data * np.repeat(factors, np.diff(counts.indptr))).astype(np.float32)
    return csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def prepare_counts(built: AnnData) -> AnnData:
    """Move counts to ``layers["counts"]``; ``X`` is their log1p(CP10k). Both are sparse."""
    counts = summed(built.X)
    built.X = log1p_cp10k(counts)
    built.layers["counts"] = counts
    built.uns["X_units"] = OF_COUNTS
    return built


def prepare_shipped(built: AnnData) -> AnnData:
    """Leave the expression as it was shipped."""
    return built


def dense(matrix: Any) -> np.ndarray:
    """Return a matrix as C-contiguous float32."""
    return np.ascontiguousarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=np.float32)


def of_genes(data: AnnData, genes: np.ndarray | None = None) -> AnnData:
    """Return ``data`` with some of its genes (indices; all by default), ``X``, counts and truth alike, all dense."""
    if genes is not None:
        copies_of(data)  # cells that are alike in a few genes are no copies
        truth = {name: values[genes] for name, values in data.uns.get("truth", {}).items()}
        data = data[:, genes].copy()
        if truth:
            data.uns["truth"] = truth
    data.X = dense(data.X)
    if "counts" in data.layers:
        data.layers["counts"] = dense(data.layers["counts"])
    return data


def keep_labelled(data: AnnData, columns: Iterable[str], dropped: dict[str, int]) -> AnnData:
    """Return the cells that have a label in all ``columns`` of ``obs``, and the genes that any of them expresses.

    How many were dropped is written into ``dropped``.
    """
    labels = data.obs[list(columns)]
    cells = (labels.notna() & (labels.astype(str) != "")).all(axis=1).to_numpy()
    kept = data if cells.all() else data[cells].copy()
    genes = np.asarray((kept.X != 0).sum(axis=0)).ravel() > 0
    dropped["cells without a label"] = int((~cells).sum())
    dropped["genes that no cell expresses"] = int((~genes).sum())
    return kept if genes.all() else kept[:, genes].copy()


def note_dropped(data: AnnData, dropped: Mapping[str, int], name: str) -> AnnData:
    """Write into ``data.uns["dropped"]`` how many of what were left out, log it, and return ``data``."""
    counts = {what: int(number) for what, number in dropped.items() if number}
    data.uns["dropped"] = counts
    if counts:
        logger.info("%s: left out %s", name, ", ".join(f"{number} x {what}" for what, number in counts.items()))
    return data


def categories(columns: Mapping[str, Any], index: Any) -> pd.DataFrame:
    """Return a data frame of text columns, each as a categorical."""
    import pandas as pd

    frame = {name: pd.Categorical(np.asarray(values).astype(str).astype(object)) for name, values in columns.items()}
    return pd.DataFrame(frame, index=pd.Index(np.asarray(index).astype(str).astype(object)))


def copies_of(data: AnnData) -> np.ndarray:
    """Return for each cell the position of the first cell that has the same expression and counts, (n_cells,).

    A cell that is no copy has its own position. The answer is kept in ``data.uns["copies"]``: it stays the answer for
    all genes when some are chosen. Where cells were left out since, it is found anew.
    """
    if len(data.uns.get("copies", ())) != data.n_obs:
        first: dict[bytes, int] = {}
        matrices = [data.X, *([data.layers["counts"]] if "counts" in data.layers else [])]
        rows = zip(*map(_rows, matrices), strict=True)
        data.uns["copies"] = np.array([first.setdefault(b"".join(row), at) for at, row in enumerate(rows)], dtype=int)
    return data.uns["copies"]


def _rows(matrix: Any) -> Iterator[bytes]:
    """Yield a digest of each row's values; for a sparse matrix, with its values summed, of those that are not 0."""
    if not hasattr(matrix, "indptr"):
        for row in np.asarray(matrix):
            yield hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
        return
    matrix = matrix.tocsr()
    for start, end in pairwise(matrix.indptr):
        values, columns = matrix.data[start:end], matrix.indices[start:end]
        order = np.argsort(columns, kind="stable")
        order = order[values[order] != 0]
        row = columns[order].astype(np.int64).tobytes() + values[order].tobytes()
        yield hashlib.blake2b(row, digest_size=16).digest()


def taken_for(data: AnnData) -> str:
    """Return what X was taken for: "counts", "log scale, 0 to 8.3", "scaled, with negative values", or its unit."""
    units = str(data.uns.get("X_units", ""))
    if "counts" in data.layers and units.startswith(OF_COUNTS):
        return "counts" + units.removeprefix(OF_COUNTS)
    low, high = float(data.X.min()), float(data.X.max())
    if units:
        return f"{units}, {low:.3g} to {high:.3g}"
    return "scaled, with negative values" if low < 0 else f"log scale, {low:.3g} to {high:.3g}"
