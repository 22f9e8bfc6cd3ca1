"""Files that are made once: a spoilt one is made anew."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from tasks.datasets.built import is_whole, place, write
from tasks.simulate.ifn import IFN


def test_a_file_is_whole_for_as_long_as_it_is_what_was_written(tmp_path):
    file = tmp_path / "data"
    assert not is_whole(file)
    (tmp_path / "temporary").write_text("cells")
    place(tmp_path / "temporary", file)
    assert is_whole(file)
    file.write_text("cellz")
    assert not is_whole(file)


def test_strings_of_every_pandas_are_written_as_plain_arrays(tmp_path):
    names = pd.Index([f"cell{i}" for i in range(6)], dtype="string", name="barcode")
    obs = {
        "batch": pd.array(["a", "b", "a", "b", "a", "b"], dtype="string"),
        "sample": pd.array([f"s{i}" for i in range(6)], dtype="string"),
        "depth": np.arange(6.0),
    }
    genes = pd.DataFrame({"symbol": pd.array(["A", "B", None], dtype="string")}, index=["g0", "g1", "g2"])
    data = AnnData(np.ones((6, 3), np.float32), obs=pd.DataFrame(obs, index=names), var=genes)
    write(data, tmp_path / "data.h5ad")
    with h5py.File(tmp_path / "data.h5ad") as file:
        found = [file["obs/barcode"], file["obs/batch/categories"], file["obs/sample"], file["var/symbol/categories"]]
        assert [one.attrs["encoding-type"] for one in found] == ["string-array"] * 4
        assert file["var/_index"][:].tolist() == [b"g0", b"g1", b"g2"]
    read = anndata.read_h5ad(tmp_path / "data.h5ad")
    assert read.obs_names.tolist() == names.tolist()
    assert read.obs["batch"].to_numpy(str).tolist() == ["a", "b"] * 3
    assert read.obs["sample"].to_numpy(str).tolist() == [f"s{i}" for i in range(6)]
    assert read.obs["depth"].tolist() == list(range(6))
    assert read.var["symbol"].isna().tolist() == [False, False, True]


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
