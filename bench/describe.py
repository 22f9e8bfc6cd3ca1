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
from methods.external import recipes
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
            (row["name"], " ".join(row["can"]), " ".join(row["tags"]), row["summary"] + _state(row)) for row in rows
        ]
    if kind == "tasks":
        return ("task", "tags", "what it asks"), [(row["name"], " ".join(row["tags"]), row["summary"]) for row in rows]
    return ("metric", "better", "range", "what it is"), [
        (row["name"], row["better"], f"[{row['low']:g}, {row['high']:g}]", row["summary"]) for row in rows
    ]


def _state(row: dict[str, Any]) -> str:
    """Return whether the environment of an external method is made."""
    return "" if "made" not in row else " (environment made)" if row["made"] else " (a run makes its environment)"


def listed(kind: str) -> list[dict[str, Any]]:
    """Return what ``list --json`` prints: for each method, task or metric the facts that a user needs to choose."""
    if kind == "methods":
        return [
            {
                "name": name,
                "can": sorted(cls.abilities()),
                "tags": sorted(cls.tags),
                "summary": summary(cls),
                **({"made": cls.is_made()} if hasattr(cls, "is_made") else {}),
            }
            for name, cls in {**METHODS, **recipes()}.items()
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
    """Return the facts about a method, task, benchmark (``task/dataset``), metric or data set.

    Raises
    ------
    UnknownName, PlanError, PluginError
        There is no such name, or no method at the address ``package.module:Class``.
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
            "paper": metric.info.paper,
        }
    if name in DATASETS:
        return _about_dataset(name)
    task, _, dataset = name.partition("/")
    if task in TASKS and (not dataset or name in benchmark_names()):
        return _about_task(task) | ({"name": name, "data_set": _about_dataset(dataset)} if dataset else {})
    raise UnknownName("name", name, sorted([*METHODS, *TASKS, *benchmark_names(), *METRICS, *DATASETS]))


def show(name: str) -> str:
    """Return :func:`about` as text."""
    facts = about(name)
    text = {"method": _show_method, "metric": _show_metric, "data set": _show_dataset, "task": _show_task}
    return text[facts["kind"]](facts)


def as_json(document: Any) -> str:
    """Return one JSON document; numbers that are not finite become null."""
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
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
        "paper": cls.paper,
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
        "paper": dataset.paper,
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
        "paper": cls.paper,
    }


def _show_method(facts: dict[str, Any]) -> str:
    lines = [f"  {setting['key']} = {setting['default']!r}  # {setting['source']}" for setting in facts["config"]]
    for preset, changes in facts["presets"].items():
        lines.append(f"  preset {preset}: " + ", ".join(f"{key} = {value!r}" for key, value in changes.items()))
    return "\n".join(
        [
            f"method {facts['name']}",
            "",
            facts["docstring"],
            "",
            f"Can: {', '.join(facts['can'])}",
            f"Tags: {', '.join(facts['tags'])}",
            f"Paper: {facts['paper'] or 'none: a baseline of this suite'}",
            "Config:",
            *(lines or ["  nothing to configure"]),
        ]
    )


def _show_metric(facts: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"metric {facts['name']}",
            "",
            facts["docstring"],
            "",
            f"Better: {facts['better']}; range [{facts['low']:g}, {facts['high']:g}]",
            f"Paper: {facts['paper']}",
        ]
    )


def _show_dataset(facts: dict[str, Any]) -> str:
    n_genes = f"{facts['n_genes']}, chosen in each training split" if facts["n_genes"] else "all"
    return "\n".join(
        [
            f"data set {facts['name']}: {facts['summary']}",
            f"Paper: {facts['paper']}",
            f"Licence: {facts['licence']}",
            f"Columns: {', '.join(f'{role} = {name}' for role, name in facts['fields'].items() if name)}",
            f"Genes: {n_genes}",
            f"Here: {facts['missing'] or 'yes'}",
        ]
    )


def _show_task(facts: dict[str, Any]) -> str:
    references = [
        f"  {c['name']}{' on ' * bool(c['on'])}{c['on']}: {c['description']}"
        + (f" (of {', '.join(c['methods'])})" if len(c["methods"]) > 1 else "")
        for c in facts["references"]
    ]
    lines = [
        f"task {facts['name'].partition('/')[0]}, version {facts['version']}",
        "",
        facts["docstring"],
        "",
        f"Data sets: {', '.join(facts['data_sets'])}",
        f"Held out: one {facts['unit']} at a time",
        f"A method must be able to: {', '.join(facts['requires'])}",
        f"Primary metrics: {', '.join(facts['primary'])}",
        f"Secondary: {', '.join(facts['secondary'])}",
        "References:",
        *references,
        f"Paper: {facts['paper']}",
    ]
    if "data_set" in facts:
        lines += ["", "Data set", _show_dataset(facts["data_set"])]
    return "\n".join(lines)
