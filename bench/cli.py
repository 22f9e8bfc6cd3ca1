"""The command line: ``python -m bench``."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

from bench.environment import limit_threads

limit_threads()

import typer  # noqa: E402 - numpy, which these may import, reads the thread limits when it is imported
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

from bench import complete  # noqa: E402
from bench.options import Options, read_budget, read_draws, read_pairs, read_resources  # noqa: E402
from methods.base import ConfigError  # noqa: E402
from metrics import UnknownName  # noqa: E402
from tasks.command_line import command  # noqa: E402
from tasks.datasets import DataError  # noqa: E402

if TYPE_CHECKING:
    from bench.jobs.execute import Done
    from tasks.datasets.catalogue import RealDataset

app = typer.Typer(
    help="Disentanglement and out-of-distribution methods for gene expression, compared.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data_app = typer.Typer(help="Data sets: what there is, where it lies, and how to get it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

FAILED, USAGE, INTERRUPTED = 1, 2, 130


Preset = Literal["smoke", "default", "paper"]


class Format(StrEnum):
    """A file format of the leaderboard; typer takes no list of a Literal."""

    md = "md"
    csv = "csv"
    html = "html"
    json = "json"
    latex = "latex"


WHAT, SIZE, WHERE, OWN_DATA, RESULTS = "What", "How large", "Where it runs", "Your own data", "Results"


def _old(text: str) -> Any:
    """Return an option of the last release, which still works and is not shown; ``text`` says what replaces it."""
    return typer.Option(help=text, hidden=True)


Out = Annotated[Path, typer.Option(help="Directory of results; it is made if it is not there.")]
Results = Annotated[Path, typer.Option(help="Directory of results, or its results.parquet alone.")]
SeveralResults = Annotated[
    list[Path],
    typer.Option(help="Directory of results, or its results.parquet alone; repeatable, the last result counts."),
]
DataDir = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this
    typer.Option(help="Directory of original data files; else the variable BENCH_DATA_DIR.", rich_help_panel=RESULTS),
]
MlflowUri = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="MLflow tracking address; else SQLite in --out.", rich_help_panel=RESULTS),
]
Tasks = Annotated[
    str,
    typer.Option(
        help="task/dataset names, tags such as ood, globs, or all.",
        autocompletion=complete.tasks,
        rich_help_panel=WHAT,
    ),
]
PresetOption = Annotated[Preset, typer.Option(help="Size of simulations, fits and numbers.", rich_help_panel=SIZE)]
Seeds = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Number of seeds; else the preset's.", rich_help_panel=SIZE),
]
Draws = Annotated[
    str,
    typer.Option(
        help="Draws of simulated data: a number, or FIRST:END such as 1000:1008; else the preset's.",
        rich_help_panel=SIZE,
    ),
]
TaskName = Annotated[str, typer.Argument(help="A task, or task/dataset.", autocompletion=complete.tasks)]
DatasetName = Annotated[str, typer.Argument(help="A data set.", autocompletion=complete.datasets)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan and an estimate of time; run nothing.", rich_help_panel=SIZE),
]


def read_options(
    methods: Annotated[
        str,
        typer.Option(
            help="Names, tags, globs, file.py:Class, package.module:Class, or all; separated by commas.",
            autocompletion=complete.methods,
            rich_help_panel=WHAT,
        ),
    ] = "all",
    tasks: Annotated[
        str,
        typer.Option(
            help="task/dataset names, tags such as ood, globs, or all; else ood. With --data alone: what the file can "
            "serve.",
            autocompletion=complete.tasks,
            rich_help_panel=WHAT,
        ),
    ] = "",
    set_: Annotated[
        list[str], typer.Option("--set", help="Change a setting: method.key=value; repeatable.", rich_help_panel=WHAT)
    ] = [],  # noqa: B006
    plugin: Annotated[
        list[str],
        typer.Option(help="Python file that registers methods, tasks or metrics; repeatable.", rich_help_panel=WHAT),
    ] = [],  # noqa: B006
    preset: PresetOption = "default",
    seeds: Seeds = None,
    draws: Draws = "",
    minutes: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0.01,
            help="Run whole draws, one after another, until this time is used; --draws names at most which.",
            rich_help_panel=SIZE,
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="Train networks with these multiples of their steps, such as 0.1,0.3,1,3; a row of the table each.",
            rich_help_panel=SIZE,
        ),
    ] = "",
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Jobs at a time; else the number of cores.", rich_help_panel=WHERE),
    ] = None,
    executor: Annotated[
        Literal["local", "inline", "slurm"],
        typer.Option(help="A process for each job, this process, or SLURM.", rich_help_panel=WHERE),
    ] = "local",
    resources: Annotated[
        str,
        typer.Option(
            help="key=value,…: minutes a job may take, memory in GiB that it may hold, gpus to share; on SLURM also "
            "partition, account, qos, constraint, time, array_parallelism.",
            rich_help_panel=WHERE,
        ),
    ] = "",
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Your .h5ad or .zarr, for tasks named without a data set.", rich_help_panel=OWN_DATA),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            help="What is in it, key=column,…: unit, environment, condition, cell_type, group, replicate; also "
            "control=value of the control condition, and x=counts or x=log for its expression.",
            rich_help_panel=OWN_DATA,
        ),
    ] = "",
    n_genes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=0, help="Genes chosen in each training split; 0 keeps all; else 2000.", rich_help_panel=OWN_DATA
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of results; made if need be.", rich_help_panel=RESULTS)] = Path(
        "runs"
    ),
    mlflow_uri: MlflowUri = None,
    data_dir: DataDir = None,
    gpus: Annotated[Optional[int], _old("--resources gpus=…")] = None,  # noqa: UP045
    time_limit: Annotated[Optional[float], _old("--resources minutes=…")] = None,  # noqa: UP045
    memory_limit: Annotated[Optional[float], _old("--resources memory=…")] = None,  # noqa: UP045
    slurm: Annotated[str, _old("--resources partition=…,…")] = "",
    unit: Annotated[str, _old("--columns unit=…")] = "",
    environment: Annotated[str, _old("--columns environment=…")] = "",
    condition: Annotated[str, _old("--columns condition=…")] = "",
    cell_type: Annotated[str, _old("--columns cell_type=…")] = "",
    group: Annotated[str, _old("--columns group=…")] = "",
    control: Annotated[str, _old("--columns control=…")] = "",
    replicate: Annotated[str, _old("--columns replicate=…")] = "",
    x: Annotated[Optional[str], _old("--columns x=…")] = None,  # noqa: UP045
) -> Options:
    """Return the request; the options of the last release still work."""
    from bench.keep.boards import command_line

    _use_data_dir(data_dir)
    old_resources = {"gpus": gpus, "minutes": time_limit, "memory": memory_limit}
    old_columns = {
        "unit": unit,
        "environment": environment,
        "condition": condition,
        "cell_type": cell_type,
        "group": group,
        "control": control,
        "replicate": replicate,
    }
    in_file = {key: value for key, value in old_columns.items() if value} | read_pairs("--columns", columns)
    named = [f"{key}={value:g}" for key, value in old_resources.items() if value is not None]
    return Options(
        methods=methods,
        tasks=tasks,
        plugins=plugin,
        settings=set_,
        preset=preset,
        seeds=seeds,
        draws=read_draws(draws) if draws else None,
        spend=minutes,
        budget=read_budget(budget),
        jobs=jobs,
        executor=executor,
        resources=read_resources(",".join(filter(None, [resources, slurm, *named]))),
        data=data,
        x=in_file.pop("x", x),
        columns=in_file,
        n_genes=n_genes,
        out=out,
        mlflow_uri=mlflow_uri,
        command=command_line(),
    )


def takes_options(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of :func:`read_options`; it is called with the request as ``options``.

    Parameters
    ----------
    defaults
        Options that have another default in this command.
    """
    shared = {
        name: parameter.replace(kind=Parameter.KEYWORD_ONLY, default=defaults.get(name, parameter.default))
        for name, parameter in signature(read_options, eval_str=True).parameters.items()
    }

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for name, p in signature(function, eval_str=True).parameters.items() if name != "options"]

        @wraps(function)
        def command_(**given: Any) -> None:
            options = read_options(**{name: given.pop(name) for name in shared})
            try:
                function(options, **given)
            except KeyboardInterrupt:
                typer.echo("interrupted; run the same command again to go on", err=True)
                raise typer.Exit(INTERRUPTED) from None

        parameters = [*shared.values(), *(parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own)]
        command_.__signature__ = signature(function).replace(parameters=parameters)  # type: ignore[attr-defined]
        command_.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command_

    return decorate


