"""The command line: ``python -m bench``."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from bench.environment import limit_threads

limit_threads()

import typer  # noqa: E402 - numpy, which these may import, reads the thread limits when it is imported
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

import bench  # noqa: E402
from methods.base import ConfigError  # noqa: E402
from metrics import UnknownName  # noqa: E402
from tasks.datasets import DataError  # noqa: E402

if TYPE_CHECKING:
    from bench.store import Store
    from tasks.datasets.catalogue import RealDataset

app = typer.Typer(
    help="Disentanglement and out-of-distribution methods for gene expression, compared.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets: what there is, where it lies, and how to get it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

USAGE = 2


class Preset(StrEnum):
    """How large a run is."""

    smoke = "smoke"
    default = "default"
    paper = "paper"


class ExecutorName(StrEnum):
    """Where cells run."""

    local = "local"
    inline = "inline"


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    tasks = "tasks"
    metrics = "metrics"


class Format(StrEnum):
    """What a leaderboard is written as."""

    md = "md"
    csv = "csv"
    html = "html"
    json = "json"
    latex = "latex"


Out = Annotated[Path, typer.Option(help="Directory of results; made if it is not there.")]
DataDir = Annotated[Optional[Path], typer.Option(help="Directory of original data files; else BENCH_DATA_DIR.")]  # noqa: UP045 - typer reads this


@app.command()
def run(
    methods: Annotated[
        str, typer.Option(help="Names, tags, globs, file.py:Class, or all; separated by commas.")
    ] = "all",
    tasks: Annotated[str, typer.Option(help="task/dataset names, tags such as ood, globs, or all.")] = "ood",
    seeds: Annotated[Optional[int], typer.Option(min=1, help="Number of seeds; else the preset's.")] = None,  # noqa: UP045
    preset: Annotated[Preset, typer.Option(help="Size of the run.")] = Preset.default,
    jobs: Annotated[Optional[int], typer.Option(min=1, help="Cells at a time; else the number of cores.")] = None,  # noqa: UP045
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    plugin: Annotated[list[str], typer.Option(help="Python file that registers methods or tasks; repeatable.")] = [],  # noqa: B006
    set_: Annotated[list[str], typer.Option("--set", help="method.key=value; repeatable.")] = [],  # noqa: B006
    time_limit: Annotated[float, typer.Option(min=0.1, help="Minutes a cell may take.")] = 120.0,
    memory_limit: Annotated[Optional[float], typer.Option(min=0.1, help="GiB a cell may hold; else its share.")] = None,  # noqa: UP045
    executor: Annotated[ExecutorName, typer.Option(help="A process a cell, or this process.")] = ExecutorName.local,
    data: Annotated[Optional[Path], typer.Option(help="Your own .h5ad, for tasks named without a data set.")] = None,  # noqa: UP045
    unit: Annotated[str, typer.Option(help="With --data: column of what is held out (reembedding).")] = "",
    environment: Annotated[str, typer.Option(help="With --data: column of study or condition.")] = "",
    condition: Annotated[str, typer.Option(help="With --data: column of the condition (unseen-cell-type).")] = "",
    cell_type: Annotated[str, typer.Option(help="With --data: column of the cell type.")] = "",
    group: Annotated[str, typer.Option(help="With --data: column of the group (shared-private).")] = "",
    control: Annotated[str, typer.Option(help="With --data: value of the control condition.")] = "",
    replicate: Annotated[str, typer.Option(help="With --data: column of the donor or patient.")] = "",
    n_genes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="With --data: genes chosen in each training split; 0 keeps all; else 2000."),
    ] = None,
    mlflow_uri: Annotated[Optional[str], typer.Option(help="MLflow tracking address; else SQLite in --out.")] = None,  # noqa: UP045
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and an estimate of time; run nothing.")
    ] = False,
) -> None:
    """Run methods on tasks, log to MLflow, and end with the leaderboard."""
    import psutil

    from bench.estimate import Estimate
    from bench.executors.inline import InlineExecutor
    from bench.executors.local import LocalExecutor
    from bench.plan import PlanError, choose_methods, choose_own_tasks, choose_tasks, make_plan
    from bench.run import command_line, execute, say_plan
    from bench.store import Store
    from bench.tracking import Tracker, default_uri
    from tasks.datasets.own import N_GENES

    _use_data_dir(data_dir)
    console = _console()
    specs, plugins = choose_methods(methods, preset, set_, plugin)
    columns = {
        "unit": unit,
        "environment": environment,
        "condition": condition,
        "cell_type": cell_type,
        "group": group,
        "control": control,
        "replicate": replicate,
    }
    columns = {key: value for key, value in columns.items() if value}
    given = [*columns, *(["n_genes"] if n_genes is not None else [])]
    if data is None and given:
        raise PlanError(f"--{given[0].replace('_', '-')} describes --data, which is not given")
    genes = N_GENES if n_genes is None else n_genes
    names, own = choose_own_tasks(tasks, str(data), columns, genes) if data else (choose_tasks(tasks), None)
    store = Store(out)
    with store.lock():
        index = store.index()
        plan = make_plan(specs, names, preset, seeds, plugins, index, own)
        store.write_index(index)
        for task, selection in plan.selections.items():
            console.print(Text(f"{task}: {selection}" + (" (--n-genes)" if own else "")), soft_wrap=True)
        n_jobs = jobs or len(os.sched_getaffinity(0))
        if dry_run:
            todo = [cell for cell in plan.cells if not cell.skip and store.finished(cell.id) is None]
            say_plan(plan, todo, Estimate(store.gather().rows, plan.sizes), n_jobs, console)
            return
        share = psutil.virtual_memory().total * 0.9 / n_jobs / 2**20
        limit_mb = memory_limit * 1024 if memory_limit else share
        runner = (
            InlineExecutor() if executor is ExecutorName.inline else LocalExecutor(n_jobs, time_limit * 60, limit_mb)
        )
        uri = mlflow_uri or default_uri(store.out)
        tracker = Tracker(uri, store, plan.invocation, f"{methods} × {tasks} ({preset})", command_line())
        try:
            outcome = execute(plan, store, runner, tracker, n_jobs, console, command_line())
        except KeyboardInterrupt:
            typer.echo("interrupted; run the same command again to go on", err=True)
            raise typer.Exit(130) from None
    counts = ", ".join(f"{number} {status}" for status, number in sorted(outcome.counts.items()))
    console.print(f"{counts or 'no cells'}", highlight=False)
    console.print(
        Text(f"Leaderboard: {store.out / 'leaderboard.html'} (and .md, .csv); rows: {store.parquet}"), soft_wrap=True
    )
    if outcome.tracking_error:
        console.print(
            Text(f"MLflow at {uri} failed ({outcome.tracking_error}); results are safe, run again to log the rest"),
            style="red",
            soft_wrap=True,
        )
    elsewhere = f" --mlflow-uri {mlflow_uri}" if mlflow_uri else ""
    console.print(Text(f"MLflow UI: python -m bench ui --out {out}{elsewhere}"), soft_wrap=True)
    if not outcome.ok or outcome.tracking_error:
        raise typer.Exit(1)


@app.command("list")
def list_(what: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List methods, tasks or metrics."""
    from bench.describe import list_of

    header, rows = list_of(what)
    _print_table(header, rows)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A method, task, task/dataset, metric or data set.")]) -> None:
    """Show docstring, configuration with sources, and reference."""
    from bench.describe import show as describe_name

    typer.echo(describe_name(name))


