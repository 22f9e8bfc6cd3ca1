"""The SLURM executor: its rules on a cluster that is acted, and whole runs on a real one of one node."""

import dataclasses
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from bench.jobs.executors import ExecutorError, slurm
from bench.jobs.executors.slurm import Ended, SlurmExecutor, State, attempts, bundle, note_attempt
from bench.jobs.job import result_of, run_stack
from bench.keep.files import read_sealed
from bench.keep.store import Store
from bench.options import Options, read_resources
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.plan.resources import Resources
from bench.records import PlanError, Status
from tests.bench.test_mlflow_server import free_port
from tests.bench.test_run import PLUGIN, results
from tests.bench.test_tune import SHIFT, tuned
from tests.bench.test_tune import planned as planned_tuning
from tests.waiting import wait_for

TASK = "reembedding/pancancer-sim"
SETTINGS = {"array_parallelism": 256, "gpus": 0}
NEEDS = Resources(threads=1, memory_mb=2048, gpu=True, minutes=2)


def test_resources_are_read_and_unknown_ones_are_refused():
    assert Options(executor="slurm").slurm == {"array_parallelism": 256}
    given = read_resources("partition=main,time=90,gpus=1,account=a-b,array_parallelism=8,minutes=7.5")
    assert given == {
        "partition": "main",
        "time": 90,
        "gpus": 1,
        "account": "a-b",
        "array_parallelism": 8,
        "minutes": 7.5,
    }
    asked = Options(executor="slurm", resources=given)
    assert set(asked.slurm) == {"partition", "time", "account", "array_parallelism"}
    assert (asked.gpus, asked.minutes, asked.memory_mb) == (1, 7.5, None)
    with pytest.raises(PlanError, match=r"acount=x: the key is one of gpus, minutes, memory, account, "):
        read_resources("partition=main,acount=x")
    with pytest.raises(PlanError, match="'partition': key=value"):
        read_resources("partition")
    with pytest.raises(PlanError, match="time=1:00:00: a whole number above 0 is needed"):
        read_resources("time=1:00:00")
    with pytest.raises(PlanError, match="minutes=0: a number above 0 is needed"):
        read_resources("minutes=0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slurm", "partition=main"), "partition=… is a setting of SLURM, and needs --executor slurm"),
        (("--executor", "slurm", "--jobs", 2), "--resources array_parallelism=…"),
        (("--executor", "inline", "--gpus", 1), "--resources gpus=… needs --executor local"),
        (("--executor", "slurm", "--methods", "pca", "--tasks", TASK), "there is no sbatch here"),
    ],
)
def test_options_that_do_not_go_together_are_refused(cli, tmp_path, arguments, message):
    (tmp_path / "bin").mkdir()
    done = cli("run", *arguments, PATH=str(tmp_path / "bin"))
    assert done.returncode == 2
    assert message in done.stderr


def test_jobs_of_a_class_are_bundled_evenly_and_what_was_begun_is_alone():
    wanted = {f"c{number}": NEEDS for number in range(7)} | {"long": dataclasses.replace(NEEDS, minutes=64)}
    assert bundle(wanted, {"c3"}, 8) == {
        NEEDS: [["c0", "c1", "c2"], ["c4", "c5", "c6"], ["c3"]],
        dataclasses.replace(NEEDS, minutes=64): [["long"]],
    }
    assert bundle({"c": NEEDS}, {"c"}, 8) == {NEEDS: [["c"]]}
    assert bundle({}, set(), 8) == {}


