"""Methods by their authors' own packages, each in a Python environment of its own: ``--methods external:drvi``.

A recipe is a folder: ``requirements.txt`` with every package pinned, ``program.py``, which knows nothing of this
suite, and a class that says what the program can do (:mod:`methods.program` has the protocol). The environment is made
when a run first asks for it, and kept in the cache.
"""

from __future__ import annotations

from importlib import import_module

from methods.base import Method

#: The class of each recipe.
RECIPES = {
    "drvi": "methods.external.drvi.recipe:DRVI",
    "biolord": "methods.external.biolord.recipe:Biolord",
    "scgen": "methods.external.scgen.recipe:ScGen",
    "trvae": "methods.external.trvae.recipe:TrVAE",
}
PREFIX = "external:"


def recipe(name: str) -> type[Method]:
    """Return the method ``external:name``; KeyError, with the names there are, for another one."""
    if name not in RECIPES:
        raise KeyError(f"there is no recipe {name!r}; there are {', '.join(PREFIX + known for known in RECIPES)}")
    module, _, attribute = RECIPES[name].partition(":")
    cls: type[Method] = getattr(import_module(module), attribute)
    return cls


def recipes() -> dict[str, type[Method]]:
    """Return all recipes by the names of their methods."""
    return {PREFIX + name: recipe(name) for name in RECIPES}