@app.command()
def leaderboard(
    out: Annotated[list[Path], typer.Option(help="Directory of results; repeatable, the last result counts.")] = [  # noqa: B006
        Path("runs")
    ],
    tasks: Annotated[str, typer.Option(help="Only these: names, tags, globs, separated by commas.")] = "",
    format_: Annotated[
        list[Format],
        typer.Option("--format", help="What to write; repeatable. Without it md, csv and the HTML report."),
    ] = [],  # noqa: B006
    into: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Directory to write to; else --out, where it is one and all of it is shown."),
    ] = None,
) -> None:
    """Make a leaderboard anew from the results of one or several out directories, and print it."""
    from bench.plan import PlanError, choose_tasks
    from bench.run import command_line, header_lines, print_leaderboard, write_leaderboard

    stores = [_existing(directory) for directory in out]
    if into is None and (len(stores) > 1 or tasks):
        raise PlanError("--into is needed: this leaderboard is not that of all results of one directory")
    chosen = set(choose_tasks(tasks)) if tasks else None
    console = _console()
    header = header_lines(command_line())
    formats = [kind.value for kind in format_]
    board, files = write_leaderboard(
        [store.gather() for store in stores],
        into or stores[0].out,
        header,
        formats,
        lambda task: chosen is None or task in chosen,
    )
    print_leaderboard(board, console)
    console.print(Text(f"Leaderboard: {', '.join(map(str, files))}"), soft_wrap=True)


