"""How the metrics that a task names are given their arguments."""

import numpy as np
import pytest

from metrics import METRICS, metric
from tasks import DATASETS
from tasks.base import scored
from tasks.factors import Factors

RNG = np.random.default_rng(0)
CODES, FACTORS = RNG.normal(size=(60, 3)), RNG.integers(0, 3, (60, 2))


def test_arguments_are_found_by_the_names_of_parameters():
    scores = scored(["mig", "sap"], codes=CODES, factors=FACTORS, seed=3, unrelated=None)
    assert scores == {
        "mig": METRICS["mig"](CODES, FACTORS),
        "sap": METRICS["sap"](CODES, FACTORS, seed=3),
    }
    assert scored(["sap"], codes=CODES, factors=FACTORS) == {"sap": METRICS["sap"](CODES, FACTORS)}


def test_a_metric_without_its_arguments_is_left_out():
    assert scored(["mig", "mcc"], codes=CODES, factors=FACTORS).keys() == {"mig"}


def test_an_array_that_no_metric_of_the_task_takes_is_misspelt():
    task = Factors(DATASETS["factor-expression"], "smoke", primary_only=True)
    with pytest.raises(TypeError, match=r"factors: no metric of the task takes factrs; their parameters are .*factors"):
        task.scores(codes=CODES, factrs=FACTORS)
    # what a secondary metric takes may be handed over where the primary ones alone are asked for
    assert task.scores(codes=CODES, factors=FACTORS, seed=0).keys() <= set(task.primary)


def test_a_family_is_computed_once_and_gives_what_is_asked_for(monkeypatch):
    calls = []
    family = METRICS["dci_completeness"].family

    def counted(codes, factors, seed=0):
        calls.append(seed)
        return family(codes, factors, seed)

    names = ["dci_disentanglement", "dci_completeness"]
    for name in names:
        monkeypatch.setattr(METRICS[name], "family", counted)
    scores = scored(names, codes=CODES, factors=FACTORS, seed=1)
    assert list(scores) == names
    assert calls == [1]


def test_a_metric_of_a_plugin_needs_no_annotations():
    @metric(better="higher", low=0, high=1, paper="here")
    def of_plugin(x, scale=2.0):
        return float(x.sum() * scale)

    METRICS.register("of_plugin", of_plugin)
    try:
        assert scored(["of_plugin"], x=np.ones(2)) == {"of_plugin": 4.0}
        assert scored(["of_plugin"], x=np.ones(2), scale=1.0) == {"of_plugin": 2.0}
    finally:
        METRICS.forget("of_plugin")


def test_errors_of_a_metric_are_not_hidden():
    with pytest.raises(ValueError, match="n_samples is 59"):
        scored(["mig"], codes=CODES, factors=FACTORS[1:])
