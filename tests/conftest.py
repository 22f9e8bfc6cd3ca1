"""One thread a process, as in a run, before numpy is imported; the order of tests; and the browser for pages."""

import itertools
import os
import shutil

import pytest

from bench.environment import limit_threads

limit_threads()

#: Packages that a process imports or compiles for many seconds: tests that name one of them share a worker.
COSTLY = ("umap", "scvi")


@pytest.hookimpl(trylast=True)  # after options have chosen among the tests
def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that no worker is left with it at the end.

    pytest-xdist gives each worker an equal share of the list, in its order, and lets a worker that has ended take tests
    from the end of another's share. Slow tests mostly wait, for limits, servers and schedulers: one worker in three has
    them, while the others compute. Without workers the order stays.
    """
    n_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if not n_workers:
        return
    first = [[] for _ in range(n_workers)]
    rest, n_slow = [], 0
    for item in items:
        costly = [k for k, package in enumerate(COSTLY) if package in item.nodeid]
        if costly:
            first[costly[0] % n_workers].append(item)
        elif item.get_closest_marker("slow"):
            first[-1 - n_slow % max(1, n_workers // 3)].append(item)
            n_slow += 1
        else:
            rest.append(item)
    items[:] = _shared_out(first, rest)


def _shared_out(first, rest):
    """Put each worker's first tests at the beginning of its share, and the rest behind them."""
    n_left, rest = sum(map(len, first)) + len(rest), iter(rest)
    for number, share in enumerate(first):
        size = n_left // (len(first) - number)
        n_left -= size
        yield from share
        yield from itertools.islice(rest, max(0, size - len(share)))
    yield from rest


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that reaches nothing but this machine; the test is skipped where there is none."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium")
    # a page that needs the network has an error in the console
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1100", offline):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()