@app.command()
@takes_options()
def run(options: Options, dry_run: DryRun = False) -> None:
    """Run methods on tasks, log to MLflow, and end with the leaderboard."""
    from bench.jobs.execute import carry_out

    console = _console()
    _end(carry_out(options, console, dry_run), options, console)


@app.command()
@takes_options(methods="vae")
def tune(
    options: Options,
    trials: Annotated[
        int,
        typer.Option(min=1, help="Configurations tried for each method, task and unit.", rich_help_panel=SIZE),
    ] = 30,
    folds: Annotated[
        int,
        typer.Option(min=1, help="Inner units that a configuration is scored on, at most.", rich_help_panel=SIZE),
    ] = 3,
    dry_run: DryRun = False,
) -> None:
    """Tune methods without their held-out units, then run them at their defaults, tuned, and as oracles."""
    from bench.studies.tune import tune as tuned

    console = _console()
    _end(tuned(options, trials, folds, console, dry_run), options, console)


@app.command()
@takes_options()
def preflight(options: Options) -> None:
    """Run every method on every task once, small and short: what would fail after hours fails in minutes."""
    from bench.plan.cost import PREFLIGHT
    from bench.studies.preflight import preflight as fly
    from bench.studies.preflight import say

    console = _console()
    flown = fly(options, console)
    say(flown, options.n_workers, console)
    if flown.failures:
        replay_it = command("replay", "JOB", "--out", options.out / PREFLIGHT)
        console.print(Text(f"traceback: {replay_it}"), soft_wrap=True)
        raise typer.Exit(FAILED)


