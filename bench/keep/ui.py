"""The MLflow UI on a run's store: a server for this machine alone, and the link to the page worth opening."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import urllib.request
import webbrowser
from urllib.parse import urlencode

from bench.keep.tracking import EXPERIMENT, SUMMARY, quiet_environment

#: Seconds in which a server is expected to answer.
PATIENCE = 60


def link(uri: str, address: str) -> str:
    """Return the link to the summaries as charts, the smallest relative error first.

    Parameters
    ----------
    uri
        The tracking address that the UI shows.
    address
        Where the UI is.
    """
    from mlflow import MlflowClient

    experiment = MlflowClient(uri).get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return address
    query = {
        "workflowType": "machine_learning",
        "searchFilter": f"tags.kind = '{SUMMARY}' and tags.role = 'method'",
        "orderByKey": "metrics.`relative_error`",
        "orderByAsc": "true",
        "compareRunsMode": "CHART",
    }
    return f"{address}/#/experiments/{experiment.experiment_id}/runs?{urlencode(query)}"


def command(uri: str, port: int) -> list[str]:
    """Return the command of a server on this machine's loopback address."""
    return [
        *(sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def serve(uri: str, port: int) -> None:
    """Become the server; a child opens the page in a browser, where there is one, as soon as the server answers.

    A tracking server has a UI of its own, which is opened.
    """
    if uri.startswith("http"):
        page = link(uri, uri.rstrip("/"))
        print(f"MLflow UI: {page}")
        if has_browser():
            webbrowser.open(page)
        return
    address = f"http://127.0.0.1:{port}"
    page = link(uri, address)
    print(f"MLflow UI (Ctrl-C ends it): {page}", flush=True)
    if has_browser() and os.fork() == 0:
        open_page(address, page)
        os._exit(0)
    os.environ.update(quiet_environment())
    server = command(uri, port)
    os.execv(server[0], server)


def has_browser() -> bool:
    """Return whether a page would open in a window: a browser in a terminal would take the terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))


def open_page(address: str, page: str) -> None:
    """Open a page once its server answers; nothing happens where it never does."""
    for _ in range(PATIENCE):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=1):
            webbrowser.open(page)
            return
        time.sleep(1)
