"""In which order jobs run, and how long they are said to take."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from bench.jobs.job import result_of
from bench.keep.store import gather
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.plan.cost import AROUND, BETWEEN, GUESSED, MEASURED, Estimate
from bench.plan.order import Turns, in_order, makespan, stacks
from bench.records import Status

TASK = "reembedding/pancancer-sim"


def planned(methods="pca,gamma-vae", seeds=2):
    specs, plugins = choose_methods(methods, "smoke", [])
    return [job for job in make_plan(specs, choose_tasks(TASK), "smoke", seeds, plugins, {}).jobs if not job.skip]


def one(jobs, method, unit="draw0/cancer0", seed=0):
    (found,) = [job for job in jobs if (job.method, job.unit, job.seed) == (method, unit, seed)]
    return found


def measured(job, seconds, start=0.0):
    """A result of a job that was at work for so many seconds."""
    started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=start)
    ended = started + timedelta(seconds=seconds)
    return dataclasses.replace(result_of(job, Status.OK, ""), started=started.isoformat(), finished=ended.isoformat())


def ends_of_workers(jobs, seconds, n_workers):
    """When each worker ends that takes the next pass when it is free."""
    turns, waiting, running, now = Turns(), stacks(jobs), {}, 0.0
    ends = [0.0] * n_workers
    while waiting or running:
        while waiting and len(running) < n_workers:
            chosen = turns.next(waiting, [together for _, together in running.values()])
            waiting.remove(chosen)
            worker = next(number for number in range(n_workers) if number not in running)
            running[worker] = now + sum(seconds[job.id] for job in chosen), chosen
        worker = min(running, key=lambda number: running[number][0])
        now, ended = running.pop(worker)
        ends[worker] = now
        turns.done(ended)
    return ends


@pytest.mark.parametrize("methods", ["pca,gamma-vae", "pca,vae,trvae"])
def test_two_workers_end_together_and_as_was_estimated(methods):
    jobs = planned(methods, seeds=9)
    estimate = Estimate(gather([]).rows, {TASK: 1.0})
    estimate.between = 0.0
    for number, job in enumerate(jobs):
        seconds = 1.0 + (number // 9 * 7919 % 97) / 10
        estimate.learn(measured(job, seconds * max(1, len(job.stack))))
    costs = estimate.costs(jobs)
    ordered = in_order(jobs, costs)
    last = [job for job in jobs if job.draw == 1 and job.role == "method"]  # what is left for the end
    shortest = min(sum(costs[job.id] for job in together) for together in stacks(last))
    first, second = ends_of_workers(ordered, costs, 2)
    assert abs(first - second) <= shortest + 1e-9
    assert estimate.left(jobs, 2) == pytest.approx(max(first, second), rel=0.02)
    assert estimate.left(jobs, 1) == pytest.approx(sum(costs.values()))
    assert estimate.total(jobs, 1) == (pytest.approx(AROUND + sum(costs.values())), MEASURED)


def test_work_goes_to_whoever_is_free():
    assert makespan([5, 4, 3, 3, 3], 2) == 10
    assert makespan([5, 4, 3, 3, 3], 1) == 18
    assert makespan([5, 4], 7) == 5
    assert makespan([], 2) == 0


def test_draws_go_one_by_one_references_before_methods_and_the_longest_first():
    jobs = planned()
    methods = [job for job in jobs if job.role == "method"]
    references = [job for job in jobs if job.role == "reference"]
    one_draw = [job for job in methods if job.draw == 0]
    assert in_order(one_draw, dict.fromkeys([job.id for job in jobs], 1.0)) == one_draw
    seconds = {job.id: float(number) for number, job in enumerate(jobs)}
    assert in_order(one_draw, seconds) == one_draw[::-1]
    ordered = in_order(jobs, seconds)
    assert [(job.draw, job.role) for job in ordered] == sorted(
        [(job.draw, job.role) for job in jobs], key=lambda place: (place[0], place[1] == "method")
    )
    assert {job.draw for job in references} == {0, 1}


def test_a_pass_stays_together_and_counts_whole():
    jobs = planned("vae,pca", seeds=3)
    seconds = {job.id: 2.0 if job.method == "pca" else 1.0 for job in jobs}
    ordered = [job for job in in_order(jobs, seconds) if job.role == "method"]
    assert [(job.method, job.unit, job.seed) for job in ordered[:3]] == [("vae", "draw0/cancer0", i) for i in range(3)]


def test_of_jobs_that_may_share_a_fit_the_first_runs_alone():
    jobs = planned()
    first, other_seed, other = one(jobs, "pca"), one(jobs, "pca", seed=1), one(jobs, "gamma-vae")
    elsewhere, other_draw = dataclasses.replace(first, unit="draw0/another"), one(jobs, "pca", "draw1/cancer0")
    turns = Turns()
    assert turns.next([[first], [elsewhere]], []) == [first]
    assert turns.next([[elsewhere], [other_seed]], [[first]]) == [other_seed]
    assert turns.next([[elsewhere], [other_draw]], [[first]]) == [other_draw]
    assert turns.next([[elsewhere], [other]], [[first]]) == [other]
    assert turns.next([[elsewhere]], [[first]]) == [elsewhere], "no worker waits where there is nothing else"
    assert turns.next([], [[first]]) is None
    turns.done([first])
    assert turns.next([[elsewhere], [other]], [[first]]) == [elsewhere]


# --- what jobs cost


def test_a_unit_is_known_by_its_own_time_and_a_new_one_by_the_others():
    jobs = planned(seeds=1)
    first, second = one(jobs, "pca"), one(jobs, "pca", "draw1/cancer0")
    estimate = Estimate(gather([measured(first, 2.0), measured(second, 6.0)]).rows, {TASK: 1.0})
    assert [estimate.seconds(dataclasses.replace(job, seed=5)) for job in (first, second)] == [2.0, 6.0]
    assert estimate.seconds(dataclasses.replace(first, unit="another")) == 4.0
    assert estimate.total([first, one(jobs, "gamma-vae")], 1)[1] == GUESSED


def test_a_job_that_the_method_refused_is_known_too():
    job = one(planned(seeds=1), "pca")
    refused = dataclasses.replace(measured(job, 0.5), status=Status.SKIPPED)
    estimate = Estimate(gather([refused]).rows, {TASK: 1.0})
    assert estimate.total([job], 1) == (pytest.approx(AROUND + 0.5 + BETWEEN), MEASURED)


def test_the_time_of_a_pass_is_shared_out():
    jobs = [job for job in planned("vae", seeds=3) if job.method == "vae" and job.unit == "draw0/cancer0"]
    estimate = Estimate(gather([measured(job, 6.0) for job in jobs]).rows, {TASK: 1.0})
    assert estimate.seconds(jobs[0]) == 2.0
    assert estimate.costs(jobs) == {job.id: 2.0 for job in jobs}
    assert estimate.costs(jobs[:1]) == {jobs[0].id: 6.0}, "the whole pass is made again for one of them"
    estimate.learn(measured(dataclasses.replace(jobs[0], stack=()), 10.0))
    assert estimate.seconds(jobs[0]) == 4.0


def test_what_lies_between_jobs_is_measured():
    jobs = [job for job in planned(seeds=9) if job.method == "pca"]
    rows = []
    for number, job in enumerate(jobs):  # two workers, 0.3 s after each job; a day later a second run
        turn, worker = divmod(number, 2)
        rows.append(measured(job, 2.0, start=turn * 2.3 + worker * 0.7 + 86400 * (number >= 10)))
    assert Estimate(gather(rows).rows, {TASK: 1.0}).between == pytest.approx(0.3)
    assert Estimate(gather(rows[:1]).rows, {TASK: 1.0}).between == BETWEEN


# --- what one process runs


def test_a_method_on_all_units_of_a_draw_goes_together_and_nothing_else_does():
    specs, plugins = choose_methods("pca,pca@n_latent=5", "smoke", [])
    jobs = list(make_plan(specs, ["unseen-cell-type/ifn-sim"], "smoke", 2, plugins, {}, draws=range(2)).jobs)
    for together in stacks(jobs):
        assert len({(job.method, job.draw, job.seed) for job in together}) == 1
        assert len({job.unit for job in together}) == len(together) == 2
    inner = [dataclasses.replace(job, inner="type2") for job in jobs]  # of tuning: they may need the same fits
    assert {len(together) for together in stacks([*jobs, *inner])} == {4}
    real = [dataclasses.replace(job, draw=None) for job in jobs]
    assert {len(together) for together in stacks(real)} == {1}
    costs = Estimate(gather([measured(job, 3.0) for job in jobs]).rows, {job.task: 1.0 for job in jobs})
    assert set(costs.costs([*jobs, *inner]).values()) == {3.0}
