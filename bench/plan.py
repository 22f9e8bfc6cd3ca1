"""The plan of a run: the cross of methods and tasks as cells, each with a content hash for an id."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from bench.digests import source_digest
from methods import METHODS, register_method
from methods.base import PLAIN, Method, takes_any
from methods.wrapping import NoMethod, is_address, method_at
from metrics import UnknownName
from tasks import TASKS, benchmark_names, benchmark_tags, load_task
from tasks.base import Control, Task
from tasks.datasets.own import N_GENES, SCALES, is_data_file
from tasks.datasets.reading import copies_of, taken_for

ALL = "all"
#: At most so many fits are made in one pass, of data of at most so many million values (cells × genes): each of them
#: has its own copy, and fits of large networks, which are arithmetic, gain nothing.
REPLICAS, MOST_TOGETHER = 8, 20.0
#: The unit of a cell that stands for a whole method × task, skipped.
WHOLE = "*"
#: What is added to the label of a method whose configuration was tuned for each unit: without seeing the unit, and, as
#: an upper bound, on the unit itself.
TUNED, ORACLE = "@tuned", "@oracle"


#: Where an imported plugin keeps what its file held then.
_CONTENT = "_bench_content"


class PlanError(ValueError):
    """What was asked for cannot be planned; the message says what was got and what is allowed."""


class PluginError(Exception):
    """A user's file raised when it was imported; what it raised is the cause."""


