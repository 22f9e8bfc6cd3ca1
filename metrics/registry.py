"""A mapping from names to objects, each imported when it is first used.

The registries of methods, tasks and metrics are of one kind. It is in this package because every other package may
import this one, and this one imports none of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any


class UnknownName(KeyError):
    """A name that is not registered; the message carries the nearest registered names."""

    def __init__(self, kind: str, name: str, known: list[str]):
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show it in quotes


class Registry(Mapping[str, Any]):
    """Names mapped to objects or to ``"module:attribute"`` addresses.

    Parameters
    ----------
    kind
        What is registered ("method", "task", "metric"); used in messages.
    entries
        The explicit mapping. An address is imported on first use, so that listing names stays fast.
    """

    def __init__(self, kind: str, entries: Mapping[str, Any]):
        self.kind = kind
        self._entries: dict[str, Any] = dict(entries)

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise UnknownName(self.kind, name, sorted(self._entries))
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._entries[name] = attrgetter(attribute)(import_module(module))
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def register(self, name: str, entry: Any) -> None:
        """Add an entry; a name that is taken raises ValueError."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already, as {self._entries[name]!r}")
        self._entries[name] = entry

    def forget(self, name: str) -> None:
        """Take an entry out again."""
        del self._entries[name]
