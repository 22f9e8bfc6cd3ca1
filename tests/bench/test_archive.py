"""``bench export`` and ``bench import``: archives of ours arrive whole, and no other archive does anything."""

import gzip
import hashlib
import io
import json
import tarfile

import pytest
from typer.testing import CliRunner

import bench.archive
from bench.archive import MANIFEST, ArchiveError, check, export, merge
from bench.cli import app
from bench.files import sealed, unsealed
from bench.job import FORMAT, result_of
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.store import Store, StoreError

FIT = "fits/" + "ab" * 16 + ".safetensors"


@pytest.fixture(scope="module")
def cells():
    specs, plugins = choose_methods("pca", "smoke", [])
    return make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {}).jobs


@pytest.fixture
def store(tmp_path, jobs):
    """Three results, one with curves and a picture, and a fit."""
    store = Store(tmp_path / "out")
    shown = {"x": [1.0], "y": [0.0], "environment": ["a"], "content": [""], "trained": [True]}
    method = next(job for job in jobs if job.role == "method")
    others = [job for job in jobs if job.role == "reference"]
    scores = {"displacement": 0.25, "knn_recall": 0.5}
    store.write(result_of(method, "ok", "", scores=scores, curves={"kl": [2.0, 1.0]}, picture=shown))
    store.write(result_of(others[0], "ok", "", scores=scores))
    store.write(result_of(others[1], "failed", "it broke"))
    store.fits.mkdir()
    (store.out / FIT).write_bytes(bytes(range(256)) * 9000)
    return store


@pytest.fixture
def archive(store, tmp_path):
    file = tmp_path / "results.tar.gz"
    export(store, file, fits=True)
    return file


def members(file):
    with tarfile.open(file) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def pack(file, contents, manifest=None, entries=()):
    """Write an archive of (name, content) pairs; the manifest says what they are unless one is given."""
    if manifest is None:
        manifest = manifest_of(dict(contents))
    with tarfile.open(file, "w:gz") as tar:
        for name, content in [(MANIFEST, json.dumps(manifest).encode()), *contents]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in entries:
            tar.addfile(member)


def manifest_of(contents):
    files = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()}
    return {"format": FORMAT, "files": files}


def cell_files(store):
    return {file.name: file.read_text() for file in store.jobs.iterdir()}


def test_an_archive_brings_results_and_fits_to_another_directory(store, archive, tmp_path):
    done = CliRunner().invoke(app, ["import", str(archive), "--out", str(tmp_path / "two")])
    assert done.exit_code == 0, done.output
    assert "3 new, 0 here already, 0 replaced, 0 kept; 1 fits" in done.output
    two = Store(tmp_path / "two")
    assert cell_files(two) == cell_files(store)
    assert (two.out / FIT).read_bytes() == (store.out / FIT).read_bytes()
    assert two.gather().rows.equals(store.gather().rows)
    assert {"leaderboard.md", "leaderboard.html", "results.parquet", "curves.parquet"} <= {
        file.name for file in two.out.iterdir()
    }

    with two.lock():
        export(two, tmp_path / "again.tar.gz", fits=True)
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes(), "the same results make the same bytes"
    done = CliRunner().invoke(app, ["import", str(tmp_path / "again.tar.gz"), "--out", str(store.out)])
    assert "0 new, 3 here already, 0 replaced, 0 kept" in done.output


def test_fits_come_along_when_they_are_asked_for(store, tmp_path):
    done = CliRunner().invoke(app, ["export", str(tmp_path / "small.tar.gz"), "--out", str(store.out)])
    assert done.exit_code == 0
    assert done.output.startswith(f"{tmp_path / 'small.tar.gz'}: 3 files")
    assert FIT not in members(tmp_path / "small.tar.gz")
    assert sorted(members(tmp_path / "small.tar.gz")) == sorted(
        [MANIFEST, *(f"jobs/{name}" for name in cell_files(store))]
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "kept"),
    [
        (("ok", 1), ("ok", 2), "ours"),
        (("ok", 2), ("ok", 1), "theirs"),
        (("failed", 2), ("failed", 1), "theirs"),
        (("ok", 1), ("killed", 2), "theirs"),
        (("timeout", 2), ("skipped", 1), "ours"),
    ],
)
def test_of_two_results_of_a_cell_the_better_ended_then_the_later_is_kept(tmp_path, jobs, theirs, ours, kept):
    stores = {}
    for name, (status, second) in (("theirs", theirs), ("ours", ours)):
        stores[name] = Store(tmp_path / name)
        # with and without a fraction of a second, which as text would be in another order
        finished = f"2026-01-01T00:00:0{second}{'.5' if name == 'theirs' else ''}+00:00"
        stores[name].write({**result_of(jobs[0], status, name), "finished": finished})
    export(stores["theirs"], tmp_path / "a.tar.gz")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "a.tar.gz"), "--out", str(stores["ours"].out)])
    assert done.exit_code == 0, done.output
    assert stores["ours"].read(jobs[0].id)["reason"] == kept
    assert f"{jobs[0].id} differs: {'kept' if kept == 'ours' else 'replaced'}" in done.output


