"""What MkDocs asks while it builds the site: the pages that are made from docstrings and metadata.

A page for each method, task, metric and data set, an index of each kind and one of the decisions. They are made anew in
each build and are nowhere on disk but in the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from bench.describe import about
from methods import METHODS
from metrics import METRICS
from tasks import DATASETS, TASKS

DOCS = Path(__file__).resolve().parent
KINDS = {"methods": METHODS, "tasks": TASKS, "metrics": METRICS, "data": DATASETS}
INTRODUCTIONS = {
    "methods": "Every method of the registry. `python -m bench show NAME` prints the same in a terminal.",
    "tasks": "Every task. A task runs on one or several data sets, as `task/dataset`.",
    "metrics": "Every metric, a pure function of arrays.",
    "data": "Every data set: simulators that are made on the spot, and public data that are fetched.",
}
TITLES = {"methods": "Methods", "tasks": "Tasks", "metrics": "Metrics", "data": "Data sets"}
#: Sections of a numpy docstring, whose entries are names with an indented text.
SECTION = re.compile(r"^(Parameters|Attributes|Returns|Raises|Notes|Warns)\n-+\n", re.MULTILINE)
ROLE = re.compile(r":\w+:`~?([^`]+)`")
DECISION = re.compile(r"\bdecision (\d{4})\b")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put what is generated into the navigation, below the index of its kind."""
    for entry in config.nav:
        for title, page in entry.items():
            kind = page.removesuffix("/index.md") if isinstance(page, str) else ""
            if kind in KINDS:
                entry[title] = [page, *({name: f"{kind}/{name}.md"} for name in KINDS[kind])]
            if isinstance(page, list):
                entry[title] = [
                    {"Decisions": ["decisions/index.md", *(f"decisions/{file.name}" for file in decisions())]}
                    if one == {"Decisions": "decisions/index.md"}
                    else one
                    for one in page
                ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for kind, registry in KINDS.items():
        pages = {name: page_of(kind, name) for name in registry}
        pages["index"] = index_of(kind)
        for name, content in pages.items():
            files.append(File.generated(config, f"{kind}/{name}.md", content=content))
    files.append(File.generated(config, "decisions/index.md", content=index_of_decisions()))
    return files


def decisions() -> list[Path]:
    """Return the files of the decisions, in their order."""
    return sorted((DOCS / "decisions").glob("[0-9]*.md"))


def index_of_decisions() -> str:
    """Return the page that lists the decisions by their headings."""
    lines = [
        f"- {file.name[:4]} [{file.read_text().partition(chr(10))[0].lstrip('# ')}]({file.name})"
        for file in decisions()
    ]
    return "\n".join(["# Decisions", "", "What was decided, and why, with the measurements behind it.", "", *lines])


def index_of(kind: str) -> str:
    """Return the page that lists all of a kind with the first line of each."""
    lines = [f"# {TITLES[kind]}", "", INTRODUCTIONS[kind], "", "| name | what it is |", "|---|---|"]
    for name in KINDS[kind]:
        found = about(name)
        first = found["summary"] if kind == "data" else found["docstring"].partition("\n")[0]
        lines.append(f"| [{name}]({name}.md) | {in_table(first)} |")
    return "\n".join(lines)


def page_of(kind: str, name: str) -> str:
    """Return the page of one method, task, metric or data set."""
    found = about(name)
    rest = {"methods": of_method, "tasks": of_task, "metrics": of_metric, "data": of_dataset}[kind](found)
    text = found["summary"] + "." if kind == "data" else from_docstring(found["docstring"])
    return "\n".join([f"# {name}", "", text, "", *rest, ""])


def of_method(found: dict[str, Any]) -> list[str]:
    """Return what stands below a method's docstring: what it can, how it is run, its configuration."""
    asks = [name for name in TASKS if set(TASKS[name].requires) <= set(found["can"])]
    lines = [
        f"    python -m bench run --methods {found['name']} --tasks {asks[0] if asks else 'ood'} --preset smoke",
        "",
        *facts(
            ("Can", codes(found["can"])),
            ("Tags", codes(found["tags"])),
            ("Tasks that it can do", links("tasks", asks)),
            ("Paper", escape(found["paper"]) or "none: a baseline of this suite"),
        ),
        "",
        "## Configuration",
        "",
    ]
    if not found["config"]:
        return [*lines, "Nothing to configure."]
    changed = list(found["presets"])
    lines += [f"| key | default | {''.join(f'{preset} | ' for preset in changed)}source |"]
    lines += ["|---" * (3 + len(changed)) + "|"]
    for one in found["config"]:
        values = [in_table(code(found["presets"][p].get(one["key"], ""))) for p in changed]
        cells = [code(one["key"]), in_table(code(one["default"])), *values, in_table(one["source"])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def of_task(found: dict[str, Any]) -> list[str]:
    """Return what stands below a task's docstring: what is held out, metrics, controls."""
    able = [name for name in METHODS if set(found["requires"]) <= METHODS[name].abilities()]
    return [
        f"    python -m bench run --methods pca,vae --tasks {found['name']} --preset smoke",
        "",
        *facts(
            ("Held out", f"one {escape(found['unit'])} at a time"),
            ("Version", str(found["version"])),
            ("Tags", codes(found["tags"])),
            ("Data sets", links("data", found["data_sets"])),
            ("A method must be able to", codes(found["requires"])),
            ("Methods that are", links("methods", able)),
            ("Primary metrics", links("metrics", found["primary"])),
            ("Secondary metrics", links("metrics", found["secondary"]) or "none"),
            ("Paper", escape(found["paper"])),
        ),
        "",
        "## References",
        "",
        "| reference | what it does | method |",
        "|---|---|---|",
        *(
            f"| {c['name']} | {in_table(c['description'])} | {links('methods', c['methods']) or 'built by the task'} |"
            for c in found["references"]
        ),
    ]


def of_metric(found: dict[str, Any]) -> list[str]:
    """Return what stands below a metric's docstring: direction, range, the tasks that use it."""
    uses = {part: [n for n in TASKS if found["name"] in getattr(TASKS[n], part)] for part in ("primary", "secondary")}
    return facts(
        ("Better", found["better"]),
        ("Range", f"{found['low']:g} to {found['high']:g}"),
        ("Primary in", links("tasks", uses["primary"]) or "no task"),
        ("Secondary in", links("tasks", uses["secondary"]) or "no task"),
        ("Paper", escape(found["paper"])),
    )


def of_dataset(found: dict[str, Any]) -> list[str]:
    """Return what is to be known of a data set; not whether it is on the machine that builds the page."""
    name = found["name"]
    columns = [f"{role} = `{column}`" for role, column in found["fields"].items() if column]
    get = "made by the suite" if DATASETS[name].simulated else f"`python -m bench data fetch {name}`"
    return facts(
        ("Tasks", links("tasks", [task for task in TASKS if name in TASKS[task].datasets])),
        ("Columns", ", ".join(columns)),
        ("Genes", f"{found['n_genes']}, chosen in each training split" if found["n_genes"] else "all"),
        ("How to get it", get),
        ("Licence", escape(found["licence"])),
        ("Paper", escape(found["paper"])),
    )


def facts(*rows: tuple[str, str]) -> list[str]:
    """Return a table of what is to be known at a glance."""
    return ["| | |", "|---|---|", *(f"| **{key}** | {value.replace('|', chr(92) + '|')} |" for key, value in rows)]


def links(kind: str, names: Iterable[str]) -> str:
    """Return names, each linked to its page, from a page that is one folder down."""
    return ", ".join(f"[{name}](../{kind}/{name}.md)" for name in names)


def codes(names: Iterable[str]) -> str:
    """Return names as code."""
    return ", ".join(map(code, names))


def code(value: Any) -> str:
    """Return a value as code, a text as it is; nothing for an empty text."""
    return f"`{value}`" if value != "" else ""


def from_docstring(text: str) -> str:
    """Return a numpy docstring as Markdown: sections become headings, their entries a definition list."""
    parts = SECTION.split(text)
    blocks = [paragraphs(parts[0])]
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        blocks += [f"## {heading}", entries(body)]
    return "\n\n".join(blocks)


def paragraphs(text: str) -> str:
    """Return text; a formula that a paragraph begins with gets a line of its own."""
    made = []
    for block in text.strip().split("\n\n"):
        end = formula_end(block)
        if end:
            made.append(inline(block[:end]) + "\n{: .formula }")
        made.append(inline(block[end:].lstrip(",.; \n")))
    return "\n\n".join(filter(None, made))


def formula_end(block: str) -> int:
    """Return where the formula that a paragraph begins with ends: at a comma or full stop outside of brackets."""
    if code_span := re.match(r"``[^`]{20,}``|``[^`]*=[^`]*``", block):
        return code_span.end()
    if not re.match(r"\w+ = ", block):
        return 0
    depth = 0
    for place, sign in enumerate(block):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and sign in ",." and block[place + 1 : place + 2].isspace():
            return place
    return len(block)


def entries(body: str) -> str:
    """Return the entries of a section: a name, then what it is, indented."""
    made: list[str] = []
    for line in body.strip("\n").splitlines():
        if line.startswith("    "):
            made.append((":   " if not made[-1].startswith((":", "    ")) else "    ") + inline(line.strip()))
        elif line.strip():
            made += ["", code(line.strip())]
    return "\n".join(made).strip()


def inline(text: str) -> str:
    """Return text of a docstring as Markdown: roles as code, decisions as links, and nothing taken for HTML."""
    text = ROLE.sub(lambda found: f"`{found[1].strip()}`", text)
    text = "".join(part if index % 2 else escape(part) for index, part in enumerate(re.split(r"(`+[^`]*`+)", text)))
    numbers = {file.name[:4]: file.name for file in decisions()}
    return DECISION.sub(lambda found: f"[decision {found[1]}](../decisions/{numbers[found[1]]})", text)


def escape(text: str) -> str:
    """Return plain text that HTML tags cannot be seen in."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def in_table(text: str) -> str:
    """Return a docstring's text for a cell of a table."""
    return inline(text).replace("|", "\\|").replace("\n", " ")
