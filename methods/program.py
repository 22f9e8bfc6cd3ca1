"""Methods that are programs, in any language and environment, which read and write h5ad files."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.base import Method, column, control
from methods.errors import CannotFit, ConfigError

if TYPE_CHECKING:
    from anndata import AnnData

#: Exit code of a program that is not made for the data.
NOT_MADE_FOR_THIS = 3
#: Number of last lines on stderr that are reported when a program fails.
LINES = 8
#: Prefix of the temporary directories for the files of a call.
PREFIX = "bench-program-"


class ProgramError(RuntimeError):
    """A program failed, or did not write what it should have."""


class Program(Method):
    """A program that is called once for a fit and once for each embedding or prediction.

    A subclass sets ``name`` and ``command``, may have a ``Config``, and derives from :class:`Embeds`, :class:`Predicts`
    and :class:`Decodes` as far as the program has these abilities::

        class MyMethod(Embeds, Predicts):
            name = "my-method"
            command = ("Rscript", "my_method.R")

    It is called as ``command fit --data train.h5ad --config config.json --seed 0 --model DIR``, and, for example,
    ``command embed --data cells.h5ad --model DIR --out codes.h5ad``; docs/wrapping.md has the whole protocol. It starts
    in an empty directory, with the environment variables of this process except Python's, and ends with the job. The
    files that a fit leaves in DIR are its state; later calls get nothing else.
    """

    #: The program and its first arguments; a file in the directory of the class's file gets its full path.
    command: ClassVar[tuple[str, ...]]
    #: More files in that directory that results depend on.
    files: ClassVar[tuple[str, ...]] = ()

    model: dict[str, np.ndarray]
    n_genes: int

    @classmethod
    def configure(cls, preset: str = "default", dataset: str = "", **changes: Any) -> Any:
        """Return the configuration, if the class has a valid command."""
        command = getattr(cls, "command", None)
        if not isinstance(command, tuple) or not command or not all(isinstance(part, str) for part in command):
            raise ConfigError(f"{cls.name}: command={command!r}; words are needed, as in ('Rscript', 'my_method.R')")
        return super().configure(preset, dataset, **changes)

    @classmethod
    def depends(cls) -> str:
        """Return the digests of the command's files and of ``files``."""
        parts = [(part, cls._beside(part)) for part in (*cls.command, *cls.files)]
        return json.dumps([[p, hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else ""] for p, f in parts])

    @classmethod
    def _beside(cls, part: str) -> Path:
        return Path(inspect.getfile(cls)).parent / part

    def fit(self, data: AnnData, seed: int) -> Self:
        """Call the program to fit, and keep the files that it wrote."""
        with tempfile.TemporaryDirectory(prefix=PREFIX) as temporary:
            directory = Path(temporary)
            model = directory / "model"
            model.mkdir()
            (directory / "config.json").write_text(json.dumps(asdict(self.config)))
            write_cells(handed_over(data), directory / "train.h5ad")
            arguments = {"data": "train.h5ad", "config": "config.json", "seed": str(seed), "model": "model"}
            self._call("fit", directory, arguments)
            files = sorted(file for file in model.rglob("*") if file.is_file())
            contents = (np.frombuffer(file.read_bytes(), dtype=np.uint8) for file in files)
            self.model = dict(zip((file.relative_to(model).as_posix() for file in files), contents, strict=True))
        self.n_genes = data.n_vars
        return self

    def ask(self, action: str, data: AnnData, **arguments: str) -> AnnData:
        """Call the fitted program with cells and return the file that it wrote, with the cells in the same order."""
        import anndata

        with tempfile.TemporaryDirectory(prefix=PREFIX) as temporary:
            directory = Path(temporary)
            (directory / "model").mkdir()
            for name, content in self.model.items():
                file = directory / "model" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.tobytes())
            write_cells(data, directory / "cells.h5ad")
            self._call(action, directory, {"data": "cells.h5ad", "model": "model", **arguments, "out": "out.h5ad"})
            try:
                out = anndata.read_h5ad(directory / "out.h5ad")
            except FileNotFoundError as error:
                raise ProgramError(f"{self.name} {action} ended well but wrote no file --out") from error
            except Exception as error:
                raise ProgramError(f"{self.name} {action} wrote an --out that is no h5ad file: {error}") from error
        if out.n_obs != data.n_obs:
            raise ProgramError(
                f"{self.name} {action} wrote {out.n_obs} cells; {data.n_obs} are needed, those of --data"
            )
        if list(out.obs_names) != list(data.obs_names) and set(out.obs_names) == set(data.obs_names):
            raise ProgramError(f"{self.name} {action} wrote the cells in another order than that of --data")
        return out

    def checked(self, action: str, values: Any, what: str, n_columns: int | None = None) -> np.ndarray:
        """Return a matrix that the program wrote, dense; raise ProgramError for a wrong shape, type or NaN."""
        values = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
        if values.ndim != 2 or (n_columns is not None and values.shape[1] != n_columns) or not values.shape[1]:
            needed = "n_codes" if n_columns is None else n_columns
            raise ProgramError(
                f"{self.name} {action} wrote {what} of shape {values.shape}; (n_cells, {needed}) is needed"
            )
        if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
            wrong = np.size(values) - np.isfinite(values).sum() if np.issubdtype(values.dtype, np.number) else "all"
            raise ProgramError(
                f"{self.name} {action} wrote {what} with {wrong} of {values.size} values not finite numbers"
            )
        return np.ascontiguousarray(values, dtype=np.float32)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back the files of the model; refuse a name that leads out of its directory."""
        super().restore(state)
        for name in self.model:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ProgramError(f"{self.name}: a stored model has the file {name!r}, which is not in its directory")

    def program(self) -> tuple[str, ...]:
        """Return the words that start the program; here :attr:`command`."""
        return self.command

    def _call(self, action: str, directory: Path, arguments: Mapping[str, str]) -> None:
        """Run the program to its end, in its own directory; raise an error if it fails.

        It belongs to the process group of the job, so that a signal that ends the job ends it as well.
        """
        command = self.program()
        files = [self._beside(part) for part in command]
        words = [str(file) if file.is_file() else part for file, part in zip(files, command, strict=True)]
        paths = {"data", "config", "model", "out"}
        words.append(action)
        for key, value in arguments.items():
            words += [f"--{key}", str(directory / value) if key in paths else value]
        work = directory / "work"
        work.mkdir()
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        errors = directory / "stderr"
        with errors.open("wb") as stream:
            try:
                done = subprocess.run(
                    words, cwd=work, env=environment, stdin=subprocess.DEVNULL, stderr=stream, check=False
                )
            except (FileNotFoundError, PermissionError) as error:
                raise CannotFit(
                    f"{self.name} cannot be started: {error.strerror} ({words[0]}); install it, or give its whole path "
                    "as the first word of command"
                ) from error
        text = errors.read_text(errors="replace")
        sys.stderr.write(text)
        lines = [line for line in text.splitlines() if line.strip()]
        if done.returncode == NOT_MADE_FOR_THIS:
            raise CannotFit(lines[-1].strip() if lines else f"{self.name} {action} says that it is not made for this")
        if done.returncode:
            how = f"with code {done.returncode}" if done.returncode > 0 else f"by signal {-done.returncode}"
            last = "\n".join(lines[-LINES:]) or "nothing"
            raise ProgramError(f"{shlex.join(command)} {action} ended {how}; last on stderr: {last}")


class Embeds(Program):
    """A program with the action ``embed``."""

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        out = self.ask("embed", handed_over(data))
        if "codes" not in out.obsm:
            raise ProgramError(
                f"{self.name} embed wrote no obsm['codes']; in obsm there is {', '.join(out.obsm) or 'nothing'}"
            )
        return self.checked("embed", out.obsm["codes"], "obsm['codes']")


class Predicts(Program):
    """A program with the action ``predict``."""

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) of ``data``'s cells in ``target_environment``."""
        out = self.ask("predict", handed_over(data), environment=target_environment)
        return self.checked("predict", out.X, "X", data.n_vars)


