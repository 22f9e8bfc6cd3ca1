"""The tasks that a user's file can serve: its columns of labels, and a command for each task."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np

from tasks import TASKS
from tasks.base import Task
from tasks.command_line import command
from tasks.datasets import DataError, Fields
from tasks.datasets.memory import Memory
from tasks.datasets.own import label_columns

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Words in the names of columns, for each part that a column can have. A column with an earlier word is tried first.
NAMES: Mapping[str, Sequence[str]] = {
    "condition": ("condition", "stim", "treat", "perturb", "arm", "disease", "status"),
    "cell_type": ("celltype", "type", "annotation", "label", "cluster", "louvain", "leiden"),
    "unit": ("cancer", "tissue", "disease", "celltype", "type", "organ"),
    "environment": ("study", "dataset", "batch", "site", "cohort", "source", "condition", "tissue"),
    "group": ("group", "region", "batch", "tech", "tissue", "condition", "donor"),
    "replicate": ("replicate", "donor", "patient", "individual", "mouse", "animal", "subject", "sample"),
}
#: Words that a control condition is called by.
CONTROLS = (
    "control",
    "ctrl",
    "untreated",
    "unstim",
    "vehicle",
    "dmso",
    "pbs",
    "mock",
    "nontarget",
    "healthy",
    "normal",
)
#: Methods of the commands that are offered: a first look, in minutes where all methods take an hour.
FIRST_LOOK = "baseline,vae,trvae,svae-plus,multigroup-vi"
#: How many pairs of columns are tried for a task, and how many labels of a column are shown.
MOST_PAIRS, MOST_SHOWN = 30, 8


def offers(file: str, names: Sequence[str]) -> str:
    """Return lines that say which columns of a file hold labels, and which tasks it can serve, with a command for each.

    Each task judges by the labels of all cells whether it can be run; expression is not read.

    Parameters
    ----------
    file
        An ``.h5ad``, or a ``.zarr`` directory.
    names
        Tasks that take a user's file.

    Raises
    ------
    tasks.datasets.DataError
        The file cannot be read.
    """
    labels = label_columns(file)
    lines = [f"{file} has {len(labels)} cells. Its columns of labels, with the number of cells of each label:"]
    lines += [f"  {column}: {_counted(labels[column])}" for column in labels] or ["  none"]
    can, cannot = list[str](), list[str]()
    for name in names:
        columns, refusal = _match(TASKS[name], labels)
        if refusal:
            cannot.append(f"  {name}: {refusal}")
        else:
            asked = ",".join(f"{key}={column}" for key, column in columns.items())
            run = command("run", "--methods", FIRST_LOOK, "--tasks", name, "--data", file, "--columns", asked)
            can += [f"  {name}: {TASKS[name].question}", f"    {run}"]
    if can:
        lines += [
            "Tasks that it can serve. The columns are guessed by their names: check them, then copy the command.",
            "Its methods are a first look; without --methods it tries all, which takes several times as long.",
            *can,
        ]
    if cannot:
        lines += ["Tasks that it cannot serve:", *cannot]
    return "\n".join(lines)


def _counted(column: pd.Series) -> str:
    """Return the labels of a column, the most frequent first, and how many cells have none."""
    counts = column.value_counts()
    shown = ", ".join(f"{label!r} ({number})" for label, number in counts[:MOST_SHOWN].items())
    more = f" and {len(counts) - MOST_SHOWN} more labels" if len(counts) > MOST_SHOWN else ""
    empty = int(column.isna().sum())
    return shown + more + (f"; {empty} cells have none, so that no task can use it" if empty else "")


def _match(task: type[Task], labels: pd.DataFrame) -> tuple[dict[str, str], str]:
    """Return the columns with which a task can be run, as ``--columns`` takes them; else why the best guess cannot."""
    refusals = list[str]()
    for columns in islice(_guesses(task, labels), MOST_PAIRS):
        fields = Fields(**{"content": "", **{task.columns[key]: column for key, column in columns.items()}})
        cells = Memory(_cells(labels, fields), "this file")
        try:
            task(cells).units()
        except DataError as error:
            refusals.append(str(error))
        else:
            return columns, ""
    needed = " and ".join(key for key, field in task.columns.items() if field in ("environment", "content"))
    return {}, refusals[0] if refusals else f"two columns are needed, {needed}, that have a label for every cell"


def _guesses(task: type[Task], labels: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Yield columns for the parts that a task needs, those first whose names say so."""
    whole = [str(column) for column in labels if not labels[column].isna().any()]
    key_of = {field: key for key, field in task.columns.items()}
    environments, contents = (_ranked(key_of[field], whole) for field in ("environment", "content"))
    # the pairs whose two ranks are least, so that neither column is held to its best guess
    pairs = product(enumerate(environments), enumerate(contents))
    for (_, environment), (_, content) in sorted(pairs, key=lambda pair: pair[0][0] + pair[1][0]):
        if environment == content:
            continue
        columns = {key_of["environment"]: environment, key_of["content"]: content}
        control = _control(labels[environment], task.needs_control)
        if "control" in key_of and control:
            columns[key_of["control"]] = control
        named = [
            column for column in _ranked("replicate", whole) if _rank("replicate", column) < len(NAMES["replicate"])
        ]
        left = [column for column in named if column not in (environment, content)]
        if "replicate" in key_of and left:
            columns[key_of["replicate"]] = left[0]
        yield columns


def _ranked(key: str, columns: Sequence[str]) -> list[str]:
    """Return columns, the likeliest first."""
    return sorted(columns, key=lambda column: _rank(key, column))


def _rank(key: str, column: str) -> int:
    words = NAMES.get(key, ())
    return next((rank for rank, word in enumerate(words) if word in _plain(column)), len(words))


def _control(column: pd.Series, needed: bool) -> str:
    """Return the label that is called like a control; else, where one is needed, that of the most cells."""
    counts = column.value_counts()
    called = [label for word in CONTROLS for label in counts.index if _plain(label).startswith(word)]
    return called[0] if called else str(counts.index[0]) if needed else ""


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def _cells(labels: pd.DataFrame, fields: Fields) -> AnnData:
    """Return cells with the labels of a file's columns, without expression, of which none counts as another's copy."""
    from anndata import AnnData

    named = [name for name in (fields.environment, fields.content, fields.replicate) if name]
    cells = AnnData(np.zeros((len(labels), 1), np.float32), obs=labels[named], uns={"copies": np.arange(len(labels))})
    return fields.attach(cells)
