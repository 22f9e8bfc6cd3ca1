"""The structure of the product, measured from its own files: lines, imports, circles, and the rules of the house.

python -m tests.house            lines of code, rooms and arrows
python -m tests.house --check    the same, and exit code 1 where a rule is broken
"""

from __future__ import annotations

import ast
import importlib
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bench", "leaderboard", "methods", "metrics", "tasks")
#: What each package, or room of ``bench``, may import besides itself. Nothing imports upwards.
ALLOWED = {
    "metrics": set(),
    "leaderboard": set(),
    "methods": {"metrics"},
    "tasks": {"metrics"},
    "bench": {"leaderboard", "methods", "metrics", "tasks"},
}
ROOMS = {
    "records": set(),
    "environment": set(),
    "plan": {"records", "environment"},
    "keep": {"records", "environment"},
    "options": {"records", "plan"},
    "jobs": {"records", "environment", "plan", "keep", "options"},
    "studies": {"records", "environment", "plan", "keep", "options", "jobs"},
}
IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def files(package: str) -> list[Path]:
    """Return the Python files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def lines(file: Path) -> int:
    """Return the number of lines with code: none that are blank, comment or docstring."""
    text = file.read_text(encoding="utf-8")
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in IGNORED:
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            found -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(found)


def module_name(file: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, known: Iterable[str]) -> set[str]:
    """Return the modules of ours that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & set(known)
            if inner - set(known):
                found.add(node.module)
    return (found & set(known)) - {module_name(file)}


def graph() -> dict[str, set[str]]:
    """Return for each module of the product the modules of the product that it imports."""
    names = {module_name(file): file for package in PACKAGES for file in files(package)}
    return {name: imports(file, names) for name, file in names.items() if "templates" not in name}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return groups of modules that import each other, each sorted."""
    reached = {name: _reachable(name, arrows) for name in arrows}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached.get(other, ())))
        for name in arrows
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def _reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += arrows.get(name, ())
    return seen


def room(name: str) -> str:
    """Return the room of ``bench`` that a module is in."""
    return [*name.split("."), ""][1] or "__init__"


def arrows_between_rooms(arrows: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return which room of ``bench`` imports which."""
    ours = {name: targets for name, targets in arrows.items() if name.startswith("bench.")}
    pairs = {
        (room(name), room(target))
        for name, targets in ours.items()
        for target in targets
        if target.startswith("bench.")
    }
    return {(first, second) for first, second in pairs if first != second}


def broken_rules() -> Iterator[str]:
    """Yield each rule that is broken, in a sentence."""
    arrows = graph()
    for group in circles(arrows):
        yield f"circle: {', '.join(group)}"
    for name, targets in arrows.items():
        for target in sorted(targets):
            if not _may_import(name, target):
                yield f"direction: {name} imports {target}"
    yield from _metrics_without_a_task()
    for package in PACKAGES:
        for file in files(package):
            if "templates" not in file.parts:
                yield from _undocumented(file)


def _may_import(name: str, target: str) -> bool:
    package, other = name.partition(".")[0], target.partition(".")[0]
    if package != other:
        return other in ALLOWED[package]
    rooms = ROOMS.get(room(name)) if package == "bench" else None
    return rooms is None or room(target) in rooms | {room(name)}


def _metrics_without_a_task() -> Iterator[str]:
    metrics, tasks = importlib.import_module("metrics").METRICS, importlib.import_module("tasks").TASKS
    used = {name for task in tasks.values() for name in (*task.primary, *task.secondary)}
    for name in metrics:
        if name not in used:
            yield f"metric: {name} is used by no task"


def _undocumented(file: Path) -> Iterator[str]:
    """Yield public modules, classes and functions without a docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if ast.get_docstring(tree) is None:
        yield f"docstring: {file.relative_to(ROOT)} has none"
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        prefix, parent = waiting.pop()
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield f"docstring: {file.relative_to(ROOT)}:{node.lineno} {prefix}{node.name} has none"
            if isinstance(node, ast.ClassDef):
                waiting.append((f"{node.name}.", node))


def main() -> None:
    """Print the measures; with ``--check`` also the broken rules, and end with 1 where there are any."""
    total = 0
    for package in PACKAGES:
        counts = [lines(file) for file in files(package)]
        total += sum(counts)
        print(f"{package:12} {len(counts):4} files {sum(counts):7,} lines of code")
    tests = [lines(file) for file in files("tests")]
    print(f"{'product':12} {'':4}       {total:7,}")
    print(f"{'tests':12} {len(tests):4} files {sum(tests):7,}")
    arrows = graph()
    ours = {name: targets for name, targets in arrows.items() if name.startswith("bench.")}
    inner = sum(target.startswith("bench.") for targets in ours.values() for target in targets)
    between = arrows_between_rooms(arrows)
    print(f"bench: {len(ours)} modules, {inner} imports among them, {len(between)} arrows between its rooms")
    print(f"circles: {len(circles(arrows))}")
    if "--check" in sys.argv[1:]:
        broken = list(broken_rules())
        print("\n".join(broken) or "every rule of the house is kept")
        raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
