"""Answers in files: found, read, checked against the questions, and put into the questions' order."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from bench.records import PlanError
from bench.studies.submit.questions import ANSWERS, Asked, Question
from bench.studies.submit.split import FORMAT, MANIFEST, described
from tasks.datasets.built import sha256 as sha256_of
from tasks.datasets.checks import listed

#: Formats of an answer.
SUFFIXES = (".h5ad", ".npz", ".h5")
#: Errors of the libraries when a file is cut off, damaged or of another format.
FAULTS = (OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, zlib.error, zipfile.BadZipFile)
#: A prediction is on another scale if its mean, or its largest values, are so many times those of the query, or so few.
MOST_MEAN, MOST_TOP = 5.0, 3.0
#: Quantile that stands for the largest values.
TOP = 0.999
#: Share of the sum of absolute values that may be below zero where the query has no value below it.
MOST_NEGATIVE = 0.1


class Refused(PlanError):
    """An answer is not what was asked for; nothing is scored."""


@dataclass(frozen=True)
class Table:
    """What an answer holds: values (n_cells, n_columns), names of cells, and of genes where it is expression."""

    values: np.ndarray
    cells: np.ndarray
    genes: np.ndarray | None = None


@dataclass
class Answers:
    """The answers of one method, in a directory with a copy of the manifest of ``bench split``.

    Attributes
    ----------
    directory
        Where they are.
    fits
        What the task asks now (:func:`bench.studies.submit.questions.asked_by`).
    notes
        What was mended while they were checked: cells or genes in another order.
    """

    directory: Path
    fits: Sequence[Asked]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def stems(self) -> dict[tuple[str, int], dict[tuple[str, str, str], Path]]:
        """Files of answers without their suffix, by the keys of fit and question."""
        return {
            (asked.digest, asked.seed): {
                key: self.directory / question["answer"]
                for key, question in zip(asked.questions, entry["questions"], strict=True)
            }
            for entry, asked in zip(described(self.fits), self.fits, strict=True)
        }

    @cached_property
    def sha256(self) -> str:
        """A digest of all answers."""
        files = [found(stem) for of_fit in self.stems.values() for stem in of_fit.values()]
        return sha256("".join(map(sha256_of, files)).encode()).hexdigest()

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Read every answer once; raise Refused where one, or the manifest, is not what was asked for."""
        entries = described(self.fits)
        if [without_files(entry) for entry in manifest["fits"]] != entries:
            raise Refused(
                f"{self.directory / MANIFEST}: its cells are not those that {manifest['task']} asks for here: it was "
                "changed, or task or data have another version; run bench split again and answer that"
            )
        for entry in manifest["fits"]:
            for name, digest in entry.get("files", {}).items():
                file = self.directory / name
                if file.exists() and sha256_of(file) != digest:
                    raise Refused(f"{file}: is not the file that bench split wrote (another SHA-256); split again")
        for asked in self.fits:
            for key in asked.questions:
                self.answer(asked, key)

    def answer(self, asked: Asked, key: tuple[str, str, str]) -> np.ndarray:
        """Return the answer to a question, checked: (n_cells, n_latent) codes or (n_cells, n_genes) expression."""
        file = found(self.stems[asked.digest, asked.seed][key])
        question = asked.questions[key]
        table = read(file, ANSWERS[question.ability])
        check_values(table, question, file)
        rows = self._places(table.cells, question.cells.obs_names.to_numpy(str), "cells", file)
        values = table.values[rows]
        if table.genes is not None:
            values = values[:, self._places(table.genes, question.cells.var_names.to_numpy(str), "genes", file)]
            check_scale(values, np.asarray(question.cells.X), file)
        return np.ascontiguousarray(values, dtype=np.float32)

    def _places(self, names: np.ndarray, wanted: np.ndarray, what: str, file: Path) -> np.ndarray:
        """Return where each wanted name is; raise Refused unless names are exactly those, in any order."""
        place = {name: i for i, name in enumerate(names.tolist())}
        missing = [name for name in wanted.tolist() if name not in place]
        extra = sorted(set(place) - set(wanted.tolist()))
        if len(place) < len(names):
            raise Refused(f"{file}: {len(names) - len(place)} of its {len(names)} {what} have the name of another one")
        if missing or extra:
            parts = [
                f"{len(some)} {what} {how} ({listed(some, 3)})"
                for some, how in ((missing, "are missing"), (extra, "were not asked for"))
                if some
            ]
            raise Refused(f"{file}: {' and '.join(parts)}; the {len(wanted)} {what} of the question are needed")
        if list(names) != list(wanted):
            note = f"{file.name}: {what} were in another order, and were put in that of the question by their names"
            if note not in self.notes:
                self.notes.append(note)
        return np.array([place[name] for name in wanted.tolist()])


