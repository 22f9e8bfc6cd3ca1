"""Fetching, checking, building and loading, on a real data set that is made of two tiny files."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tasks.command_line import command
from tasks.datasets import DATASETS
from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source, add, built_directory, data_directory

ROOT = Path(__file__).parents[3]


class Server:
    """A local web server; ``answers`` maps a path to (status, promised length, body)."""

    def __init__(self, contents: dict[str, bytes]):
        self.answers = {f"/{path}": (200, len(body), body) for path, body in contents.items()}
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                status, length, body = server.answers[self.path]
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def server(tiny):
    server = Server(tiny.CONTENTS)
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def placed(tiny):
    """The tiny data set with its original files in place."""
    dataset = tiny.dataset()
    for source, content in zip(dataset.sources, tiny.CONTENTS.values(), strict=True):
        source.place.parent.mkdir(parents=True, exist_ok=True)
        source.place.write_bytes(content)
    return dataset


def files(directory: Path) -> list[str]:
    """Names of the files in a directory, without the checksums that are written beside what is built."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file() and path.suffix != ".sha256")


def builds(tmp_path: Path) -> int:
    log = tmp_path / "builds.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_address_and_place(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path))
    source = Source.github("owner/name", "c0ffee", "data/a.rda", 3, "00")
    assert source.url == "https://raw.githubusercontent.com/owner/name/c0ffee/data/a.rda"
    assert source.place == tmp_path / "raw/owner/name/c0ffee/data/a.rda"
    assert (source.bytes, source.sha256) == (3, "00")
    elsewhere = Source.first_use("https://site.org/a/b.gz", "site")
    assert elsewhere.url == "https://site.org/a/b.gz"
    assert elsewhere.place == tmp_path / "raw/site/b.gz"
    assert Source.first_use("https://site.org/files/12", "site", "b.h5ad").place == tmp_path / "raw/site/b.h5ad"
    assert Source("b.h5ad", 3, "00").place == tmp_path / "b.h5ad"


def test_directories_without_environment_variables(monkeypatch):
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    monkeypatch.delenv("BENCH_CACHE_DIR", raising=False)
    assert data_directory().name == "data"
    assert built_directory().name == "built"
    assert data_directory().parent == built_directory().parent
    assert "disentanglement-ood-bench" in built_directory().parts


# --- what is there


def test_missing_counts_the_files_and_names_the_command(tiny, tmp_path):
    message = tiny.dataset().missing()
    assert message.startswith("tiny: 2 of 2 original files are not in")
    assert str(tmp_path / "data") in message
    assert f"`{command('data', 'fetch', 'tiny')}`" in message
    assert "BENCH_DATA_DIR" in message
    with pytest.raises(DataError, match="2 of 2 original files"):
        tiny.dataset().load()


def test_nothing_is_missing_with_the_original_files(placed):
    assert placed.missing() is None


def test_a_built_file_needs_no_original_files(placed):
    placed.build()
    for source in placed.sources:
        source.place.unlink()
    assert placed.missing() is None
    assert placed.load().shape == (4, 2)


def test_verify_gives_both_sums(placed):
    placed.verify()
    source = placed.sources[0]
    wrong = b"1 2\n3 4\n5 6\n7 9\n"
    source.place.write_bytes(wrong)
    with pytest.raises(DataError) as caught:
        placed.load()
    message = str(caught.value)
    assert str(source.place) in message
    assert f"has SHA-256 {hashlib.sha256(wrong).hexdigest()}, expected SHA-256 {source.sha256}" in message
    assert "data fetch tiny" in message


# --- build and load


def test_load_is_canonical(placed, tmp_path):
    data = placed.load()
    np.testing.assert_allclose(data.X, np.log1p([[1, 2], [3, 4], [5, 6], [7, 8]]), rtol=1e-6)
    assert data.X.dtype == np.float32
    assert data.X.flags.c_contiguous
    assert Fields.of(data) == placed.fields
    placed.load("smoke")
    assert builds(tmp_path) == 1
    assert files(tmp_path / "cache") == [placed.path().name]


def test_load_checks_the_columns(placed):
    wrong = dataclasses.replace(placed, fields=Fields(environment="condition", content="celltype"))
    with pytest.raises(DataError, match="tiny: obs has no column 'celltype'"):
        wrong.load()


def test_one_draw(placed):
    with pytest.raises(ValueError, match="draw 0 alone, not 1"):
        placed.load(draw=1)