def test_a_result_here_that_cannot_be_read_is_replaced(store, archive):
    spoilt = next(store.jobs.iterdir())
    whole = spoilt.read_text()
    spoilt.write_text("{")
    done = merge(store, archive)
    assert done.new == [spoilt.stem]
    assert spoilt.read_text() == whole


# Each makes a hostile archive of a good one's contents, and says what the message must hold.


def traversal(file, good):
    pack(file, [*good.items(), ("../evil.json", b"{}")])
    return r"names '\.\./evil\.json'"


def absolute(file, good):
    pack(file, [*good.items(), (f"{file.parent}/evil.json", b"{}")])
    return r"evil\.json'; only jobs"


def disguised(file, good):
    pack(file, [*good.items(), ("jobs/../../evil.json", b"{}")])
    return r"names 'jobs/\.\./\.\./evil\.json'"


def script(file, good):
    pack(file, [*good.items(), ("jobs/plugin.py", b"")])
    return "only jobs/<id>.json and fits/<key>.safetensors"


def traversal_beside_the_manifest(file, good):
    pack(file, [*good.items(), ("../evil.json", b"{}")], manifest_of(good))
    return r"'\.\./evil\.json' is not in its manifest"


def extra(file, good):
    content = next(iter(good.values()))
    pack(file, [*good.items(), ("jobs/" + "f" * 16 + ".json", content)], manifest_of(good))
    return "is not in its manifest"


def twice(file, good):
    name, content = next(iter(good.items()))
    pack(file, [*good.items(), (name, content)], manifest_of(good))
    return "or twice in it"


def lacking(file, good):
    pack(file, list(good.items())[1:], manifest_of(good))
    return "1 files of its manifest are not in it"


def link(kind):
    def make(file, good):
        name, *_ = good
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        pack(file, list(good.items())[1:], manifest_of(good), [member])
        return "is no regular file"

    return make


def digest(file, good):
    manifest = manifest_of(good)
    name = next(iter(good))
    manifest["files"][name]["sha256"] = "0" * 64
    pack(file, good.items(), manifest)
    return f"{name} has SHA-256 .*; its manifest says 0000"


def other_content(file, good):
    name = next(iter(good))
    swapped = {**good, name: good[name].replace(b"0.25", b"0.99").replace(b"broke", b"worke")}
    assert swapped != good
    pack(file, swapped.items(), manifest_of(good))
    return "has SHA-256"


def size(file, good):
    manifest = manifest_of(good)
    name = next(iter(good))
    manifest["files"][name]["bytes"] -= 1
    pack(file, good.items(), manifest)
    return "its manifest says"


def bomb(file, good):
    name = next(iter(good))
    with gzip.open(file, "wb", compresslevel=9) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        text = json.dumps(manifest_of(good)).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
        member = tarfile.TarInfo(name)
        member.size = 2**30
        packed.write(member.tobuf())
        for _ in range(64):
            packed.write(bytes(2**20))
    return "is 1073741824 bytes; its manifest says"


def bomb_in_a_header(file, good):
    """A header of a name of a gigabyte, which tarfile reads into memory before anyone sees it."""
    with gzip.open(file, "wb") as packed:
        text = json.dumps(manifest_of(good)).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(text)
        packed.write(member.tobuf() + text + bytes(-len(text) % 512))
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**30
        packed.write(member.tobuf())
        for _ in range(64):
            packed.write(b"a" * 2**20)
    return "more comes out of it than its manifest says"


def bomb_after_the_end(file, good):
    pack(file, good.items())
    with gzip.open(file, "ab") as packed:
        for _ in range(16):
            packed.write(bytes(2**20))
    return "more comes out of it than its manifest says"


def huge_in_the_manifest(file, good):
    manifest = manifest_of(good)
    manifest["files"][FIT] = {"bytes": 2**50, "sha256": "0" * 64}
    pack(file, good.items(), manifest)
    return r"1125899906842624 bytes \(at most"


