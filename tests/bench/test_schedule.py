"""In which order cells run, and how long they are said to take."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from bench.cell import result_of
from bench.estimate import AROUND, BETWEEN, GUESSED, MEASURED, Estimate
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.schedule import Turns, longest_first, makespan, passes
from bench.store import tidy

TASK = "reembedding/pancancer-sim"


def planned(methods="pca,gamma-vae", seeds=2):
    specs, plugins = choose_methods(methods, "smoke", [])
    return [cell for cell in make_plan(specs, choose_tasks(TASK), "smoke", seeds, plugins, {}).cells if not cell.skip]


def one(cells, method, unit="cancer0", seed=0):
    (found,) = [cell for cell in cells if (cell.method, cell.unit, cell.seed) == (method, unit, seed)]
    return found


def measured(cell, seconds, start=0.0):
    """A result of a cell that was at work for so many seconds."""
    started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=start)
    ended = started + timedelta(seconds=seconds)
    return {**result_of(cell, "ok", ""), "started": started.isoformat(), "finished": ended.isoformat()}


def ends_of_workers(cells, seconds, jobs):
    """When each worker ends that takes the next pass when it is free."""
    turns, waiting, running, now = Turns(), passes(cells), {}, 0.0
    ends = [0.0] * jobs
    while waiting or running:
        while waiting and len(running) < jobs:
            chosen = turns.next(waiting, [together for _, together in running.values()])
            waiting.remove(chosen)
            worker = next(number for number in range(jobs) if number not in running)
            running[worker] = now + sum(seconds[cell.id] for cell in chosen), chosen
        worker = min(running, key=lambda number: running[number][0])
        now, ended = running.pop(worker)
        ends[worker] = now
        turns.done(ended)
    return ends


@pytest.mark.parametrize("methods", ["pca,gamma-vae", "pca,vae,trvae"])
def test_two_workers_end_together_and_as_was_estimated(methods):
    cells = planned(methods, seeds=9)
    estimate = Estimate(tidy([]), {TASK: 1.0})
    estimate.between = 0.0
    for number, cell in enumerate(cells):
        seconds = 1.0 + (number // 9 * 7919 % 97) / 10
        estimate.learn(measured(cell, seconds * max(1, len(cell.replicas))))
    costs = estimate.costs(cells)
    ordered = longest_first(cells, costs)
    shortest = min(sum(costs[cell.id] for cell in together) for together in passes(cells))
    first, second = ends_of_workers(ordered, costs, 2)
    assert abs(first - second) <= shortest + 1e-9
    assert estimate.left(cells, 2) == pytest.approx(max(first, second), rel=0.02)
    assert estimate.left(cells, 1) == pytest.approx(sum(costs.values()))
    assert estimate.total(cells, 1) == (pytest.approx(AROUND + sum(costs.values())), MEASURED)


def test_work_goes_to_whoever_is_free():
    assert makespan([5, 4, 3, 3, 3], 2) == 10
    assert makespan([5, 4, 3, 3, 3], 1) == 18
    assert makespan([5, 4], 7) == 5
    assert makespan([], 2) == 0


def test_the_longest_goes_first_and_equal_ones_keep_their_order():
    cells = planned()
    assert longest_first(cells, dict.fromkeys([cell.id for cell in cells], 1.0)) == cells
    seconds = {cell.id: float(number) for number, cell in enumerate(cells)}
    assert longest_first(cells, seconds) == cells[::-1]


def test_a_pass_stays_together_and_counts_whole():
    cells = planned("vae,pca", seeds=3)
    seconds = {cell.id: 2.0 if cell.method == "pca" else 1.0 for cell in cells}
    ordered = longest_first(cells, seconds)
    assert [(cell.method, cell.unit, cell.seed) for cell in ordered[:3]] == [("vae", "cancer0", i) for i in range(3)]


def test_of_cells_that_may_share_a_fit_the_first_runs_alone():
    cells = planned()
    first, elsewhere = one(cells, "pca"), one(cells, "pca", "cancer1")
    other_seed, other = one(cells, "pca", "cancer1", seed=1), one(cells, "gamma-vae")
    turns = Turns()
    assert turns.next([[first], [elsewhere]], []) == [first]
    assert turns.next([[elsewhere], [other_seed]], [[first]]) == [other_seed]
    assert turns.next([[elsewhere], [other]], [[first]]) == [other]
    assert turns.next([[elsewhere]], [[first]]) == [elsewhere], "no worker waits where there is nothing else"
    assert turns.next([], [[first]]) is None
    turns.done([first])
    assert turns.next([[elsewhere], [other]], [[first]]) == [elsewhere]


# --- what cells cost


def test_a_unit_is_known_by_its_own_time_and_a_new_one_by_the_others():
    cells = planned(seeds=1)
    first, second = one(cells, "pca"), one(cells, "pca", "cancer1")
    estimate = Estimate(tidy([measured(first, 2.0), measured(second, 6.0)]), {TASK: 1.0})
    assert [estimate.seconds(dataclasses.replace(cell, seed=5)) for cell in (first, second)] == [2.0, 6.0]
    assert estimate.seconds(dataclasses.replace(first, unit="another")) == 4.0
    assert estimate.total([first, one(cells, "gamma-vae")], 1)[1] == GUESSED


def test_a_cell_that_the_method_refused_is_known_too():
    cell = one(planned(seeds=1), "pca")
    refused = {**measured(cell, 0.5), "status": "skipped"}
    estimate = Estimate(tidy([refused]), {TASK: 1.0})
    assert estimate.total([cell], 1) == (pytest.approx(AROUND + 0.5 + BETWEEN), MEASURED)


def test_the_time_of_a_pass_is_shared_out():
    cells = [cell for cell in planned("vae", seeds=3) if cell.method == "vae" and cell.unit == "cancer0"]
    estimate = Estimate(tidy([measured(cell, 6.0) for cell in cells]), {TASK: 1.0})
    assert estimate.seconds(cells[0]) == 2.0
    assert estimate.costs(cells) == {cell.id: 2.0 for cell in cells}
    assert estimate.costs(cells[:1]) == {cells[0].id: 6.0}, "the whole pass is made again for one of them"
    estimate.learn(measured(dataclasses.replace(cells[0], replicas=()), 10.0))
    assert estimate.seconds(cells[0]) == 4.0


def test_what_lies_between_cells_is_measured():
    cells = [cell for cell in planned(seeds=9) if cell.method == "pca"]
    rows = []
    for number, cell in enumerate(cells):  # two workers, 0.3 s after each cell; a day later a second run
        turn, worker = divmod(number, 2)
        rows.append(measured(cell, 2.0, start=turn * 2.3 + worker * 0.7 + 86400 * (number >= 10)))
    assert Estimate(tidy(rows), {TASK: 1.0}).between == pytest.approx(0.3)
    assert Estimate(tidy(rows[:1]), {TASK: 1.0}).between == BETWEEN