def without_files(entry: Any) -> Any:
    """Return a fit of a manifest without the checksums of its files."""
    return {key: value for key, value in entry.items() if key != "files"} if isinstance(entry, dict) else entry


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest in a directory of answers; raise Refused where there is none that can be read."""
    file = directory / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        whole = manifest["format"] == FORMAT and {"task", "preset", "seeds", "draws", "fits"} <= set(manifest)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refused(f"{file}: cannot be read ({error}); copy the manifest of bench split there") from error
    if not whole:
        raise Refused(f"{file}: is no manifest of format {FORMAT}; run bench split again and answer that")
    return manifest


def found(stem: Path) -> Path:
    """Return the one file of an answer."""
    files = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
    there = [file for file in files if file.is_file()]
    if len(there) != 1:
        got = f"{len(there)} answers; keep one of" if there else "is missing; one is needed, of"
        raise Refused(f"{stem}: {got} {', '.join(file.name for file in there or files)}")
    return there[0]


def read(file: Path, what: str) -> Table:
    """Return what an answer holds; ``what`` is "codes" or "x". No file can run code: pickles are refused."""
    try:
        if file.suffix == ".h5ad":
            return _read_h5ad(file, what)
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return _table(dict(arrays), what)
        import h5py

        with h5py.File(file, "r") as stream:
            return _table({name: _plain(stream[name]) for name in stream}, what)
    except FAULTS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Refused(
            f"{file}: cannot be read ({reason[:200]}), so it is cut off, damaged or lacks an array; docs/submitting.md "
            "says what is in it"
        ) from error


def _read_h5ad(file: Path, what: str) -> Table:
    import warnings

    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are there twice are said below
        data = anndata.read_h5ad(file)
    values = data.obsm["codes"] if what == "codes" else data.X
    genes = None if what == "codes" else data.var_names.to_numpy(str)
    return Table(_dense(values), data.obs_names.to_numpy(str), genes)


def _table(arrays: Mapping[str, np.ndarray], what: str) -> Table:
    genes = None if what == "codes" else _names(arrays["genes"])
    return Table(_dense(arrays[what]), _names(arrays["cells"]), genes)


def _plain(dataset: Any) -> np.ndarray:
    return dataset.asstr()[:] if dataset.dtype.kind in "OS" else dataset[:]


def _names(values: np.ndarray) -> np.ndarray:
    return np.asarray([name.decode() if isinstance(name, bytes) else str(name) for name in values.ravel().tolist()])


def _dense(values: Any) -> np.ndarray:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def check_values(table: Table, question: Question, file: Path) -> None:
    """Raise Refused unless an answer is a matrix of finite numbers with a row for each of its names."""
    values, shape = table.values, table.values.shape
    n_columns = "n_latent" if table.genes is None else str(question.cells.n_vars)
    if len(shape) != 2 or not shape[1] or shape[0] != len(table.cells):
        turned = "; R writes matrices transposed, so write t(x)" if shape[::-1][:1] == (len(table.cells),) else ""
        raise Refused(
            f"{file}: has values of shape {shape} and {len(table.cells)} names of cells; ({question.cells.n_obs}, "
            f"{n_columns}) is needed{turned}"
        )
    if table.genes is not None and shape[1] != len(table.genes):
        raise Refused(f"{file}: has {shape[1]} columns and {len(table.genes)} names of genes; as many are needed")
    finite = np.isfinite(values) if np.issubdtype(values.dtype, np.number) else np.zeros(shape, dtype=bool)
    if not finite.all():
        raise Refused(f"{file}: {(~finite).sum()} of {values.size} values are no finite numbers; all must be")


def check_scale(predicted: np.ndarray, cells: np.ndarray, file: Path) -> None:
    """Raise Refused where predictions are on another scale than the cells that they start from.

    Conditions change genes and leave the scale: mean and largest values stay within :data:`MOST_MEAN` and
    :data:`MOST_TOP` times those of the query, and there is little below zero where the query has nothing there.
    """
    pairs = {
        "a mean": (np.abs(predicted).mean(), np.abs(cells).mean(), MOST_MEAN),
        "largest values": (np.quantile(np.abs(predicted), TOP), np.quantile(np.abs(cells), TOP), MOST_TOP),
    }
    said = "predict on the scale of X in the question, as the training cells have it"
    for what, (got, there, most) in pairs.items():
        if not there / most <= got <= there * most:
            raise Refused(f"{file}: is on another scale: {what} of {got:.3g}, where the query has {there:.3g}; {said}")
    below = -np.minimum(predicted, 0).sum(dtype=float) / max(np.abs(predicted).sum(dtype=float), 1e-12)
    if cells.min() >= 0 and below > MOST_NEGATIVE:
        raise Refused(
            f"{file}: is on another scale: {below:.0%} of its absolute values are below zero, where the query has "
            f"nothing there; {said}"
        )
