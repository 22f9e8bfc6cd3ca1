"""The page: what is on it, that it needs nothing else, and what it says where nothing can be concluded."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import leaderboard
from leaderboard.report import to_html

#: Methods that a test makes alike.
ALIKE = ("vae", "pca", "trvae")

NO_CURVES = pd.DataFrame(columns=["job_id", "term", "epoch", "value"])
NO_PICTURES = pd.DataFrame(columns=["job_id", "x", "y", "environment", "content", "trained"])


class Page(HTMLParser):
    """Tags, text by id and scripts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.figures, self.words = [], {}, []
        self._figure, self._skip = None, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._skip += 1
            self._figure = dict(attributes).get("data-figure")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._skip -= 1
            self._figure = None

    def handle_data(self, data):
        if self._figure:
            self.figures[self._figure] = self.figures.get(self._figure, "") + data
        elif not self._skip:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def render(rows, curves=NO_CURVES, pictures=NO_PICTURES, header=()):
    return to_html(leaderboard.build(rows), curves, pictures, header)


def with_more(rows, seed=0):
    """Rows with the secondary metrics that the analyses need."""
    rng = np.random.default_rng(seed)
    jobs = rows.drop_duplicates("job_id")
    of_unit = {unit: 1 + i / 3 for i, unit in enumerate(sorted(jobs["unit"].unique()))}
    more = [
        jobs.assign(metric=name, primary=False, value=value)
        for name, value in (
            ("mcc", rng.random(len(jobs))),
            ("training_reconstruction_error", rng.random(len(jobs))),
            ("ood_distance", jobs["unit"].map(of_unit)),
        )
    ]
    return pd.concat([rows, *more], ignore_index=True)


@pytest.fixture(scope="module")
def many():
    from tests.leaderboard.conftest import failed, rows, skipped

    methods, ratios = [f"m{i}" for i in range(6)], {"floor": 4.0, "baseline": 1.0, "ceiling": 0.1}
    ratios |= {method: 1.4 - 0.2 * i for i, method in enumerate(methods)}
    tasks = [with_more(rows(methods=methods, noise=0.2, ratios=ratios, task=f"t{k}/sim{k}"), k) for k in range(2)]
    broken = pd.DataFrame(failed("m0", "unit99", 0, reason="<script>alert(1)</script>", task="t0/sim0"))
    refused = pd.DataFrame(skipped("m5", "cannot predict", task="t1/sim1"))
    return pd.concat([*tasks, broken, refused], ignore_index=True)


@pytest.fixture(scope="module")
def extras(many):
    jobs = many[(many["role"] == "method") & (many["status"] == "ok")].drop_duplicates("job_id")
    curves = pd.DataFrame(
        [(c, "validation", epoch, 10.0 / (epoch + 1)) for c in jobs["job_id"] for epoch in range(5)],
        columns=NO_CURVES.columns,
    )
    first = jobs[(jobs["unit"] == "unit00") & (jobs["seed"] == 0)]
    rng = np.random.default_rng(0)
    pictures = pd.DataFrame(
        [
            (c, *rng.standard_normal(2), "control", f"type{i % 3}", i % 4 > 0)
            for c in first["job_id"]
            for i in range(30)
        ],
        columns=NO_PICTURES.columns,
    )
    return curves, pictures


@pytest.fixture(scope="module")
def page(many, extras):
    return render(many, *extras, header=["Command: python -m bench run", "Commit: abc"])


def test_one_file_that_needs_no_other(page):
    parsed = Page(page)
    loads = [
        a for tag, a in parsed.tags if tag in ("script", "link", "img", "iframe") and (a.get("src") or a.get("href"))
    ]
    assert loads == []
    assert not re.search(r"@import|url\(['\"]?https?:", page)
    assert len(page.encode()) < 8 * 2**20


