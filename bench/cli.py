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
from bench import complete  # noqa: E402
from methods.base import ConfigError  # noqa: E402
from metrics import UnknownName  # noqa: E402
from tasks.command_line import command  # noqa: E402
from tasks.datasets import DataError  # noqa: E402

if TYPE_CHECKING:
    from bench.execute import Outcome
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

FAILED, USAGE = 1, 2


class Preset(StrEnum):
    """How large a run is."""

    smoke = "smoke"
    default = "default"
    paper = "paper"


class ExecutorName(StrEnum):
    """Where jobs run."""

    local = "local"
    inline = "inline"
    slurm = "slurm"


class Scale(StrEnum):
    """What the expression in a file of the user's is."""

    auto = "auto"
    counts = "counts"
    log = "log"


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    tasks = "tasks"
    metrics = "metrics"


class NewKind(StrEnum):
    """What can be begun."""

    method = "method"
    task = "task"
    metric = "metric"


class Format(StrEnum):
    """What a leaderboard is written as."""

    md = "md"
    csv = "csv"
    html = "html"
    json = "json"
    latex = "latex"


Out = Annotated[Path, typer.Option(help="Directory of results; made if it is not there.")]
DataDir = Annotated[Optional[Path], typer.Option(help="Directory of original data files; else BENCH_DATA_DIR.")]  # noqa: UP045 - typer reads this
Methods = Annotated[
    str,
    typer.Option(
        help="Names, tags, globs, file.py:Class, package.module:Class, or all; separated by commas.",
        autocompletion=complete.methods,
    ),
]
Tasks = Annotated[
    str,
    typer.Option(help="task/dataset names, tags such as ood, globs, or all.", autocompletion=complete.tasks),
]
DatasetName = Annotated[str, typer.Argument(help="A data set.", autocompletion=complete.datasets)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Seeds = Annotated[Optional[int], typer.Option(min=1, help="Number of seeds; else the preset's.")]  # noqa: UP045
Jobs = Annotated[Optional[int], typer.Option(min=1, help="Jobs at a time; else the number of cores.")]  # noqa: UP045
Plugins = Annotated[list[str], typer.Option(help="Python file that registers methods or tasks; repeatable.")]
Settings = Annotated[list[str], typer.Option("--set", help="method.key=value; repeatable.")]
MemoryLimit = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0.1, help="GiB a job may hold (SLURM: at first); else its share."),
]
Data = Annotated[Optional[Path], typer.Option(help="Your own .h5ad or .zarr, for tasks named without a data set.")]  # noqa: UP045
Unit = Annotated[str, typer.Option(help="With --data: column of what is held out (reembedding).")]
Environment = Annotated[str, typer.Option(help="With --data: column of study or condition.")]
Condition = Annotated[str, typer.Option(help="With --data: column of the condition (unseen-cell-type).")]
CellType = Annotated[str, typer.Option(help="With --data: column of the cell type.")]
Group = Annotated[str, typer.Option(help="With --data: column of the group (shared-private).")]
ControlValue = Annotated[str, typer.Option(help="With --data: value of the control condition.")]
Replicate = Annotated[str, typer.Option(help="With --data: column of the donor or patient.")]
Genes = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=0, help="With --data: genes chosen in each training split; 0 keeps all; else 2000."),
]
Expression = Annotated[
    Optional[Scale],  # noqa: UP045
    typer.Option("--x", help="With --data: what X is; auto looks, counts rounds decimals, log takes it as it is."),
]
Gpus = Annotated[Optional[int], typer.Option(min=1, help="GPUs that jobs with a network share.")]  # noqa: UP045
TimeLimit = Annotated[float, typer.Option(min=0.1, help="Minutes a job may take.")]
Where = Annotated[ExecutorName, typer.Option(help="A process a job, this process, or SLURM jobs.")]
Slurm = Annotated[str, typer.Option(help="partition=,account=,qos=,constraint=,time=,gpus=,array_parallelism=")]
MlflowUri = Annotated[Optional[str], typer.Option(help="MLflow tracking address; else SQLite in --out.")]  # noqa: UP045


