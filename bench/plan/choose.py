"""The methods, tasks and data that the words of the command line stand for."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

from bench.plan.offers import offers
from bench.plan.plugins import absolute, load_plugin
from bench.records import FileQuestion, MethodSpec, PlanError
from methods import METHODS
from methods.base import PLAIN, takes_any
from methods.wrapping import is_address
from metrics import UnknownName
from tasks import TASKS, benchmark_names, benchmark_tags
from tasks.datasets.own import N_GENES, SCALES, is_data_file

ALL = "all"

#: Keys of configurations that say how long a network is trained.
LENGTHS = ("steps", "steps_each", "passes", "max_epochs")


def choose(kind: str, spec: str, names: Sequence[str], tags: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names that a comma list of names, tags, globs and ``all`` stands for, in registry order.

    Raises
    ------
    UnknownName
        A part that matches nothing; the message has the nearest names and tags.
    """
    chosen: set[str] = set()
    for part in filter(None, (part.strip() for part in spec.split(","))):
        tagged = {name for name in names if part in tags[name]}
        matched = set(names) if part == ALL else {part} & set(names) or tagged
        matched = matched or {name for name in names if fnmatch.fnmatchcase(name, part)}
        matched = matched or {name for name in names if name.startswith(part + "/")}
        if not matched:
            known = {*names, *(tag for name in names for tag in tags[name]), *(n.partition("/")[0] for n in names)}
            raise UnknownName(kind, part, sorted(known))
        chosen |= matched
    if not chosen:
        raise PlanError(f"--{kind}s is empty; give names, tags, globs or 'all'")
    return [name for name in names if name in chosen]


def choose_methods(
    spec: str, preset: str, settings: Sequence[str], plugins: Sequence[str] = ()
) -> tuple[list[MethodSpec], tuple[str, ...]]:
    """Return the methods that ``--methods``, ``--plugin`` and ``--set method.key=value`` stand for.

    ``name@key=0,1,2`` in ``--methods`` makes a row of each value, and several keys a row of each combination.

    Returns
    -------
    methods, plugins
        The methods in registry order, and the addresses that a worker must load to know them.

    Raises
    ------
    UnknownName, PlanError, methods.base.ConfigError
        A name, file or key that is not known; nothing has been run.
    """
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    named = [part.partition("@")[0] for part in parts]
    files = [part for part in named if ".py:" in part or is_address(part)]
    for plugin in plugins:
        load_plugin(plugin)
    asked = [(load_plugin(part) if part in files else part, doses) for part, doses in _parse_doses(parts)]
    tags = {name: METHODS[name].tags for name in METHODS}
    names = choose("method", ",".join(part for part, _ in asked), list(METHODS), tags)
    changes = _parse_settings(settings, names)
    specs: dict[str, MethodSpec] = {}
    for name in names:
        rows = [doses for part, doses in asked if name in choose("method", part, list(METHODS), tags)]
        for doses in dict.fromkeys(dose for row in rows for dose in row):
            dosed = _parse_settings([f"{name}.{dose}" for dose in doses], [name])
            changed = {**changes.get(name, {}), **dosed.get(name, {})}
            METHODS[name].configure(preset, **changed)  # raises where a value is not allowed
            method = MethodSpec.of(name, changed)
            specs[method.label] = method
    return list(specs.values()), tuple(absolute(plugin) for plugin in (*plugins, *files))


def with_budgets(specs: Sequence[MethodSpec], preset: str, budgets: Sequence[float]) -> list[MethodSpec]:
    """Return each trained network once for each multiple of its steps, and the other methods as they are.

    A budget of 1 is the method itself, whose rows other runs have, too.

    Raises
    ------
    PlanError
        No method has steps, or the user has set those of one.
    """
    found: list[MethodSpec] = []
    for spec in specs:
        config = METHODS[spec.name].configure(preset, **spec.changes)
        lengths = {key: getattr(config, key) for key in LENGTHS if hasattr(config, key)}
        if set(lengths) & set(spec.changes):
            raise PlanError(f"--budget: the steps of {spec.label} are set already")
        for budget in budgets if lengths else [1.0]:
            longer = {key: max(1, round(budget * value)) if value else 0 for key, value in lengths.items()}
            found.append(spec if budget == 1 else MethodSpec.of(spec.name, {**spec.changes, **longer}))
    if found == list(specs) and set(budgets) != {1.0}:
        raise PlanError(f"--budget: none of {', '.join(spec.label for spec in specs)} is trained by steps")
    return found


