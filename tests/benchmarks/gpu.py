"""What recorded steps gain on a GPU: ``python -m tests.benchmarks.gpu [SECTION …]``, in four and a half minutes.

Sections: steps (of every method, recorded and by single operations), stacked (20 fits at once and one after another),
scvi (a step of scvi-tools' SCVI beside ours), processes (that share the GPU, and one that stacks), checks (the tests
that need a GPU, beside a smoke run of every method on it). Each line is measured in one run on one card. A section that
fails says why, and the next one begins. With the variable OUT set, the lines are also written there.

``python -m tests.benchmarks.gpu board [MINUTES]`` runs the default ood cross with five seeds for so many minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

from bench.environment import limit_threads

limit_threads()

import torch  # noqa: E402 - after the threads are limited

from methods import METHODS  # noqa: E402
from methods.nn import graphs, training  # noqa: E402
from tests.benchmarks.data import dense, expression, in_steps, sparse_counts  # noqa: E402
from tests.benchmarks.scvi_network import HIDDEN, MINIBATCH, N_LATENT, THEIRS  # noqa: E402
from tests.contract.test_methods import OWN_LOOP  # noqa: E402

#: Seconds that all of it may take.
BUDGET = 265
BEGUN = time.monotonic()
N_CELLS, N_GENES = 6000, 2000
#: What is measured: a method, with data that have counts where a likelihood is named.
CASES = {
    **{name: (name, {}) for name, cls in METHODS.items() if cls.uses_gpu and cls.__module__ not in OWN_LOOP},
    "vae, NB": ("vae", {"likelihood": "negative-binomial"}),
    "vae, sparse X": ("vae", {"sparse": True}),
    "svae-plus, NB": ("svae-plus", {"likelihood": "negative-binomial"}),
    "multigroup-vi, ZINB": ("multigroup-vi", {"likelihood": "zero-inflated-negative-binomial"}),
    "gamma-vae, 3 latents": ("gamma-vae", {"n_latent": 3}),
    "vae, minibatch 2,048": ("vae", {"minibatch": 2048}),
}
#: Epochs by single operations and recorded; the first ones warm up and record.
EPOCHS, WARM = {"eager": 4, "recorded": 8}, {"eager": 1, "recorded": 3}
TOGETHER, WORKERS = 20, 6
#: Method, cells, genes, epochs, and how many cells each fit has fewer than the one before it, as of held-out units.
STACKED = [
    ("vae", N_CELLS, N_GENES, 10, 0),
    ("vae", 1000, 500, 40, 0),
    ("trvae", 1000, 500, 40, 0),
    ("vae", 1000, 500, 40, 10),
]
written: dict[str, list[dict]] = {}


def main(sections):
    print(f"{card()}, PyTorch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    known = {"steps": steps, "stacked": stacked, "scvi": scvi_tools, "processes": processes, "checks": checks}
    for name in sections or known:
        print(f"\n== {name}, {left():.0f} s left", flush=True)
        try:
            known[name]()
        except Exception:  # noqa: BLE001 - the other sections are still to come
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    print(f"\n== end after {time.monotonic() - BEGUN:.0f} s", flush=True)


def left():
    return BUDGET - (time.monotonic() - BEGUN)


@cache
def card():
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"


def line(section, **values):
    """Print a line of a table, and write all tables if there is a place for them."""
    written.setdefault(section, []).append({"card": card(), **values})
    print("  ".join(f"{key} {value}" for key, value in values.items()), flush=True)
    if out := os.environ.get("OUT"):
        Path(out, "gpu.json").write_text(json.dumps(written, indent=1))


# ---------------------------------------------------------------------------- steps


@cache
def data_of(kind, n_cells=N_CELLS, n_genes=N_GENES):
    if kind == "expression":
        return expression(n_cells, n_genes)
    counts = sparse_counts(n_cells, n_genes)
    return counts if kind == "sparse" else dense(counts)


def peak_mb(anew=False):
    """Return the most memory that tensors held since this was asked anew."""
    if not torch.cuda.is_available():
        return 0
    if anew:
        torch.cuda.reset_peak_memory_stats()
    return round(torch.cuda.max_memory_allocated() / 2**20)


@contextmanager
def clocked(eager=False):
    """Note when each epoch of each training ends, with values that are waited for, and how many steps are done."""
    ended, n_steps = {}, itertools.count(1)
    begin, take, done = training._Trainer.begin, training.Best.take, [0]

    def counted(self, progress):
        done[0] = next(n_steps)
        begin(self, progress)

    def noted(self, fits):
        ended.setdefault(self, []).append((time.perf_counter(), done[0]))
        take(self, fits)

    off = patch.object(graphs, "obstacle", lambda *_: "measured by single operations") if eager else nullcontext()
    with patch.object(training._Trainer, "begin", counted), patch.object(training.Best, "take", noted), off:
        yield ended


def milliseconds(ended, warm):
    """Return the median time of a step of each training, after some epochs."""
    return [
        statistics.median([1e3 * (t - t0) / (n - n0) for (t0, n0), (t, n) in pairwise(epochs[warm:])])
        for epochs in ended.values()
    ]


def steps():
    """Measure each method in a process that goes on until one fails; the next process goes on behind it."""
    waiting = list(CASES)
    while waiting:
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "steps-of", *waiting]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            said = []
            for text in child.stdout:
                if text.startswith("RESULT "):
                    values = json.loads(text.removeprefix("RESULT "))
                    waiting.remove(values["step"])
                    line("steps", **values)
                else:
                    said.append(text)
        if child.returncode and waiting:
            print(f"{waiting.pop(0)} ended its process with {child.returncode}:\n{''.join(said[-12:])}", flush=True)
        elif child.returncode or waiting:
            print("".join(said[-12:]), flush=True)
            return


def steps_of(names):
    """Print a line of JSON for each case; end with code 3 after one that failed, as the GPU may be in disorder."""
    warm_up()
    for name in names:
        method, settings = CASES[name]
        settings = dict(settings)
        kind = "sparse" if settings.pop("sparse", False) else "dense" if "likelihood" in settings else "expression"
        if method in ("multigroup-vi", "ivae", "svae", "svae-plus") and "likelihood" not in settings:
            settings["likelihood"] = "gaussian"
        values, failed = {"step": name}, False
        for way in ("eager", "recorded"):
            peak_mb(anew=True)
            try:
                took, fitted = steps_by(way, method, data_of(kind), settings)
            except Exception as error:  # noqa: BLE001 - it is a result
                traceback.print_exc()
                values[way], failed = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}", True
                break
            values[f"{way}_ms"] = " + ".join(f"{one:.3f}" for one in took)
            values[f"{way}_MB"] = peak_mb()
            values[way] = sum(took)
            said = [remark for remark in fitted.log if "one operation" in remark]
            if way == "recorded" and said:
                values["obstacle"] = said[0]
        if not failed:
            values["ratio"] = round(values.pop("eager") / values.pop("recorded"), 2)
        print("RESULT " + json.dumps(values), flush=True)
        if failed:
            raise SystemExit(3)


def steps_by(way, method, data, settings):
    cls, epochs = METHODS[method], EPOCHS[way]
    few = {"validation": 0.0, "steps": in_steps(epochs, data.n_obs)}
    with clocked(eager=way == "eager") as ended:
        fitted = cls(cls.configure(**few, **settings)).fit(data, 0)
    return milliseconds(ended, WARM[way]), fitted


def warm_up():
    """Load the libraries, which the first fit would."""
    METHODS["vae"](METHODS["vae"].configure(steps=24)).fit(data_of("expression", 500, 50), 0)


# ---------------------------------------------------------------------------- stacked fits and processes


def stacked():
    warm_up()
    for method, n_cells, n_genes, epochs, fewer in STACKED:
        data = data_of("expression", n_cells, n_genes)
        datasets = [data[: n_cells - fewer * i].copy() for i in range(TOGETHER)]
        settings = {"steps": in_steps(epochs, 0.9 * n_cells)}
        peak_mb(anew=True)
        seconds, step = {}, {}
        for way in ("together", "one after another"):
            with clocked() as ended:
                clock = time.perf_counter()
                fits_of(method, datasets, range(TOGETHER), way, settings)
                seconds[way] = time.perf_counter() - clock
            step[way] = sum(milliseconds(ended, 4))
        line(
            "stacked",
            fits=f"{TOGETHER} {method}, {n_cells} × {n_genes}, {epochs} epochs{', each of other cells' * bool(fewer)}",
            together_s=round(seconds["together"], 2),
            one_by_one_s=round(seconds["one after another"], 2),
            ratio=round(seconds["one after another"] / seconds["together"], 2),
            step_together_ms=round(step["together"], 3),
            steps_one_by_one_ms=round(step["one after another"], 3),
            ratio_of_steps=round(step["one after another"] / step["together"], 2),
            MB=peak_mb(),
        )


def fits_of(method, datasets, seeds, way, settings):
    cls = METHODS[method]
    config = cls.configure(**settings)
    if way == "together":
        errors = cls.fit_stacked([cls(config) for _ in seeds], datasets, list(seeds))
        assert errors == [None] * len(seeds), errors
    else:
        for data, seed in zip(datasets, seeds, strict=True):
            cls(config).fit(data, seed)


def scvi_tools():
    """Compare a step on counts with scvi-tools' SCVI, both with 2×128 units, 10 latents and minibatches of 128."""
    import scvi

    shape = {"n_hidden": HIDDEN[0], "n_layers": len(HIDDEN), "n_latent": N_LATENT, "gene_likelihood": "nb"}
    counts, times = sparse_counts(N_CELLS, N_GENES), []
    scvi.model.SCVI.setup_anndata(counts, layer="counts")
    epochs = (1, 2, 8)  # the first fit warms up, and what the last ones share cancels out
    for n in epochs:
        model = scvi.model.SCVI(counts, **shape)
        clock = time.perf_counter()
        model.train(max_epochs=n, **THEIRS | {"accelerator": "auto"})
        times.append(time.perf_counter() - clock)
    theirs = 1e3 * (times[2] - times[1]) / ((epochs[2] - epochs[1]) * -(-N_CELLS // MINIBATCH))
    (ours,), _ = steps_by("recorded", "vae", dense(counts), {"likelihood": "negative-binomial", "hidden": HIDDEN})
    line("scvi", step="vae, NB", ours_ms=round(ours, 3), scvi_ms=round(theirs, 3), ratio=round(theirs / ours, 2))


def processes():
    """Share 24 fits among some processes that use the GPU at once, each fitting one after another or a stack."""
    for n, way in ((1, "together"), (WORKERS, "together"), (WORKERS, "one after another"), (1, "one after another")):
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, "-m", "tests.benchmarks.gpu", "worker", place, str(24 // n), way]
            children = [
                subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for i in range(n)
            ]
            deadline = time.monotonic() + 60
            while len(list(Path(place).glob("ready*"))) < n and time.monotonic() < deadline:
                time.sleep(0.05)
            clock = time.perf_counter()
            Path(place, "go").touch()
            said: list[str] = []
            try:
                said += [child.communicate(timeout=45)[0] for child in children]
            except subprocess.TimeoutExpired:
                said.append("cut short\n")
            for child in children:
                child.kill()
            # without the end of a process, which gives the GPU back
            done = [float(file.read_text()) for file in Path(place).glob("done*")]
        if len(done) < n:
            print(f"{way}, {n} processes: {len(done)} came to an end\n{''.join(said)[-1500:]}", flush=True)
            continue
        seconds = round(max(done) - clock, 2)
        line("processes", fits="24 vae, 1000 × 500, 40 epochs", processes=n, way=way, seconds=seconds)


def worker(place, n, way, number):
    warm_up()
    data = data_of("expression", 1000, 500)
    Path(place, f"ready{number}").touch()
    while not Path(place, "go").exists():
        time.sleep(0.005)
    first = int(number) * int(n)
    fits_of("vae", [data] * int(n), range(first, first + int(n)), way, {"steps": 320})
    Path(place, f"done{number}").write_text(str(time.perf_counter()))


# ---------------------------------------------------------------------------- checks


def checks():
    """Run the tests that need a GPU and, at the same time, a smoke run of every method on it."""
    import pandas as pd

    limit = max(30, left() - 8)
    with tempfile.TemporaryDirectory() as place:
        tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "5", "tests/methods/test_graphs.py"]
        run = ["-m", "bench", "run", "--methods", "all", "--tasks", "ood", "--preset", "smoke", "--seeds", "2"]
        run += ["--jobs", "10", "--resources", "gpus=1", "--out", f"{place}/runs"]
        commands = {"tests": tests, "run": run, "doctor": ["-m", "bench", "doctor"]}
        logs = {name: Path(place, f"{name}.log") for name in commands}
        begun = {
            name: subprocess.Popen([sys.executable, *command], stdout=logs[name].open("w"), stderr=subprocess.STDOUT)
            for name, command in commands.items()
        }
        clock, took = time.monotonic(), {}
        while len(took) < len(begun) and time.monotonic() - clock < limit:
            time.sleep(0.2)
            took |= {
                name: round(time.monotonic() - clock, 1)
                for name, child in begun.items()
                if child.poll() is not None and name not in took
            }
        for name, child in begun.items():
            if child.poll() is None:
                child.terminate()
                child.wait(20)
            line("checks", what=name, seconds=took.get(name, "cut short"), code=child.returncode)
        doctor = logs["doctor"].read_text().splitlines()
        print("\n".join(text for text in doctor if text.startswith(("GPU", "a step", "PyTorch"))))
        print("".join(logs["tests"].read_text()[-3500:]), flush=True)
        said = logs["run"].read_text().splitlines()
        print("\n".join([text for text in said if "networks are" in text or " done, " in text][-4:]), flush=True)
        rows = Path(place, "runs", "results.parquet")
        if not rows.exists():
            print("\n".join(said[-25:]))
            return
        jobs = pd.read_parquet(rows).drop_duplicates("job_id")
        line("checks", what="jobs", **{str(key): int(n) for key, n in jobs["status"].value_counts().items()})
        bad = jobs[~jobs["status"].isin(["ok", "skipped"])]
        for _, row in bad.drop_duplicates(["method", "reason"]).head(12).iterrows():
            print(row["status"], row["method"], row["task"], str(row["reason"])[:400])
        by_operations = jobs[jobs["log"].astype(str).str.contains("one operation at a time")]
        print("steps not recorded:", sorted(set(by_operations["method"])) or "none", flush=True)


def board(minutes="10"):
    """Run the default ood cross of all methods with five seeds, and say what was done in some minutes."""
    import pandas as pd

    print(card(), flush=True)
    with tempfile.TemporaryDirectory() as place:
        run = ["-m", "bench", "run", "--methods", "all", "--tasks", "ood", "--seeds", "5", "--out", f"{place}/runs"]
        run += ["--jobs", str(len(os.sched_getaffinity(0))), "--resources", "gpus=1"]
        clock = time.monotonic()
        child = subprocess.Popen([sys.executable, *run])
        try:
            child.wait(60 * float(minutes))
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait(60)
        seconds = round(time.monotonic() - clock)
        found = [json.loads(file.read_text()) for file in Path(place, "runs", "jobs").glob("*.json")]
        jobs = pd.DataFrame([{"status": one["status"], "method": one["job"]["method"]} for one in found])
        line("board", seconds=seconds, code=child.returncode, jobs=len(jobs))
        print(jobs.value_counts().to_string() if len(jobs) else "no job came to an end")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["board", *minutes]:
            board(*minutes)
        case ["steps-of", *names]:
            steps_of(names)
        case ["worker", *arguments]:
            worker(*arguments)
        case sections:
            main(sections)
