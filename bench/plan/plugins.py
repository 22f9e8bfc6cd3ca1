"""Files and packages of users: imported once, so that their methods are registered."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from bench.records import PlanError
from methods import METHODS, register_method
from methods.base import Method
from methods.wrapping import NoMethod, is_address, method_at

#: Attribute of an imported plugin: the digest of its file at that time.
_CONTENT = "_bench_content"


class PluginError(Exception):
    """A user's file raised when it was imported; what it raised is the cause."""


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
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
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


def absolute(plugin: str) -> str:
    """Return a plugin's address, a file's with its whole path: a worker or a replay may stand elsewhere."""
    if is_address(plugin):
        return plugin
    file, colon, attribute = plugin.partition(".py:")
    return f"{Path(file).resolve()}{colon}{attribute}"