@app.command("list")
def list_(
    what: Annotated[Literal["methods", "tasks", "metrics"], typer.Argument(help="What to list.")], json: AsJson = False
) -> None:
    """List methods, tasks or metrics."""
    from bench.describe import as_json, list_of, listed

    if json:
        typer.echo(as_json(listed(what)))
        return
    header, rows = list_of(what)
    _print_table(header, rows)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A method, package.module:Class, task, task/dataset, metric or data set.",
            autocompletion=complete.names,
        ),
    ],
    json: AsJson = False,
) -> None:
    """Show docstring, configuration with sources, and paper."""
    from bench.describe import about, as_json
    from bench.describe import show as describe_name

    typer.echo(as_json(about(name)) if json else describe_name(name))


@app.command()
def leaderboard(
    out: SeveralResults = [Path("runs")],  # noqa: B006
    tasks: Annotated[
        str,
        typer.Option(help="Only these: names, tags, globs, separated by commas.", autocompletion=complete.tasks),
    ] = "",
    format_: Annotated[
        list[Format],
        typer.Option("--format", help="What to write; repeatable. Without it md, csv and the HTML report."),
    ] = [],  # noqa: B006
    into: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Directory to write to; else --out, where it is one and all of it is shown."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as one JSON document and write no file.")] = False,
) -> None:
    """Make a leaderboard anew from the results of one or several out directories, and print it."""
    from bench.keep.archive import gathered, is_archive
    from bench.keep.boards import command_line, header_lines, leaderboard_json, print_leaderboard, write_leaderboard
    from bench.plan import choose_tasks
    from bench.records import PlanError

    if json and (format_ or into):
        raise PlanError("--json prints and writes no file: leave --format and --into out, or --json")
    if into is None and not json and (len(out) > 1 or tasks or is_archive(out[0])):
        raise PlanError("--into is needed: this leaderboard is not that of all results of one directory")
    found = [gathered(one, write=not json) for one in out]
    chosen = set(choose_tasks(tasks)) if tasks else None
    header = header_lines(command_line())

    def keep(task: str) -> bool:
        return chosen is None or task in chosen

    if json:
        typer.echo(leaderboard_json(found, header, keep), nl=False)
        return
    console = _console()
    board, files = write_leaderboard(found, into or out[0].resolve(), header, format_, keep)
    print_leaderboard(board, console)
    console.print(Text(f"Leaderboard: {', '.join(map(str, files))}"), soft_wrap=True)