def _parse_doses(parts: Sequence[str]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Read ``name@key=1,2@other=3,4``, which the comma list has cut up, as the name and one row for each combination.

    Returns
    -------
    list
        For each name its rows, each a tuple of ``key=value``; a name alone has one row, the empty tuple.
    """
    asked: list[tuple[str, list[list[str]]]] = []
    for part in parts:
        name, *keys = part.split("@")
        if asked and asked[-1][1] and not keys and _is_value(part):
            asked[-1][1][-1].append(part)
        elif asked and asked[-1][1] and keys and _is_value(name):
            asked[-1][1][-1].append(name)
            asked[-1][1].extend([key] for key in keys)
        else:
            asked.append((name, [[key] for key in keys]))
    rows = []
    for name, axes in asked:
        for axis in axes:
            if "=" not in axis[0]:
                raise PlanError(f"--methods {name}@{axis[0]}: name@key=value is needed, or name@key=value,value,…")
        options = [[f"{axis[0].partition('=')[0]}={value.rpartition('=')[2]}" for value in axis] for axis in axes]
        rows.append((name, list(product(*options))))
    return rows


def _is_value(text: str) -> bool:
    """Return whether ``text`` is a number, true or false, and so no method's name."""
    try:
        float(text)
    except ValueError:
        return text in ("true", "false")
    return True


def choose_tasks(spec: str) -> list[str]:
    """Return the ``task/dataset`` names that ``--tasks`` stands for."""
    names = benchmark_names()
    return choose("task", spec, names, {name: benchmark_tags(name) for name in names})


def choose_own_tasks(
    spec: str, file: str, columns: Mapping[str, str], n_genes: int = N_GENES, x: str = "auto"
) -> tuple[list[str], dict[str, str]]:
    """Return the tasks to run on a user's file, and the file with the fields that its columns play.

    Parameters
    ----------
    spec
        Names of tasks (without a data set), or globs, that can be run on data of the user's. Where it is empty, the
        message says which tasks the file can serve.
    file
        Path of an ``.h5ad`` or a ``.zarr`` directory.
    columns
        The user's columns by their part: ``{"unit": "cancer_type", ...}``.
    n_genes
        How many genes are used; 0 for all.
    x
        Kind of its expression, one of :data:`tasks.datasets.own.SCALES`.

    Raises
    ------
    UnknownName, PlanError
        A task that is not known, or a column that it needs and was not named, or does not know.
    FileQuestion
        No task is named; the message has what the file can serve.
    """
    path = Path(file).resolve()
    if not is_data_file(path):
        raise PlanError(f"--data {file!r}: there is no file {path}, and no .zarr directory")
    offered = {name: TASKS[name].columns for name in TASKS if TASKS[name].columns}
    if not spec:
        raise FileQuestion(f"Nothing is run: --data needs --tasks and --columns.\n{offers(file, list(offered))}")
    chosen = choose("task", spec, list(offered), {name: TASKS[name].tags for name in offered})
    fields_of: dict[str, str] = {}
    for name in chosen:
        needed = [key for key, role in offered[name].items() if role in ("environment", "content")]
        takes = f"its --columns are {', '.join(offered[name])}"
        if lacking := [key for key in needed if key not in columns]:
            missing = f"{name} on --data needs --columns {','.join(f'{key}=…' for key in lacking)}; {takes}"
            raise PlanError(f"{missing}.\n{offers(file, chosen)}")
        if foreign := [key for key in columns if key not in offered[name]]:
            raise PlanError(f"{name} on --data does not take {', '.join(foreign)}; {takes}")
        fields_of |= {offered[name][key]: column for key, column in columns.items()}
    if x not in SCALES:
        raise PlanError(f"--columns x={x}: one of {', '.join(SCALES)} is needed")
    described = {"file": str(path), "n_genes": str(n_genes), "x": x}
    return [f"{name}/{path.stem}" for name in chosen], {**described, **fields_of}


def choose_asked_tasks(
    spec: str, file: str | Path | None, columns: Mapping[str, str], n_genes: int | None, x: str | None = None
) -> tuple[list[str], dict[str, str] | None]:
    """Return the tasks that were named and, where a user's file is given, that file with what its columns mean.

    Raises
    ------
    UnknownName, PlanError
        As :func:`choose_tasks` and :func:`choose_own_tasks`; or a file is described and not given.
    """
    if file is not None:
        return choose_own_tasks(spec, str(file), columns, N_GENES if n_genes is None else n_genes, x or SCALES[0])
    if columns or x or n_genes is not None:
        option = "--columns" if columns or x else "--n-genes"
        raise PlanError(f"{option} describes --data, which is not given")
    return choose_tasks(spec), None


def _parse_settings(settings: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``method.key=value``; a value is read as the type of the key's default."""
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        address, equals, text = setting.partition("=")
        name, dot, key = address.rpartition(".")
        if not (equals and dot):
            raise PlanError(f"--set {setting!r}: method.key=value is needed")
        if name not in names:
            raise UnknownName("method", name, list(names))
        cls = METHODS[name]
        free = {field.name for field in fields(cls.Config) if takes_any(field)}
        known = {field.name: getattr(cls.Config(), field.name) for field in fields(cls.Config)}
        changes.setdefault(name, {})[key] = _read_any(text) if key in free else _read(text, known.get(key))
    return changes


def _read_any(text: str) -> Any:
    """Return ``text`` as a number, true, false or None where it can be read so, else unchanged."""
    value = None if text.lower() == "none" else _read(text, 0)
    return value if isinstance(value, PLAIN) else text


def _read(text: str, default: Any) -> Any:
    """Return ``text`` as the type of ``default`` where it can be read so, else as it is (and refused later)."""
    if isinstance(default, str) or default is None:
        return text
    try:
        value = json.loads(f"[{text}]" if isinstance(default, tuple) and not text.startswith("[") else text.lower())
        json.dumps(value, allow_nan=False)  # 1e999 is read as infinite, which no result can hold
    except (ValueError, RecursionError):
        return text
    return value
