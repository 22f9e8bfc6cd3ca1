"""The whole fault campaign: ``make faults``; a short form of it is in tests/bench/test_faults.py.

Every test starts a command, does it harm, gives the same command again and compares the rows with those of a run that
nothing disturbed: none lost, none doubled, none changed, and in MLflow each cell once. Figures are printed.
"""

import contextlib
import http.client
import http.server
import random
import shutil
import subprocess
import threading
import time

import pytest

from tests.bench.test_mlflow_server import server  # noqa: F401 - a fixture
from tests.faults.campaign import KINDS, WAYS, Bench, assert_same, corrupt, kill_at_random, wait_for_results
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(3600)
N_WORKERS, N_HEADS = 200, 30


def made(directory, seeds, **options):
    """A command, and the rows that it ends with when nothing disturbs it."""
    bench = Bench(directory, seeds, environment={"BENCH_CACHE_DIR": str(directory / "cache")}, **options)
    rows = bench.finish()
    assert (rows["status"] == "ok").all()
    return bench, rows


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return made(tmp_path_factory.mktemp("small"), 1)


def test_kills(tmp_path):
    bench, undisturbed = made(tmp_path, 5)
    assert undisturbed["job_id"].nunique() == 100
    shutil.rmtree(bench.out)
    kills = kill_at_random(bench, N_WORKERS, N_HEADS, seed=0)
    print(f"\nkills over 100 cells: {kills}")
    assert_same(bench.finish(), undisturbed)


@pytest.mark.parametrize("way", WAYS)
def test_corrupt_files(small, way):
    bench, undisturbed = small
    spoilt = corrupt(bench, list(KINDS), way, random.Random(way))
    print(f"\n{way}: {spoilt} files of {len(KINDS)} kinds")
    assert_same(bench.finish(), undisturbed)


@pytest.mark.parametrize("way", WAYS)
def test_corrupt_mlflow(small, way):
    bench, undisturbed = small
    database = bench.out / "mlflow.db"
    WAYS[way](database, random.Random(way))
    if way not in ("empty", "gone"):
        done = bench.run()
        assert done.code == 1
        assert "is damaged" in done.said
        assert "move it away" in done.said
        database.rename(bench.directory / f"mlflow.db.{way}")
    assert_same(bench.finish(), undisturbed)


def test_everything_but_the_results_is_lost(small):
    bench, undisturbed = small
    for path in bench.out.iterdir():
        if path.name != "jobs":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(bench.directory / "cache")
    assert_same(bench.finish(), undisturbed)


@contextlib.contextmanager
def tmpfs(directory, size):
    """A small file system; the test is skipped where it may not be mounted."""
    directory.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", directory], check=True)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def clean_out(bench):
    """Take away the out directory of the run before."""
    if bench.out.is_symlink():
        bench.out.unlink()
    shutil.rmtree(bench.out, ignore_errors=True)


@pytest.mark.parametrize("size", ["16k", "64k", "200k", "400k", "800k", "1500k", "3m"])
def test_a_full_disk(tmp_path, size, small):
    bench, undisturbed = small
    clean_out(bench)
    with tmpfs(tmp_path / "disk", size) as remount:
        bench.out.symlink_to(tmp_path / "disk")
        done = bench.run()
        print(f"\n{size}: exit code {done.code}: {done.said.splitlines()[-1][-200:]}")
        assert done.code == 1
        remount("size=200m")
        assert_same(bench.finish(), undisturbed)
        bench.out.unlink()


def test_a_directory_that_becomes_read_only(tmp_path, small):
    bench, undisturbed = small
    clean_out(bench)
    with tmpfs(tmp_path / "disk", "200m") as remount:
        bench.out.symlink_to(tmp_path / "disk")
        with bench.started():
            wait_for_results(bench, 5)  # and is killed then
        # what dies with the head holds its log open a moment longer
        command = ["mount", "-o", "remount,ro", tmp_path / "disk"]
        wait_for(lambda: not subprocess.run(command, capture_output=True, check=False).returncode)
        done = bench.run()
        assert done.code == 2
        assert "not writable" in done.said
        remount("rw")
        assert_same(bench.finish(), undisturbed)
        bench.out.unlink()