@pytest.mark.parametrize(
    ("ended", "printed", "status", "reason"),
    [
        (Ended("OUT_OF_MEMORY", 0, 9), "", "out_of_memory", "ended by SLURM"),
        (
            Ended("FAILED", 0, 9),
            "slurmstepd-n1: error: Exceeded job memory limit",
            "out_of_memory",
            "ended by SLURM",
        ),
        (Ended("FAILED", 0, 9), "slurmstepd: error: Detected 1 oom_kill event", "out_of_memory", "ended by SLURM"),
        (Ended("FAILED", 0, 9), "my exceeded memory limit", "killed", "was ended by SIGKILL and no result"),
        (Ended("TIMEOUT"), "", "timeout", "outran its time"),
        (Ended("CANCELLED", 0, 15), "", "cancelled", "was cancelled"),
        (Ended("FAILED", 3), "", "failed", "ended with code 3 and no result; it printed to "),
        (Ended("PREEMPTED"), "", "lost", "was lost (PREEMPTED)"),
        (Ended("NODE_FAIL"), "", "lost", "was lost (NODE_FAIL)"),
        (Ended("UNKNOWN"), "", "lost", "was lost (UNKNOWN)"),
    ],
)
def test_how_a_job_ended_says_the_status(tmp_path, ended, printed, status, reason):
    (tmp_path / "log").write_text(printed)
    found, why = ended.status(tmp_path / "log")
    assert found == status
    assert reason in why


def planned(methods="pca,fastica"):
    specs, plugins = choose_methods(methods, "smoke", [])
    plan = make_plan(specs, choose_tasks(TASK), "smoke", 1, plugins, {})
    return [job for job in plan.jobs if job.role == "method"]


class Cluster:
    """Acts SLURM: runs what is submitted at once, as ``behave(job, resources, slurm_job)`` says.

    That returns a status, which is then the job's result, or an :class:`Ended`, with which the SLURM job ends in the
    middle of the job, or before any where ``begins`` is False, or nothing, where it has written the result itself.
    """

    def __init__(self, out, behave, begins=True, refuses_mb=10**9):
        self.out, self.behave, self.begins, self.refuses_mb = out, behave, begins, refuses_mb
        self.ended, self.submitted, self.cancelled = {}, [], []

    def __call__(self, folder, cluster):
        assert cluster == "slurm"
        self.folder = folder
        return self

    def update_parameters(self, **parameters):
        self.parameters = parameters

    def map_array(self, function, bundles, resources, outs):
        from submitit.core.utils import FailedJobError

        if self.parameters["mem_gb"] * 1024 > self.refuses_mb:
            raise FailedJobError("sbatch: error: Memory specification can not be satisfied")
        slurm_jobs = []
        for index, (members, needs) in enumerate(zip(bundles, resources, strict=True)):
            slurm_job = f"{len(self.submitted) + 1}_{index}"
            slurm_jobs.append(SimpleNamespace(job_id=slurm_job))
            self.submitted.append((slurm_job, [job.method for job in members], needs, self.parameters))
            self.ended[slurm_job] = Ended("COMPLETED")
            for job in members:
                if self.begins:
                    note_attempt(self.out, job.id, slurm_job)
                end = self.behave(job, needs, slurm_job)
                if isinstance(end, Ended):
                    self.ended[slurm_job] = end
                    break
                if end is not None:
                    write(self.out, job, end)
        return slurm_jobs

    def ask(self, slurm_jobs):
        return {slurm_job: self.ended.get(slurm_job, Ended("UNKNOWN")) for slurm_job in slurm_jobs}


def write(out, job, status):
    Store(out).write(result_of(job, Status(status), "" if status == "ok" else f"planted {status}"))


@pytest.fixture
def reach(monkeypatch):
    """Let the executor speak to an acted cluster."""
    import submitit

    def patch(cluster):
        monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(slurm, "LOOK", 0.0)
        monkeypatch.setattr(slurm, "ASK", -1.0)
        monkeypatch.setattr(submitit, "AutoExecutor", cluster)
        monkeypatch.setattr(slurm, "ask_slurm", cluster.ask)
        monkeypatch.setattr(slurm, "cancel", cluster.cancelled.append)

    return patch


@pytest.fixture
def act(tmp_path, reach):
    """Run jobs on an acted cluster; returns what was reported for each method, the cluster and what was said."""
    out = tmp_path / "out"

    def run(behave, todo, settings=None, time_limit=120.0, **traits):
        cluster = Cluster(out, behave, **traits)
        reach(cluster)
        reports, started, said = {}, [], []

        def on_done(result):
            assert result.job.id not in reports, "reported twice"
            assert Store(out).read(result.job.id).status == result.status, "reported before it was on disk"
            reports[result.job.id] = result

        runner = SlurmExecutor(
            {"array_parallelism": 256, "gpus": 0, **(settings or {})}, lambda job: NEEDS, time_limit, said.append
        )
        runner.run(todo, Store(out), started.append, on_done)
        assert set(reports) == {job.id for job in todo}
        assert read_sealed(out / "slurm" / "state.json") == {"submissions": {}, "doubled": {}}
        assert not list((out / "slurm" / "attempts").iterdir())
        return {job.method: reports[job.id] for job in todo}, cluster, said

    return run


