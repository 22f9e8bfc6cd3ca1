"""GPUs: the fork server asks for none, doctor says what it sees, and scores on one are those of the CPU."""

import itertools
import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from bench.plan.resources import device_of_fits
from methods import METHODS
from tests.bench.conftest import process_environment

#: Notes which functions of PyTorch that may start CUDA are called by what the fork server does before it forks.
RECORDER = """
import json, os, sys, types
import torch

called = []
#: say what PyTorch was built for, or leave for later what to do if a GPU is used one day
HARMLESS = {"_is_compiled", "_is_in_bad_fork", "is_initialized", "_lazy_call", "manual_seed", "manual_seed_all"}


def record(owner, name):
    real = getattr(owner, name)

    def recorded(*arguments, **named):
        called.append(f"{owner.__name__}.{name}")
        return real(*arguments, **named)

    setattr(owner, name, recorded)


for owner in (torch.accelerator, torch.cuda):
    for name, value in list(vars(owner).items()):
        if isinstance(value, types.FunctionType) and value.__module__ == owner.__name__ and name not in HARMLESS:
            record(owner, name)
for name in dir(torch._C):
    if name.startswith(("_cuda_", "_accelerator_")) and name != "_cuda_isInBadFork":
        if not isinstance(getattr(torch._C, name), type):
            record(torch._C, name)

import bench.jobs.executors.preload

noted = sorted(set(called))
modules = set(sys.modules)
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.zeros(1)
torch.optim.Adam([weight], fused=True).step()
assert "torch.accelerator.current_accelerator" in called, "a step is no longer noted: this test sees nothing"
late = sorted(name for name in set(sys.modules) - modules if name.startswith("torch"))
print(json.dumps({"called": noted, "late": late}))
"""

#: Tells, of a PyTorch that is built for CUDA, whether processes that the fork server forks can use a GPU.
FORKER = """
import os
import torch
import bench.jobs.executors.preload

child = os.fork()
if not child:
    os._exit(int(torch.cuda._is_in_bad_fork()))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def preloading(script, tmp_path, names):
    environment = process_environment(tmp_path, BENCH_PRELOAD=",".join(names))
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )


@pytest.mark.slow
def test_the_fork_server_asks_for_no_gpu_and_preloads_what_a_step_imports(tmp_path):
    addresses = ["sklearn.decomposition:NMF", "scvi.model:LinearSCVI"]
    names = [name for name in METHODS if METHODS[name].uses_gpu]  # UMAP compiles for a quarter of a minute
    done = preloading(RECORDER, tmp_path, [*names, *addresses])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["called"] == []
    assert len(found["late"]) < 5  # some 800 where nothing of them is preloaded


@pytest.mark.slow
def test_the_fork_server_imports_scvi_tools_for_its_own_methods_alone_and_jax_for_none(tmp_path):
    """JAX cannot be forked once it has started: the process of a job that asks for integration metrics imports it."""
    modules = ("torch", "scvi", "jax")
    script = f"import sys, bench.jobs.executors.preload; print([name for name in {modules} if name in sys.modules])"
    left_out = ("methods.scvi", "methods.umap")  # UMAP compiles for a quarter of a minute
    others = [name for name in METHODS if METHODS[name].__module__ not in left_out]
    assert preloading(script, tmp_path, others).stdout.splitlines()[-1] == "['torch']"


def test_processes_of_the_fork_server_can_use_a_gpu(tmp_path):
    import torch

    if not torch.backends.cuda.is_built():
        pytest.skip("PyTorch is built for the CPU")
    done = preloading(FORKER, tmp_path, METHODS)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------- doctor

TORCH = """
import types, warnings
__version__ = "9.9"
version = types.SimpleNamespace(cuda={cuda!r})
def available():
    {available}
def properties(i):
    {properties}
cuda = types.SimpleNamespace(is_available=available, device_count=lambda: 2, get_device_properties=properties)
"""


@pytest.fixture
def doctor(cli, tmp_path):
    """Run doctor with a PyTorch and an nvidia-smi of the test's own; returns what it found."""

    def run(torch, nvidia_smi=None, **environment):
        fakes = tmp_path / "fakes"
        (fakes / "torch").mkdir(parents=True)
        (fakes / "torch" / "__init__.py").write_text(textwrap.dedent(torch))
        if nvidia_smi is not None:
            (fakes / "nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}\n")
            (fakes / "nvidia-smi").chmod(0o755)
        path = process_environment(tmp_path)["PYTHONPATH"]
        changes = {"PATH": f"{fakes}:/usr/bin:/bin", "PYTHONPATH": f"{fakes}:{path}", **environment}
        done = cli("doctor", **changes)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line)

    return run


def test_doctor_names_each_gpu_its_memory_and_the_driver(doctor):
    properties = "return types.SimpleNamespace(name=f'NVIDIA A{i}', total_memory=80 * 2**30)"
    found = doctor(
        TORCH.format(cuda="13.0", available="return True", properties=properties),
        "printf 'NVIDIA A0, 81920 MiB, 570.1\\nNVIDIA A1, 81920 MiB, 570.1\\n'",
    )
    assert found["PyTorch's build"].strip() == "for CUDA 13.0"
    assert found["GPU 0"].strip() == "NVIDIA A0, 80.0 GiB, driver 570.1"
    assert found["GPU 1"].strip() == "NVIDIA A1, 80.0 GiB, driver 570.1"
    assert found["a step there"].strip().startswith("fails: ")  # no GPU of this test can compute


