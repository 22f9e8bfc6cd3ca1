"""The examples in docs/ are run as they stand there."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def example(page):
    """The name and text of the first Python block of a page."""
    (text,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return re.match(r"# (\w+\.py)\n", text).group(1), text


def test_the_examples_make_rows(inside, plugin, tmp_path):
    method, task, metric = (plugin(text, name) for name, text in map(example, PAGES))
    task.write_text(task.read_text().replace("secondary = ()", 'secondary = ("median_error",)'))
    done = inside(
        "run", "--methods", f"{method}:GeneMean,pca", "--plugin", metric, "--plugin", task,
        "--tasks", "unseen-reconstruction", "--preset", "smoke", "--out", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(file.read_text()) for file in (tmp_path / "out" / "jobs").glob("*.json")]
    found = {}
    for result in results:
        found.setdefault(result["job"]["method"], []).append(result)
    assert {result["status"] for name in ("pca", "floor", "baseline", "ceiling") for result in found[name]} == {"ok"}
    (refused,) = found["gene-mean"]
    assert refused["reason"] == "gene-mean cannot decode, which unseen-reconstruction needs"
    assert all(result["scores"]["median_error"] == 0 for result in found["ceiling"])
    error = {name: found[name][0]["scores"]["reconstruction_error"] for name in ("floor", "pca", "ceiling")}
    assert error["ceiling"] == 0 < error["pca"] < error["floor"]


PAGES = ("adding_a_method.md", "adding_a_task.md", "adding_a_metric.md")


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_the_examples(page):
    name, _ = example(page)
    assert name in (DOCS / page).read_text().partition("```python")[2].partition("```")[2]