@app.command()
def ui(
    out: Out = Path("runs"),
    mlflow_uri: Annotated[Optional[str], typer.Option(help="MLflow store; else the one in --out.")] = None,  # noqa: UP045
    port: Annotated[int, typer.Option(help="Port on this machine's loopback address.")] = 5000,
) -> None:
    """Start the MLflow UI on a run's store, for this machine alone."""
    from bench.tracking import default_uri

    uri = mlflow_uri or default_uri(_existing(out).out)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    # queues for evaluating language models, in seven processes of their own
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    typer.echo(f"MLflow UI on http://127.0.0.1:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    os.execv(command[0], command)


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Say what this machine has: versions, threads, memory, data, and how to get what is missing."""
    import psutil

    from bench.environment import describe
    from tasks import DATASETS
    from tasks.datasets.catalogue import built_directory, data_directory

    _use_data_dir(data_dir)
    environment = describe()
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(os.getcwd())
    cuda = "yes" if _has_gpu() else "no"
    rows = [
        ("suite", f"{bench.__version__}, commit {environment['git_commit'] or 'unknown'}"),
        ("python", environment["python"]),
        *((name, version or "missing: run make env") for name, version in environment["versions"].items()),
        (
            "processor",
            f"{environment['cpu']}, {len(os.sched_getaffinity(0))} cores; {environment['threads']} thread a cell",
        ),
        ("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"),
        ("disk here", f"{disk.free / 2**30:.1f} GiB free"),
        ("GPU", cuda),
        ("data directory", str(data_directory())),
        ("built data", str(built_directory())),
        *((f"data {name}", dataset.missing() or "here") for name, dataset in DATASETS.items()),
    ]
    _print_table(("what", "found"), rows)


@data_app.command("list")
def data_list(data_dir: DataDir = None) -> None:
    """List the data sets, and whether they are here."""
    from tasks import DATASETS

    _use_data_dir(data_dir)
    rows = [
        (name, "embedded" if d.simulated else "here" if d.missing() is None else "absent", d.summary, d.licence)
        for name, d in DATASETS.items()
    ]
    _print_table(("data set", "", "what it is", "licence"), rows)


@data_app.command("path")
def data_path(name: str, data_dir: DataDir = None) -> None:
    """Print where a data set's built file is, or would be."""
    _use_data_dir(data_dir)
    typer.echo(_real(name).path())


@data_app.command("fetch")
def data_fetch(name: str, data_dir: DataDir = None) -> None:
    """Download a data set's original files into the data directory and build it."""
    _use_data_dir(data_dir)
    typer.echo(_real(name).fetch(progress=True))


@data_app.command("add")
def data_add(
    file: Path,
    name: Annotated[str, typer.Option(help="Data set, for a file whose checksum nobody has published.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Put a file that you have into the data directory, recognised by its checksum."""
    from tasks.datasets.catalogue import add

    _use_data_dir(data_dir)
    typer.echo(add(file, name))


@app.command()
def calibrate(
    tasks: Annotated[str, typer.Option(help="task/dataset names, tags such as ood, globs, or all.")] = "quick",
    preset: Annotated[Preset, typer.Option(help="Size of the run.")] = Preset.default,
    seeds: Annotated[Optional[int], typer.Option(min=1, help="Number of seeds; else the preset's.")] = None,  # noqa: UP045
    out: Out = Path("runs"),
    data_dir: DataDir = None,
) -> None:
    """Measure what metrics can resolve: their range on each task, and how they answer known corruptions."""
    from bench.calibrate import calibrate as measure
    from bench.calibrate import say
    from bench.plan import choose_tasks
    from bench.run import command_line

    _use_data_dir(data_dir)
    console = _console()
    outcome = measure(choose_tasks(tasks), preset, seeds, out, console, command_line())
    say(outcome, console)
    if outcome.failed:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a mistake in what was asked for is one message and exit code 2."""
    from bench.plan import PlanError, PluginError
    from bench.store import StoreError

    try:
        app()
    except PluginError as error:
        traceback.print_exception(error.__cause__)
        _complain(str(error))
    except (ConfigError, DataError, PlanError, StoreError, UnknownName) as error:
        _complain(str(error))


def _complain(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(USAGE)


def _use_data_dir(data_dir: Path | None) -> None:
    """Make ``--data-dir`` known to this process and the ones that it starts."""
    if data_dir is not None:
        if not data_dir.is_dir():
            raise DataError(f"--data-dir {data_dir}: there is no such directory")
        os.environ["BENCH_DATA_DIR"] = str(data_dir.resolve())


def _existing(out: Path) -> Store:
    from bench.store import Store, StoreError

    if not (out / "store.json").exists():
        raise StoreError(f"{out}: no results there; name a run's directory with --out, or run first")
    return Store(out)


def _real(name: str) -> RealDataset:
    from tasks import DATASETS
    from tasks.datasets.catalogue import RealDataset

    dataset = DATASETS[name]
    if not isinstance(dataset, RealDataset):
        raise DataError(f"{name} is embedded: it is made by this program and has no files")
    return dataset


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _console() -> Console:
    """Return a console that does not fold tables where there is no terminal, so that they can be searched."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table."""
    console = _console()
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)