def test_a_directory_that_vanishes_and_comes_back(small):
    bench, undisturbed = small
    clean_out(bench)
    with bench.started() as head:
        wait_for_results(bench, 5)
        bench.out.rename(bench.directory / "away")
        head.wait(timeout=300)
    done = bench.ended(head)
    print(f"\nvanished: exit code {done.code}: {done.said.splitlines()[-1][-200:]}")
    assert done.code == 1
    shutil.rmtree(bench.out, ignore_errors=True)
    (bench.directory / "away").rename(bench.out)
    assert_same(bench.finish(), undisturbed)


@pytest.mark.parametrize("kind", ["full", "absent"])
def test_no_room_for_temporary_files(tmp_path, small, kind):
    bench, undisturbed = small
    clean_out(bench)
    with tmpfs(tmp_path / "tmp", "4k") if kind == "full" else contextlib.nullcontext():
        if kind == "full":
            with contextlib.suppress(OSError):
                (tmp_path / "tmp" / "filler").write_bytes(bytes(100_000))
        bench.environment["TMPDIR"] = str(tmp_path / "tmp")
        try:
            assert_same(bench.finish(), undisturbed)
        finally:
            del bench.environment["TMPDIR"]


def test_a_full_cache(tmp_path, small):
    bench, undisturbed = small
    clean_out(bench)
    cache = bench.environment["BENCH_CACHE_DIR"]
    with tmpfs(tmp_path / "cache", "64k") as remount:
        bench.environment["BENCH_CACHE_DIR"] = str(tmp_path / "cache")
        try:
            done = bench.run()
            print(f"\nfull cache: exit code {done.code}: {done.said.splitlines()[-1][-200:]}")
            assert done.code == 1
            remount("size=200m")
            assert_same(bench.finish(), undisturbed)
        finally:
            bench.environment["BENCH_CACHE_DIR"] = cache


def test_memory_hogs(tmp_path):
    """Cells that hold too much are ended alone; tamed, they finish."""
    bench = Bench(tmp_path, 1, "cheap,hog", ("--memory-limit", "0.9"), {"BENCH_CACHE_DIR": str(tmp_path / "cache")})
    done = bench.run()
    assert done.code == 1
    rows = bench.rows()
    status = rows.groupby("method")["status"].unique()
    assert {method: set(found) for method, found in status.items() if method.startswith("hog")} == {
        f"hog{number}": {"out_of_memory"} for number in range(3)
    }
    assert set(rows.loc[~rows["method"].str.startswith("hog"), "status"]) == {"ok"}
    bench.environment["TAMED"] = "1"
    rows = bench.finish()
    assert (rows["status"] == "ok").all()
    assert rows["job_id"].nunique() == 26


class Bad(http.server.BaseHTTPRequestHandler):
    """Between the client and a tracking server: passes on, answers 500, hangs up, or passes on and loses the answer."""

    address = ""
    rng = random.Random(0)
    counts: dict[str, int] = {}  # noqa: RUF012

    def do_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        does = self.rng.choices(["pass", "500", "hang up", "lose", "slow"], [80, 6, 3, 8, 3])[0]
        self.counts[does] = self.counts.get(does, 0) + 1
        if does == "slow":
            time.sleep(4)
        if does in ("pass", "lose", "slow"):
            connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=60)
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
            kind = answer.getheader("Content-Type", "")
            connection.close()
        if does in ("500", "lose"):
            status, content, kind = 500, b"{}", "application/json"
        if does != "hang up":
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any

    def log_message(self, *arguments):
        pass


def test_an_unreliable_tracking_server(tmp_path, small, server):  # noqa: F811
    """What a server refuses, is slow with or loses the answer to is logged by a later run, exactly once."""
    bench, undisturbed = small
    clean_out(bench)
    address = server(f"sqlite:///{tmp_path / 'server.db'}")
    bad = type("BadHere", (Bad,), {"address": address, "counts": {}})
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bad)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    port = proxy.server_address[1]
    options, uri = bench.options, bench.uri
    bench.options, bench.uri = ("--mlflow-uri", f"http://127.0.0.1:{port}"), address
    bench.environment |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}
    try:
        runs = 1
        while (done := bench.run()).code:
            assert "results are safe" in done.said
            runs += 1
            assert runs < 40
        bench.check_mlflow(bench.rows())
        assert_same(bench.rows(), undisturbed)
        print(f"\nrequests: {bad.counts}; the same command was given {runs} times")
    finally:
        proxy.shutdown()
        bench.options, bench.uri = options, uri
        for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"):
            del bench.environment[name]
