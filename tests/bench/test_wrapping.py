"""The examples of docs/wrapping.md are run as they stand there, and addresses are read or refused."""

import importlib.util
import json
import re
import shlex
import signal
import sys
from pathlib import Path

import psutil
import pytest

from bench.plan import choose_methods, choose_tasks, make_plan
from bench.plan.plugins import PluginError, load_plugin
from bench.records import PlanError
from methods import METHODS
from methods.errors import ConfigError
from metrics import UnknownName
from tests.bench.conftest import ROOT
from tests.waiting import wait_for

PAGE = (ROOT / "docs" / "wrapping.md").read_text()
COMMANDS = re.findall(r"^    python -m bench (run .*)$", PAGE, re.MULTILINE)
NMF = "sklearn.decomposition:NMF"
LINEAR = "scvi.model:LinearSCVI"
INLINE = ("--executor", "inline")
IFN, PANCANCER = "unseen-cell-type/ifn-sim", "reembedding/pancancer-sim"


#: A slow machine takes a minute to start a command.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What is registered by a test is forgotten with it."""
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))


def command(part, *more):
    """The page's only command in which ``part`` is, as words; smoke and one job at a time are added."""
    (found,) = [line for line in COMMANDS if part in line]
    return [*shlex.split(found), "--preset", "smoke", "--jobs", "1", "--out", "out", *more]


def examples(directory):
    """Write the page's Python files."""
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", text).group(1)
        (directory / name).write_text(text.replace("/path/to/environment/bin/python", sys.executable))


def results(directory):
    found = {}
    for file in (directory / "out" / "jobs").glob("*.json"):
        result = json.loads(file.read_text())
        found.setdefault((result["job"]["method"], result["job"]["task"]), []).append(result)
    return found


def statuses(directory):
    return {method: {one["status"] for one in found} for (method, _), found in results(directory).items()}


# --- the page


def test_every_command_of_the_page_is_run_here():
    # an environment of its own takes minutes and a network: test_external.py makes one with an acted pip
    tested = [f"{NMF},pca", f"{NMF}@", "my_anova", LINEAR, "my_program", "external:drvi"]
    assert len(COMMANDS) == len(tested)
    assert all(command(part) for part in tested)


def test_nmf_with_pca(inside, tmp_path):
    done = inside(*command(f"{NMF},pca", *INLINE))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = (NMF, "pca", "pca@shift=regression", "floor", "baseline", "structure", "ceiling")
    assert statuses(tmp_path) == {name: {"ok"} for name in rows}
    (row, *_) = results(tmp_path)[NMF, IFN]
    assert row["job"]["config"]["n_components"] == 10
    assert row["job"]["plugins"] == [NMF]
    again = inside("replay", row["job"]["id"], "--out", "out")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "agrees" in again.stdout


def test_doses_of_nmf(inside, tmp_path):
    done = inside(*command(f"{NMF}@", *INLINE))
    assert done.returncode == 0, done.stdout + done.stderr
    found = {method: rows for (method, _), rows in results(tmp_path).items() if method.startswith(NMF)}
    sizes = {method: {row["job"]["config"]["n_components"] for row in rows} for method, rows in found.items()}
    assert sizes == {f"{NMF}@init=nndsvda@n_components={n}": {n} for n in (5, 10)}
    assert {row["status"] for rows in found.values() for row in rows} == {"ok"}


def test_a_file_and_an_address_together(inside, tmp_path):
    examples(tmp_path)
    done = inside(*command("my_anova", *INLINE))
    assert done.returncode == 0, done.stdout + done.stderr
    found = statuses(tmp_path)
    assert found["my-anova"] == found["sklearn.decomposition:FactorAnalysis"] == {"ok"}


def test_a_program(inside, tmp_path):
    examples(tmp_path)
    done = inside(*command("my_program", *INLINE))
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    scores = [
        {(row["job"]["unit"], key): value for row in found[name, IFN] for key, value in row["scores"].items()}
        for name in ("my-program", "mean-shift")
    ]
    # the same prediction in a program of its own
    assert set(scores[1]) <= set(scores[0])
    assert {key: scores[0][key] for key in scores[1]} == pytest.approx(scores[1], rel=1e-3, abs=1e-4, nan_ok=True)
    assert len(list((tmp_path / "out").rglob("*.safetensors"))) >= len(found["my-program", IFN])


@pytest.mark.skipif(
    importlib.util.find_spec("scvi") is None, reason="scvi-tools is not installed; pip install '.[scvi]'"
)
def test_a_model_of_scvi_tools(cli, tmp_path):
    done = cli(*command(LINEAR), timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = results(tmp_path)[f"{LINEAR}@max_epochs=20", IFN]
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["job"]["config"]["max_epochs"] for row in rows} == {20}
    assert "setup_anndata was told layer=counts, batch_key=environment" in rows[0]["log"]
    assert len(rows[0]["curves"]["elbo_train"]) == 20


def test_without_scvi_tools_its_models_are_skipped(inside, tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "scvi"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "scvi", None)
    done = inside(*command(LINEAR, *INLINE))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = results(tmp_path)[f"{LINEAR}@max_epochs=20", IFN]
    assert {(row["status"], row["reason"]) for row in rows} == {
        ("skipped", "scvi-tools is not installed; pip install '.[scvi]'")
    }


