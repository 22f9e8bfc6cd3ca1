"""The leaderboard: tables and intervals from a tidy DataFrame of results, and nothing else.

``build(rows)`` makes the tables, ``to_markdown`` and ``write`` render them.
"""

from leaderboard.table import Leaderboard, TaskTable, build
from leaderboard.writers import to_markdown, write

__all__ = ["Leaderboard", "TaskTable", "build", "to_markdown", "write"]