@app.command()
def run(
    methods: Methods = "all",
    tasks: Tasks = "ood",
    seeds: Seeds = None,
    preset: Annotated[Preset, typer.Option(help="Size of the run.")] = Preset.default,
    jobs: Jobs = None,
    gpus: Gpus = None,
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    plugin: Plugins = [],  # noqa: B006
    set_: Settings = [],  # noqa: B006
    time_limit: TimeLimit = 120.0,
    memory_limit: MemoryLimit = None,
    executor: Where = ExecutorName.local,
    slurm: Slurm = "",
    data: Data = None,
    unit: Unit = "",
    environment: Environment = "",
    condition: Condition = "",
    cell_type: CellType = "",
    group: Group = "",
    control: ControlValue = "",
    replicate: Replicate = "",
    n_genes: Genes = None,
    x: Expression = None,
    mlflow_uri: MlflowUri = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and an estimate of time; run nothing.")
    ] = False,
) -> None:
    """Run methods on tasks, log to MLflow, and end with the leaderboard."""
    from bench.execute import Request, carry_out
    from bench.plan import choose_methods
    from bench.results import command_line

    _use_data_dir(data_dir)
    console = _console()
    specs, plugins = choose_methods(methods, preset, set_, plugin)
    names, own = _choose_tasks(
        tasks,
        data,
        n_genes,
        x,
        unit=unit,
        environment=environment,
        condition=condition,
        cell_type=cell_type,
        group=group,
        control=control,
        replicate=replicate,
    )
    request = Request(
        title=f"{methods} × {tasks} ({preset})",
        command=command_line(),
        specs=specs,
        plugins=plugins,
        tasks=names,
        own=own,
        preset=preset,
        seeds=seeds,
        jobs=jobs,
        gpus=gpus,
        out=out,
        time_limit=time_limit,
        memory_limit=memory_limit,
        executor=executor,
        slurm=slurm,
        mlflow_uri=mlflow_uri,
    )
    try:
        done = carry_out(request, console, dry_run)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if done.outcome is not None:
        _end(done.outcome, done.store, out, mlflow_uri, console)


@app.command()
def tune(
    methods: Methods = "vae",
    tasks: Tasks = "ood",
    trials: Annotated[int, typer.Option(min=1, help="Configurations tried for each method, task and unit.")] = 30,
    folds: Annotated[int, typer.Option(min=1, help="Inner units that a configuration is scored on, at most.")] = 3,
    seeds: Seeds = None,
    preset: Annotated[Preset, typer.Option(help="Size of the run.")] = Preset.default,
    jobs: Jobs = None,
    gpus: Gpus = None,
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    plugin: Plugins = [],  # noqa: B006
    set_: Settings = [],  # noqa: B006
    time_limit: TimeLimit = 120.0,
    memory_limit: MemoryLimit = None,
    executor: Where = ExecutorName.local,
    slurm: Slurm = "",
    data: Data = None,
    unit: Unit = "",
    environment: Environment = "",
    condition: Condition = "",
    cell_type: CellType = "",
    group: Group = "",
    control: ControlValue = "",
    replicate: Replicate = "",
    n_genes: Genes = None,
    x: Expression = None,
    mlflow_uri: MlflowUri = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print how much there is to do; run nothing.")] = False,
) -> None:
    """Tune methods without their held-out units, then run them at their defaults, tuned, and as oracles."""
    from bench.execute import Request
    from bench.plan import choose_methods
    from bench.results import command_line
    from bench.tune import carry_out

    _use_data_dir(data_dir)
    console = _console()
    specs, plugins = choose_methods(methods, preset, set_, plugin)
    names, own = _choose_tasks(
        tasks,
        data,
        n_genes,
        x,
        unit=unit,
        environment=environment,
        condition=condition,
        cell_type=cell_type,
        group=group,
        control=control,
        replicate=replicate,
    )
    request = Request(
        title=f"{methods} tuned × {tasks} ({preset})",
        command=command_line(),
        specs=specs,
        plugins=plugins,
        tasks=names,
        own=own,
        preset=preset,
        seeds=seeds,
        jobs=jobs,
        gpus=gpus,
        out=out,
        time_limit=time_limit,
        memory_limit=memory_limit,
        executor=executor,
        slurm=slurm,
        mlflow_uri=mlflow_uri,
    )
    try:
        done = carry_out(request, trials, folds, console, dry_run)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if done.outcome is not None:
        _end(done.outcome, done.store, out, mlflow_uri, console)


