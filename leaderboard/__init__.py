"""The leaderboard: tables and intervals from a tidy DataFrame of results, and nothing else.

``build(rows)`` makes the tables, ``write`` the files: Markdown, CSV, the HTML report, JSON, LaTeX.
"""

from leaderboard.comparison import Comparison
from leaderboard.files import DEFAULT_FORMATS, FORMATS, write
from leaderboard.table import Leaderboard, SuiteTable, TaskTable, build
from leaderboard.writers import frames, to_json, to_markdown

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "Comparison",
    "Leaderboard",
    "SuiteTable",
    "TaskTable",
    "build",
    "frames",
    "to_json",
    "to_markdown",
    "write",
]
