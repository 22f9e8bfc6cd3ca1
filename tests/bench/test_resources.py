"""What jobs ask for, and which GPU each is given."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.jobs.executors.local import MOST_ON_A_GPU, LocalExecutor
from bench.keep.store import gather
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.plan.cost import Estimate
from bench.plan.order import Turns
from bench.plan.resources import Resources, needs
from tests.bench.conftest import process_environment

TASK = "reembedding/pancancer-sim"

PLUGIN = """
import os, time
import numpy as np
from methods import register_method
from methods.base import Method


class Plain(Method):
    def fit(self, data, seed):
        self.act()
        return self

    def embed(self, data):
        return np.asarray(data.X).mean(axis=1, keepdims=True)


@register_method
class Gpu(Plain):
    name = "wants-gpu"
    uses_gpu = True

    def act(self):
        with open(os.environ["DEVICES_FILE"], "a") as stream:
            stream.write("+" + os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
        time.sleep(0.5)
        with open(os.environ["DEVICES_FILE"], "a") as stream:
            stream.write("-" + os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")


@register_method
class Plainest(Plain):
    name = "wants-none"

    def act(self):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@register_method
class Cornered(Plain):
    '''Enters a control group that has less memory than it takes.'''

    name = "cornered"

    def act(self):
        with open(os.environ["CONTROL_GROUP"] + "/cgroup.procs", "w") as stream:
            stream.write(str(os.getpid()))
        self.hoard = [np.ones(5_000_000) for _ in range(20)]


@register_method
class Suicidal(Plain):
    name = "suicidal"

    def act(self):
        os.kill(os.getpid(), 9)
"""


#: Runs methods of a plugin with LocalExecutor and prints each job's status and reason.
SCRIPT = """
import json, sys
from pathlib import Path
from bench.jobs.executors.local import MOST_ON_A_GPU, LocalExecutor
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.keep.store import Store

methods, plugin, devices = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
specs, plugins = choose_methods(methods, "smoke", [], [plugin])
plan = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 2, plugins, {})
jobs = [job for job in plan.jobs if job.role == "method"]
done = []
runner = LocalExecutor(4, 240, 8000, devices)
runner.run(jobs, Store(Path("out")), lambda job: None, done.append)
print(json.dumps([(result.status, result.reason) for result in done]))
"""


@pytest.fixture
def run_here(plugin, tmp_path):
    """Run methods of the plugin in a process of its own, whose registry alone knows them."""

    def run(methods, devices=None, **environment):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, methods, str(plugin(PLUGIN)), json.dumps(devices)],
            cwd=tmp_path,
            env=process_environment(tmp_path, **environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def planned(methods):
    specs, plugins = choose_methods(methods, "smoke", [])
    plan = make_plan(specs, choose_tasks(TASK), "smoke", 1, plugins, {})
    return [job for job in plan.jobs if job.role == "method"], plan


def test_needs_grow_with_data_and_time_in_powers_of_two():
    (vae, *_), (pca, *_) = planned("vae")[0], planned("pca")[0]
    assert needs(pca, 0.1, 1) == Resources(threads=1, memory_mb=2048, gpu=False, minutes=2)
    assert needs(vae, 0.1, 1) == Resources(threads=1, memory_mb=2048, gpu=True, minutes=2)
    # 1024 MB and 40 for each million values; four times the estimate
    assert needs(vae, 37, 30) == Resources(threads=1, memory_mb=4096, gpu=True, minutes=2)
    assert needs(vae, 37, 31) == Resources(threads=1, memory_mb=4096, gpu=True, minutes=4)
    assert needs(vae, 100, 3600) == Resources(threads=1, memory_mb=8192, gpu=True, minutes=256)
    assert needs(vae, 100, 3600, memory_mb=1000.5).memory_mb == 1001


def test_every_network_uses_a_gpu_and_no_control_does():
    jobs, plan = planned("all")
    taken = {job.method for job in jobs if needs(job, 1, 1).gpu}
    assert {"vae", "lord", "gamma-vae", "multigroup-vi"} <= taken
    assert not taken & {"pca", "umap", "fastica", "random-projection"}
    assert not any(needs(job, 1, 1).gpu for job in plan.jobs if job.role == "reference")


def test_no_more_jobs_are_counted_on_than_there_are_jobs():
    jobs, plan = planned("pca")
    estimate = Estimate(gather([]).rows, plan.sizes)
    one, _ = estimate.total(jobs[:1], 1)
    assert estimate.total(jobs[:1], 256)[0] == one


def most_at_a_time(events):
    """For each device the most jobs that held it at one time."""
    held, most = Counter(), Counter()
    for event in events:
        held[event[1:]] += 1 if event[0] == "+" else -1
        most[event[1:]] = max(most[event[1:]], held[event[1:]])
    return most


def test_jobs_share_one_gpu(run_here, tmp_path):
    done = run_here("wants-gpu,wants-none", ["7"], DEVICES_FILE=str(tmp_path / "devices"))
    assert [status for status, _ in done] == ["ok"] * 8
    events = (tmp_path / "devices").read_text().split()
    # begin and end, for each of two seeds and two draws, of three fits: without the unit, with it, and with it again
    assert len(events) == 2 * 2 * 2 * 3
    most = most_at_a_time(events)
    assert set(most) == {"7"}
    assert 2 <= most["7"] <= 4, events


def test_jobs_are_spread_over_gpus(run_here, tmp_path):
    done = run_here("wants-gpu,wants-none", ["7", "GPU-9"], DEVICES_FILE=str(tmp_path / "devices"))
    assert [status for status, _ in done] == ["ok"] * 8
    most = most_at_a_time((tmp_path / "devices").read_text().split())
    assert set(most) == {"7", "GPU-9"}
    assert max(most.values()) <= 2  # four jobs on two GPUs


@pytest.mark.parametrize(("n_workers", "devices"), [(6, ["0"]), (4, ["0", "1"]), (5, ["0", "1", "2"])])
def test_no_gpu_has_more_than_its_share_whichever_jobs_end_first(n_workers, devices):
    executor, (job, *_) = LocalExecutor(n_workers, 1, 1, devices), planned("vae")[0]
    rng, running = np.random.default_rng(0), []
    for _ in range(300):
        while len(running) < n_workers:
            jobs, device = executor._choose([[job]], running, Turns())
            running.append(SimpleNamespace(jobs=jobs, device=device))
        taken = Counter(one.device for one in running)
        assert set(taken) <= set(devices)
        assert max(taken.values()) <= -(-n_workers // len(devices))
        for one in rng.permutation(len(running))[: rng.integers(1, n_workers + 1)].tolist():
            running[one] = None
        running = [one for one in running if one is not None]


def test_a_full_gpu_is_waited_for_while_other_jobs_start():
    (job, *_), (other, *_) = planned("vae")[0], planned("pca")[0]
    executor = LocalExecutor(8, 1, 1, ["0"])
    running = [SimpleNamespace(jobs=[job], device="0") for _ in range(MOST_ON_A_GPU)]
    assert executor._choose([[job]], running, Turns()) is None
    assert executor._choose([[job], [other]], running, Turns()) == ([other], "")
    assert executor._choose([[job]], running[1:], Turns()) == ([job], "0")


def test_gpus_are_those_that_are_visible(monkeypatch):
    import torch

    from bench.plan.resources import devices
    from bench.records import PlanError

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(None) is None
    assert devices(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert devices(1) == ["3"]
    with pytest.raises(PlanError, match="--resources gpus=3: PyTorch sees 2"):
        devices(3)


@pytest.fixture
def control_group():
    """A control group of 200 MB; skipped where none can be made."""
    for root, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = root / f"bench-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(200 * 2**20))
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no control group with a limit on memory can be made here")


def test_the_kernels_own_kill_is_out_of_memory(control_group, run_here):
    done = run_here("cornered", CONTROL_GROUP=str(control_group))
    assert {(status, reason[:28]) for status, reason in done} == {("out_of_memory", "the kernel ended the process")}


def test_any_other_kill_is_not(run_here):
    done = run_here("suicidal")
    assert {status for status, _ in done} == {"killed"}
    assert all("SIGKILL" in reason for _, reason in done)


def test_resources_are_one_class_when_equal():
    one = Resources(1, 2048, False, 2)
    assert len({one, dataclasses.replace(one), dataclasses.replace(one, gpu=True)}) == 2