def test_digest_follows_sources_loader_and_fields(tiny, tmp_path, monkeypatch):
    dataset = tiny.dataset()
    assert dataset.digest() == tiny.dataset().digest("smoke")
    assert dataset.path().parent == tmp_path / "cache" / "built"
    assert dataset.path().name == f"tiny-{dataset.digest()[:12]}.h5ad"
    first = dataclasses.replace(dataset.sources[0], sha256="00")
    loader = tmp_path / "other_loader.py"
    loader.write_text(Path(tiny.__file__).read_text() + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    others = [
        dataclasses.replace(dataset, sources=(first, *dataset.sources[1:])),
        dataclasses.replace(dataset, fields=Fields("condition", "cell_type")),
        dataclasses.replace(dataset, builder="other_loader:build"),
        dataclasses.replace(dataset, prepare="other_loader:prepare"),
    ]
    assert len({each.digest() for each in [dataset, *others]}) == 5


def test_a_newer_build_replaces_the_older_one_alone(placed, tmp_path):
    older = placed.build()
    neighbours = ["tiny-large-0123456789ab.h5ad", "tiny-0123456789ab.h5ad.part", "other-0123456789ab.lock"]
    for name in [*neighbours, "tiny-0123456789ab.lock"]:
        (older.parent / name).write_bytes(b"")
    newer = dataclasses.replace(placed, fields=Fields("condition", "cell_type")).build()
    assert newer != older
    assert files(older.parent) == sorted([newer.name, *neighbours])


def test_a_failed_build_keeps_the_older_one(placed):
    older = placed.build()
    with pytest.raises(RuntimeError):
        dataclasses.replace(placed, builder="tiny_loader:build_nothing").build()
    assert older.is_file()


def test_failed_build_leaves_nothing(placed, tmp_path):
    broken = dataclasses.replace(placed, builder="tiny_loader:build_nothing")
    with pytest.raises(RuntimeError, match="no data set today"):
        broken.build()
    assert [name for name in files(tmp_path / "cache") if not name.endswith(".lock")] == []


def test_two_processes_build_once(placed, tmp_path):
    script = "import tiny_loader; print(tiny_loader.dataset().load().shape)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["(4, 2)\n"] * 2
    assert builds(tmp_path) == 1


def test_the_data_directory_is_only_read(placed, tmp_path):
    data = tmp_path / "data"
    before = sorted(data.rglob("*"))
    directories = [path for path in [data, *before] if path.is_dir()]
    for directory in directories:
        directory.chmod(0o555)
    try:
        placed.load()
        placed.fetch()
    finally:
        for directory in directories:
            directory.chmod(0o755)
    assert sorted(data.rglob("*")) == before


# --- fetch


def test_fetch_downloads_and_builds(tiny, server, tmp_path):
    dataset = tiny.dataset(server.url)
    built = dataset.fetch()
    assert built == dataset.path()
    assert built.is_file()
    assert sorted(server.requests) == ["/cells.txt", "/matrix.txt"]
    assert [source.place.read_bytes() for source in dataset.sources] == list(tiny.CONTENTS.values())
    assert all(source.place.stat().st_mode & 0o444 == 0o444 for source in dataset.sources)
    assert dataset.missing() is None


def test_second_fetch_downloads_nothing(tiny, server, tmp_path):
    tiny.dataset(server.url).fetch()
    server.requests.clear()
    tiny.dataset(server.url).fetch()
    assert server.requests == []
    assert builds(tmp_path) == 1


@pytest.mark.parametrize("content", [b"1 2\n3", b"1 2\n3 4\n5 6\n7 9\n"])
def test_fetch_replaces_an_incomplete_or_wrong_file(tiny, server, content):
    dataset = tiny.dataset(server.url)
    dataset.fetch()
    server.requests.clear()
    dataset.sources[0].place.write_bytes(content)
    dataset.fetch()
    assert server.requests == ["/matrix.txt"]
    dataset.verify()


def test_progress_is_drawn_when_asked(tiny, server, capfd):
    tiny.dataset(server.url).fetch(progress=True)
    assert "100%" in capfd.readouterr().err


def test_fetch_is_silent_otherwise(tiny, server, capfd):
    tiny.dataset(server.url).fetch()
    assert capfd.readouterr() == ("", "")


def test_wrong_checksum_is_refused(tiny, server, tmp_path):
    body = b"<html>log in</html>"
    server.answers["/matrix.txt"] = (200, len(body), body)
    dataset = tiny.dataset(server.url)
    with pytest.raises(DataError) as caught:
        dataset.fetch()
    message = str(caught.value)
    assert f"{server.url}/matrix.txt" in message
    assert dataset.sources[0].sha256 in message
    assert hashlib.sha256(body).hexdigest() in message
    assert files(tmp_path / "data") == []
    assert builds(tmp_path) == 0


@pytest.mark.parametrize(
    "answer", [(200, 16, b"1 2\n3"), (500, 0, b""), (404, 9, b"not found")], ids=["truncated", "500", "404"]
)
def test_failed_download_leaves_no_file(tiny, server, tmp_path, answer):
    server.answers["/matrix.txt"] = answer
    with pytest.raises(DataError) as caught:
        tiny.dataset(server.url).fetch()
    message = str(caught.value)
    assert f"{server.url}/matrix.txt could not be downloaded" in message
    assert "data fetch tiny" in message
    assert "data add" in message
    assert files(tmp_path / "data") == []


def test_failed_download_keeps_what_was_there(tiny, server):
    dataset = tiny.dataset(server.url)
    dataset.fetch()
    dataset.sources[1].place.write_bytes(b"B control\n")
    server.answers["/cells.txt"] = (200, 99, b"B")
    with pytest.raises(DataError):
        dataset.fetch()
    assert dataset.sources[0].place.read_bytes() == tiny.CONTENTS["matrix.txt"]
    assert dataset.sources[1].place.read_bytes() == b"B control\n"


def test_no_network(tiny, server, tmp_path):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DataError, match=f"{server.url}/matrix.txt could not be downloaded.*data add FILE"):
        tiny.dataset(server.url).fetch()
    assert files(tmp_path) == []


