"""The MLflow UI on a finished run's store, in a headless Chromium: filtered by tags, runs selected and compared."""

import urllib.request
from urllib.parse import quote

import pytest

from bench.keep.tracking import default_uri
from bench.keep.ui import link
from tests.bench.test_mlflow_server import free_port
from tests.waiting import wait_for

METHODS = "pca,random-projection,vae"


def answers(address):
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_runs_are_found_by_their_tags_and_compared(browser, inside, start, tmp_path):
    arguments = ("--methods", METHODS, "--tasks", "reembedding/pancancer-sim", "--preset", "smoke", "--out", "out")
    assert inside("run", *arguments).returncode == 0
    port = free_port()
    start("ui", "--out", "out", "--port", port)
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(address))

    def all_of(selector):
        return browser.find_elements("css selector", selector)

    def says(text):
        return text in browser.find_element("tag name", "body").text

    # the link that is printed: charts of the summaries, found in the one flat list
    browser.get(link(default_uri(tmp_path / "out"), address))
    wait_for(lambda: says("relative_error") and says("3 matching runs"))
    for method in METHODS.split(","):
        assert says(f"{method} · reembedding")
    browser.get("about:blank")
    found = "tags.kind = 'job' and tags.unit = 'draw0/cancer0' and tags.role = 'method'"
    browser.get(f"{address}/#/experiments/1/runs?searchFilter={quote(found)}")
    wait_for(lambda: says("3 matching runs"))

    def of_row(method, what):
        """What a script makes of the method's row, at once: the list is drawn anew again and again."""
        rows = "[...document.querySelectorAll('.ag-row')].filter(row => row.innerText.includes(arguments[0]))"
        return browser.execute_script(f"return {rows}.some(row => {what})", f"{method} · reembedding")

    box = "row.querySelector('.ag-selection-checkbox input')"
    for method in METHODS.split(","):
        wait_for(lambda method=method: of_row(method, f"{box} && ({box}.click(), true)"))
        wait_for(lambda method=method: of_row(method, "row.classList.contains('ag-row-selected')"))
    compare = wait_for(
        lambda: [button for button in all_of("button") if button.text.strip() == "Compare" and button.is_enabled()]
    )
    compare[0].click()
    wait_for(lambda: says("Comparing 3 Runs"))
    text = browser.find_element("tag name", "body").text
    for method in METHODS.split(","):
        assert f"{method} · reembedding/pancancer-sim · draw0/cancer0" in text
    for name in ("primary.knn_recall", "cost.fit_seconds", "task_version"):
        assert name in text
