"""Recipes of external packages: their environments are made once, and one that cannot be made is a sentence."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from bench.describe import list_of, listed
from bench.plan.plugins import load_plugin
from bench.records import PlanError
from methods import METHODS
from methods.errors import CannotFit
from methods.external import RECIPES, recipe, recipes
from methods.external.environment import FAILED, External

RECIPE = """
from methods.external.environment import External
from methods.program import Embeds

class Tiny(External, Embeds):
    '''A recipe of a test.'''
    name = "external:tiny"
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A recipe without packages, in a folder of its own; environments are kept in a directory of the test's."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "tiny_recipe.py").write_text(RECIPE)
    (folder / "requirements.txt").write_text("")
    (folder / "program.py").write_text("import sys; sys.exit(0)")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "tiny_recipe", raising=False)
    from tiny_recipe import Tiny

    return Tiny, folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_pins_every_package_and_its_program_imports_nothing_of_ours(name):
    cls = recipe(name)
    assert cls.name == f"external:{name}"
    assert issubclass(cls, External)
    assert cls.paper
    assert cls.abilities() & {"embed", "predict"}
    pins = (files(f"methods.external.{name}") / "requirements.txt").read_text().split()
    assert pins
    assert all("==" in pin for pin in pins)
    program = (files(f"methods.external.{name}") / "program.py").read_text()
    assert not any(f"import {package}" in program for package in ("bench", "methods", "tasks", "metrics"))
    assert not any(f"from {package}" in program for package in ("bench", "methods", "tasks", "metrics"))


def test_a_recipe_is_named_by_its_address_and_is_in_no_all():
    assert set(recipes()).isdisjoint(METHODS)
    assert load_plugin("external:drvi") == "external:drvi"
    METHODS.forget("external:drvi")
    with pytest.raises(PlanError, match="there is no recipe 'unheard'; there are external:drvi"):
        load_plugin("external:unheard")


def test_an_environment_is_made_once_and_says_what_it_does(tiny, monkeypatch):
    cls, folder = tiny
    monkeypatch.setattr(subprocess, "run", quick(monkeypatch))
    said = []
    before = cls.depends()
    assert not cls.is_made()
    with pytest.raises(CannotFit, match="external:tiny: its environment is not made yet; bench run makes it"):
        cls().program()
    cls.provide(said.append)
    assert cls.is_made()
    assert cls.depends() != before  # what was skipped is run now
    assert [line.partition(": ")[0] for line in said] == ["external:tiny"] * len(said)
    assert "1 of 2: Python" in said[0]
    assert "made in" in said[-1]
    assert set(json.loads((cls.place() / "made.json").read_text())) == {"seconds", "megabytes"}
    assert cls().program()[0].endswith("bin/python")
    said.clear()
    cls.provide(said.append)
    assert said == []
    (folder / "requirements.txt").write_text("numpy==1.0\n")
    assert not cls.is_made()  # other pins are another environment


def quick(monkeypatch, fails=""):
    """``subprocess.run`` that makes no environment: it notes directories, and fails at a word."""
    real = subprocess.run

    def run(words, **options):
        if "venv" in words:
            (Path(words[-1]) / "bin").mkdir(parents=True)
            return subprocess.CompletedProcess(words, 0, "", "")
        if "pip" in words:
            code = int(bool(fails) and any(fails in word for word in words))
            return subprocess.CompletedProcess(words, code, "", f"noise\nERROR: {fails} is not to be had\n\n")
        return real(words, **options)

    return run


def test_an_environment_that_cannot_be_made_is_one_sentence_and_fits_are_skipped_with_it(tiny, monkeypatch):
    cls, folder = tiny
    (folder / "requirements.txt").write_text("torch==0.0\nother==1.0\n")
    monkeypatch.setattr(subprocess, "run", quick(monkeypatch, "torch==0.0"))
    said = []
    cls.provide(said.append)
    sentence = "external:tiny: its environment could not be made, at torch==0.0: torch==0.0 is not to be had"
    assert said[-1] == sentence
    assert not cls.place().exists()  # nothing half made is left
    assert cls.place().with_suffix(FAILED).is_file()
    with pytest.raises(CannotFit) as caught:
        cls().program()
    assert str(caught.value) == sentence
    # the next run tries again
    monkeypatch.setattr(subprocess, "run", quick(monkeypatch))
    cls.provide(said.append)
    assert cls.is_made()


def test_listing_says_which_environments_are_made(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    (row,) = (row for row in listed("methods") if row["name"] == "external:drvi")
    assert row["made"] is False
    (shown,) = (row for row in list_of("methods")[1] if row[0] == "external:drvi")
    assert shown[-1].endswith("(a run makes its environment)")


def made(name):
    """The class of a recipe whose environment is made here; else the test is skipped."""
    cls = recipe(name)
    if not cls.is_made():
        pytest.skip(f"the environment of {cls.name} is not made here; bench run --methods {cls.name} makes it")
    return cls


@pytest.fixture
def cells(labelled):
    """Sixty cells of two environments, with counts."""
    counts = np.random.default_rng(0).poisson(3.0, (60, 40)).astype(np.float32)
    out = labelled(np.log1p(counts), np.repeat(["control", "other"], 30))
    out.layers["counts"] = counts
    return out


@pytest.mark.parametrize("name", [name for name in RECIPES if "embed" in recipe(name).abilities()])
def test_codes_do_not_depend_on_the_other_cells(name, cells):
    cls = made(name)
    method = cls(cls.configure("smoke", n_latent=4)).fit(cells, 0)
    codes = method.embed(cells)
    assert codes.shape == (cells.n_obs, 4)
    np.testing.assert_allclose(method.embed(cells[:10].copy()), codes[:10], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in RECIPES if "predict" in recipe(name).abilities()])
def test_predictions_depend_on_the_environment_and_one_that_was_not_trained_is_refused(name, cells):
    cls = made(name)
    method = cls(cls.configure("smoke", n_latent=4)).fit(cells, 0)
    first = cells[:11].copy()
    own, other = method.predict(first, "control"), method.predict(first, "other")
    assert own.shape == other.shape == first.shape
    assert not np.allclose(own, other)
    np.testing.assert_allclose(method.predict(cells[:1].copy(), "other"), other[:1], atol=1e-4)
    with pytest.raises(CannotFit, match="was not trained on environment 'unheard'"):
        method.predict(first, "unheard")


def test_biolord_predicts_training_cells_alone(cells):
    cls = made("biolord")
    method = cls(cls.configure("smoke", n_latent=4)).fit(cells[:50].copy(), 0)
    with pytest.raises(CannotFit, match="has codes of its training cells alone"):
        method.predict(cells[45:].copy(), "other")
