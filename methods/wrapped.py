"""What methods made of another package's class share: a configuration of its defaults, and what it depends on."""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from methods.base import PLAIN, Method

ACCEPTED = (
    "accepted are a Method of this suite, a scikit-learn transformer (fit, transform) and a model class of scvi-tools "
    "(setup_anndata, train); anything else is made a method in a file, see docs/wrapping.md"
)


class NoMethod(ValueError):
    """What stands at an address is no method and cannot be made one; the message says why and what is accepted."""


class Wrapped(Method):
    """A method made of a class of another package, which its name is the address of."""

    wraps: ClassVar[Any]

    @classmethod
    def depends(cls) -> str:
        """Return the address, the package's version and the digest of the file that the class stands in."""
        return f"{cls.name} {version(cls.wraps)} {_file_digest(cls.wraps)}"


def version(cls: type) -> str:
    """Return the version of the package that a class is of, empty where it does not say."""
    return str(getattr(sys.modules[cls.__module__.partition(".")[0]], "__version__", ""))


@cache
def _file_digest(cls: type) -> str:
    return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a function or a class's constructor, without ``self`` and ``**kwargs``."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters
    return {name: one for name, one in found.items() if one.kind in kinds and name != "self"}


def required(function: Callable[..., Any], but: Collection[str] = ()) -> list[str]:
    """Return the parameters that have no default, but for those that are known."""
    return [n for n, p in parameters(function).items() if p.default is inspect.Parameter.empty and n not in but]


def plain_defaults(function: Callable[..., Any], but: Collection[str] = ()) -> dict[str, Any]:
    """Return the parameters whose defaults a configuration can hold: finite numbers, words, true, false and none."""
    defaults = {name: one.default for name, one in parameters(function).items() if name not in but}
    return {
        name: default
        for name, default in defaults.items()
        if type(default) in PLAIN and not (isinstance(default, float) and not math.isfinite(default))
    }


def configuration(defaults: Mapping[str, Any], sources: Mapping[str, str], code_size: str) -> type:
    """Return a ``Config`` of these defaults, each with its source.

    The size of the code is a whole number; anything else may be set to whatever the other package takes.
    """
    keys = []
    for name, default in defaults.items():
        about = {"source": sources[name], "takes_any": name != code_size}
        keys.append((name, Any, field(default=default, metadata=about)))
    return make_dataclass("Config", keys, frozen=True, namespace={"__doc__": "Settings of the wrapped class."})
