"""The table of ``make benchmark``: each test measures one line of it, which ends the session whatever happened.

A line is a figure of ours held against a peer or a limit measured in the same session. Two callables take turns, peer,
ours, peer, ours, so that what else the machine does hits both, and are timed by the processor seconds of their one
thread, which a busy machine stretches least; a ratio is the median of the rounds' ratios. A test that is skipped, fails
on its way or compares fits that do not reach the same loss has its line too, and says so.
"""

import gc
import importlib.util
import sys
import time
from dataclasses import astuple, dataclass

import numpy as np
import pytest
from tabulate import tabulate

#: Timed rounds of each of two, after one that is not counted.
ROUNDS = 5
#: Both fits of a comparison end within this share of the loss, or two standard deviations over seeds.
SAME_LOSS = 0.002

LINES = pytest.StashKey[list["Line"]]()


def pytest_addoption(parser):
    parser.addoption("--main-job", action="store_true", help="also time the default main job from nothing, ten minutes")


def pytest_configure(config):
    config.stash[LINES] = []
    config.option.benchmark_quiet = True  # its own table has no peers
    # by a line that is skipped
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash[LINES]
    if lines:
        terminalreporter.section("performance: median [quartiles]")
        headings = ("what", "ours", "peer or limit", "ratio", "target", "reached")
        terminalreporter.write_line(tabulate([astuple(line.row) for line in lines], headings, tablefmt="github"))


@dataclass
class Row:
    """A line as it is printed."""

    what: str
    ours: str = ""
    theirs: str = ""
    ratio: str = ""
    target: str = ""
    reached: str = "not measured"


class Line:
    """One line of the table; it is in the ``extra_info`` of pytest-benchmark's ``--benchmark-json`` too."""

    def __init__(self, benchmark, lines, name):
        self.benchmark = benchmark
        self.row = Row(name)
        lines.append(self)

    def describe(self, what, *, at_most=None, faster=None):
        """Name the line and its target: ours ≤ ``at_most`` × theirs, or theirs ≥ ``faster`` × ours."""
        self.faster, self.limit = faster is not None, faster if at_most is None else at_most
        self.row.what = what
        self.row.target = f"≥ {faster:g}× faster" if self.faster else f"≤ {at_most:g}×"

    def needs(self, module, extra):
        """Skip where an optional peer is not installed."""
        if importlib.util.find_spec(module) is None:
            self.skip(f"peer not installed, pip install '.[{extra}]'")

    def skip(self, reason):
        """Skip, in the table too."""
        self.row.reached = f"skipped: {reason}"
        pytest.skip(reason)

    def alternate(self, ours, theirs, steps=1, unit="call", rounds=ROUNDS, warmup=1):
        """Time the two in turn, ``steps`` of ``unit`` in each call; return what their timed calls returned."""
        results, seconds = ([], []), ([], [])

        def turn(which, call):
            gc.collect()
            start = time.process_time()
            results[which].append(call())
            seconds[which].append(time.process_time() - start)

        self.benchmark.pedantic(
            lambda: turn(0, ours), setup=lambda: turn(1, theirs), rounds=rounds, warmup_rounds=warmup
        )
        timed = [np.array(times[warmup:]) / steps for times in seconds]
        self.compare(*timed, spell=lambda t: in_seconds(t, unit))
        return results[0][warmup:], results[1][warmup:]

    def once(self, call):
        """Time one call and return what it returned."""
        return self.benchmark.pedantic(call)

    def compare(self, ours, theirs, spell):
        """Take measured values, of several rounds or one number each."""
        ours, theirs = np.atleast_1d(ours), np.atleast_1d(theirs)
        ratios = theirs / ours if self.faster else ours / theirs
        self.ratio = float(np.median(ratios))
        self.row.ours, self.row.theirs = spell(ours), spell(theirs)
        self.row.ratio = spread(ratios)
        self.benchmark.extra_info.update(
            what=self.row.what,
            target=self.row.target,
            ours=ours.tolist(),
            theirs=theirs.tolist(),
            ratios=ratios.tolist(),
            ratio=self.ratio,
        )

    def require_same_loss(self, ours, theirs):
        """Fail, as void, unless the fits of all rounds end at the same loss within noise."""
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        noise = max(SAME_LOSS * abs(np.mean(theirs)), 2 * np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 2))
        self.benchmark.extra_info.update(losses_of_ours=ours.tolist(), losses_of_theirs=theirs.tolist())
        self.row.what += f"; loss {ours.mean():.5g} and {theirs.mean():.5g}"
        if not abs(ours.mean() - theirs.mean()) <= noise:
            self.row.reached = "void: not the same loss"
            pytest.fail(f"{self.row.what}: losses of ours {ours}, of theirs {theirs}, noise {noise:.3g}")

    def judge(self):
        """Fail where the target is missed."""
        reached = self.ratio >= self.limit if self.faster else self.ratio <= self.limit
        self.row.reached = "yes" if reached else "NO"
        self.benchmark.extra_info["reached"] = reached
        if not reached:
            pytest.fail(f"{self.row.what}: {self.row.ratio}, target {self.row.target}")


@pytest.fixture
def line(benchmark, request):
    """A new line of the table."""
    return Line(benchmark, request.config.stash[LINES], request.node.name)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Each measurement in this process is of one thread."""
    yield
    assert "torch" not in sys.modules or sys.modules["torch"].get_num_threads() == 1


def spread(values, digits=3):
    """Median and quartiles; one value alone has none."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    text = f"{median:.{digits}g}"
    return text if len(values) == 1 else f"{text} [{low:.{digits}g}, {high:.{digits}g}]"


def in_seconds(seconds, unit):
    scale, name = (1, "s") if np.median(seconds) >= 1 else (1e3, "ms")
    return f"{spread(seconds * scale)} {name}/{unit}"
