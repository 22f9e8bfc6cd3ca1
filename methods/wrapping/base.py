"""Methods that wrap a class of another package: their configuration, and what their results depend on."""

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
#: Size of the code where neither the user nor the task sets it: the suite's common code size.
N_LATENT = 10


class NoMethod(ValueError):
    """There is no method at an address, and no class that can be wrapped; the message says why."""


class Wrapped(Method):
    """A method that wraps a class of another package; its name is the address of the class."""

    wraps: ClassVar[Any]

    @classmethod
    def depends(cls) -> str:
        """Return the address, the package's version and the digest of the file of the class."""
        return f"{cls.name} {version(cls.wraps)} {_file_digest(cls.wraps)}"


def version(cls: type) -> str:
    """Return the version of the package of a class, empty if it has none."""
    return str(getattr(sys.modules[cls.__module__.partition(".")[0]], "__version__", ""))


@cache
def _file_digest(cls: type) -> str:
    return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a function or a class's constructor, without ``self`` and ``**kwargs``."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    of_function = inspect.signature(function).parameters
    return {name: parameter for name, parameter in of_function.items() if parameter.kind in kinds and name != "self"}


def required(function: Callable[..., Any], but: Collection[str] = ()) -> list[str]:
    """Return the parameters without default, except those in ``but``."""
    return [n for n, p in parameters(function).items() if p.default is inspect.Parameter.empty and n not in but]


def plain_defaults(function: Callable[..., Any], but: Collection[str] = ()) -> dict[str, Any]:
    """Return the defaults that a configuration can hold: finite numbers, words, true, false and none."""
    defaults = {name: parameter.default for name, parameter in parameters(function).items() if name not in but}
    return {
        name: default
        for name, default in defaults.items()
        if type(default) in PLAIN and not (isinstance(default, float) and not math.isfinite(default))
    }


def method_class(
    base: type[Wrapped], address: str, cls: type, package: str, defaults: Mapping[str, Any], predicts: bool, **more: Any
) -> Any:
    """Return the method that wraps ``cls``.

    Parameters
    ----------
    base
        Its base class, which says how it fits; its ``code_size`` is the name of the key that is the size of the code.
    address
        Of the class.
    package
        Name and version of its package, the source of the defaults.
    defaults
        Of the configuration; the size of the code is a whole number, and any other key may be set to any of
        :data:`methods.base.PLAIN`.
    predicts
        Whether it has the tag "prediction".
    more
        Further attributes.
    """
    size, keys = base.code_size, []
    for name, default in defaults.items():
        about = {"source": package, "takes_any": name != size}
        if name == size:
            about["source"] = f"the suite's common code size; {package}: {default}"
        keys.append((name, Any, field(default=N_LATENT if name == size else default, metadata=about)))
    about_class = {"__doc__": "Settings of the wrapped class."}
    attributes = {
        "__module__": base.__module__,
        "__doc__": f"{(inspect.getdoc(cls) or cls.__name__).splitlines()[0]}\n\n{address} of {package}, wrapped.",
        "name": address,
        "wraps": cls,
        "tags": frozenset({"embedding", "wrapped"} | ({"prediction"} if predicts else set())),
        "paper": package,
        "Config": make_dataclass("Config", keys, frozen=True, namespace=about_class),
        **more,
    }
    return type(cls.__name__, (base,), attributes)