class Decodes(Program):
    """A program with the action ``decode``."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the expression (n_cells, n_genes) of ``codes`` (n_cells, n_latent)."""
        from anndata import AnnData as Cells

        cells = Cells(obsm={"codes": np.asarray(codes, dtype=np.float32)}, shape=(len(codes), 0))
        return self.checked("decode", self.ask("decode", cells).X, "X", self.n_genes)


def handed_over(data: AnnData) -> AnnData:
    """Return the cells as a program reads them: columns named by their field, and strings as plain arrays."""
    import pandas as pd
    from anndata import AnnData as Cells

    kept = [field for field in ("environment", "content", "replicate") if data.uns["fields"][field]]
    obs = pd.DataFrame({field: column(data, field).astype(object) for field in kept}, index=data.obs_names)
    about = {"control": control(data), "X_units": str(data.uns.get("X_units", ""))}
    layers = {"counts": data.layers["counts"]} if "counts" in data.layers else None
    return Cells(data.X, obs=obs, var=data.var[[]], layers=layers, uns=about)


def write_cells(data: AnnData, file: Path, compression: str | None = None) -> None:
    """Write an h5ad file that other languages can read: strings as arrays, no categories.

    ``compression`` is h5py's; None writes as fast as can be.
    It changes the frames of ``data`` in place, since strings of pandas 3's type are not written as arrays.
    """
    import pandas as pd

    for frame in (data.obs, data.var):
        for name in frame:
            frame[name] = frame[name].astype(object)
        frame.index = pd.Index(frame.index.to_numpy(object), dtype=object)
    data.write_h5ad(file, convert_strings_to_categoricals=False, compression=compression)