def test_a_failed_download_is_tried_again(tiny, server, monkeypatch):
    pauses = []
    monkeypatch.setattr("tasks.datasets.catalogue.RETRIES", 2)
    monkeypatch.setattr("pooch.core.time.sleep", pauses.append)
    server.answers["/matrix.txt"] = (503, 0, b"")
    with pytest.raises(DataError, match="could not be downloaded"):
        tiny.dataset(server.url).fetch()
    assert server.requests == ["/matrix.txt"] * 3
    assert pauses == [1, 2]


def test_data_directory_that_cannot_be_written(tiny, server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "file" / "data"))
    dataset = tiny.dataset(server.url)
    with pytest.raises(DataError, match=r"tiny: cannot write .*BENCH_DATA_DIR"):
        dataset.fetch()
    given = tmp_path / "given.txt"
    given.write_bytes(tiny.CONTENTS["matrix.txt"])
    with pytest.raises(DataError, match=r"tiny: cannot write .*BENCH_DATA_DIR"):
        dataset.add(given)


# --- add


def test_add_recognises_a_file_by_its_sum(tiny, tmp_path):
    given = tmp_path / "renamed by the browser (1).txt"
    given.write_bytes(tiny.CONTENTS["cells.txt"])
    dataset = tiny.dataset()
    place = dataset.add(given)
    assert place == dataset.sources[1].place
    assert place.read_bytes() == tiny.CONTENTS["cells.txt"]
    assert files(tmp_path / "data") == ["cells.txt"]
    assert "1 of 2 original files" in dataset.missing()


def test_add_refuses_another_file(tiny, tmp_path):
    given = tmp_path / "other.txt"
    given.write_bytes(b"")
    dataset = tiny.dataset()
    with pytest.raises(DataError) as caught:
        dataset.add(given)
    message = str(caught.value)
    assert str(given) in message
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" in message
    for source in dataset.sources:
        assert f"{source.sha256}  {source.path}" in message
    assert files(tmp_path / "data") == []


def test_add_compares_with_the_file_of_the_same_name(tiny, tmp_path):
    given = tmp_path / "cells.txt"
    given.write_bytes(tiny.CONTENTS["cells.txt"][:-1])
    dataset = tiny.dataset()
    with pytest.raises(DataError) as caught:
        dataset.add(given)
    assert dataset.sources[1].sha256 in str(caught.value)
    assert dataset.sources[0].sha256 not in str(caught.value)


def test_add_of_a_file_that_is_not_there(tiny, tmp_path):
    for absent in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(DataError, match=f"{absent}: cannot be read .*give the path of a file"):
            tiny.dataset().add(absent)
        with pytest.raises(DataError, match=f"{absent}: cannot be read"):
            add(absent)


# --- files that no address serves


def test_a_local_file_is_asked_for_by_name(tiny, tmp_path):
    dataset = tiny.dataset(server="")
    message = dataset.missing()
    assert f"give matrix.txt, cells.txt with `{command('data', 'add', 'FILE')}`" in message
    assert "data fetch" not in message
    with pytest.raises(DataError, match="data add FILE"):
        dataset.fetch()


