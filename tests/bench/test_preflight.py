"""``bench preflight``: every method on every task once, and what it says of the time of the run to come."""

import dataclasses
import json
import re

import pytest

from bench.jobs.job import result_of
from bench.keep.store import Store, gather
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.plan.cost import AROUND, BETWEEN, GUESSED, KNOWN, MEASURED, PREFLIGHT, TRIED, Estimate, tried
from bench.records import Status
from bench.studies.preflight import PRESET, first_jobs, shortened
from tests.bench.test_run import PLUGIN
from tests.bench.test_schedule import measured

TASK = "reembedding/pancancer-sim"


def plan(methods="vae,pca,no-change", preset="default", seeds=2, settings=()):
    specs, plugins = choose_methods(methods, preset, settings)
    return make_plan(specs, choose_tasks(TASK), preset, seeds, plugins, {})


def test_each_method_and_control_is_tried_once_on_a_task():
    jobs = first_jobs(plan()).jobs
    assert sorted((job.method, job.unit, job.seed) for job in jobs) == [
        ("baseline", "draw0/cancer0", 0), ("ceiling", "draw0/cancer0", 0), ("floor", "draw0/cancer0", 0),
        ("no-change", "*", 0), ("pca", "draw0/cancer0", 0), ("structure", "draw0/cancer0", 0),
        ("vae", "draw0/cancer0", 0),
    ]  # fmt: skip


def test_what_makes_a_run_long_is_not_taken_over_from_the_command():
    specs, _ = choose_methods("vae,pca", "default", ["vae.steps=3000", "vae.n_latent=3"])
    short = {one.name: one for one in shortened(specs)}
    assert short["vae"].changes == {"n_latent": 3}
    assert short["vae"].label == "vae@n_latent=3@steps=3000", "so that its time is found again"
    made = make_plan(list(short.values()), choose_tasks(TASK), PRESET, 1, (), {})
    assert {job.config["steps"] for job in made.jobs if job.name == "vae"} == {40}


def test_a_preflight_finds_what_fails_and_gives_its_times_to_the_run(inside, plugin, tmp_path):
    planted = plugin(PLUGIN)
    selection = (
        "--methods",
        "planted,vae,no-change",
        "--plugin",
        planted,
        "--tasks",
        f"{TASK},reembedding/tcga-paired",
    )
    limits = ("--resources", "memory=1.5", "--jobs", 2)
    environment = {"PID_FILE": str(tmp_path / "pids"), "SLEEP": "0", "BENCH_CACHE_DIR": str(tmp_path / "cache")}
    done = inside("preflight", *selection, *limits, "--out", "out", **environment)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    said = {(line[0], line[1].rstrip(":")): line[2] for line in lines if len(line) == 3}
    assert said["failed", "raises"].endswith("ArithmeticError: planted failure")
    assert "ended with code 7" in said["failed", "crashes"]
    assert "(--resources memory=…)" in said["out_of_memory", "hungry"]
    assert said["skipped", "refuses"].endswith(f"{TASK}: planted refusal")
    assert "no-change cannot embed" in said["skipped", "no-change"]
    assert "python -m bench data fetch tcga-paired" in said["absent", "reembedding/tcga-paired"]
    assert said["ok", "8"] == "of 13 crosses of method and task"
    assert re.search(r"the run itself: \d+ jobs, about .* 2 jobs at a time", done.stdout)

    flown = [json.loads(file.read_text()) for file in (tmp_path / "out" / PREFLIGHT / "jobs").iterdir()]
    assert {(result["job"]["unit"], result["job"]["seed"]) for result in flown} == {("draw0/cancer0", 0), ("*", 0)}
    assert list((tmp_path / "out" / "jobs").iterdir()) == [], "no result of a preflight is one of the run"
    assert not (tmp_path / "out" / PREFLIGHT / "mlflow.db").exists()

    dry = inside("run", "--methods", "vae", "--tasks", TASK, "--out", "out", "--dry-run")
    assert KNOWN in dry.stdout, "the times of a whole run say more than those of a preflight"
    other = inside("run", "--methods", "vae@n_latent=3,pca", "--tasks", TASK, "--out", "out", "--dry-run")
    assert KNOWN in other.stdout, "so do those of a method with other settings"
    strange = inside("run", "--methods", "vae,raises", "--plugin", planted, "--tasks", TASK, "--out", "out",
                     "--dry-run")  # fmt: skip
    assert GUESSED in strange.stdout, "what failed in the preflight has no time"


@pytest.fixture
def smoke(tmp_path):
    """A preflight in which a fit of 5 epochs on a fifth of the values took 2 seconds and its evaluation 1."""
    made = plan(preset="smoke", seeds=1)
    store = Store(tmp_path / PREFLIGHT)
    for job in first_jobs(made).jobs:
        if not job.skip:
            cost = {"fit_seconds": 2.0 if job.name == "vae" else 0.0, "evaluate_seconds": 1.0}
            store.write(result_of(job, Status.OK, "", scores={"displacement": 0.5}, n_cells=500, n_genes=400, **cost))
    store.gather()
    return tried(tmp_path)


NONE = gather([]).rows


def job_of(made, name):
    return dataclasses.replace(next(job for job in made.jobs if job.name == name), stack=())


def test_a_fit_is_scaled_by_values_and_steps_and_an_evaluation_is_not(smoke):
    made = plan()
    estimate = Estimate(NONE, {TASK: 1.0}, smoke)
    vae = job_of(made, "vae")
    assert vae.config["steps"] == 1000
    assert estimate.seconds(vae) == pytest.approx(1.0 + 0.3 + 1.7 * 5 * 25)
    assert estimate.seconds(job_of(made, "pca")) == 1.0
    longer = dataclasses.replace(vae, config={**vae.config, "steps": 2000})
    assert estimate.seconds(longer) == pytest.approx(1.0 + 0.3 + 1.7 * 5 * 50)


def test_a_job_as_small_as_the_preflights_takes_as_long(smoke):
    estimate = Estimate(NONE, {TASK: 0.2}, smoke)
    assert estimate.seconds(job_of(plan(preset="smoke"), "vae")) == pytest.approx(3.0)


def test_what_was_measured_comes_before_what_was_tried_and_that_before_a_guess(smoke):
    made = plan()
    vae, pca = (job_of(made, name) for name in ("vae", "pca"))
    estimate = Estimate(NONE, {TASK: 1.0}, smoke)
    assert estimate.total([vae, pca], 2) == (pytest.approx(AROUND + estimate.seconds(vae) + BETWEEN), TRIED)
    estimate.learn(measured(vae, 7.0))
    assert estimate.total([vae, pca], 1) == (pytest.approx(AROUND + 8 + 2 * BETWEEN), TRIED)
    estimate.learn(measured(pca, 3.0))
    assert estimate.total([vae, pca], 1) == (pytest.approx(AROUND + 10 + 2 * BETWEEN), MEASURED)
    assert estimate.total([dataclasses.replace(vae, method="other")], 1)[1] == GUESSED
    assert Estimate(NONE, {TASK: 1.0}).total([vae], 1) == (AROUND + 8 + BETWEEN, GUESSED)


def test_what_failed_in_a_preflight_tells_no_time(smoke):
    failed = smoke.assign(status="failed")
    assert Estimate(NONE, {TASK: 1.0}, failed).total([job_of(plan(), "vae")], 1) == (AROUND + 8 + BETWEEN, GUESSED)


def test_without_a_preflight_nothing_was_tried(tmp_path):
    assert tried(tmp_path) is None