def test_doctor_says_that_there_is_no_gpu(doctor):
    found = doctor(TORCH.format(cuda=None, available="return False", properties="pass"))
    assert found["PyTorch's build"].strip() == "for the CPU"
    assert found["GPU"].strip() == "no GPU"


def test_doctor_says_that_pytorch_cannot_use_the_gpu_that_is_there(doctor):
    torch = TORCH.format(cuda=None, available="return False", properties="pass")
    found = doctor(torch, "echo NVIDIA A0, 81920 MiB, 570.1")
    assert found["GPU"].strip() == "no GPU; nvidia-smi sees NVIDIA A0, 81920 MiB, 570.1, which PyTorch cannot use"


@pytest.mark.parametrize(
    ("available", "properties"),
    [
        ("warnings.warn('the driver is too old'); return False", "pass"),
        ("return True", "raise RuntimeError('the driver is too old\\nand more')"),
    ],
)
def test_doctor_says_what_is_wrong_with_a_driver(doctor, available, properties):
    torch = TORCH.format(cuda="13.0", available=available, properties=properties)
    found = doctor(torch, "echo NVIDIA-SMI has failed; exit 9", CUDA_VISIBLE_DEVICES="3")
    assert found["GPU"].strip() == (
        "no GPU; PyTorch says: the driver is too old; NVIDIA-SMI has failed; CUDA_VISIBLE_DEVICES='3'"
    )


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("raise OSError('libtorch.so: cannot open shared object file')", "libtorch.so: cannot open shared object file"),
        ("import os; os.kill(os.getpid(), 4)", "ended with code -4"),
    ],
)
def test_doctor_lives_where_pytorch_does_not(doctor, torch, said):
    found = doctor(torch)
    assert "PyTorch does not start: " in found["PyTorch's build"]
    assert said in found["PyTorch's build"]
    assert found["GPU"].strip() == "no GPU"


@pytest.mark.parametrize(
    ("says", "gpus", "device"),
    [
        ("printf 'NVIDIA A0\\nNVIDIA A1\\n'", None, "NVIDIA A0, NVIDIA A1"),
        ("printf 'NVIDIA A0\\nNVIDIA A1\\n'", 1, "NVIDIA A0"),
        ("printf 'NVIDIA A0\\n'", 0, "the CPU"),
        ("echo NVIDIA-SMI has failed; exit 9", None, "the CPU"),
    ],
)
def test_a_run_says_where_networks_are_fitted(tmp_path, monkeypatch, says, gpus, device):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{says}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_of_fits(gpus) == f"networks are fitted on {device}"


# ---------------------------------------------------------------------------- a GPU itself


def rows_of(cli, tmp_path, name, *arguments, **environment):
    done = cli(
        "run",
        *("--methods", "all", "--tasks", "ood", "--preset", "smoke", "--seeds", 3, "--jobs", 8, "--out", name),
        *arguments,
        timeout=1800,
        **environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_parquet(tmp_path / name / "results.parquet")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_scores_on_a_gpu_are_those_of_the_cpu_within_the_noise_of_seeds(cli, tmp_path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    on_gpu = rows_of(cli, tmp_path, "gpu", "--gpus", 1)
    on_cpu = rows_of(cli, tmp_path, "cpu", CUDA_VISIBLE_DEVICES="")
    trained = on_gpu[on_gpu["log"].str.contains("trained on a GPU")]
    networks = {name for name, cls in METHODS.items() if cls.uses_gpu and not name.startswith(("scvi", "contrastive"))}
    assert set(trained["method"]) == networks
    assert not on_cpu["log"].str.contains("trained on a GPU").any()
    assert far_apart(on_gpu, on_cpu) == {}


def far_apart(one, other):
    """Methods whose scores differ by more than seeds do, with by how much.

    A network draws its noise on the device, so the seed gives another fit there. Of each task, unit and metric the
    difference of the means over the seeds, in units of its own standard error, has Student's t of 4 degrees if the
    devices do not matter, of which the median size is .74. A method's median over all of these stays below 2, as they
    depend on each other; without a network both are equal to the last digits.
    """
    keys = ["method", "task", "unit", "metric"]
    means, spreads = [], []
    for rows in (one, other):
        rows = rows[(rows["status"] == "ok") & (rows["role"] == "method") & rows["value"].notna()]
        seeds = rows.groupby(keys)["value"]
        assert (seeds.size() == 3).all()
        means.append(seeds.mean())
        spreads.append(seeds.var())
    assert set(means[0].index) == set(means[1].index)
    distance = (means[0] - means[1]).abs()
    rounding = 1e-4 * (1 + means[1].abs())
    t = distance / np.sqrt(sum(spreads) / 3 + rounding**2)
    return {method: median for method, median in t.groupby("method").median().items() if median >= 2}


def synthetic(shift):
    """Rows of three seeds of a method, moved by so many standard deviations over seeds."""
    rng = np.random.default_rng(round(10 * shift))
    rows = [
        {"method": "vae", "task": "t", "unit": f"u{unit}", "metric": metric, "value": rng.normal() + shift}
        for unit, metric, seed in itertools.product(range(8), ("mse", "recall"), range(3))
    ]
    return pd.DataFrame(rows).assign(status="ok", role="method")


def test_the_comparison_of_devices_finds_a_method_that_moved():
    assert far_apart(synthetic(0), synthetic(0.1)) == {}
    assert set(far_apart(synthetic(0), synthetic(3))) == {"vae"}
