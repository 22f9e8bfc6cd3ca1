"""What must hold of every registered method: the checks of ``python -m bench check``, and to whom which applies."""

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from bench.studies.check import CHECKS, Missing, NotApplicable, Subject
from bench.studies.check.checks import fields_without_source
from methods import METHODS

NAMES = sorted(METHODS)
#: Their gene means are at .92 to .95 after three epochs: curvatures hold the decoder back, or dispersions are learned.
SLOW_STARTERS = {"gamma-vae": 0.9, "ivae": 0.92, "svae": 0.92, "svae-plus": 0.92}
#: They start at random shares of the genes, which three epochs do not move.
NOT_YET = {"scvi", "contrastive-vi"}
#: UMAP lays cells out together, and holds a neighbour index: it is fitted anew in each cell.
JOINT_EMBEDDING, NOT_CACHED = {"umap"}, {"umap"}
#: No change is a prediction for an environment that nobody has seen, too.
PREDICTS_ANYTHING = {"no-change"}
RANDOM = {name for name in NAMES if "vae" in METHODS[name].tags} | {"random-projection", "umap"}
#: Checks that fit nothing.
OF_THE_CLASS = list(CHECKS)[: list(CHECKS).index("fit")]
OTHERS = ("log_likelihood", "intervention_targets", "embed_blocks")


def able(name, *abilities):
    return set(abilities) <= METHODS[name].abilities()


#: Modules whose networks are not trained by the suite's loop.
OWN_LOOP = ("methods.scvi", "methods.stargan")
#: To whom a check need not apply; any other method must pass it.
EXCUSED = {
    **dict.fromkeys(("codes", "embed again", "order of cells"), lambda name: not able(name, "embed")),
    "cells alone": lambda name: not able(name, "embed") or name in JOINT_EMBEDDING,
    **dict.fromkeys(("predictions", "untrained environment"), lambda name: not able(name, "predict")),
    "decoding": lambda name: not able(name, "decode"),
    "other abilities": lambda name: not any(able(name, ability) for ability in OTHERS),
    "another seed": lambda name: name not in RANDOM,
    "save and load": lambda name: name in NOT_CACHED,
    "capture": lambda name: not METHODS[name].uses_gpu or METHODS[name].__module__ in OWN_LOOP,
}


def strict(name, check):
    """Arguments that allow no second, longer try, where three epochs are enough."""
    if check == "decoding" and name not in NOT_YET:
        return {"least": SLOW_STARTERS.get(name, 0.95), "longer": 0}
    if check == "capture":
        return {"refuse": True}
    return {"longer": 0} if check == "predictions" and name not in NOT_YET else {}


@pytest.fixture(scope="session")
def subject():
    """Each method, with one fit that its checks share."""
    return cache(Subject)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_method_keeps_its_contract(name, check, subject):
    excused = EXCUSED.get(check, lambda name: False)(name)
    applies, why = True, ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        try:
            if check not in OF_THE_CLASS:
                subject(name).found  # noqa: B018 - before any other fit of this method
            CHECKS[check](subject(name), **strict(name, check))
        except Missing as package:
            pytest.skip(str(package))
        except NotApplicable as reason:
            applies, why = False, str(reason)
    # a method that is excused from using its seed may use it all the same
    assert applies != excused or (applies and check == "another seed"), why or "it passes: excuse it no longer"


def test_exceptions_are_those_that_methods_declare():
    assert {name for name in NAMES if METHODS[name].embeds_together} == JOINT_EMBEDDING
    assert {name for name in NAMES if METHODS[name].predicts_untrained} == PREDICTS_ANYTHING


def test_no_change_predicts_no_change_for_an_environment_never_trained(subject):
    no_change = subject("no-change")
    np.testing.assert_array_equal(no_change.fitted.predict(no_change.queries, "never seen"), no_change.queries.X)


def test_a_default_without_source_is_found():
    @dataclass(frozen=True)
    class Config:
        with_source: int = 1  # ours
        without: int = 2
        # theirs
        above: tuple[int, ...] = (
            1,
            2,
        )
        bare: float = 0.5  #

    assert fields_without_source(Config) == (["with_source", "without", "above", "bare"], ["without", "bare"])