def one_of_each():
    return sorted({job.method: job for job in planned()}.values(), key=lambda job: job.method)


def test_memory_is_doubled_three_times_and_the_status_then_stands(act):
    def behave(job, resources, slurm_job):
        return "out_of_memory" if job.method == "pca" or resources.memory_mb < 4096 else "ok"

    reports, cluster, _ = act(behave, one_of_each())
    assert reports["pca"].status == "out_of_memory"
    assert reports["fastica"].status == "ok"
    assert [(methods, needs.memory_mb) for _, methods, needs, _ in cluster.submitted] == [
        (["fastica", "pca"], 2048),
        (["fastica", "pca"], 4096),
        (["pca"], 8192),
        (["pca"], 16384),
    ]
    # the SLURM job's processes that start and watch the job get a gigabyte of their own
    assert [parameters["mem_gb"] for *_, parameters in cluster.submitted] == [3, 5, 9, 17]


def test_memory_that_the_cluster_has_not_ends_the_doubling(act):
    reports, cluster, _ = act(lambda *_: "out_of_memory", one_of_each(), refuses_mb=6000)
    assert len(cluster.submitted) == 2
    for result in reports.values():
        assert result.status == "out_of_memory"
        assert "planted out_of_memory; sbatch refused a SLURM job of 9216 MB" in result.reason


def test_a_job_that_is_refused_at_first_is_an_error(act, tmp_path):
    with pytest.raises(
        ExecutorError, match=r"refused a SLURM job of 3072 MB and 7 minutes: .* can not be satisfied; change"
    ):
        act(lambda *_: "ok", one_of_each(), refuses_mb=1000)
    assert State(tmp_path / "out" / "slurm").slurm_ids() == []


def test_slurms_own_memory_kill_is_mended_too_and_takes_one_job(act):
    def behave(job, resources, slurm_job):
        return Ended("OUT_OF_MEMORY") if job.method == "fastica" and resources.memory_mb < 4096 else "ok"

    reports, cluster, _ = act(behave, one_of_each())
    assert {result.status for result in reports.values()} == {"ok"}
    assert [(methods, needs.memory_mb) for _, methods, needs, _ in cluster.submitted] == [
        (["fastica", "pca"], 2048),
        (["fastica"], 4096),
        (["pca"], 2048),
    ]


def test_a_job_that_outruns_its_minutes_gets_the_whole_time_limit_once(act):
    reports, cluster, _ = act(lambda *_: "timeout", one_of_each()[:1], time_limit=30)
    assert [result.status for result in reports.values()] == ["timeout"]
    assert [(needs.minutes, parameters["timeout_min"]) for *_, needs, parameters in cluster.submitted] == [
        (2, 5),
        (30, 33),
    ]


def test_no_job_asks_for_more_time_than_is_allowed(act):
    _, cluster, _ = act(lambda *_: "timeout", planned(), settings={"time": 6, "partition": "p"}, time_limit=30)
    assert max(parameters["timeout_min"] for *_, parameters in cluster.submitted) == 6
    assert {parameters["slurm_partition"] for *_, parameters in cluster.submitted} == {"p"}


@pytest.mark.parametrize(("settings", "gpus"), [({}, None), ({"gpus": 1}, 1)])
def test_gpus_are_asked_for_where_the_user_says_so(act, settings, gpus):
    _, cluster, _ = act(lambda *_: "ok", one_of_each(), settings=settings)
    ((_, _, needs, parameters),) = cluster.submitted
    assert parameters.get("gpus_per_node") == gpus
    assert needs.gpu == bool(gpus)