def test_a_local_file_and_a_served_one(tiny):
    dataset = tiny.dataset()
    mixed = dataclasses.replace(
        dataset, sources=(dataset.sources[0], dataclasses.replace(dataset.sources[1], url="", sha256=None))
    )
    message = mixed.missing()
    assert f"run `{command('data', 'fetch', 'tiny')}` and give cells.txt with" in message
    assert f"`{command('data', 'add', 'FILE', '--name', 'tiny')}`" in message


def test_a_wrong_local_file_is_not_said_to_be_downloadable(placed, tiny):
    dataset = tiny.dataset(server="")
    dataset.sources[0].place.write_bytes(b"1 2\n")
    with pytest.raises(DataError, match=r"give the right file with `.*python.* -m bench data add FILE`"):
        dataset.fetch()


# --- files without a published checksum


@pytest.fixture
def trusted(tiny, server):
    return tiny.dataset(server.url, published=False)


def test_the_first_download_is_recorded(tiny, trusted):
    trusted.fetch()
    for source, content in zip(trusted.sources, tiny.CONTENTS.values(), strict=True):
        assert source.record.read_text() == f"{hashlib.sha256(content).hexdigest()}  {source.place.name}\n"
    digest = trusted.digest()
    trusted.sources[0].record.write_text("0" * 64 + "  matrix.txt\n")
    assert trusted.digest() != digest


def test_the_record_holds_ever_after(tiny, trusted, server, tmp_path):
    trusted.fetch()
    source = trusted.sources[0]
    recorded = source.expected()
    source.place.write_bytes(b"1 2\n3")
    trusted.path().unlink()
    with pytest.raises(DataError) as caught:
        trusted.build()
    message = str(caught.value)
    assert f"expected SHA-256 {recorded}, which it had when it was first used" in message
    assert f"delete {source.record}" in message
    trusted.fetch()  # downloads it again
    assert source.place.read_bytes() == tiny.CONTENTS["matrix.txt"]

    other = tiny.CONTENTS["matrix.txt"].replace(b"1", b"9")
    server.answers["/matrix.txt"] = (200, len(other), other)
    source.place.unlink()
    with pytest.raises(DataError, match=f"was refused, expected SHA-256 {recorded}"):
        trusted.fetch()
    source.record.unlink()
    trusted.fetch()  # the new version is accepted
    assert source.expected() == hashlib.sha256(other).hexdigest()
    assert trusted.load().X[0, 0] == np.float32(np.log1p(9))


def test_a_second_fetch_of_trusted_files_downloads_nothing(trusted, server):
    trusted.fetch()
    server.requests.clear()
    trusted.fetch()
    assert server.requests == []


def test_a_file_put_in_place_by_hand_is_recorded_at_its_first_use(tiny, trusted, server):
    for source, content in zip(trusted.sources, tiny.CONTENTS.values(), strict=True):
        source.place.parent.mkdir(parents=True, exist_ok=True)
        source.place.write_bytes(content)
    assert trusted.missing() is None
    assert trusted.load().shape == (4, 2)
    assert all(source.record.is_file() for source in trusted.sources)
    assert server.requests == []
    assert trusted.path().is_file()


def test_a_first_use_needs_a_place_for_the_record(tiny, trusted, monkeypatch):
    for source, content in zip(trusted.sources, tiny.CONTENTS.values(), strict=True):
        source.place.parent.mkdir(parents=True, exist_ok=True)
        source.place.write_bytes(content)

    def refuse(*arguments):
        raise PermissionError("read-only")

    monkeypatch.setattr("tasks.datasets.catalogue.replacing", refuse)
    with pytest.raises(DataError, match=r"tiny: cannot write .*matrix\.txt\.sha256.*read-only.*sha256sum"):
        trusted.load()


def test_a_broken_record(trusted):
    trusted.fetch()
    trusted.sources[0].record.write_text("oops\n")
    with pytest.raises(DataError, match=r"matrix\.txt\.sha256: starts with 'oops'"):
        trusted.load()
    assert "starts with 'oops'" in trusted.missing()


@pytest.mark.parametrize("suffix", [".gz", ".h5ad"])
def test_a_page_is_not_taken_for_the_file(trusted, server, suffix, tmp_path):
    page = b"<html>are you human?</html>"
    server.answers[f"/matrix{suffix}"] = (200, len(page), page)
    source = Source.first_use(f"{server.url}/matrix{suffix}", "tiny")
    dataset = dataclasses.replace(trusted, sources=(source,))
    with pytest.raises(DataError) as caught:
        dataset.fetch()
    message = str(caught.value)
    assert f"{source.url} sent was refused" in message
    assert "b'<html>are you hu'" in message
    assert "data add FILE --name tiny" in message
    assert files(tmp_path / "data") == []
    given = tmp_path / "given"
    given.write_bytes(page)
    with pytest.raises(DataError, match="given is not matrix"):
        dataset.add(given)
    assert files(tmp_path / "data") == []


