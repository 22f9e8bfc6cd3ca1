"""A small file to start from: a method, a task or a metric that runs as it is."""

from __future__ import annotations

import importlib.util
import keyword
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from bench.records import PlanError
from methods import METHODS
from metrics import METRICS
from tasks import TASKS
from tasks.command_line import command

#: For each kind, the name that its template has, and where such names are registered.
KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "method": ("my_vae", METHODS),
    "task": ("my_task", TASKS),
    "metric": ("my_metric", METRICS),
}


def new(kind: str, name: str, directory: Path) -> Path:
    """Write a commented file for a method, a task or a metric called ``name``, and return it.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    name
        A Python identifier; of ``my_vae`` the file is ``my_vae.py``, the class ``MyVae`` and the method ``my-vae``.
    directory
        Directory of the new file.

    Raises
    ------
    PlanError
        The file exists, or the name is no identifier, or taken; nothing is written then.
    """
    template, registry = KINDS[kind]
    class_name = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    sound = name.isidentifier() and not name.startswith("_") and not name.endswith("_")
    if not sound or keyword.iskeyword(name) or keyword.iskeyword(class_name):
        raise PlanError(f"{name!r} cannot be a {kind}'s name: a Python identifier is needed, such as {template}")
    registered = name if kind == "metric" else name.replace("_", "-")
    if registered in registry:
        raise PlanError(f"{kind} {registered!r} is registered already ({command('show', registered)}): choose another")
    file = directory / f"{name}.py"
    if file.exists():
        raise PlanError(f"{file} exists already, and is left as it is: choose another name, or move it away")
    if importlib.util.find_spec(name) is not None:
        raise PlanError(f"{name} is a module that is installed here, which {name}.py would hide: choose another name")
    text = resources.files("bench").joinpath("templates", f"{kind}.py").read_text(encoding="utf-8")
    pairs = {
        template: name,
        template.replace("_", "-"): name.replace("_", "-"),
        "".join(part.capitalize() for part in template.split("_")): class_name,
    }
    for theirs, ours in pairs.items():
        text = text.replace(theirs, ours)
    with file.open("x", encoding="utf-8") as stream:  # a file that has appeared meanwhile is not overwritten
        stream.write(text)
    return file


def next_commands(file: Path) -> list[str]:
    """Return the commands that the file itself names, as they work in this shell."""
    lines = file.read_text(encoding="utf-8").partition('"""\n\n')[0].splitlines()
    generic = "python -m bench "
    return [f"{command()} {line.removeprefix(generic)}" for line in lines if line.startswith(generic)]