def test_every_part_is_there(page):
    parsed = Page(page)
    suffixes = ("intervals", "heat", "wins", "references", "distance", "cost", "codes", "training")
    expected = {f"task-{k}-{part}" for k in (1, 2) for part in suffixes}
    assert set(parsed.figures) == expected | {"suite-default", "suite-default-wins", "disentanglement"}
    for text in parsed.figures.values():
        figure = json.loads(text)
        assert figure["data"]
    drawn = [a["data-plot"] for tag, a in parsed.tags if tag == "figure"]
    assert sorted(drawn) == sorted(parsed.figures)
    assert "Command: python -m bench run" in parsed.text
    for text in (
        "m0, 1 job, first unit99, seed 0: failed",
        "python -m bench run --methods m0",
        "m5 on t1/sim1: cannot predict",
    ):
        assert text in parsed.text


def test_growth_is_drawn_of_methods_measured_at_three_sizes(sim):
    parts = []
    for k, n_cells in enumerate((100, 400, 1600)):
        for method, seconds in (("vae", n_cells / 10), ("pca", 1.0))[: 1 if k == 2 else 2]:
            rows = sim.rows(methods=(method,), task=f"t{k}/sim{k}", n_units=2, n_seeds=1, fit_seconds=seconds)
            parts.append(rows.assign(n_cells=n_cells, n_genes=50))
    figure = json.loads(Page(render(pd.concat(parts))).figures["growth"])
    (line,) = figure["data"]  # pca has two sizes only
    assert line["name"] == "vae"
    for key, known in (("x", [5e3, 2e4, 8e4]), ("y", [10.0, 40.0, 160.0])):
        assert _numbers(line[key]) == pytest.approx(known)
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
    two = Page(render(pd.concat(parts[:4])))
    assert "growth" not in two.figures
    assert "Cost against size" not in two.text


def _numbers(values):
    """The numbers of a trace, which plotly packs."""
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]) if isinstance(values, dict) else values


def test_words_of_others_are_no_markup(page):
    assert "<script>alert(1)" not in page
    assert "<script>alert(1)</script>" in Page(page).text


def test_cells_are_sorted_by_their_numbers(many, page):
    table = leaderboard.build(many).suites[0].frame
    orders = [float(a["data-order"]) for tag, a in Page(page).tags if tag == "td" and "data-order" in a]
    for error in table["relative_error"].dropna():
        assert any(order == pytest.approx(error) for order in orders)


def test_the_page_opens_with_the_answers_of_the_terminal(many, page):
    from leaderboard.sentences import answers

    text = Page(page).text
    for line in answers(leaderboard.build(many)):
        assert " ".join(line.partition(": ")[2].split()) in text
    assert "mcc" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sim: pd.DataFrame(), "There are no results, so nothing can be concluded"),
        (lambda sim: sim.rows(n_seeds=1, one_fit=True), "one seed, and all units from one fit"),
        (lambda sim: sim.rows(n_units=1), "one replicate: no interval and no verdict"),
        (lambda sim: sim.rows(methods=("vae",)), "one method has ok jobs"),
        (lambda sim: pd.DataFrame(sim.failed("vae", "a", 0, reason="it broke")), "it broke"),
        (lambda sim: sim.rows().assign(value=np.inf), "nothing is compared: no result of the baseline"),
        (lambda sim: sim.rows()[lambda r: r["role"] == "method"], "no result of the baseline"),
        (lambda sim: sim.rows(ratios={"floor": 4.0, "baseline": 1.0, "ceiling": 0.1} | dict.fromkeys(ALIKE, 0.5)),
         "is the same for all methods"),
        (lambda sim: pd.concat([sim.rows(), sim.rows(task="fate/sim", methods=("vae",))]),
         "not run here, so not compared: pca, trvae"),
        (lambda sim: pd.DataFrame(sim.skipped("vae", "no predict")), "no predict"),
    ],
    ids=["empty", "one seed", "one unit", "one method", "all failed", "infinite", "no references", "constant",
         "absent", "skipped"],
)  # fmt: skip
def test_a_page_says_what_cannot_be_concluded(sim, change, said):
    text = Page(render(change(sim))).text
    assert said in text
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)