@dataclass(frozen=True)
class MethodSpec:
    """A method and what the user changed in its configuration, under the label that its rows carry."""

    label: str
    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One method (or control) on one task, unit and seed: what is run, and all that its result depends on.

    The role ``oracle`` is that of a method whose configuration was chosen by its scores on the held-out unit.
    """

    role: Literal["method", "control", "oracle"]
    method: str
    name: str
    config: Mapping[str, Any]
    task: str
    task_version: int
    unit: str
    seed: int
    preset: str
    method_digest: str
    task_digest: str
    data_digest: str
    plugins: tuple[str, ...] = ()
    #: File and fields of a user's own data; empty for a data set of the catalogue.
    own: Mapping[str, str] = field(default_factory=dict)
    #: A unit of the task that is left when ``unit`` is held out (:meth:`tasks.base.Task.inner`), which is scored in its
    #: place; empty for ``unit`` itself.
    inner: str = ""
    #: Why it is not run; empty where it is.
    skip: str = ""
    #: What the expression of the data was taken for, and how many of their cells are exact copies of another one.
    x_taken_for: str = field(default="", compare=False)
    n_copies: int = field(default=0, compare=False)
    #: Seeds of the cells, this one among them, whose fits are made in one pass; empty where it is made alone.
    replicas: tuple[int, ...] = field(default=(), compare=False)
    id: str = field(default="", compare=False)

    def with_id(self) -> Cell:
        """Return the cell with its content hash; where files lie does not matter, what is in them does."""
        nowhere = {"id", "plugins", "own", "replicas", "x_taken_for", "n_copies", *(() if self.inner else ("inner",))}
        content = {k: v for k, v in asdict(self).items() if k not in nowhere}
        text = json.dumps(content, sort_keys=True)
        return replace(self, id=hashlib.sha256(text.encode()).hexdigest()[:16])

    @property
    def title(self) -> str:
        """How the cell is called in progress, logs and MLflow."""
        inner = f" · inner {self.inner}" if self.inner else ""
        where = f"{self.task} · {self.unit}{inner} · seed {self.seed}" if self.unit != WHOLE else self.task
        return f"{self.method} · {where}"


@dataclass(frozen=True)
class Plan:
    """All cells of a run, and the tasks that could not be planned, with the reason."""

    cells: tuple[Cell, ...]
    absent: Mapping[str, str]
    #: For each task, number of cells times genes, in millions; for the estimate of time.
    sizes: Mapping[str, float]
    #: For each task that does not use all genes of its data, how many of how many.
    selections: Mapping[str, str] = field(default_factory=dict)
    #: What X of each data set was taken for, and what its tasks say of it, each sentence once.
    notes: tuple[str, ...] = ()

    @property
    def invocation(self) -> str:
        """A hash of what is asked: the same command on the same code and data has the same one."""
        return hashlib.sha256("".join(sorted(cell.id for cell in self.cells)).encode()).hexdigest()[:16]


def load_plugin(address: str) -> str:
    """Import a user's file or an installed package, once, so that its methods are registered.

    Parameters
    ----------
    address
        ``file.py``, ``file.py:Class`` to register a class that does not register itself, or ``package.module:Class``
        for a class of an installed package (:func:`methods.wrapping.method_at`).

    Returns
    -------
    str
        The name of the method, empty for a whole file.

    Raises
    ------
    PlanError
        No such file or module, or nothing of this name in it that is, or can be made, a method.
    PluginError
        The file or module raised.
    """
    if is_address(address):
        return address if address in METHODS else _registered(address, _imported(address))
    file, _, attribute = address.partition(".py:") if ".py:" in address else (address.removesuffix(".py"), "", "")
    path = Path(f"{file}.py").resolve()
    if not os.path.isfile(path):  # unlike Path.is_file, also of a name too long
        raise PlanError(f"plugin {address!r}: there is no file {path}")
    module = _import_file(path)
    if not attribute:
        return ""
    methods = {
        name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, Method)
    }
    if attribute not in methods:
        raise PlanError(f"{address!r}: {attribute!r} is no Method in that file; it has {', '.join(methods) or 'none'}")
    return _registered(address, methods[attribute])


def _registered(address: str, cls: type[Method]) -> str:
    """Register a class unless it is registered already, and return its name."""
    if not getattr(cls, "name", ""):
        raise PlanError(f"{address!r}: the class has no name; set name = {cls.__name__.lower()!r} in it")
    if cls.name not in METHODS or METHODS[cls.name] is not cls:
        try:
            register_method(cls)
        except ValueError as error:
            raise PlanError(f"{address!r}: {error}") from error
    return cls.name


def _imported(address: str) -> type[Method]:
    """Return the method that stands at ``package.module:Class``."""
    try:
        return method_at(address)
    except NoMethod as error:
        raise PlanError(f"{address!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise PluginError(f"{address}: raised {type(error).__name__} when it was imported; nothing was run") from error


def _import_file(path: Path) -> ModuleType:
    name = f"bench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    if name in sys.modules and vars(sys.modules[name])[_CONTENT] != content:
        raise PlanError(f"{path}: has changed since this Python imported it; restart Python, then run again")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        sys.modules[name] = module
        setattr(module, _CONTENT, content)
        try:
            spec.loader.exec_module(module)  # type: ignore[union-attr]
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise PluginError(f"{path}: raised {type(error).__name__} when it was imported; nothing was run") from error
    return sys.modules[name]


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
            METHODS[name].configure(preset, **changed)  # refuses what cannot be
            label = name + "".join(f"@{key}={value}" for key, value in sorted(changed.items()))
            specs[label] = MethodSpec(label, name, changed)
    return list(specs.values()), tuple(_absolute(plugin) for plugin in (*plugins, *files))


def _parse_doses(parts: Sequence[str]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Read ``name@key=1,2@other=3,4``, which the comma list has cut up, as the name and one row for each combination.

    Returns
    -------
    list
        Of each name the rows, each a tuple of ``key=value``; a name alone has one row, the empty tuple.
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
    """Return whether ``text`` is a number or true or false, which no method is called."""
    try:
        float(text)
    except ValueError:
        return text in ("true", "false")
    return True


def _absolute(plugin: str) -> str:
    """Return a plugin's address, a file's with its whole path: a worker or a replay may stand elsewhere."""
    if is_address(plugin):
        return plugin
    file, colon, attribute = plugin.partition(".py:")
    return f"{Path(file).resolve()}{colon}{attribute}"


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
        Names of tasks (without a data set), or globs, that can be run on data of the user's.
    file
        Path of an ``.h5ad`` or a ``.zarr`` directory.
    columns
        What the user named on the command line: ``{"unit": "cancer_type", ...}``.
    n_genes
        How many genes are used; 0 for all.
    x
        What its expression is, of :data:`tasks.datasets.own.SCALES`.

    Raises
    ------
    UnknownName, PlanError
        A task that is not known, or a column that it needs and was not named, or does not know.
    """
    offered = {name: TASKS[name].columns for name in TASKS if TASKS[name].columns}
    chosen = choose("task", spec, list(offered), {name: TASKS[name].tags for name in offered})
    fields_of: dict[str, str] = {}
    for name in chosen:
        flags = {key: "--" + key.replace("_", "-") for key in offered[name]}
        needed = [key for key, role in offered[name].items() if role in ("environment", "content")]
        lacking = [flags[key] for key in needed if key not in columns]
        if lacking:
            raise PlanError(
                f"{name} on --data needs {', '.join(lacking)} (columns of obs); it takes {list(flags.values())}"
            )
        foreign = ["--" + key.replace("_", "-") for key in columns if key not in offered[name]]
        if foreign:
            raise PlanError(
                f"{name} on --data does not take {', '.join(foreign)}; it takes {', '.join(flags.values())}"
            )
        fields_of |= {offered[name][key]: column for key, column in columns.items()}
    path = Path(file).resolve()
    if not is_data_file(path):
        raise PlanError(f"--data {file!r}: there is no file {path}, and no .zarr directory")
    if x not in SCALES:
        raise PlanError(f"--x {x!r}: one of {', '.join(SCALES)} is needed")
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
    described = [*columns, *(key for key, value in (("n_genes", n_genes), ("x", x)) if value is not None)]
    if described:
        raise PlanError(f"--{described[0].replace('_', '-')} describes --data, which is not given")
    return choose_tasks(spec), None


