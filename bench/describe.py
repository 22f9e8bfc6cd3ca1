"""What ``list`` and ``show`` say of methods, tasks, metrics and data sets."""

from __future__ import annotations

import inspect
import io
import tokenize
from dataclasses import fields
from typing import Any

from bench.plan import load_plugin
from methods import METHODS
from methods.addresses import is_address
from metrics import METRICS, UnknownName
from tasks import DATASETS, TASKS, benchmark_names, benchmark_tags


def summary(thing: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def config_sources(cls: type) -> dict[str, str]:
    """Return the comment that stands at each default of a method's ``Config``: its source.

    The comment is at the end of the default's line or on the lines above it. A ``Config`` that was made from another
    package's class has its sources in its fields.
    """
    sources: dict[str, str] = {f.name: f.metadata["source"] for f in fields(cls.Config) if "source" in f.metadata}  # type: ignore[attr-defined]
    if sources:
        return sources
    for base in reversed(cls.Config.__mro__[:-1]):  # type: ignore[attr-defined]
        above: list[str] = []
        name = ""
        for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(base)).readline):
            if token.type == tokenize.COMMENT:
                text = token.string.removeprefix("#").strip()
                if name:
                    sources[name] = text
                else:
                    above.append(text)
            elif token.type == tokenize.NAME and not name and token.string in base.__annotations__:
                name = token.string
                if above:
                    sources[name] = " ".join(above)
                above = []
            elif token.type == tokenize.NEWLINE:
                name = ""
    return sources


def list_of(kind: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and rows of ``list methods``, ``list tasks`` or ``list metrics``."""
    if kind == "methods":
        return ("method", "can", "tags", "what it is"), [
            (name, " ".join(sorted(cls.abilities())), " ".join(sorted(cls.tags)), summary(cls))
            for name, cls in METHODS.items()
        ]
    if kind == "tasks":
        rows: list[tuple[str, ...]] = []
        for name in benchmark_names():
            asks = summary(TASKS[name.partition("/")[0]])
            rows.append((name, " ".join(sorted(benchmark_tags(name))), asks))
        return ("task", "tags", "what it asks"), rows
    if kind == "metrics":
        return ("metric", "better", "range", "what it is"), [
            (name, metric.info.better, f"[{metric.info.low:g}, {metric.info.high:g}]", summary(metric))
            for name, metric in METRICS.items()
        ]
    raise UnknownName("list", kind, ["methods", "tasks", "metrics"])


def show(name: str) -> str:
    """Return what is to be known of a method, task, benchmark (``task/dataset``), metric or data set.

    Raises
    ------
    UnknownName, PlanError, PluginError
        Nothing is called so, or nothing at the address ``package.module:Class`` is or makes a method.
    """
    if is_address(name):
        name = load_plugin(name)
    if name in METHODS:
        return _show_method(name)
    if name in METRICS:
        return _show_metric(name)
    if name in DATASETS:
        return _show_dataset(name)
    task, _, dataset = name.partition("/")
    if task in TASKS and (not dataset or name in benchmark_names()):
        return _show_task(task) + (f"\n\nData set\n{_show_dataset(dataset)}" if dataset else "")
    raise UnknownName("name", name, sorted([*METHODS, *TASKS, *benchmark_names(), *METRICS, *DATASETS]))


def _show_method(name: str) -> str:
    cls = METHODS[name]
    sources, defaults = config_sources(cls), cls.Config()
    lines = [f"  {f.name} = {getattr(defaults, f.name)!r}  # {sources.get(f.name, '')}" for f in fields(cls.Config)]
    for preset, changes in cls.presets.items():
        lines.append(f"  preset {preset}: " + ", ".join(f"{key} = {value!r}" for key, value in changes.items()))
    return "\n".join(
        [
            f"method {name}",
            "",
            inspect.getdoc(cls) or "",
            "",
            f"Can: {', '.join(sorted(cls.abilities()))}",
            f"Tags: {', '.join(sorted(cls.tags))}",
            f"Reference: {cls.reference or 'none: a baseline of this suite'}",
            "Config:",
            *(lines or ["  nothing to configure"]),
        ]
    )


def _show_metric(name: str) -> str:
    metric = METRICS[name]
    info = metric.info
    return "\n".join(
        [
            f"metric {name}",
            "",
            inspect.getdoc(metric) or "",
            "",
            f"Better: {info.better}; range [{info.low:g}, {info.high:g}]",
            f"Reference: {info.reference}",
        ]
    )


def _show_dataset(name: str) -> str:
    dataset = DATASETS[name]
    return "\n".join(
        [
            f"data set {name}: {dataset.summary}",
            f"Reference: {dataset.reference}",
            f"Licence: {dataset.licence}",
            f"Columns: {dataset.fields}",
            f"Genes: {f'{dataset.n_genes}, chosen in each training split' if dataset.n_genes else 'all'}",
            f"Here: {dataset.missing() or 'yes'}",
        ]
    )


def _show_task(name: str) -> str:
    cls = TASKS[name]
    controls = [
        f"  {c.name}: {c.description}" + (f" (of {', '.join(c.methods)})" if len(c.methods) > 1 else "")
        for c in cls.controls
    ]
    return "\n".join(
        [
            f"task {name}, version {cls.version}",
            "",
            inspect.getdoc(cls) or "",
            "",
            f"Data sets: {', '.join(cls.datasets)}",
            f"Held out: one {cls.unit} at a time",
            f"A method must be able to: {', '.join(cls.requires)}",
            f"Primary metrics: {', '.join(cls.primary)}",
            f"Secondary: {', '.join(cls.secondary)}",
            "Controls:",
            *controls,
            f"Reference: {cls.reference}",
        ]
    )