def test_a_job_that_loses_every_job_is_given_up_and_its_neighbours_are_not(act):
    def behave(job, resources, slurm_job):
        return Ended("NODE_FAIL") if job.method == "fastica" else "ok"

    reports, cluster, _ = act(behave, one_of_each())
    assert reports["pca"].status == "ok"
    assert reports["fastica"].status == "killed"
    assert "was lost (NODE_FAIL) for the 4th time" in reports["fastica"].reason
    with_it = [methods for _, methods, *_ in cluster.submitted if "fastica" in methods]
    assert with_it == [["fastica", "pca"], ["fastica"], ["fastica"], ["fastica"]]


def test_jobs_that_never_begin_are_not_submitted_for_ever(act):
    reports, cluster, _ = act(lambda *_: Ended("BOOT_FAIL"), one_of_each(), begins=False)
    assert {result.status for result in reports.values()} == {"killed"}
    assert len([slurm_job for slurm_job, methods, *_ in cluster.submitted if "pca" in methods]) == 4


@pytest.mark.parametrize(
    ("ended", "status"), [(Ended("CANCELLED"), "killed"), (Ended("FAILED", 1), "failed"), (Ended("TIMEOUT"), "timeout")]
)
def test_what_was_cancelled_or_broke_before_it_began_is_not_tried_again(act, ended, status):
    reports, cluster, _ = act(lambda *_: ended, one_of_each(), begins=False, time_limit=2)
    assert {result.status for result in reports.values()} == {status}
    assert len(cluster.submitted) == 1


def test_a_head_that_died_while_it_submitted_leaves_nothing_behind(act, tmp_path):
    todo = one_of_each()
    state = State(tmp_path / "out" / "slurm")
    state.submissions["bench-0"] = slurm.Submission(NEEDS)
    state.write()
    (state.directory / "bench-0").mkdir()
    _, cluster, _ = act(lambda *_: "ok", todo)
    assert cluster.cancelled == ["bench-0"]
    assert not (state.directory / "bench-0").exists()
    assert len(cluster.submitted) == 1


def test_a_head_takes_up_results_and_jobs_and_submits_the_rest(act, tmp_path):
    """A failure of an earlier run is run again; one of a SLURM job that went on without a head is its result."""
    out = tmp_path / "out"
    first, second, third = todo = planned()[:3]
    for job in (first, third):
        write(out, job, "failed")
    state = State(out / "slurm")
    tasks = [slurm.Task("90_0", [first.id]), slurm.Task("90_1", [second.id])]
    state.submissions["bench-1"] = slurm.Submission(NEEDS, tasks)
    state.write()
    note_attempt(out, second.id, "90_1")
    ran = []

    def behave(job, resources, slurm_job):
        ran.append(job.id)
        return "ok"

    _, _, said = act(behave, todo)
    assert "2 jobs are with SLURM already, in SLURM jobs 90" in said
    assert [Store(out).read(job.id).status for job in todo] == ["failed", "ok", "ok"]
    # SLURM no longer knows 90_1, which left no result
    assert ran == [third.id, second.id]


def test_a_spoilt_state_is_said_and_nothing_is_submitted(tmp_path):
    (tmp_path / "state.json").write_text('{"submissions": {}')
    with pytest.raises(ExecutorError, match="not known which SLURM jobs are there"):
        State(tmp_path)


def test_a_controller_that_does_not_answer_is_waited_for(act, monkeypatch):
    silent = [2]

    def behave(job, resources, slurm_job):
        return Ended("FAILED", 1)

    def ask(self, slurm_jobs):
        if silent[0]:
            silent[0] -= 1
            raise subprocess.CalledProcessError(1, "squeue", stderr="slurm_load_jobs error: Unable to contact")
        return {slurm_job: self.ended[slurm_job] for slurm_job in slurm_jobs}

    monkeypatch.setattr(Cluster, "ask", ask)
    reports, _, said = act(behave, one_of_each()[:1])
    assert [result.status for result in reports.values()] == ["failed"]
    assert [line for line in said if "does not answer" in line] == [
        "SLURM does not answer (slurm_load_jobs error: Unable to contact); waiting for it"
    ]