# --- addresses


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing_of_this_name.models:A", r"no package 'nothing_of_this_name' is installed here; pip install"),
        ("sklearn.decompositon:NMF", r"no module 'sklearn.decompositon' in the installed package 'sklearn'"),
        ("sklearn.decomposition:NFM", r"has no 'NFM'; its classes are .*NMF"),
        ("sklearn.decomposition:randomized_svd", "a function and no class 'randomized_svd'"),
        ("collections:OrderedDict", r"OrderedDict is none of these: accepted are a Method .* scvi-tools"),
        ("sklearn.manifold:TSNE", "TSNE has no transform, so that it cannot embed a cell that it was not fitted to"),
        ("sklearn.linear_model:Ridge", "Ridge has no transform"),
        ("sklearn.compose:ColumnTransformer", "ColumnTransformer needs transformers, which have no default"),
        ("sklearn.feature_selection:SelectFpr", "SelectFpr.fit needs y besides X"),
        (
            "sklearn.discriminant_analysis:LinearDiscriminantAnalysis",
            "LinearDiscriminantAnalysis.fit needs y besides X",
        ),
    ],
)
def test_what_cannot_be_a_method_is_refused_with_what_can(address, message):
    with pytest.raises(PlanError, match=f"^'{address}': .*{message}"):
        choose_methods(f"pca,{address}", "smoke", [])


def test_a_module_that_raises_is_its_cause(tmp_path, monkeypatch):
    (tmp_path / "raises_when_imported.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as raised:
        load_plugin("raises_when_imported:A")
    assert raised.value.__cause__.name == "nothing_of_this_name"


def test_a_method_of_an_installed_package_is_registered_by_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "installed_methods.py").write_text(
        "from methods.base import Method\n"
        "class Theirs(Method):\n    name = 'theirs'\n    def fit(self, data, seed):\n        return self\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (spec,), plugins = choose_methods("installed_methods:Theirs", "smoke", [])
    assert (spec.label, plugins) == ("theirs", ("installed_methods:Theirs",))
    assert load_plugin("installed_methods:Theirs") == "theirs"
    assert load_plugin("methods.linear:PCA") == "pca"


def test_settings_are_checked_before_anything_is_run():
    (spec,), _ = choose_methods(f"{NMF}@alpha_H=0.5", "smoke", [f"{NMF}.init=random"])
    assert spec.changes == {"alpha_H": 0.5, "init": "random"}
    with pytest.raises(ConfigError, match=rf"^{NMF}.init='randm': The 'init' parameter of NMF must be .* Got 'randm'"):
        choose_methods(f"{NMF}@init=randm", "smoke", [])
    with pytest.raises(ConfigError, match=f"{NMF}.n_components='auto': a int is needed"):
        choose_methods(f"{NMF}@n_components=auto", "smoke", [])
    with pytest.raises(ConfigError, match=f"{NMF} has no config key 'random_state'"):
        choose_methods(f"{NMF}@random_state=1", "smoke", [])
    with pytest.raises(UnknownName):
        choose_methods("pca", "smoke", ["sklearn.decomposition:PCA.whiten=true"])


def test_a_task_fixes_the_number_of_components_unless_the_user_says_one():
    def sizes(methods):
        specs, plugins = choose_methods(methods, "smoke", [])
        jobs = make_plan(specs, choose_tasks("latent-recovery/sparse-shift"), "smoke", 1, plugins, {}).jobs
        return {job.config["n_components"] for job in jobs if job.role == "method"}

    assert sizes(NMF) == {15}
    assert sizes(f"{NMF}@n_components=4") == {4}


def test_show_takes_an_address(inside):
    done = inside("show", NMF)
    assert done.returncode == 0, done.stderr
    assert "Non-Negative Matrix Factorization" in done.stdout
    assert re.search(r"n_components = 10  # the suite's common code size; sklearn [\d.]+: auto", done.stdout)
    assert "init = None" in done.stdout
    wrong = inside("show", "sklearn.decomposition:NFM")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


# --- a program ends with its job

SLOW = """
from methods.program import Embeds


class Slow(Embeds):
    name = "slow"
    command = ("sh", "slow.sh")
"""
SCRIPT = "sleep 600 &\necho $! > {pid}\nwait\n"


def slow(directory):
    (directory / "slow.py").write_text(SLOW)
    (directory / "slow.sh").write_text(SCRIPT.format(pid=directory / "pid"))


def grandchild(directory):
    file = directory / "pid"
    return int(wait_for(lambda: file.exists() and file.read_text().strip()))


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


RUN_SLOW = (
    "run",
    "--methods",
    "slow.py:Slow",
    "--tasks",
    PANCANCER,
    "--preset",
    "smoke",
    "--jobs",
    "1",
    "--out",
    "out",
)


@pytest.mark.slow
def test_a_program_that_outruns_its_time_is_ended_with_all_that_it_started(cli, tmp_path):
    slow(tmp_path)
    done = cli(*RUN_SLOW, "--time-limit", "0.2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert {row["status"] for row in results(tmp_path)["slow", PANCANCER]} == {"timeout"}
    assert wait_for(lambda: is_gone(grandchild(tmp_path)))


@pytest.mark.slow
def test_an_interrupt_ends_a_program_with_all_that_it_started(start, tmp_path):
    slow(tmp_path)
    head = start(*RUN_SLOW)
    pid = grandchild(tmp_path)
    head.send_signal(signal.SIGINT)
    head.communicate(timeout=120)
    assert head.returncode == 130
    assert wait_for(lambda: is_gone(pid))


def test_a_changed_script_is_another_method(tmp_path):
    slow(tmp_path)

    def ids():
        specs, plugins = choose_methods(f"{tmp_path / 'slow.py'}:Slow", "smoke", [])
        jobs = make_plan(specs, choose_tasks(PANCANCER), "smoke", 1, plugins, {}).jobs
        return [job.id for job in jobs if job.role == "method"]

    before = ids()
    assert ids() == before
    Path(tmp_path / "slow.sh").write_text("exit 0\n")
    assert not set(ids()) & set(before)
