"""The real data sets, built from the original files, equal the AnnData that were made of them elsewhere."""

import lzma

import anndata
import numpy as np
import pandas as pd
import pytest
import rdata
from scipy.sparse import issparse

from tasks.datasets.base import DataError, Fields
from tasks.datasets.kang import KANG
from tasks.datasets.tcga import TCGA_MIRNA, TCGA_PAIRED, read_factors

pytestmark = pytest.mark.data

EXPECTED = {
    "tcga-paired": (TCGA_PAIRED, "tcga_paired_tumor_normal.h5ad"),
    "tcga-mirna": (TCGA_MIRNA, "tcga_mirna_counts.h5ad"),
    "kang": (KANG, "kang_scgen_valid.h5ad"),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def directories(real_data, cache, monkeypatch):
    monkeypatch.setenv("BENCH_DATA_DIR", str(real_data))
    monkeypatch.setenv("BENCH_CACHE_DIR", str(cache))


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if issparse(matrix) else np.asarray(matrix)


@pytest.mark.parametrize("name", EXPECTED)
def test_built_equals_the_reference(name, real_data):
    dataset, file = EXPECTED[name]
    if not (real_data / file).is_file():
        pytest.skip(f"{real_data} has no {file} to compare with")
    if reason := dataset.missing():
        pytest.skip(reason)
    got = anndata.read_h5ad(dataset.build())
    expected = anndata.read_h5ad(real_data / file)
    assert list(got.obs_names) == list(expected.obs_names)
    assert list(got.var_names) == list(expected.var_names)
    np.testing.assert_array_equal(dense(got.X), dense(expected.X))
    assert got.X.dtype == expected.X.dtype
    assert set(got.layers) == set(expected.layers)
    for layer in expected.layers:
        np.testing.assert_array_equal(dense(got.layers[layer]), dense(expected.layers[layer]))
    pd.testing.assert_frame_equal(got.obs, expected.obs, rtol=1e-6)
    pd.testing.assert_frame_equal(got.var, expected.var, check_index_type=False)
    assert dict(got.uns) == dict(expected.uns)


@pytest.mark.parametrize("name", EXPECTED)
def test_loaded_is_canonical(name):
    dataset, _ = EXPECTED[name]
    if reason := dataset.missing():
        pytest.skip(reason)
    data = dataset.load()
    assert isinstance(data.X, np.ndarray)
    assert data.X.dtype == np.float32
    assert data.X.flags.c_contiguous
    assert Fields.of(data) == dataset.fields
    if name == "tcga-paired":
        assert "counts" not in data.layers
        return
    counts = data.layers["counts"]
    assert counts.dtype == np.float32
    if name == "tcga-mirna":
        np.testing.assert_allclose(np.expm1(data.X.astype(float)).sum(axis=1), 1e6, rtol=1e-4)
        np.testing.assert_allclose(data.X, np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e6), rtol=1e-5)
    else:
        scaled = np.log1p(counts * 1832.5 / data.obs["n_counts"].to_numpy()[:, None])
        np.testing.assert_allclose(data.X, scaled, rtol=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_sources_are_those_of_the_collection(name, real_data):
    if not (real_data / "SOURCES.csv").is_file():
        pytest.skip(f"{real_data} has no SOURCES.csv to compare with")
    listed = pd.read_csv(real_data / "SOURCES.csv").query("data_set == @name")
    columns = ["repository", "commit", "path", "bytes", "sha256"]
    got = [tuple(getattr(source, column) for column in columns) for source in EXPECTED[name][0].sources]
    assert got == list(listed[columns].itertuples(index=False, name=None))


def test_fast_reader_equals_rdata():
    smallest = min(TCGA_MIRNA.sources, key=lambda source: source.bytes)
    if not smallest.place.is_file():
        pytest.skip(f"{smallest.place} is not there")
    columns, rows = read_factors(smallest.place)
    (expected,) = rdata.read_rda(smallest.place).values()
    assert list(columns) == list(expected.columns)
    assert list(rows) == list(expected.index)
    for name, (codes, attributes) in columns.items():
        got = [attributes["levels"][0][code - 1].decode() for code in codes]
        assert got == list(expected[name]), name


def test_reader_refuses_another_format(tmp_path):
    file = tmp_path / "other.rda"
    file.write_bytes(lzma.compress(b"RDX3\nX\n"))
    with pytest.raises(DataError, match=r"other\.rda: starts with b'RDX3"):
        read_factors(file)
