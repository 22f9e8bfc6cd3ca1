"""The MLflow UI on a finished run's store, in a headless Chromium: filtered by tags, runs selected and compared."""

import urllib.request

from tests.bench.test_mlflow_server import free_port
from tests.waiting import wait_for

METHODS = "pca,random-projection,vae"


def answers(address):
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_runs_are_found_by_their_tags_and_compared(browser, cli, start):
    arguments = ("--methods", METHODS, "--tasks", "reembedding/pancancer-sim", "--preset", "smoke", "--out", "out")
    assert cli("run", *arguments).returncode == 0
    port = free_port()
    start("ui", "--out", "out", "--port", port)
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(address))

    def all_of(selector):
        return browser.find_elements("css selector", selector)

    browser.get(f"{address}/#/experiments/1/runs")

    def says(text):
        return text in browser.find_element("tag name", "body").text

    wait_for(lambda: says("matching runs"))  # before that, what is typed may be lost
    (box,) = all_of("input[data-testid='search-box']")
    box.send_keys("tags.task = 'reembedding' and tags.unit = 'draw0/cancer0' and tags.role = 'method'\ue007")
    # the three and, once it is loaded, the run that they belong to
    wait_for(lambda: says("3 matching runs") or says("4 matching runs"))
    # children are under the run that they belong to
    (expander,) = wait_for(lambda: all_of(".ag-row .ag-cell button"))[:1]
    expander.click()

    def row_of(method):
        return next((row for row in all_of(".ag-row") if f"\n{method} · reembedding" in row.text), None)

    for method in METHODS.split(","):
        row = wait_for(lambda method=method: row_of(method))
        browser.execute_script("arguments[0].click()", row.find_element("css selector", ".ag-selection-checkbox input"))
        # the list is drawn anew after each click
        wait_for(lambda method=method: "ag-row-selected" in row_of(method).get_attribute("class"))
    compare = wait_for(
        lambda: [button for button in all_of("button") if button.text.strip() == "Compare" and button.is_enabled()]
    )
    compare[0].click()
    wait_for(lambda: says("Comparing 3 Runs"))
    text = browser.find_element("tag name", "body").text
    for method in METHODS.split(","):
        assert f"{method} · reembedding/pancancer-sim · draw0/cancer0" in text
    for name in ("displacement", "task_version"):
        assert name in text