@app.command("list")
def list_(what: Annotated[Kind, typer.Argument(help="What to list.")], json: AsJson = False) -> None:
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
    """Show docstring, configuration with sources, and reference."""
    from bench.describe import about, as_json
    from bench.describe import show as describe_name

    typer.echo(as_json(about(name)) if json else describe_name(name))


@app.command()
def leaderboard(
    out: Annotated[list[Path], typer.Option(help="Directory of results; repeatable, the last result counts.")] = [  # noqa: B006
        Path("runs")
    ],
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
    from bench.plan import PlanError, choose_tasks
    from bench.results import command_line, header_lines, leaderboard_json, print_leaderboard, write_leaderboard
    from bench.store import gather

    stores = [_existing(directory) for directory in out]
    if json and (format_ or into):
        raise PlanError("--json prints and writes no file: leave --format and --into out, or --json")
    if into is None and not json and (len(stores) > 1 or tasks):
        raise PlanError("--into is needed: this leaderboard is not that of all results of one directory")
    chosen = set(choose_tasks(tasks)) if tasks else None
    header = header_lines(command_line())
    if json:
        results = [gather(store.results()) for store in stores]
        typer.echo(leaderboard_json(results, header, lambda task: chosen is None or task in chosen), nl=False)
        return
    console = _console()
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
def status(
    out: Out = Path("runs"),
    watch: Annotated[bool, typer.Option("--watch", help="Look again until no run is at work there.")] = False,
    json: AsJson = False,
) -> None:
    """Say how far an out directory is, what failed last, and what MLflow lacks; from the disk alone."""
    from bench.describe import as_json
    from bench.plan import PlanError
    from bench.status import Looker, as_document, render
    from bench.status import watch as look_again

    if watch and json:
        raise PlanError("--watch and --json do not go together: one document is of one moment")
    store = _existing(out)
    if json:
        typer.echo(as_json(as_document(Looker(store).look())))
    elif watch:
        look_again(store, _console())
    else:
        _console().print(render(Looker(store).look()))


@app.command()
def preflight(
    methods: Methods = "all",
    tasks: Tasks = "ood",
    seeds: Seeds = None,
    preset: Annotated[Preset, typer.Option(help="Size of the run to come, for the estimate of its time.")] = (
        Preset.default
    ),
    jobs: Jobs = None,
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    plugin: Plugins = [],  # noqa: B006
    set_: Settings = [],  # noqa: B006
    time_limit: TimeLimit = 10.0,
    memory_limit: MemoryLimit = None,
    data: Data = None,
    unit: Unit = "",
    environment: Environment = "",
    condition: Condition = "",
    cell_type: CellType = "",
    group: Group = "",
    control: ControlValue = "",
    replicate: Replicate = "",
    n_genes: Genes = None,
    x: Expression = None,
) -> None:
    """Run every method on every task once, small and short: what would fail after hours fails in minutes."""
    from bench.estimate import PREFLIGHT, Estimate, tried
    from bench.execute import say_data
    from bench.executors.local import LocalExecutor
    from bench.plan import choose_methods, make_plan
    from bench.preflight import PRESET, failures, first_jobs, say, shortened
    from bench.preflight import preflight as fly
    from bench.progress import duration
    from bench.resources import share_mb
    from bench.store import Store

    _use_data_dir(data_dir)
    console = _console()
    specs, plugins = choose_methods(methods, preset, set_, plugin)
    names, own = _choose_tasks(
        tasks,
        data,
        n_genes,
        x,
        unit=unit,
        environment=environment,
        condition=condition,
        cell_type=cell_type,
        group=group,
        control=control,
        replicate=replicate,
    )
    whole, store = Store(out), Store(out / PREFLIGHT)
    with store.lock():
        index = store.index()
        plan = first_jobs(make_plan(shortened(specs), names, PRESET, 1, plugins, index, own))
        to_come = make_plan(specs, names, preset, seeds, plugins, index, own)
        store.write_index(index)
        say_data(plan, own, console)
        n_jobs = jobs or len(os.sched_getaffinity(0))
        limit_mb = memory_limit * 1024 if memory_limit else share_mb(n_jobs)
        executor = LocalExecutor(n_jobs, time_limit * 60, limit_mb)
        try:
            results = fly(plan, store, executor, n_jobs, console)
        except KeyboardInterrupt:
            typer.echo("interrupted; run the same command again to go on", err=True)
            raise typer.Exit(130) from None
    say(results, plan, console)
    left = [job for job in to_come.jobs if not job.skip and whole.finished(job.id) is None]
    seconds, basis = Estimate(whole.gather().rows, to_come.sizes, tried(whole.out)).total(left, n_jobs)
    text = f"the run itself: {len(left)} jobs, about {duration(seconds)} with {n_jobs} jobs ({basis})"
    console.print(Text(text), soft_wrap=True)
    if failures(results):
        console.print(Text(f"traceback: {command('replay', 'CELL', '--out', out / PREFLIGHT)}"), soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def replay(job: Annotated[str, typer.Argument(help="A job's id, or its beginning.")], out: Out = Path("runs")) -> None:
    """Run one stored job again, here, and say whether its scores agree."""
    from bench.replay import find
    from bench.replay import replay as again
    from bench.store import FINISHED

    console = _console()
    stored = find(_existing(out), job)
    console.print(Text(f"{stored['job']['id']}: {stored['status']} {stored['reason']}".rstrip()), soft_wrap=True)
    done = again(stored)
    for change in done.changes:
        console.print(Text(f"not as it was: {change}"), style="yellow", soft_wrap=True)
    _print_table(
        ("metric", "stored", "now", ""),
        [(name, str(stored), str(now), verdict) for name, (stored, now, verdict) in done.scores.items()],
    )
    result = done.result
    if result["traceback"]:
        typer.echo(result["traceback"].rstrip())
    if done.stored["status"] != result["status"]:
        console.print(Text(f"now it is {result['status']} {result['reason']}".rstrip()), soft_wrap=True)
    console.print(f"{done.job.title}: {'agrees' if done.agrees else 'differs'}", highlight=False, soft_wrap=True)
    if not done.agrees or result["status"] not in FINISHED:
        raise typer.Exit(1)


@app.command()
def sync(out: Out = Path("runs"), mlflow_uri: MlflowUri = None) -> None:
    """Log the results that MLflow does not have yet, each once."""
    from bench.sync import sync as log_the_rest
    from bench.tracking import default_uri

    store = _existing(out)
    uri = mlflow_uri or default_uri(store.out)
    with store.lock():
        done = log_the_rest(store, uri)
    console = _console()
    console.print(Text(f"{done.logged} logged now, {done.total} in all, at {uri}"), soft_wrap=True)
    if done.error:
        console.print(
            Text(f"MLflow failed ({done.error}); {done.left} are left, run sync again to log them"),
            style="red",
            soft_wrap=True,
        )
        raise typer.Exit(1)


@app.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="The archive to write, as results.tar.gz.")],
    out: Out = Path("runs"),
    fits: Annotated[bool, typer.Option("--fits", help="Fits too, so that they need not be made again.")] = False,
) -> None:
    """Put the results of an out directory into one archive, for another machine."""
    from bench.archive import export
    from bench.status import mb

    store = _existing(out)
    with store.lock():
        sizes = export(store, file, fits)
    text = f"{file}: {len(sizes)} files, {mb(sum(sizes.values()))}, packed {mb(file.stat().st_size)}"
    _console().print(Text(text), soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An archive that `bench export` made.")],
    out: Annotated[Path, typer.Option(help="Directory of results to put it into; made if it is not there.")],
) -> None:
    """Put the results in an archive into an out directory, once all of it has been checked."""
    from bench.archive import check, merge
    from bench.results import command_line, header_lines, write_leaderboard
    from bench.store import Store

    check(file, out)
    store, console = Store(out), _console()
    with store.lock():
        done = merge(store, file)
        write_leaderboard([store.gather()], store.out, header_lines(command_line()))
    for jobs, why in (
        (done.replaced, "replaced by the archive's"),
        (done.kept, "kept: the archive's is older or failed"),
    ):
        for job in jobs:
            console.print(Text(f"{job} differs: {why}"), style="yellow", soft_wrap=True)
    text = f"{len(done.new)} new, {len(done.same)} here already, {len(done.replaced)} replaced, {len(done.kept)} kept"
    console.print(Text(text + (f"; {done.fits} fits" if done.fits else "")), soft_wrap=True)
    console.print(
        Text(f"Leaderboard: {store.out / 'leaderboard.html'}; for MLflow: {command('sync', '--out', out)}"),
        soft_wrap=True,
    )