def test_add_takes_a_file_without_a_checksum_by_its_name(tiny, trusted, tmp_path):
    given = tmp_path / "matrix.txt"
    given.write_bytes(tiny.CONTENTS["matrix.txt"])
    assert trusted.add(given) == trusted.sources[0].place
    assert trusted.sources[0].expected() == hashlib.sha256(tiny.CONTENTS["matrix.txt"]).hexdigest()
    renamed = given.rename(tmp_path / "again.txt")
    assert trusted.add(renamed) == trusted.sources[0].place  # its sum is known now
    renamed.write_bytes(b"other")
    with pytest.raises(DataError, match="none of its original files"):
        trusted.add(renamed)
    with pytest.raises(DataError, match=r"delete .*matrix\.txt\.sha256 if another version"):
        trusted.add(renamed.rename(given))


def test_the_only_file_of_a_data_set_may_have_any_name(tiny, trusted, tmp_path):
    single = dataclasses.replace(trusted, sources=trusted.sources[:1])
    given = tmp_path / "34464122"
    given.write_bytes(b"1 2\n")
    assert single.add(given).name == "matrix.txt"


# --- add, for all data sets


@pytest.fixture
def registered(tiny, server, monkeypatch):
    """The registry holds two data sets: tiny, and trusted without published checksums."""
    trusted = dataclasses.replace(
        tiny.dataset(server.url, published=False),
        name="trusted",
        sources=(Source.first_use(f"{server.url}/cells_of_another.txt", "trusted"),),
    )
    sim = type("Simulated", (), {"simulated": True})()
    monkeypatch.setattr(DATASETS, "_entries", {"sim": sim, "tiny": tiny.dataset(server.url), "trusted": trusted})


def test_add_finds_the_data_set(registered, tiny, tmp_path):
    given = tmp_path / "download(3)"
    given.write_bytes(tiny.CONTENTS["cells.txt"])
    assert add(given) == DATASETS["tiny"].sources[1].place
    assert DATASETS["tiny"].sources[1].place.read_bytes() == tiny.CONTENTS["cells.txt"]


def test_add_names_the_nearest_and_both_sums(registered, tiny, tmp_path):
    given = tmp_path / "matrix (1).txt"
    given.write_bytes(b"1 2\n")
    with pytest.raises(DataError) as caught:
        add(given)
    message = str(caught.value)
    assert hashlib.sha256(b"1 2\n").hexdigest() in message
    assert DATASETS["tiny"].sources[0].sha256 in message
    assert "matrix.txt of tiny" in message
    assert "\n" not in message


def test_add_without_a_published_checksum_needs_the_name(registered, tmp_path):
    given = tmp_path / "cells_of_another.txt"
    given.write_bytes(b"x")
    with pytest.raises(DataError, match=r"no published checksum: `.* -m bench data add .* --name trusted`"):
        add(given)
    assert add(given, "trusted") == DATASETS["trusted"].sources[0].place
    assert add(given) == DATASETS["trusted"].sources[0].place  # recorded now


def test_add_with_nothing_near(registered, tmp_path):
    given = tmp_path / "zzz"
    given.write_bytes(b"x")
    with pytest.raises(DataError, match=r"no original file has a similar name; `.* -m bench data list`"):
        add(given)


def test_add_to_a_simulator(registered, tmp_path):
    with pytest.raises(DataError, match="sim: is simulated"):
        add(tmp_path / "any", "sim")


def test_the_catalogue_is_light():
    script = (
        "import sys; from tasks.datasets import DATASETS; [DATASETS[name].summary for name in DATASETS]; "
        "print(sorted({'pandas', 'anndata', 'scipy', 'rdata', 'pooch', 'h5py', 'torch'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_every_entry_is_complete():
    for name in DATASETS:
        dataset = DATASETS[name]
        assert dataset.name == name
        if not isinstance(dataset, RealDataset):
            continue
        assert len(dataset.digest()) == 64
        assert dataset.summary
        assert dataset.paper
        assert dataset.licence
        places = [source.path for source in dataset.sources]
        assert len(set(places)) == len(places)


def test_a_built_file_without_its_checksum_is_missing_where_the_original_files_are(placed):
    built = placed.build()
    for source in placed.sources:
        source.place.unlink()
    assert placed.missing() is None
    built.with_name(f"{built.name}.sha256").unlink()
    assert "original files are not in" in placed.missing()
