"""Digests of source code: a result stands for as long as the code that made it does not change.

Comments and docstrings are no code.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import sys
import tokenize
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from methods.base import Method
from metrics import METRICS

if TYPE_CHECKING:
    from tasks.base import Task

OWN = ("methods", "tasks", "metrics")


def source_digest(cls: type) -> str:
    """Return the SHA-256 of the source files that define ``cls``, its bases and all of ours that they import.

    Further dependencies that a method names (:meth:`methods.base.Method.depends`) go into the digest.

    Imports are followed wherever they stand, inside functions too. Packages' ``__init__`` files are left
    out: they are registries, and a new entry changes no result. Nobody can tell what a class of a notebook or script
    (``__main__``) uses: its digest is another one in each run.
    """
    if any(base.__module__ == "__main__" for base in cls.__mro__):
        return of_this_run(cls)
    defined = [base for base in cls.__mro__ if base.__module__.partition(".")[0] not in ("builtins", "abc", "typing")]
    return _digest(map(inspect.getfile, defined), cls.depends() if issubclass(cls, Method) else "")


def task_digests(task: Task) -> str:
    """Return two digests: of a task's source, and of that of the metrics which it names and so does not import."""
    metrics = [METRICS[name] for name in (*task.primary_of(task.dataset.name), *task.secondary)]
    shown = [metric for metric in metrics if metric.__module__ == "__main__"]
    files = [inspect.getfile(sys.modules[metric.__module__]) for metric in metrics if metric not in shown]
    return f"{source_digest(type(task))} {of_this_run(shown[0]) if shown else _digest(files)}"


def _digest(files: Iterable[str], more: str = "") -> str:
    """Return the SHA-256 of the code of source files, of all of ours that they import, and of ``more``."""
    found: set[Path] = set()
    for file in files:
        _collect(Path(file), found)
    hashed = hashlib.sha256()
    for content in sorted(
        hashlib.sha256(code_of(file.read_text(encoding="utf-8")).encode()).digest() for file in found
    ):
        hashed.update(content)
    hashed.update(more.encode())
    return hashed.hexdigest()


@cache
def code_of(text: str) -> str:
    """Return the text of a source file without its comments and docstrings.

    They are cut out of the text itself: a syntax tree is written in another way by each version of Python.
    """
    lines, cut = text.split("\n"), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = lines[row][:column].rstrip()
            cut |= set() if lines[row] else {row}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            doc = node.body[0]
            first, last = doc.lineno - 1, (doc.end_lineno or doc.lineno) - 1
            others = lines[first].encode()[: doc.col_offset] + lines[last].encode()[doc.end_col_offset :]
            cut |= set() if others.strip() else set(range(first, last + 1))  # it may share its line with code
    return "\n".join(line for row, line in enumerate(lines) if row not in cut)


@cache
def of_this_run(defined: object) -> str:
    """Return a digest that no earlier run has had; ``of_this_run.cache_clear()`` begins the next one."""
    return uuid.uuid4().hex


def _collect(file: Path, files: set[Path]) -> None:
    if file not in files:
        files.add(file)
        for imported in _imports(file):
            _collect(imported, files)


@cache
def _imports(file: Path) -> tuple[Path, ...]:
    """Return the files of the modules of ours that a file imports, ``from package import module`` included."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(file for module in sorted(modules) for file in _files_of(module))


def _files_of(name: str) -> list[Path]:
    """Return the file of a module of ours, and none of a package, of an attribute or of a module of others.

    The name is looked up among the files: to ask Python would import the packages above it, PyTorch among what they
    import, and a head that plans has no use for it.
    """
    package, *parts = name.split(".")
    if package not in OWN or not parts:
        return []
    places = [Path(place).joinpath(*parts).with_suffix(".py") for place in sys.modules[package].__path__]
    return [file for file in places if file.is_file()]
