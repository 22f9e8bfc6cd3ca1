"""The documentation, as ``make docs`` builds it: every link leads somewhere, and nothing comes from elsewhere."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml

from methods import METHODS
from metrics import METRICS
from tasks import DATASETS, TASKS
from tests.bench.conftest import ROOT
from tests.waiting import wait_for

DOCS = ROOT / "docs"
#: Tags and the attributes by which a browser loads something for a page.
LOADING = {(tag, "src") for tag in ("script", "img", "iframe", "source", "video", "audio")} | {("object", "data")}
PACKAGES = ("bench", "methods", "tasks", "metrics", "leaderboard")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr  # strict: a link or anchor that leads nowhere is an error
    return directory


class Loaded(HTMLParser):
    """What a browser loads for a page."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for of, name in LOADING if of == tag and given.get(name)]
        if tag == "link" and given.get("rel") != "canonical":
            self.addresses.append(given["href"])


def test_no_page_loads_anything_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(METHODS) + len(METRICS) + len(TASKS) + len(DATASETS)
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert loaded.addresses
        assert [a for a in loaded.addresses if re.match(r"(\w+:)?//", a)] == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)", style.read_text()) == [], style


def test_everything_registered_has_a_page(site):
    for kind, registry in (("methods", METHODS), ("tasks", TASKS), ("metrics", METRICS), ("data", DATASETS)):
        assert {file.stem for file in (site / kind).glob("*.html")} == {*registry, "index"}
    page = (site / "methods" / "gamma-vae.html").read_text()
    assert "penalises the curvature of its decoder" in page
    assert "<code>parameter_effects</code>" in page
    assert 'href="../decisions/0016-' in page


def test_nothing_generated_is_in_the_repository(site):
    for kind in ("methods", "tasks", "metrics", "data"):
        assert not (DOCS / kind).exists()
    assert not (site / "hooks.py").exists()


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"])))
    assert {file.name for file in DOCS.glob("*.md")} <= named


def test_a_page_works_in_a_browser_without_a_network(site, browser):
    browser.get("about:blank")
    browser.get_log("browser")
    for page in ("index.html", "methods/gamma-vae.html", "metrics/mig.html"):
        for width in (1400, 390):
            size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 800}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get((site / page).as_uri())
            wider = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            assert wider <= 0, (page, width)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_search_finds_a_page_without_a_server(site, browser):
    browser.get((site / "concepts.html").as_uri())
    browser.execute_script(
        "const field = document.querySelector('input.md-search__input');"
        "field.focus(); field.value = 'gamma-vae'; field.dispatchEvent(new Event('keyup'))"
    )
    found = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    wait_for(lambda: browser.execute_script(found))
    pages = [re.split("[?#]", link)[0] for link in browser.execute_script(found)]
    assert (site / "methods" / "gamma-vae.html").as_uri() in pages


def templates():
    """Every text in the source, with … for what is put in when it is printed."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_message_that_is_explained_is_one_that_the_suite_has():
    messages = re.findall(r"^#### `(.+)`$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert len(messages) > 30
    known = list(templates())
    assert [message for message in messages if not any(message in text for text in known)] == []