@app.command()
def power(
    out: Results = Path("runs"),
    minutes: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.01, help="Also say what a run of so many minutes would tell, here."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Say how small a difference the results can tell, what more draws would tell, and what that costs."""
    from bench.describe import as_json
    from bench.keep.archive import gathered
    from bench.keep.boards import board_of, print_power
    from leaderboard.power import forecast
    from leaderboard.power import power as of_tasks

    board = board_of([gathered(out)])
    told = of_tasks(board)
    to_come = forecast(board, minutes, len(os.sched_getaffinity(0))) if minutes else None
    if json:
        tables = {"power": told, **({} if to_come is None else {"forecast": to_come})}
        typer.echo(as_json({name: table.to_dict("records") for name, table in tables.items()}))
    else:
        print_power(told, to_come, _console())


@app.command()
def site(
    archives: Annotated[list[Path], typer.Argument(help="Directories of results, or their results.parquet.")],
    into: Annotated[Path, typer.Option(help="Directory that is made; index.html is the page to open.")],
) -> None:
    """Make a static site of one or several runs, from their rows, with an index to choose from."""
    from bench.keep.boards import command_line, header_lines
    from bench.keep.site import write_site

    console = _console()
    index = write_site(archives, into, header_lines(command_line()), lambda page: console.print(page, highlight=False))
    console.print(Text(f"Site: {index}"), soft_wrap=True)


@app.command()
def claims(
    out: SeveralResults = [Path("runs")],  # noqa: B006
) -> None:
    """Say what papers claim of their methods, and what the results say of it."""
    from bench.keep.archive import gathered
    from bench.keep.boards import board_of, print_claims

    print_claims(board_of([gathered(one) for one in out]), _console())


@app.command()
def status(
    out: Out = Path("runs"),
    watch: Annotated[bool, typer.Option("--watch", help="Look again until the run ends.")] = False,
    json: AsJson = False,
) -> None:
    """Say how far a run is, what runs now, the time left, what failed last, and what MLflow lacks."""
    from bench.describe import as_json
    from bench.keep.status import Looker, as_document, render
    from bench.keep.status import watch as look_again
    from bench.keep.store import existing
    from bench.records import PlanError

    if watch and json:
        raise PlanError("--watch and --json do not go together: one document is of one moment")
    store = existing(out)
    if json:
        typer.echo(as_json(as_document(Looker(store).look())))
    elif watch:
        look_again(store, _console())
    else:
        _console().print(render(Looker(store).look()))


@app.command()
def replay(
    job: Annotated[
        str, typer.Argument(help="METHOD/TASK/DATASET/UNIT/SEED as in the tables, or the beginning of a job's id.")
    ],
    out: Results = Path("runs"),
) -> None:
    """Run one stored job again, here, and say whether its scores agree."""
    from bench.keep.archive import results
    from bench.studies.replay import find
    from bench.studies.replay import replay as again

    console = _console()
    stored = find(results(out), job)
    console.print(Text(f"{stored.job.id}: {stored.status} {stored.reason}".rstrip()), soft_wrap=True)
    done = again(stored)
    for change in done.changes:
        console.print(Text(f"not as it was: {change}"), style="yellow", soft_wrap=True)
    _print_table(
        ("metric", "stored", "now", ""),
        [(name, str(before), str(now), verdict) for name, (before, now, verdict) in done.scores.items()],
    )
    result = done.result
    if result.traceback:
        typer.echo(result.traceback.rstrip())
    if stored.status != result.status:
        console.print(Text(f"now it is {result.status} {result.reason}".rstrip()), soft_wrap=True)
    console.print(f"{done.job.title}: {done.verdict}", highlight=False, soft_wrap=True)
    if not done.agrees or not result.status.final:
        raise typer.Exit(FAILED)


@app.command()
def sync(out: Out = Path("runs"), mlflow_uri: MlflowUri = None) -> None:
    """Log the results that MLflow does not have yet, each once."""
    from bench.keep.store import existing
    from bench.keep.sync import sync as log_the_rest
    from bench.keep.tracking import default_uri

    store = existing(out)
    uri = mlflow_uri or default_uri(store.out)
    with store.lock():
        done = log_the_rest(store, uri)
    console = _console()
    console.print(Text(f"{done.logged} logged now, {done.total} in all, at {uri}"), soft_wrap=True)
    if done.error:
        text = f"MLflow failed ({done.error}); {done.left} are left, run sync again to log them"
        console.print(Text(text), style="red", soft_wrap=True)
        raise typer.Exit(FAILED)


@app.command()
def clean(
    out: Out = Path("runs"),
    fits: Annotated[bool, typer.Option("--fits", help="Fits kept between jobs.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="What jobs printed.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Results of jobs that failed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only shown.")] = False,
) -> None:
    """Show what can be removed from an out directory and how large it is; remove it with --yes."""
    from bench.keep.boards import command_line, header_lines, write_leaderboard
    from bench.keep.clean import CHOICES, find, remove
    from bench.keep.status import mb
    from bench.keep.store import existing
    from bench.records import PlanError

    chosen = [name for name, asked in (("fits", fits), ("logs", logs), ("failed", failed)) if asked]
    if yes and not chosen:
        raise PlanError(f"--yes removes what is named: {', '.join(f'--{name}' for name in CHOICES)}")
    store = existing(out)
    with store.lock():
        found = {name: find(store, name) for name in chosen or CHOICES}
        rows = [
            (f"--{name}", str(len(rubbish.files)), mb(rubbish.bytes), CHOICES[name]) for name, rubbish in found.items()
        ]
        if yes:
            for rubbish in found.values():
                remove(rubbish)
            if failed:
                write_leaderboard([store.gather()], store.out, header_lines(command_line()))
    _print_table(("", "files", "size", "removed" if yes else "what --yes would remove"), rows)


@app.command()
def ui(
    out: Out = Path("runs"),
    mlflow_uri: Annotated[Optional[str], typer.Option(help="MLflow store; else the one in --out.")] = None,  # noqa: UP045
    port: Annotated[int, typer.Option(help="Port on this machine's loopback address.")] = 5000,
) -> None:
    """Start the MLflow UI on a run's store, for this machine alone, and open its charts of all methods."""
    from bench.keep.store import existing
    from bench.keep.tracking import default_uri
    from bench.keep.ui import serve

    serve(mlflow_uri or default_uri(existing(out).out), port)


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Say what this machine has: versions, threads, memory, GPUs, data, and how to get what is missing."""
    from bench.doctor import rows

    _use_data_dir(data_dir)
    found = rows()
    console, width = _console(), max(len(what) for what, _ in found)
    for what, there in found:  # no table, which would fold the commands
        console.print(Text(f"{what:<{width}}  {there}"), soft_wrap=True)


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
def data_path(name: DatasetName, data_dir: DataDir = None) -> None:
    """Print where a data set's built file is, or would be."""
    _use_data_dir(data_dir)
    typer.echo(_real(name).path())


@data_app.command("fetch")
def data_fetch(name: DatasetName, data_dir: DataDir = None) -> None:
    """Download a data set's original files into the data directory and build it."""
    _use_data_dir(data_dir)
    typer.echo(_real(name).fetch(progress=True))


@data_app.command("add")
def data_add(
    file: Path,
    name: Annotated[
        str,
        typer.Option(
            help="Data set, for a file whose checksum nobody has published.", autocompletion=complete.datasets
        ),
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Put a file that you have into the data directory, recognised by its checksum."""
    from tasks.datasets.catalogue import add

    _use_data_dir(data_dir)
    typer.echo(add(file, name))


@app.command()
def calibrate(
    tasks: Tasks = "quick",
    preset: PresetOption = "default",
    seeds: Seeds = None,
    out: Out = Path("runs"),
    data_dir: DataDir = None,
) -> None:
    """Measure what metrics can resolve: their range on each task, and how they answer known corruptions."""
    from bench.keep.boards import command_line
    from bench.plan import choose_tasks
    from bench.studies.calibrate import calibrate as measure
    from bench.studies.calibrate import say

    _use_data_dir(data_dir)
    console = _console()
    outcome = measure(choose_tasks(tasks), preset, seeds, out, console, command_line())
    say(outcome, console)
    if outcome.failed:
        raise typer.Exit(FAILED)


@app.command()
def split(
    task: TaskName,
    into: Annotated[Path, typer.Option(help="Directory that is made; what methods see, and a manifest.")],
    preset: PresetOption = "default",
    seeds: Seeds = None,
    draws: Draws = "",
    data_dir: DataDir = None,
) -> None:
    """Write what a method may see of each unit as files, for a program that knows nothing of this one to answer."""
    from bench.studies.submit.questions import check_data, of_catalogue
    from bench.studies.submit.split import split as write

    _use_data_dir(data_dir)
    console, name = _console(), of_catalogue(task)
    check_data(name)
    asked = write(name, preset, seeds, read_draws(draws) if draws else None, into, lambda line: console.print(line))
    answer = command("score", name, "--predictions", into, "--name", "NAME")
    console.print(Text(f"{asked}: answer what it lists (docs/submitting.md), then {answer}"), soft_wrap=True)


@app.command()
def score(
    task: TaskName,
    predictions: Annotated[
        Path, typer.Option(help="Directory with a copy of the manifest and answers, or with one such for each method.")
    ],
    name: Annotated[str, typer.Option(help="The method's name on the board; else the directory's.")] = "",
    out: Out = Path("runs"),
    mlflow_uri: MlflowUri = None,
    data_dir: DataDir = None,
) -> None:
    """Check and score answers to `split`, as those of any method, and put them on the board and into MLflow."""
    from bench.keep.boards import command_line
    from bench.studies.submit.questions import check_data, of_catalogue
    from bench.studies.submit.score import score as check_and_score

    _use_data_dir(data_dir)
    console, whole = _console(), of_catalogue(task)
    check_data(whole)
    options = Options(methods=name, tasks=whole, out=out, mlflow_uri=mlflow_uri, command=command_line())
    scored = check_and_score(whole, predictions, name, options, console)
    for method, reason in scored.refused.items():
        console.print(Text(f"{method} was refused, and is not on the board: {reason}"), style="red", soft_wrap=True)
    _end(scored.done, options, console)
    if scored.refused:
        raise typer.Exit(FAILED)


@app.command()
def new(
    kind: Annotated[Literal["method", "task", "metric"], typer.Argument(help="What to begin.")],
    name: Annotated[str, typer.Argument(help="A Python identifier, such as my_vae.")],
) -> None:
    """Write a small file for a method, task or metric of your own, which runs as it is."""
    from bench.new import new as write
    from bench.new import next_commands

    file = write(kind, name, Path())
    typer.echo("\n".join([f"{file}: change it, then", *(f"    {line}" for line in next_commands(file))]))


@app.command()
def check(
    methods: Annotated[
        list[str], typer.Argument(help="Names, tags, globs, file.py:Class, package.module:Class, or all; several.")
    ],
) -> None:
    """Check whether a method is sound, on small simulated cells: the tests that every registered method passes."""
    from bench.plan import choose_methods
    from bench.studies.check import Subject, say
    from bench.studies.check import check as checked

    specs, plugins = choose_methods(",".join(methods), "smoke", [])
    console = _console()
    sound = [say(spec.label, checked(Subject(spec.name, spec.changes, plugins)), console) for spec in specs]
    if not all(sound):
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the command line; a mistake in the request is one message and exit code 2, a full disk one and 1.

    A file without a task is a question, not a mistake: what the file can serve is the answer.
    """
    from bench.jobs.executors import ExecutorError
    from bench.keep.store import StoreError
    from bench.plan.plugins import PluginError
    from bench.records import FileQuestion, PlanError

    try:
        app()
    except FileQuestion as answer:
        typer.echo(str(answer))
    except PluginError as error:
        traceback.print_exception(error.__cause__)
        _complain(str(error))
    except (ConfigError, DataError, ExecutorError, PlanError, StoreError, UnknownName) as error:
        _complain(str(error))
    except OSError as error:
        _complain(f"{error}; what has been written is safe: mend that, then run the same command again", FAILED)


def _end(done: Done, options: Options, console: Console) -> None:
    """Say how a run ended and where its results are; end with exit code 1 where a job or MLflow failed."""
    outcome, store = done.outcome, done.store
    if outcome is None:  # a dry run
        return
    counts = ", ".join(f"{number} {status}" for status, number in sorted(outcome.counts.items()))
    console.print(f"{counts or 'no jobs'}", highlight=False)
    console.print(
        Text(f"Leaderboard: {store.out / 'leaderboard.html'} (and .md, .csv); rows: {store.parquet}"), soft_wrap=True
    )
    elsewhere = ("--mlflow-uri", options.mlflow_uri) if options.mlflow_uri else ()
    if outcome.tracking_error:
        how = f"results are safe, {command('sync', '--out', options.out, *elsewhere)} logs the rest"
        console.print(
            Text(f"MLflow at {done.uri} failed ({outcome.tracking_error}); {how}"), style="red", soft_wrap=True
        )
    console.print(Text(f"MLflow UI: {command('ui', '--out', options.out, *elsewhere)}"), soft_wrap=True)
    if not outcome.ok or outcome.tracking_error:
        raise typer.Exit(FAILED)


def _complain(message: str, code: int = USAGE) -> None:
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(code)


def _use_data_dir(data_dir: Path | None) -> None:
    """Make ``--data-dir`` known to this process and the ones that it starts."""
    if data_dir is not None:
        if not data_dir.is_dir():
            raise DataError(f"--data-dir {data_dir}: there is no such directory")
        os.environ["BENCH_DATA_DIR"] = str(data_dir.resolve())


def _real(name: str) -> RealDataset:
    from tasks import DATASETS
    from tasks.datasets.catalogue import RealDataset

    dataset = DATASETS[name]
    if not isinstance(dataset, RealDataset):
        raise DataError(f"{name} is embedded: it is made by this program and has no files")
    return dataset


def _console() -> Console:
    """Return a console that does not fold tables where there is no terminal, so that they can be searched."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table."""
    console = _console()
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    console.print(table)
