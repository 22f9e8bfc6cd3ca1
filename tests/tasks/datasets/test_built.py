"""Files that are made once: a spoilt one is made anew."""

import numpy as np
import pytest

from tasks.datasets.built import is_whole, place
from tasks.simulate.ifn import IFN


def test_a_file_is_whole_for_as_long_as_it_is_what_was_written(tmp_path):
    file = tmp_path / "data"
    assert not is_whole(file)
    (tmp_path / "temporary").write_text("cells")
    place(tmp_path / "temporary", file)
    assert is_whole(file)
    file.write_text("cellz")
    assert not is_whole(file)


def test_a_file_without_a_checksum_is_not_trusted(tmp_path):
    file = tmp_path / "data"
    file.write_text("cells")
    assert not is_whole(file)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("spoil", [lambda content: b"", lambda content: content[: len(content) // 2]])
def test_a_spoilt_simulation_is_made_anew(tmp_path, monkeypatch, spoil, recorded):
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    made = IFN.load("smoke")
    (file,) = (tmp_path / "built" / "simulated").glob("*.h5ad")
    file.write_bytes(spoil(file.read_bytes()))
    if not recorded:
        file.with_name(f"{file.name}.sha256").unlink()
    again = IFN.load("smoke")
    np.testing.assert_array_equal(made.X, again.X)
    assert is_whole(file)