def method_config(name: str, task: Task, preset: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a method's configuration on a task: its preset, then what the task fixes, then the user's changes."""
    cls = METHODS[name]
    known = {field.name for field in fields(cls.Config)}
    fixed = {cls.code_size if key == "n_latent" else key: value for key, value in task.settings.items()}
    settings = {key: value for key, value in fixed.items() if key in known}
    return _plain(asdict(cls.configure(preset, task.dataset.name, **{**settings, **(changes or {})})))


def make_plan(
    methods: Sequence[MethodSpec],
    tasks: Sequence[str],
    preset: str,
    n_seeds: int | None,
    plugins: Sequence[str],
    index: dict[str, Any],
    own: Mapping[str, str] | None = None,
) -> Plan:
    """Cross methods and tasks.

    Parameters
    ----------
    methods, tasks
        What :func:`choose_methods` and :func:`choose_tasks` return.
    preset
        ``smoke``, ``default`` or ``paper``.
    n_seeds
        Seeds 0 to n − 1; None takes the task's number for the preset.
    plugins
        Files that a worker must import.
    index
        What is known of tasks from an earlier plan (units, size and what is said of the data, by digest); added to in
        place, so that planning the same thing again reads no data.
    own
        File and fields of the user's own data, for tasks of :func:`choose_own_tasks`.

    Raises
    ------
    tasks.datasets.DataError
        Data that a task cannot be run on.
    PlanError
        The data of all tasks are absent.
    """
    cells: list[Cell] = []
    absent: dict[str, str] = {}
    sizes: dict[str, float] = {}
    selections: dict[str, str] = {}
    notes: list[str] = []
    for task_name in tasks:
        task = load_task(task_name, preset, own)
        reason = task.dataset.missing()
        if reason is not None:
            absent[task_name] = reason
            continue
        task_digest, data_digest = source_digest(type(task)), task.dataset.digest(preset)
        key = f"{task_name} {preset} {task_digest} {data_digest}"
        if key not in index:
            index[key] = _learnt(task)
        units, (n_cells, n_all), taken = (index[key][about] for about in ("units", "shape", "x_taken_for"))
        notes += [f"{task.dataset.name}: {said}" for said in (f"X was taken for {taken}", *index[key]["notes"])]
        n_genes = min(task.dataset.n_genes or n_all, n_all)
        sizes[task_name] = n_cells * n_genes / 1e6
        if n_genes < n_all:
            selections[task_name] = f"{n_genes} of {n_all} genes are used, chosen anew in each training split"
        seeds = range(task.seeds[preset] if n_seeds is None else n_seeds)
        blank = Cell(
            role="method",
            method="",
            name="",
            config={},
            task=task_name,
            task_version=task.version,
            unit=WHOLE,
            seed=0,
            preset=preset,
            method_digest="",
            task_digest=task_digest,
            data_digest=data_digest,
            plugins=tuple(plugins),
            own=dict(own or {}),
            x_taken_for=taken,
            n_copies=index[key]["n_copies"],
        )
        rows = [_method_row(blank, spec, task, preset) for spec in methods]
        rows += [_control_row(blank, control) for control in task.controls]
        for row in rows:
            crossed = [row] if row.skip else [replace(row, unit=unit, seed=seed) for unit in units for seed in seeds]
            if row.name and not row.skip and METHODS[row.name].stackable and sizes[task_name] <= MOST_TOGETHER:
                crossed = [replace(cell, replicas=_pass_of(cell.seed, seeds)) for cell in crossed]
            cells += [cell.with_id() for cell in crossed]
    if absent and not cells:
        reasons = "\n".join(f"{task}: {reason}" for task, reason in absent.items())
        raise PlanError(f"no task could run\n{reasons}")
    return Plan(tuple(cells), absent, sizes, selections, tuple(dict.fromkeys(notes)))


def _learnt(task: Task) -> dict[str, Any]:
    """Return what the index keeps of a task, from its data."""
    copies = copies_of(task.data)
    return {
        "units": task.units(),
        "shape": task.data.shape,
        "x_taken_for": taken_for(task.data),
        "n_copies": sum(first != at for at, first in enumerate(copies.tolist())),
        "notes": task.notes(),
    }


def _method_row(blank: Cell, spec: MethodSpec, task: Task, preset: str) -> Cell:
    """Return ``blank`` filled in for a method, with a reason to skip it where it lacks an ability."""
    cls = METHODS[spec.name]
    lacking = [ability for ability in task.requires if ability not in cls.abilities()]
    return replace(
        blank,
        method=spec.label,
        name=spec.name,
        config=method_config(spec.name, task, preset, spec.changes),
        method_digest=source_digest(cls),
        skip=f"{spec.name} cannot {' or '.join(lacking)}, which {task.name} needs" if lacking else "",
    )


def _control_row(blank: Cell, control: Control) -> Cell:
    """Return ``blank`` filled in for a control of the task."""
    digests = [source_digest(METHODS[name]) for name in control.methods]
    return replace(blank, role="control", method=control.name, method_digest=" ".join(digests))


def _pass_of(seed: int, seeds: range) -> tuple[int, ...]:
    """Return the seeds that are fitted in one pass with ``seed``."""
    first = seed - seed % REPLICAS
    together = tuple(seeds[first : first + REPLICAS])
    return together if len(together) > 1 else ()


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
    """Return ``text`` as a number, true, false or none where it is one, else as the word that it is."""
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


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` as JSON would give them back, so that a cell read from disk equals the planned one."""
    return json.loads(json.dumps(dict(values)))