@app.command()
def clean(
    out: Out = Path("runs"),
    fits: Annotated[bool, typer.Option("--fits", help="Fits kept between jobs.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="What jobs printed.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Results of jobs that failed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only shown.")] = False,
) -> None:
    """Show what can be removed from an out directory and how large it is; remove it with --yes."""
    from bench.clean import CHOICES, find, remove
    from bench.plan import PlanError
    from bench.results import command_line, header_lines, write_leaderboard
    from bench.status import mb

    chosen = [name for name, asked in (("fits", fits), ("logs", logs), ("failed", failed)) if asked]
    if yes and not chosen:
        raise PlanError(f"--yes removes what is named: {', '.join(f'--{name}' for name in CHOICES)}")
    store = _existing(out)
    with store.lock():
        found = {name: find(store, name) for name in chosen or CHOICES}
        rows = [(f"--{name}", str(len(one.files)), mb(one.bytes), CHOICES[name]) for name, one in found.items()]
        if yes:
            for one in found.values():
                remove(one)
            if failed:
                write_leaderboard([store.gather()], store.out, header_lines(command_line()))
    _print_table(("", "files", "size", "removed" if yes else "what --yes would remove"), rows)


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
    """Say what this machine has: versions, threads, memory, GPUs, data, and how to get what is missing."""
    import psutil

    from bench import gpus
    from bench.environment import describe
    from tasks import DATASETS
    from tasks.datasets.catalogue import built_directory, data_directory

    _use_data_dir(data_dir)
    environment = describe()
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(os.getcwd())
    rows = [
        ("suite", f"{bench.__version__}, commit {environment['git_commit'] or 'unknown'}"),
        ("python", environment["python"]),
        *((name, version or "missing: run make env") for name, version in environment["versions"].items()),
        (
            "processor",
            f"{environment['cpu']}, {len(os.sched_getaffinity(0))} cores; {environment['threads']} thread a job",
        ),
        ("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"),
        ("disk here", f"{disk.free / 2**30:.1f} GiB free"),
        *gpus.rows(),
        ("data directory", str(data_directory())),
        ("built data", str(built_directory())),
        *((f"data {name}", dataset.missing() or "here") for name, dataset in DATASETS.items()),
    ]
    console, width = _console(), max(len(what) for what, _ in rows)
    for what, found in rows:  # no table, which would fold the commands
        console.print(Text(f"{what:<{width}}  {found}"), soft_wrap=True)


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
    preset: Annotated[Preset, typer.Option(help="Size of the run.")] = Preset.default,
    seeds: Annotated[Optional[int], typer.Option(min=1, help="Number of seeds; else the preset's.")] = None,  # noqa: UP045
    out: Out = Path("runs"),
    data_dir: DataDir = None,
) -> None:
    """Measure what metrics can resolve: their range on each task, and how they answer known corruptions."""
    from bench.calibrate import calibrate as measure
    from bench.calibrate import say
    from bench.plan import choose_tasks
    from bench.results import command_line

    _use_data_dir(data_dir)
    console = _console()
    outcome = measure(choose_tasks(tasks), preset, seeds, out, console, command_line())
    say(outcome, console)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def new(
    kind: Annotated[NewKind, typer.Argument(help="What to begin.")],
    name: Annotated[str, typer.Argument(help="A Python identifier, such as my_vae.")],
) -> None:
    """Write a small file for a method, task or metric of your own, which runs as it is."""
    from bench.new import new as write
    from bench.new import next_commands

    file = write(kind, name, Path())
    typer.echo("\n".join([f"{file}: change it, then", *(f"    {command}" for command in next_commands(file))]))


@app.command()
def check(
    methods: Annotated[
        list[str], typer.Argument(help="Names, tags, globs, file.py:Class, package.module:Class, or all; several.")
    ],
) -> None:
    """Check whether a method is sound, on small simulated cells: the tests that every registered method passes."""
    from bench.check import Subject
    from bench.check import check as checked
    from bench.plan import choose_methods

    specs, plugins = choose_methods(",".join(methods), Preset.smoke, [])
    console, faulty = _console(), []
    for spec in specs:
        outcomes = list(checked(Subject(spec.name, spec.changes, plugins)))
        failures = [one for one in outcomes if one.status == "failed"]
        _print_table(
            (spec.label, "", ""), [(one.check, one.status, "" if one in failures else one.remark) for one in outcomes]
        )
        for one in failures:
            console.print(Text(f"{one.check}: {one.remark}"), style="red", soft_wrap=True)
        faulty += [spec.label] if failures else []
        ended = outcomes[-1].status == "skipped"
        passed = f"{sum(one.status == 'passed' for one in outcomes)} checks passed"
        verdict = f"{len(failures)} failed, {passed}" if failures else "skipped" if ended else passed
        console.print(Text(f"{spec.label}: {verdict}\n"), soft_wrap=True)
    if faulty:
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the command line; a mistake in what was asked for is one message and exit code 2, a full disk one and 1."""
    from bench.executors import ExecutorError
    from bench.plan import PlanError, PluginError
    from bench.store import StoreError

    try:
        app()
    except PluginError as error:
        traceback.print_exception(error.__cause__)
        _complain(str(error))
    except (ConfigError, DataError, ExecutorError, PlanError, StoreError, UnknownName) as error:
        _complain(str(error))
    except OSError as error:
        _complain(f"{error}; what has been written is safe: mend that, then run the same command again", FAILED)


def _end(outcome: Outcome, store: Store, out: Path, mlflow_uri: str | None, console: Console) -> None:
    """Say how a run ended and where its results are; end with exit code 1 where a job or MLflow failed."""
    from bench.tracking import default_uri

    counts = ", ".join(f"{number} {status}" for status, number in sorted(outcome.counts.items()))
    console.print(f"{counts or 'no jobs'}", highlight=False)
    console.print(
        Text(f"Leaderboard: {store.out / 'leaderboard.html'} (and .md, .csv); rows: {store.parquet}"), soft_wrap=True
    )
    elsewhere = ("--mlflow-uri", mlflow_uri) if mlflow_uri else ()
    if outcome.tracking_error:
        how = f"results are safe, {command('sync', '--out', out, *elsewhere)} logs the rest"
        text = f"MLflow at {mlflow_uri or default_uri(store.out)} failed ({outcome.tracking_error}); {how}"
        console.print(Text(text), style="red", soft_wrap=True)
    console.print(Text(f"MLflow UI: {command('ui', '--out', out, *elsewhere)}"), soft_wrap=True)
    if not outcome.ok or outcome.tracking_error:
        raise typer.Exit(1)


def _complain(message: str, code: int = USAGE) -> None:
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(code)


def _use_data_dir(data_dir: Path | None) -> None:
    """Make ``--data-dir`` known to this process and the ones that it starts."""
    if data_dir is not None:
        if not data_dir.is_dir():
            raise DataError(f"--data-dir {data_dir}: there is no such directory")
        os.environ["BENCH_DATA_DIR"] = str(data_dir.resolve())


def _choose_tasks(
    tasks: str, data: Path | None, n_genes: int | None, x: Scale | None, **columns: str
) -> tuple[list[str], dict[str, str] | None]:
    """Return the tasks that were named and, with ``--data``, the file with what its columns mean."""
    from bench.plan import choose_asked_tasks

    named = {role: column for role, column in columns.items() if column}
    return choose_asked_tasks(tasks, data, named, n_genes, None if x is None else x.value)


def _existing(out: Path) -> Store:
    from bench.store import existing

    return existing(out)


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
