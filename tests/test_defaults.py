"""The study of defaults: what it tries, how it compares, and what was kept of it."""

import numpy as np
import pandas as pd
import pytest

from methods import METHODS
from tests.defaults import FILE, FIRST, N_TRIALS, NETWORKS, OTHERS, TASKS_ASKED, compare, label, trials


@pytest.mark.parametrize("method", NETWORKS)
def test_every_network_has_the_same_number_of_trials_and_all_can_be_configured(method):
    tried = trials(method)
    assert len(tried) == N_TRIALS
    assert tried[0] == {}
    assert tried == trials(method)  # asked again, the same ones
    for changes in tried[1:]:
        assert set(changes) == set(METHODS[method].search_space())
        METHODS[method].configure(**changes)
    assert len({label(method, changes) for changes in tried}) == N_TRIALS


def test_the_error_of_a_comparison_is_of_these_tasks():
    """Two tasks that differ are no noise; draws within a task are."""
    difference = {"a": [-0.5, -0.4, -0.6], "b": [0.1, 0.1, 0.1]}
    rows = [
        {"task": task, "draw": draw, "method": method, "log_error": base + (value if method == "other" else 0.0)}
        for base, (task, values) in enumerate(difference.items())
        for draw, value in enumerate(values)
        for method in ("default", "other")
    ]
    (found,) = compare(pd.DataFrame(rows), "default").to_dict("records")
    error = np.sqrt(0.1**2 / 3) / 2
    assert found["share_of_default_s_error"] == pytest.approx(np.exp(-0.2), abs=1e-3)
    assert found["standard_error"] == pytest.approx(error, abs=1e-3)
    assert found["takes_its_place"]


def test_no_trial_that_was_kept_saw_a_draw_of_a_board():
    kept = pd.read_csv(FILE)
    assert set(kept["draw"]) <= {*FIRST, *OTHERS}
    assert min(*FIRST, *OTHERS) >= 1000
    assert set(kept["task"]) <= set(TASKS_ASKED)
    for network, rows in kept.groupby("network"):
        assert network in set(rows["method"])  # the default itself
        assert np.isfinite(rows["log_error"]).all()