def truncated(file, good):
    pack(file, good.items())
    file.write_bytes(file.read_bytes()[:-200])
    return "not a whole .tar.gz"


def flipped(file, good):
    pack(file, good.items())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    return "not a whole .tar.gz|has SHA-256|manifest"


def no_gzip(file, good):
    file.write_text("hello")
    return "not a whole .tar.gz"


def no_tar(file, good):
    file.write_bytes(gzip.compress(b"hello"))
    return "not a whole .tar.gz"


def no_manifest(file, good):
    with tarfile.open(file, "w:gz") as tar:
        for name, content in good.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return "does not begin with a manifest.json"


def other_format(file, good):
    pack(file, good.items(), {**manifest_of(good), "format": FORMAT + 1})
    return f"in format {FORMAT + 1}, this version reads {FORMAT}"


def odd_manifest(file, good):
    pack(file, good.items(), {"format": FORMAT, "files": [1]})
    return "its manifest.json cannot be read"


def deep(file, good):
    pack(file, [("jobs/" + "f" * 16 + ".json", b"[" * 200_000)])
    return "cannot be read"


def changed_alone(file, good):
    name, content = next((name, content) for name, content in good.items() if b'"ok"' in content)
    pack(file, {**good, name: content.replace(b'"ok"', b'"ko"')}.items())
    return "is not as it was written"


def other_cell(file, good):
    pack(file, [("jobs/" + "f" * 16 + ".json", next(iter(good.values())))])
    return "is not the result that it is called"


def changed(**changes):
    """A result of ours with something wrong in it, in an archive with the right digests."""

    def make(file, good):
        name = next(name for name, content in good.items() if b'"kl"' in content)
        result = unsealed(good[name]) | changes
        pack(file, {**good, name: sealed(json.dumps(result).encode())}.items())
        return f"({name}|one of its results) (cannot be read|has status)"

    return make


HOSTILE = {
    **{
        make.__name__: make
        for make in (
            traversal, absolute, disguised, script, traversal_beside_the_manifest, extra, twice, lacking, digest,
            other_content, size, bomb, bomb_in_a_header, bomb_after_the_end, huge_in_the_manifest, truncated, flipped,
            no_gzip, no_tar, no_manifest, other_format, odd_manifest, deep, other_cell,
            changed_alone,
        )
    },
    "symbolic link": link(tarfile.SYMTYPE),
    "hard link": link(tarfile.LNKTYPE),
    "device": link(tarfile.CHRTYPE),
    "scores that are no numbers": changed(scores={"displacement": "high"}),
    "not a number": changed(fit_seconds=float("nan")),
    "no metrics": changed(metrics=None),
    "status": changed(status="<script>"),
    "no time": changed(finished="yesterday"),
    "broken picture": changed(picture={"x": [1.0]}),
    "broken curves": changed(curves=[1.0]),
}  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_or_broken_archive_is_refused_and_nothing_is_written(store, archive, tmp_path, make):
    good = {name: content for name, content in members(archive).items() if name.startswith("jobs/")}
    hostile = tmp_path / "hostile" / "results.tar.gz"
    hostile.parent.mkdir()
    message = make(hostile, good)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    for out in (tmp_path / "two", store.out):
        done = CliRunner().invoke(app, ["import", str(hostile), "--out", str(out)])
        assert isinstance(done.exception, ArchiveError), done.exception
        with pytest.raises(ArchiveError, match=rf"(?s)results\.tar\.gz: .*({message}).*; nothing was written$"):
            raise done.exception
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_the_good_contents_packed_as_the_hostile_ones_are_taken(archive, tmp_path):
    good = {name: content for name, content in members(archive).items() if name != MANIFEST}
    pack(tmp_path / "good.tar.gz", good.items())
    check(tmp_path / "good.tar.gz", tmp_path / "two")


def test_an_archive_that_the_disk_has_no_room_for_is_refused(archive, tmp_path, monkeypatch):
    usage = bench.archive.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(bench.archive.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ArchiveError, match="has 1000 free; nothing was written"):
        check(archive, tmp_path / "not" / "there" / "yet")


def test_a_place_that_cannot_be_written_to_is_said(store, tmp_path):
    with pytest.raises(StoreError, match=r"none/a\.tar\.gz: cannot be written"):
        export(store, tmp_path / "none" / "a.tar.gz")
    with pytest.raises(ArchiveError, match="there is no such file"):
        check(tmp_path / "none.tar.gz", tmp_path)
