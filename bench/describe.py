"""Texts of ``list`` and ``show`` for methods, tasks, metrics and data sets."""

from __future__ import annotations

import inspect
import io
import json
import math
import tokenize
from dataclasses import asdict, fields
from typing import Any

from bench.plan.plugins import load_plugin
from methods import METHODS
from methods.wrapping import is_address
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
    rows = listed(kind)
    if kind == "methods":
        return ("method", "can", "tags", "what it is"), [
            (row["name"], " ".join(row["can"]), " ".join(row["tags"]), row["summary"]) for row in rows
        ]
    if kind == "tasks":
        return ("task", "tags", "what it asks"), [(row["name"], " ".join(row["tags"]), row["summary"]) for row in rows]
    return ("metric", "better", "range", "what it is"), [
        (row["name"], row["better"], f"[{row['low']:g}, {row['high']:g}]", row["summary"]) for row in rows
    ]


def listed(kind: str) -> list[dict[str, Any]]:
    """Return what ``list --json`` prints: for each method, task or metric what is to be known to choose it."""
    if kind == "methods":
        return [
            {"name": name, "can": sorted(cls.abilities()), "tags": sorted(cls.tags), "summary": summary(cls)}
            for name, cls in METHODS.items()
        ]
    if kind == "tasks":
        return [
            {"name": name, "tags": sorted(benchmark_tags(name)), "summary": summary(TASKS[name.partition("/")[0]])}
            for name in benchmark_names()
        ]
    if kind == "metrics":
        return [{"name": name, **_range(metric), "summary": summary(metric)} for name, metric in METRICS.items()]
    raise UnknownName("list", kind, ["methods", "tasks", "metrics"])


def about(name: str) -> dict[str, Any]:
    """Return what is to be known of a method, task, benchmark (``task/dataset``), metric or data set.

    Raises
    ------
    UnknownName, PlanError, PluginError
        Nothing is called so, or nothing at the address ``package.module:Class`` is or makes a method.
    """
    if is_address(name):
        name = load_plugin(name)
    if name in METHODS:
        return _about_method(name)
    if name in METRICS:
        metric = METRICS[name]
        return {
            "kind": "metric",
            "name": name,
            "docstring": inspect.getdoc(metric) or "",
            **_range(metric),
            "reference": metric.info.reference,
        }
    if name in DATASETS:
        return _about_dataset(name)
    task, _, dataset = name.partition("/")
    if task in TASKS and (not dataset or name in benchmark_names()):
        return _about_task(task) | ({"name": name, "data_set": _about_dataset(dataset)} if dataset else {})
    raise UnknownName("name", name, sorted([*METHODS, *TASKS, *benchmark_names(), *METRICS, *DATASETS]))


def show(name: str) -> str:
    """Return :func:`about` as text."""
    found = about(name)
    text = {"method": _show_method, "metric": _show_metric, "data set": _show_dataset, "task": _show_task}
    return text[found["kind"]](found)


def as_json(document: Any) -> str:
    """Return one JSON document; what is not finite is null."""
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _range(metric: Any) -> dict[str, Any]:
    return {"better": metric.info.better, "low": metric.info.low, "high": metric.info.high}


def _about_method(name: str) -> dict[str, Any]:
    cls = METHODS[name]
    sources, defaults = config_sources(cls), cls.Config()
    return {
        "kind": "method",
        "name": name,
        "docstring": inspect.getdoc(cls) or "",
        "can": sorted(cls.abilities()),
        "tags": sorted(cls.tags),
        "reference": cls.reference,
        "config": [
            {"key": f.name, "default": getattr(defaults, f.name), "source": sources.get(f.name, "")}
            for f in fields(cls.Config)
        ],
        "presets": {preset: dict(changes) for preset, changes in cls.presets.items()},
    }


def _about_dataset(name: str) -> dict[str, Any]:
    dataset = DATASETS[name]
    return {
        "kind": "data set",
        "name": name,
        "summary": dataset.summary,
        "reference": dataset.reference,
        "licence": dataset.licence,
        "fields": asdict(dataset.fields),
        "n_genes": dataset.n_genes,
        "missing": dataset.missing(),
    }


def _about_task(name: str) -> dict[str, Any]:
    cls = TASKS[name]
    return {
        "kind": "task",
        "name": name,
        "version": cls.version,
        "docstring": inspect.getdoc(cls) or "",
        "tags": sorted(cls.tags),
        "data_sets": list(cls.datasets),
        "unit": cls.unit,
        "requires": list(cls.requires),
        "primary": list(cls.primary),
        "secondary": list(cls.secondary),
        "references": [
            {"name": c.name, "description": c.description, "methods": list(c.methods), "on": c.on}
            for c in cls.references
        ],
        "reference": cls.reference,
    }


def _show_method(found: dict[str, Any]) -> str:
    lines = [f"  {one['key']} = {one['default']!r}  # {one['source']}" for one in found["config"]]
    for preset, changes in found["presets"].items():
        lines.append(f"  preset {preset}: " + ", ".join(f"{key} = {value!r}" for key, value in changes.items()))
    return "\n".join(
        [
            f"method {found['name']}",
            "",
            found["docstring"],
            "",
            f"Can: {', '.join(found['can'])}",
            f"Tags: {', '.join(found['tags'])}",
            f"Reference: {found['reference'] or 'none: a baseline of this suite'}",
            "Config:",
            *(lines or ["  nothing to configure"]),
        ]
    )


def _show_metric(found: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"metric {found['name']}",
            "",
            found["docstring"],
            "",
            f"Better: {found['better']}; range [{found['low']:g}, {found['high']:g}]",
            f"Reference: {found['reference']}",
        ]
    )


def _show_dataset(found: dict[str, Any]) -> str:
    n_genes = f"{found['n_genes']}, chosen in each training split" if found["n_genes"] else "all"
    return "\n".join(
        [
            f"data set {found['name']}: {found['summary']}",
            f"Reference: {found['reference']}",
            f"Licence: {found['licence']}",
            f"Columns: {', '.join(f'{role} = {name}' for role, name in found['fields'].items() if name)}",
            f"Genes: {n_genes}",
            f"Here: {found['missing'] or 'yes'}",
        ]
    )


def _show_task(found: dict[str, Any]) -> str:
    references = [
        f"  {c['name']}{' on ' * bool(c['on'])}{c['on']}: {c['description']}"
        + (f" (of {', '.join(c['methods'])})" if len(c["methods"]) > 1 else "")
        for c in found["references"]
    ]
    lines = [
        f"task {found['name'].partition('/')[0]}, version {found['version']}",
        "",
        found["docstring"],
        "",
        f"Data sets: {', '.join(found['data_sets'])}",
        f"Held out: one {found['unit']} at a time",
        f"A method must be able to: {', '.join(found['requires'])}",
        f"Primary metrics: {', '.join(found['primary'])}",
        f"Secondary: {', '.join(found['secondary'])}",
        "References:",
        *references,
        f"Reference: {found['reference']}",
    ]
    if "data_set" in found:
        lines += ["", "Data set", _show_dataset(found["data_set"])]
    return "\n".join(lines)
