"""The page: what is on it, that it needs nothing else, and what it says where nothing can be concluded."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import leaderboard
import leaderboard.writers
from leaderboard.report import to_html

RATIOS = {"floor": 4.0, "baseline": 1.0, "ceiling": 0.1, "vae": 0.5, "pca": 1.3, "trvae": 0.25}
#: Methods that a test makes alike.
ALIKE = ("vae", "pca", "trvae")

NO_CURVES = pd.DataFrame(columns=["job_id", "term", "epoch", "value"])
NO_PICTURES = pd.DataFrame(columns=["job_id", "x", "y", "environment", "content", "trained"])


class Page(HTMLParser):
    """Tags, text, tables by id and packed data of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.tables, self.packed = [], [], {}, {}
        self._skip, self._packed, self._table = 0, None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag in ("script", "style"):
            self._skip += 1
            self._packed = attributes.get("id")
        elif tag == "table":
            self._table = self.tables.setdefault(attributes.get("id", attributes["class"]), [])
        elif self._table is not None and tag == "tr":
            self._table.append([])
        elif self._table and tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._skip -= 1
            self._packed = None
        elif tag == "table":
            self._table = None

    def handle_data(self, data):
        if self._packed:
            self.packed[self._packed] = data
        elif not self._skip:
            self.words.append(data)
            if self._table and self._table[-1]:
                self._table[-1][-1] = (self._table[-1][-1] + data).strip()

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    @property
    def data(self):
        """What the page's scripts read."""
        return json.loads(gzip.decompress(base64.b64decode(self.packed["data"])))

    @property
    def figures(self):
        return self.data["figures"]


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
    suffixes = ("intervals", "heat", "wins", "distance", "cost", "codes", "training")
    expected = {f"task-{k}-{part}" for k in (1, 2) for part in suffixes}
    assert set(parsed.figures) == expected | {"suite-default", "suite-default-wins", "disentanglement"}
    assert all(figure["data"] for figure in parsed.figures.values())
    drawn = [a["data-plot"] for tag, a in parsed.tags if tag == "figure"]
    assert sorted(drawn) == sorted(parsed.figures)
    assert "Command: python -m bench run" in parsed.text
    for text in (
        "m0, 1 job, first unit99, seed 0: failed",
        "python -m bench run --methods m0",
        "m5 on t1/sim1: cannot predict",
    ):
        assert text in parsed.text


def test_growth_is_drawn_of_methods_measured_at_four_sizes(sim):
    parts = []
    for k, n_cells in enumerate((100, 400, 1600, 6400)):
        for method, seconds in (("vae", n_cells / 10), ("pca", 1.0))[: 1 if k == 3 else 2]:
            rows = sim.rows(methods=(method,), task=f"t{k}/sim{k}", n_units=2, n_seeds=1, fit_seconds=seconds)
            parts.append(rows.assign(n_cells=n_cells, n_genes=50))
    figure = Page(render(pd.concat(parts))).figures["growth"]
    (line,) = figure["data"]  # pca has three sizes only
    assert line["name"] == "vae"
    assert line["x"] == [5e3, 2e4, 8e4, 3.2e5]
    assert line["y"] == [10.0, 40.0, 160.0, 640.0]
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
    three = Page(render(pd.concat(parts[:6])))
    assert "growth" not in three.figures
    assert "Cost against size" not in three.text


def test_words_of_others_are_no_markup(page):
    assert "<script>alert(1)" not in page
    assert "<script>alert(1)</script>" in Page(page).text


def test_cells_are_sorted_by_their_numbers(many, page):
    table = leaderboard.build(many).suites[0].frame
    orders = [float(a["data-order"]) for tag, a in Page(page).tags if tag == "td" and "data-order" in a]
    for error in table["relative_error"].dropna():
        assert any(order == pytest.approx(error, rel=1e-5) for order in orders)


def test_the_page_says_the_sentences_of_every_table(many, page):
    from leaderboard.sentences import answers

    text = Page(page).text
    for line in answers(leaderboard.build(many)):
        assert " ".join(line.partition(": ")[2].split()) in text
    assert "mcc" in text


def test_the_first_lines_agree_with_the_tables(many, page):
    """The method that a line names is better in the table of that line, with the same number, and the least one."""
    parsed = Page(page)
    header, *lines = parsed.tables["answers"]
    anchors = [
        a["href"][1:] for tag, a in parsed.tags if tag == "a" and a.get("href", "").startswith(("#task-", "#suite-"))
    ]
    assert len(lines) == len(leaderboard.build(many).tasks) + 1
    for anchor, line in zip(anchors, lines, strict=False):
        columns, *rows = parsed.tables[f"board-{anchor}"]
        of = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
        use, error, cost = (
            line[header.index(name)] for name in ("use", "its error ÷ the best simple method's", "a fit costs")
        )
        assert of[use]["verdict"] == "better ●"
        assert of[use]["relative error [95 %]"] == error
        assert cost == f"{of[use]['fit, s']} s, {of[use]['memory, MB']} MB"
        better = [name for name, row in of.items() if row["verdict"].startswith("better")]
        assert better[0] == use, "tables are in the order of relative errors"


def test_kinds_are_told_apart_in_words(sim):
    page = Page(
        to_html(
            leaderboard.build(sim.rows(methods=("vae", "pca", "own"), ratios=RATIOS | {"own": 0.9})),
            NO_CURVES,
            NO_PICTURES,
            kinds={"vae": "method", "pca": "simple"},
        )
    )
    header, *rows = page.tables["board-task-1"]
    kinds = {row[0]: row[header.index("kind")] for row in rows}
    assert kinds == {"floor": "reference", "baseline": "reference", "ceiling": "reference"} | {
        "vae": "method", "pca": "simple", "own": "method"
    }  # fmt: skip


