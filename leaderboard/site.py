"""The index of a static site: what each board says, to choose from by run, version, seed, task and data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from leaderboard.report import template
from leaderboard.sentences import answer, suite_title, task_title
from leaderboard.table import Leaderboard, SuiteTable, TaskTable

#: The value of a choice that stands for all of several.
ALL = "all"
#: What is chosen by: the fields of :class:`Entry`, and what they are called.
CHOICES = {"run": "Run", "version": "Version", "seed": "Seed", "task": "Task", "data_set": "Data set"}


@dataclass(frozen=True)
class Entry:
    """A table of a board, as the index shows it.

    Parameters
    ----------
    run, version, seed, task, data_set : what it is of; :data:`ALL` where it is of several.
    title : what the table is called.
    page : the address of its page, relative to the index, with the place in it.
    answer : what it says.
    jobs : how many jobs ended well.
    submitted : the methods whose answers were submitted.
    """

    run: str
    version: str
    seed: str
    task: str
    data_set: str
    title: str
    page: str
    answer: str
    jobs: int
    submitted: tuple[str, ...]


def entries(board: Leaderboard, page: str, run: str, version: str, seed: str, submitted: str) -> list[Entry]:
    """The entries of a board: its suites, then its tasks.

    Parameters
    ----------
    page, run, version, seed : as in :class:`Entry`.
    submitted : how the label of a submitted method ends.
    """
    found = []
    tables: list[tuple[str, SuiteTable | TaskTable, str, tuple[str, ...]]] = []
    for suite in board.suites:
        if suite.tasks:
            tables.append((f"suite-{suite.preset}", suite, suite_title(suite), suite.tasks))
    tables += [(f"task-{n}", table, task_title(table), (table.task,)) for n, table in enumerate(board.tasks, 1)]
    for anchor, table, title, names in tables:
        task, data_set = (_common([name.partition("/")[part] for name in names]) for part in (0, 2))
        if len(names) > 1 and (shared := {task, data_set} - {ALL}):
            title += f" of {shared.pop()}"
        own = board.rows[board.rows["task"].isin(names) & (board.rows["preset"] == table.preset)]
        methods = table.frame.loc[table.frame["role"] == "method", "method"]
        found.append(
            Entry(
                run=run,
                version=version,
                seed=seed,
                task=task,
                data_set=data_set,
                title=title,
                page=f"{page}#{anchor}",
                answer=answer(table).sentence,
                jobs=int(own.loc[own["status"] == "ok", "job_id"].nunique()),
                submitted=tuple(name for name in methods if name.endswith(submitted)),
            )
        )
    return found


def _common(values: Sequence[str]) -> str:
    """The value that all have, or the word for several."""
    return values[0] if len(set(values)) == 1 else ALL


def to_index(found: Sequence[Entry], about: Sequence[str], rows: Sequence[str]) -> str:
    """The page.

    Parameters
    ----------
    about : how the site was made, lines.
    rows : the addresses of the runs' rows, relative to the index.
    """
    from markupsafe import Markup

    css = (files("leaderboard") / "templates" / "report.css").read_text()
    return template("site.html.j2").render(entries=found, choices=CHOICES, about=about, rows=rows, css=Markup(css))
