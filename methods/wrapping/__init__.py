"""Methods by their address in an installed package, ``package.module:Class``: the suite's own kind, or wrapped."""

from __future__ import annotations

import importlib
import re

from methods.base import Method
from methods.errors import CannotFit
from methods.wrapping.base import ACCEPTED, NoMethod

__all__ = ["NoMethod", "is_address", "method_at"]

_ADDRESS = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def is_address(text: str) -> bool:
    """Return whether ``text`` is ``package.module:Class``, and neither a method's name nor ``file.py:Class``."""
    return bool(_ADDRESS.fullmatch(text)) and ".py:" not in text


def method_at(address: str) -> type[Method]:
    """Return the method at ``package.module:Class``, or a method that wraps the class there.

    ``external:name`` is a recipe of :mod:`methods.external`. The name of a method that wraps a class is its address.

    Raises
    ------
    NoMethod
        There is no such module or class, or the class is of no accepted kind.
    """
    from methods.external import PREFIX, recipe
    from methods.wrapping import scvi_model, sklearn_transformer

    module_name, _, name = address.partition(":")
    if address.startswith(PREFIX):
        try:
            return recipe(name)
        except KeyError as error:
            raise NoMethod(error.args[0]) from error
    package = module_name.partition(".")[0]
    if package == "scvi":
        from methods.scvi import require_scvi

        try:
            require_scvi()
        except CannotFit as error:
            return scvi_model.absent(address, str(error))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that this module imports
        if error.name == package:
            hint = f"pip install {package}, where that is its name there, or file.py:Class for a file of yours"
            raise NoMethod(f"no package {package!r} is installed here; {hint}") from error
        raise NoMethod(f"there is no module {error.name!r} in the installed package {package!r}") from error
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        classes = sorted(key for key, value in vars(module).items() if isinstance(value, type) and key[:1] != "_")
        what = "no" if cls is None else f"a {type(cls).__name__} and no class"
        raise NoMethod(f"{module_name} has {what} {name!r}; its classes are {', '.join(classes) or 'none'}")
    if issubclass(cls, Method):
        return cls
    if scvi_model.is_model(cls):
        return scvi_model.wrapped(address, cls)
    if sklearn_transformer.is_estimator(cls):
        return sklearn_transformer.wrapped(address, cls)
    raise NoMethod(f"{name} is none of these: {ACCEPTED}")