def test_the_files_within_the_page_are_the_tables(many, page):
    files, board = (Page(page).data[name] for name in ("files", "board"))
    tasks, suites = leaderboard.writers.to_csv(leaderboard.build(many))
    assert files == {"leaderboard.csv": tasks, "leaderboard_suite.csv": suites}
    whole = json.loads(leaderboard.to_json(leaderboard.build(many), ["Command: python -m bench run", "Commit: abc"]))
    assert board.keys() == whole.keys()
    assert board["answers"] == whole["answers"]
    for task, of_page in zip(whole["tasks"], board["tasks"], strict=True):
        for row, of_row in zip(task["methods"], of_page["methods"], strict=True):
            assert of_row["relative_error"] == pytest.approx(row["relative_error"], rel=1e-5, nan_ok=True)
        assert [pair["verdict"] for pair in of_page["pairs"]] == [pair["verdict"] for pair in task["pairs"]]


def test_a_method_looks_alike_in_every_run():
    from leaderboard.plots import styles

    known = [f"method{i}" for i in range(40)]
    alone, all_ = styles(["method7", "method7@k=2"], known), styles([*known, "method7@k=2", "mine"], known)
    assert all(alone[name] == all_[name] for name in alone)
    assert len({all_[name] for name in known}) == len(known), "no two registered methods look alike"
    assert alone["method7@k=2"][0] == alone["method7"][0]
    assert alone["method7@k=2"][1].endswith("-open")


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
        (lambda sim: sim.rows(n_units=4, n_draws=1), "one draw: what another draw would give"),
        (lambda sim: sim.rows()[lambda r: r["method"] != "ceiling"], "no result of the ceiling"),
        (lambda sim: sim.rows(ratios=RATIOS | {"ceiling": 1.5}), "The ceiling's error is 1.50: there is no room"),
        (lambda sim: sim.rows(ratios=RATIOS | {"baseline": 0.0}), "the baseline has no error in 9 units"),
        (lambda sim: sim.rows(ratios=RATIOS | dict.fromkeys(ALIKE, 0.0)), "is the same for all methods"),
        (lambda sim: sim.rows().assign(value=np.nan), "nothing is compared: no result of the baseline"),
        (lambda sim: sim.rows()[lambda r: r["method"] != "floor"], "no result of the floor"),
        (lambda sim: sim.rows(methods=("vae",), n_units=1, n_seeds=1), "nothing can be concluded"),
        (lambda sim: sim.rows(preset="smoke"), "it shows that things run, not who is better"),
    ],
    ids=["empty", "one seed", "one unit", "one method", "all failed", "infinite", "no references", "constant",
         "absent", "skipped", "one draw", "no ceiling", "ceiling below baseline", "perfect baseline", "perfect methods",
         "undefined", "no floor", "one job each", "smoke"],
)  # fmt: skip
def test_a_page_says_what_cannot_be_concluded(sim, change, said):
    text = Page(render(change(sim))).text
    assert said in text
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)


def test_what_has_nothing_to_say_is_not_drawn_and_the_page_says_why(sim):
    page = Page(render(sim.rows(methods=("vae",), n_units=1)))
    assert set(page.figures) == {"task-1-intervals"}
    for reason in (
        "errors by held-out unit, as there is one",
        "one pair at most",
        "error against cost, as fewer than 4",
    ):
        assert reason in page.text


def test_failures_and_skips_are_folded_by_method_and_reason(sim):
    broken = [row for unit in "abc" for row in sim.failed("vae", unit, 0, reason="it broke")]
    refused = [row for task in ("x/s", "x/t") for row in sim.skipped("umap", "no predict", task=task)]
    text = Page(render(pd.concat([sim.rows(), pd.DataFrame(broken), pd.DataFrame(refused)]))).text
    assert "Failures: 3 jobs of 1 method" in text
    assert text.count("it broke") == 1
    assert "umap on x/s and x/t: no predict" in text


ODD = ("<b>bold</b> & <script>alert(1)</script>", "[md](x) `code` | *x* _y_", "метод ∇²", "long-name-" * 20, "a" * 300)


@pytest.fixture(scope="module")
def large():
    """60 methods, some with odd names, on 40 tasks."""
    from tests.leaderboard.conftest import rows

    rng = np.random.default_rng(0)
    methods = [*ODD, *(f"m{i:02d}" for i in range(60 - len(ODD)))]
    ratios = {"floor": 4.0, "baseline": 1.0, "ceiling": 0.1} | {m: float(np.exp(rng.normal(0, 0.5))) for m in methods}
    tasks = [f"task{k}/" + ("a-data-set-" * 12 if k == 2 else f"sim{k}") for k in range(40)]
    parts = [rows(methods=methods, n_units=3, n_seeds=1, noise=0.3, ratios=ratios, task=task) for task in tasks]
    found = pd.concat(parts, ignore_index=True)
    return found.assign(value=found["value"] * np.exp(0.02 * rng.normal(size=len(found))))


@pytest.mark.slow
def test_a_large_board_with_odd_names_stays_small(large):
    page = render(large)
    assert len(page.encode()) < 8 * 2**20
    parsed = Page(page)
    assert len(parsed.tables["answers"]) == 42
    assert len(parsed.tables["board-suite-default"]) == 1 + 63
    for name in ODD:
        assert name in [row[0] for row in parsed.tables["board-task-3"]]
    assert "<script>alert" not in page
    for name, figure in parsed.figures.items():
        ticks = figure["layout"].get("yaxis", {}).get("ticktext", [])
        assert all(len(tick) < 60 and "<" not in tick for tick in ticks), name
