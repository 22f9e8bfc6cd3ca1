"""The leaderboard as files in a directory."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from leaderboard.table import Leaderboard
from leaderboard.writers import to_csv, to_json, to_latex, to_markdown

FORMATS = ("md", "csv", "html", "json", "latex")
DEFAULT_FORMATS = ("md", "csv", "html")
_CURVES = ("job_id", "term", "epoch", "value")
_PICTURES = ("job_id", "x", "y", "environment", "content", "trained")


def write(
    leaderboard: Leaderboard,
    directory: str | Path,
    header_lines: Sequence[str] = (),
    formats: Sequence[str] = DEFAULT_FORMATS,
    curves: pd.DataFrame | None = None,
    pictures: pd.DataFrame | None = None,
    questions: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    title: str = "Leaderboard",
) -> list[Path]:
    """Write ``leaderboard.md``, ``.csv`` and so on, each replaced whole or not at all; return the files.

    Parameters
    ----------
    formats : of :data:`FORMATS`; ``csv`` also makes ``leaderboard_suite.csv``, ``latex`` is ``leaderboard.tex``.
    curves, pictures, questions, kinds : for the HTML report, see :func:`leaderboard.report.to_html`.
    title : of the pages.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {}
    for kind in formats:
        if kind == "md":
            texts["leaderboard.md"] = to_markdown(leaderboard, title, header_lines)
        elif kind == "csv":
            texts["leaderboard.csv"], texts["leaderboard_suite.csv"] = to_csv(leaderboard)
        elif kind == "html":
            from leaderboard.report import to_html  # plotly, which nothing else needs

            curves = pd.DataFrame(columns=list(_CURVES)) if curves is None else curves
            pictures = pd.DataFrame(columns=list(_PICTURES)) if pictures is None else pictures
            texts["leaderboard.html"] = to_html(leaderboard, curves, pictures, header_lines, title, questions, kinds)
        elif kind == "json":
            texts["leaderboard.json"] = to_json(leaderboard, header_lines)
        elif kind == "latex":
            texts["leaderboard.tex"] = to_latex(leaderboard, header_lines)
        else:
            raise ValueError(f"format {kind!r}: one of {', '.join(FORMATS)} is needed")
    for name, text in texts.items():
        replace_whole(directory / name, text.encode())
    return [directory / name for name in texts]


def replace_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is the old one or the new one, whole, whatever happens."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
