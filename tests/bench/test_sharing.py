"""One search for the neighbours of the same codes in the evaluation of a job, whatever the number of metrics."""

from collections import Counter

import pytest

from bench.jobs.job import run_job
from bench.plan import choose_methods, choose_tasks, make_plan
from metrics import neighbours


@pytest.mark.parametrize("task", ["reembedding/pancancer-sim", "shared-private/splatter-groups"])
def test_no_codes_are_searched_twice(task, monkeypatch):
    specs, plugins = choose_methods("pca", "smoke", [])
    plan = make_plan(specs, choose_tasks(task), "smoke", 1, plugins, {})
    searches, exact = Counter(), neighbours._exact

    def counted(points, k):
        searches[points.tobytes()] += 1
        return exact(points, k)

    monkeypatch.setattr(neighbours, "_exact", counted)
    result = run_job(next(job for job in plan.jobs if job.role == "method"), None)
    assert result.status == "ok", result.reason
    # trustworthiness and continuity ask for the same two, knn_recall for two others; iLISI for one
    assert list(searches.values()) == [1] * (4 if "reembedding" in task else 1)
