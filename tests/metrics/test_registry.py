import inspect
import math
import pickle
import subprocess
import sys

import pytest

from metrics import METRICS, MetricInfo, Registry, UnknownName


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_says_what_it_is(name):
    function = METRICS[name]
    info = function.info
    assert isinstance(info, MetricInfo)
    assert function.__name__ == name
    assert info.better in ("higher", "lower")
    assert info.low < info.high  # false for nan, too
    # The best value is a number, or the metric has no best.
    assert math.isfinite(info.high if info.better == "higher" else info.low) or name in (
        "energy_distance",
        "likelihood_gain",
    )
    assert info.paper.strip()
    summary, blank, *_ = inspect.getdoc(function).splitlines()
    assert summary.endswith(".")
    assert not blank
    assert "Parameters\n----------" in inspect.getdoc(function)
    assert "Raises\n------" in inspect.getdoc(function)
    assert inspect.signature(function).return_annotation in ("float", "dict[str, float]")


def test_a_metric_survives_pickling():
    assert pickle.loads(pickle.dumps(METRICS["skill"])) is METRICS["skill"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="unknown metric 'knn_recal'; did you mean 'knn_recall'"):
        METRICS["knn_recal"]
    with pytest.raises(UnknownName, match=r"known: .*displacement"):
        METRICS["qqqq"]


def test_a_name_is_registered_once():
    registry = Registry("metric", {"skill": "metrics.perturbation:skill"})
    with pytest.raises(ValueError, match="metric 'skill' is registered already"):
        registry.register("skill", abs)
    registry.register("other", abs)
    assert registry["other"] is abs
    assert list(registry) == ["skill", "other"]
    assert "other" not in METRICS


def test_naming_the_metrics_loads_no_heavy_library():
    code = (
        "import sys; from metrics import METRICS; [METRICS[name].info for name in METRICS];"
        "print([name for name in ('scipy', 'sklearn', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
