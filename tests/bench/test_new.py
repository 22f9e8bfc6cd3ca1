"""``bench new`` writes files that run as they are, and never over anything."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from bench.new import KINDS, new
from bench.plan.plugins import load_plugin
from bench.records import PlanError
from bench.studies.check.subject import Subject, differences
from metrics import METRICS
from tests.bench.conftest import ROOT
from tests.bench.test_docs import DOCS


def results(out):
    return [json.loads(file.read_text()) for file in (out / "jobs").glob("*.json")]


def commands(page):
    """The commands of a page of docs/ up to its first heading of a section."""
    opening = (DOCS / page).read_text().partition("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^    python -m bench (.*)$", opening, re.MULTILINE)]


def test_the_docs_commands_lead_from_nothing_to_a_row(inside, tmp_path):
    asked = commands("adding_a_method.md")
    assert [command[0] for command in asked] == ["new", "check", "run"]
    for command in asked:
        done = inside(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path / "runs")
    assert {result["job"]["method"] for result in found} >= {"my-vae", "vae", "pca"}
    assert {result["status"] for result in found} == {"ok"}
    # the penalty is logged among the terms of the loss, and changes the fit
    mine = [result for result in found if result["job"]["method"] == "my-vae"]
    assert all("sparsity" in " ".join(result["curves"]) for result in mine)
    scores = {
        name: [result["scores"] for result in found if result["job"]["method"] == name] for name in ("my-vae", "vae")
    }
    assert scores["my-vae"] != scores["vae"]


def test_a_new_task_with_a_new_metric_runs(inside, tmp_path):
    for kind in ("task", "metric"):
        done = inside("new", kind, f"my_{kind}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"my_{kind}.py: change it, then")
    task = tmp_path / "my_task.py"
    task.write_text(task.read_text().replace("secondary = ()", 'secondary = ("my_metric",)'))
    done = inside(
        "run", "--plugin", "my_metric.py", "--plugin", task, "--methods", "pca", "--tasks", "my-task",
        "--preset", "smoke",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {result["job"]["method"]: result["scores"] for result in results(tmp_path / "runs")}
    assert found["ceiling"] == {"reconstruction_error": 0, "my_metric": 0}
    assert 0 < found["pca"]["reconstruction_error"] < found["floor"]["reconstruction_error"]
    assert 0 < found["pca"]["my_metric"] < found["floor"]["my_metric"]


@pytest.mark.parametrize("page", ["adding_a_task.md", "adding_a_metric.md"])
def test_the_other_pages_begin_with_a_command_that_works(page, inside, tmp_path):
    (command,) = re.findall(r"`python -m bench (new .*)`", (DOCS / page).read_text())
    assert inside(*command.split()).returncode == 0
    assert (tmp_path / f"{command.split()[-1]}.py").exists()


def test_names_are_those_that_were_asked_for(tmp_path):
    file = new("method", "two_step_VAE2", tmp_path)
    text = file.read_text()
    assert load_plugin(f"{file}:TwoStepVAE2") == "two-step-VAE2"
    assert "two_step_VAE2.py:TwoStepVAE2" in text
    metric = new("metric", "gene_error", tmp_path)
    load_plugin(str(metric))
    assert METRICS["gene_error"]([[1.0, 2.0]], [[1.0, 4.0]]) == 1.0
    for kind, (template, _) in KINDS.items():
        words = template, template.replace("_", "-"), "".join(part.capitalize() for part in template.split("_"))
        text = new(kind, f"another_{kind}", tmp_path).read_text()
        assert [word for word in words if word in text] == []


def test_without_its_penalty_the_method_is_the_vae(tmp_path):
    file = new("method", "without_penalty", tmp_path)
    address = f"{file}:WithoutPenalty"
    name = load_plugin(address)
    plain = Subject("vae").found
    assert differences(plain, Subject(name, {"sparsity": 0.0}).found) == ""
    assert differences(plain, Subject(name).found) != ""


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("method", "my-vae", "'my-vae' cannot be a method's name: a Python identifier is needed, such as my_vae"),
        ("method", "lambda", "'lambda' cannot be"),
        ("task", "none", "'none' cannot be"),  # its class would be None
        ("metric", "_mine", "'_mine' cannot be"),
        ("method", "../mine", "'../mine' cannot be"),
        ("method", "beta_vae", r"method 'beta-vae' is registered already \(.* -m bench show beta-vae\)"),
        ("task", "reembedding", "task 'reembedding' is registered already"),
        ("metric", "knn_recall", "metric 'knn_recall' is registered already"),
        ("method", "torch", "torch is a module that is installed here, which torch.py would hide"),
    ],
)
def test_a_name_that_cannot_be_is_refused(kind, name, message, tmp_path):
    with pytest.raises(PlanError, match=message):
        new(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_left_as_it_is(inside, tmp_path):
    (tmp_path / "mine.py").write_text("precious")
    done = inside("new", "method", "mine")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: mine.py exists already, and is left as it is: choose another name, or move it away"
    )
    assert (tmp_path / "mine.py").read_text() == "precious"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_clean(kind, tmp_path):
    file = new(kind, f"an_own_{kind}", tmp_path)
    settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for step in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *step, *settings, str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