def test_a_job_that_slurm_queues_again_and_again_gives_its_job_up(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    out = tmp_path / "out"
    State(out / "slurm")
    job, finished = planned()[:2]
    write(out, finished, "ok")
    before = Store(out).read(finished.id)
    for _ in range(4):
        note_attempt(out, job.id, "5")
    slurm.run_bundle([job, finished], dataclasses.replace(NEEDS, gpu=False), out)
    result = Store(out).read(job.id)
    assert (result.status, result.reason) == ("killed", "SLURM job 5 was lost for the 4th time")
    assert Store(out).read(finished.id) == before
    assert attempts(out, job.id) == ["5"] * 4
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_tuning_on_a_cluster_chooses_what_it_chooses_here(reach, plugin, tmp_path):
    file, out = plugin(SHIFT), tmp_path / "far"

    def behave(job, resources, slurm_job):
        (result,) = run_stack([job], Store(out).fits)
        Store(out).write(result)

    plan, studies, _ = planned_tuning(file)
    here = tuned(plan, studies, tmp_path / "here", n_trials=4)
    cluster = Cluster(out, behave)
    reach(cluster)
    plan, studies, _ = planned_tuning(file)
    there = tuned(plan, studies, out, 4, SlurmExecutor(SETTINGS, lambda job: NEEDS, 120.0, print))
    assert len(cluster.submitted) > 4  # the floors, and each trial, are submissions of their own
    assert [(one.tuned, one.oracle, one.failed) for one in there] == [
        (one.tuned, one.oracle, one.failed) for one in here
    ]


CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/none
CredType=cred/none
# what is queued again may start after so many seconds
AuthInfo=cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=3400 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM of one node, run by this user on the loopback address; returns the path of its slurm.conf."""
    programs = [
        shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("slurmctld", "slurmd", "sbatch")
    ]
    if None in programs:
        pytest.skip("SLURM is not installed: apt-get install slurmctld slurmd")
    directory = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (directory / name).mkdir()
    conf = directory / "slurm.conf"
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    conf.write_text(CONF.format(host=host, user=user, directory=directory, controller=free_port(), daemon=free_port()))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    with (directory / "printed").open("w") as printed:
        daemons = [
            subprocess.Popen([program, "-D"], env=environment, stdout=printed, stderr=printed, start_new_session=True)
            for program in programs[:2]
        ]

    def slurm_says(*command):
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()

    try:
        wait_for(lambda: slurm_says("sinfo", "--noheader", "--format=%T") == "idle")
        yield conf
        slurm_says("scancel", "--user", user)
        wait_for(lambda: not slurm_says("squeue", "--noheader"))
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


@pytest.fixture
def on(cluster, monkeypatch):
    """Commands of this test speak to the cluster."""
    monkeypatch.setenv("SLURM_CONF", str(cluster))


def slurm_jobs():
    done = subprocess.run(
        ["squeue", "--me", "--states=all", "--array", "--noheader", "--Format=JobArrayID:40,State:20"],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split() for line in done.stdout.splitlines())


MORE = """

@register_method
class Suicidal(Plain):
    name = "suicidal"

    def act(self):
        os.kill(os.getpid(), 9)


@register_method
class Large(Plain):
    '''Holds 0.75 GiB, once a process.'''

    name = "large"
    hoard = []

    def act(self):
        self.hoard.extend(np.ones(10_000_000) for _ in range(10 - len(self.hoard)))
        time.sleep(1)


@register_method
class Waits(Plain):
    '''Says that it runs, then waits for a file.'''

    name = "waits"

    def act(self):
        with open(os.environ["PID_FILE"], "a") as stream:
            stream.write(f"{os.getpid()}\\n")
        while not os.path.exists(os.environ["PID_FILE"] + ".go"):
            time.sleep(0.1)
"""


def run_arguments(file, methods, out="out"):
    return ("run", "--methods", methods, "--plugin", file, "--tasks", TASK, "--preset", "smoke", "--out", out)


def values(file):
    rows = pd.read_parquet(file)
    return rows.set_index(["job_id", "method", "unit", "metric"])[["value", "status"]].sort_index()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cross_runs_and_each_fault_ends_as_its_own_status(on, cli, plugin, tmp_path):
    file = plugin(PLUGIN + MORE)
    arguments = run_arguments(file, "fine,raises,suicidal,slow,hungry,large,vae,pca")
    limits = ("--time-limit", 1, "--memory-limit", 0.6)  # other jobs than "slow" took half a minute on a busy machine
    # thirteen minutes a SLURM job, ten of them for jobs: ten jobs of a minute
    settings = ("--executor", "slurm", "--slurm", "time=13")
    done = cli(*arguments, *limits, *settings, PID_FILE=str(tmp_path / "pids"), timeout=800)
    assert done.returncode == 1, done.stdout + done.stderr
    by_method = {}
    for result in results(tmp_path).values():
        by_method.setdefault(result["job"]["method"], set()).add(result["status"])
    assert by_method == {
        **{name: {"ok"} for name in ("floor", "baseline", "structure", "ceiling", "fine", "vae", "pca", "large")},
        "raises": {"failed"},
        "suicidal": {"killed"},
        "slow": {"timeout"},
        "hungry": {"out_of_memory"},
    }
    hungry = [result["reason"] for result in results(tmp_path).values() if result["job"]["method"] == "hungry"]
    assert all(
        "more than 1230 MB (--resources memory=…); sbatch refused a SLURM job of 3484 MB" in reason for reason in hungry
    )

    local = cli(*run_arguments(file, "fine,raises,vae,pca", "local"))
    assert local.returncode == 1
    expected = values(tmp_path / "local" / "results.parquet")
    found = values(tmp_path / "out" / "results.parquet").loc[expected.index]
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_head_that_was_killed_or_left_is_taken_up_and_nothing_runs_twice(on, cli, start, plugin, tmp_path):
    pids = tmp_path / "pids"
    arguments = (*run_arguments(plugin(PLUGIN + MORE), "waits,fine"), "--executor", "slurm")
    environment = {"PID_FILE": str(pids)}
    before = set(slurm_jobs())
    head = start(*arguments, **environment)
    wait_for(pids.exists, 240)
    head.kill()
    head.communicate()
    (slurm_job,) = set(slurm_jobs()) - before

    # what was preempted, SLURM queues again
    subprocess.run(["scontrol", "requeue", slurm_job], check=True)
    wait_for(lambda: len(pids.read_text().splitlines()) == 2, 240)

    head = start(*arguments, **environment)
    wait_for(lambda: "jobs are with SLURM already" in head.stdout.readline(), 240)
    head.send_signal(signal.SIGINT)
    printed, _ = head.communicate(timeout=240)
    assert head.returncode == 130, printed
    assert f"SLURM jobs go on without this command; to end them: scancel {slurm_job}" in printed
    assert slurm_jobs()[slurm_job] == "RUNNING"

    (tmp_path / "pids.go").touch()
    done = cli(*arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {result["status"] for result in results(tmp_path).values()} == {"ok"}
    assert set(slurm_jobs()) - before == {slurm_job}
    # three fits for each of two draws, without the unit, with it, and with it again; the first was begun twice
    assert len(pids.read_text().splitlines()) == 7


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_slurm_says_how_a_job_ended(on, tmp_path):
    hungry = f"{sys.executable} -c 'x = bytearray(400_000_000); import time; time.sleep(60)'"
    commands = {"out_of_memory": hungry, "killed": "kill -9 $$", "failed": "exit 3", "cancelled": "sleep 300"}
    submitted = {}
    for status, command in commands.items():
        log = tmp_path / status
        sbatch = ["sbatch", "--parsable", "--mem=100", f"--output={log}", f"--wrap={command}"]
        submitted[status] = subprocess.run(sbatch, check=True, capture_output=True, text=True).stdout.strip()
    assert slurm.ask_slurm([submitted["cancelled"]]) == {submitted["cancelled"]: None}
    slurm.cancel("no-such-name")
    subprocess.run(["scancel", submitted["cancelled"]], check=True)
    ended = wait_for(lambda: all((known := slurm.ask_slurm(list(submitted.values()))).values()) and known, 240)
    found = {status: ended[slurm_job].status(tmp_path / status)[0] for status, slurm_job in submitted.items()}
    assert found == {status: status for status in commands}
    assert ended[submitted["failed"]] == Ended("FAILED", 3, 0)
    # there is no accounting here, and what the controller has forgotten nobody knows
    assert slurm.ask_slurm(["999999"]) == {"999999": Ended("UNKNOWN")}
