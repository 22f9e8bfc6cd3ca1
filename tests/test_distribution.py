"""What is handed out: the wheel runs without the checkout, and the recipe, the image and the citation say the same."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import jinja2
import pytest
import yaml
from packaging.specifiers import SpecifierSet

import bench

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("bench", "leaderboard", "methods", "metrics", "tasks")
#: Packages that conda-forge calls otherwise.
CONDA = {"igraph": "python-igraph", "torch": "pytorch"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build leaves files beside the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(built)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, timeout=200)
    (file,) = built.glob("*.whl")
    return file


def test_every_pin_takes_the_oldest_python_that_the_project_takes():
    """Debian 12 has 3.11.2."""
    oldest = PROJECT["requires-python"].partition(",")[0].removeprefix(">=") + ".0"
    pins = [
        line.strip().partition("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
    ]
    refused = {
        f"{name} {version}: {needs}"
        for name, _, version in pins
        if (needs := importlib.metadata.metadata(name).get("Requires-Python"))
        and importlib.metadata.version(name).partition("+")[0] == version
        and not SpecifierSet(needs).contains(oldest)
    }
    assert not refused


def test_the_wheel_has_every_file_of_the_packages(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    # what was found with the suite, and the suite does not need
    found = {f"leaderboard/{file.name}" for file in (ROOT / "leaderboard").glob("RESULTS*")}
    assert files - held == {*found, "methods/defaults.csv"}
    assert held <= files


def test_the_wheel_runs_without_the_checkout(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/*/site-packages")
    # the packages of the lock, but not the project, which they hold as a link to the checkout
    (packages / "lock.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--ignore-installed", str(wheel)], check=True, timeout=200)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def said(*command, where=tmp_path):
        return subprocess.run(command, cwd=where, env=clean, capture_output=True, text=True, check=False)

    found = said(python, "-c", "import bench, tasks; print(bench.__file__, tasks.__file__)").stdout
    assert found.split() == [str(packages / name / "__init__.py") for name in ("bench", "tasks")]
    small = ("--tasks", "unseen-cell-type/ifn-sim", "--preset", "smoke", "--executor", "inline")
    done = said(environment / "bin" / "bench", "run", "--methods", "pca", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok\nLeaderboard: " in done.stdout
    assert (tmp_path / "runs" / "leaderboard.html").exists()
    # there is no checkout whose `make env` could help
    bare = said(sys.executable, "-S", "-m", "bench", where=packages).stderr
    assert "; install the suite and its packages with `pip install " in bare


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == bench.__version__ == citation["version"] == recipe()["package"]["version"]
    assert citation["license"] == PROJECT["license"] == recipe()["about"]["license"]


def recipe():
    return yaml.safe_load(jinja2.Template((ROOT / "recipe" / "meta.yaml").read_text()).render())


def test_the_recipe_asks_for_the_packages_of_the_project():
    asked = []
    for requirement in PROJECT["dependencies"]:
        name, bound = requirement.split(">=")
        asked.append(f"{CONDA.get(name, name)} >={bound}")
    python = f"python {PROJECT['requires-python']}"
    assert sorted(recipe()["requirements"]["run"]) == sorted([python, *asked])
    assert recipe()["requirements"]["host"][0] == python
    (script,) = recipe()["build"]["entry_points"]
    assert script == "bench = " + PROJECT["scripts"]["bench"]


def test_the_image_is_given_all_that_it_is_made_of():
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert given == {*PACKAGES, "pyproject.toml", "requirements.lock", "README.md", "LICENSE"}
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "COPY . /src" in lines
    assert "FROM python:3.11-slim" in lines  # the Python that the lock is tested with
