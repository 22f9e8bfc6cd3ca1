"""The real data sets, built from the original files, equal the AnnData that were made of them elsewhere."""

import lzma

import anndata
import numpy as np
import pandas as pd
import pytest
import rdata
from scipy.sparse import issparse

from tasks.datasets import DATASETS
from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import Source
from tasks.datasets.tcga import TCGA_MIRNA, read_factors

pytestmark = pytest.mark.data

EXPECTED = {
    "tcga-paired": "tcga_paired_tumor_normal.h5ad",
    "tcga-mirna": "tcga_mirna_counts.h5ad",
    "gtex": "gtex_26tissues_tfs.h5ad",
    "kang": "kang_scgen_valid.h5ad",
    "norman-mini": "perturbench_norman19_mcfaline23.h5ad",
    "marques": "marques_oligodendrocytes.h5ad",
    "pbmc-3tech": "pbmc_3tech_symphony.h5ad",
    "larry-mini": "larry_cospar_test.h5ad",
    "paul15": "paul15_myeloid.h5ad",
}
COUNTS = {"tcga-mirna": 1e6, "kang": None, "marques": 1e4, "paul15": 1e4}  # and the sum that X was scaled to
COLLECTED = {"gtex": "gtex-tf"}  # named differently in the collection


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
    dataset, file = DATASETS[name], EXPECTED[name]
    if not (real_data / file).is_file():
        pytest.skip(f"{real_data} has no {file} to compare with")
    if reason := dataset.missing():
        pytest.skip(reason)
    got = anndata.read_h5ad(dataset.build())
    expected = anndata.read_h5ad(real_data / file)
    assert list(got.obs_names) == list(expected.obs_names)
    if name == "gtex":
        # The collection took symbols for 289 of the 467 genes from a table that is not among the original files.
        symbols = ~expected.var_names.str.startswith("ENTREZ")
        assert symbols.sum() == 289
        assert list(got.var_names) == [f"ENTREZ{number}" for number in expected.var["entrez"]]
        assert list(got.var_names[~symbols]) == list(expected.var_names[~symbols])
        expected.var_names = got.var_names
    assert list(got.var_names) == list(expected.var_names)
    np.testing.assert_array_equal(dense(got.X), dense(expected.X))
    assert got.X.dtype == expected.X.dtype
    assert set(got.layers) == set(expected.layers)
    for layer in expected.layers:
        np.testing.assert_array_equal(dense(got.layers[layer]), dense(expected.layers[layer]))
    assert set(got.obsm) == set(expected.obsm)
    for key in expected.obsm:
        np.testing.assert_array_equal(dense(got.obsm[key]), dense(expected.obsm[key]))
    pd.testing.assert_frame_equal(got.obs, expected.obs, rtol=1e-6)
    pd.testing.assert_frame_equal(got.var, expected.var, check_index_type=False)
    assert dict(got.uns) == dict(expected.uns)


@pytest.mark.parametrize("name", [*EXPECTED, "morpho-mnist-global"])
def test_loaded_is_canonical(name):
    dataset = DATASETS[name]
    if reason := dataset.missing():
        pytest.skip(reason)
    data = dataset.load(genes=None if dataset.n_genes == 0 else np.arange(dataset.load().n_vars))
    assert isinstance(data.X, np.ndarray)
    assert data.X.dtype == np.float32
    assert data.X.flags.c_contiguous
    assert Fields.of(data) == dataset.fields
    assert ("counts" in data.layers) == (name in COUNTS)
    if name not in COUNTS:
        return
    counts = data.layers["counts"]
    assert counts.dtype == np.float32
    if name == "kang":
        scaled = counts * 1832.5 / data.obs["n_counts"].to_numpy()[:, None]
    else:
        np.testing.assert_allclose(np.expm1(data.X.astype(float)).sum(axis=1), COUNTS[name], rtol=1e-4)
        scaled = counts / counts.sum(axis=1, keepdims=True) * COUNTS[name]
    np.testing.assert_allclose(data.X, np.log1p(scaled), rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "paul15"])
def test_sources_are_those_of_the_collection(name, real_data):
    if not (real_data / "SOURCES.csv").is_file():
        pytest.skip(f"{real_data} has no SOURCES.csv to compare with")
    listed, collected = pd.read_csv(real_data / "SOURCES.csv").set_index("data_set"), COLLECTED.get(name, name)
    if collected not in listed.index:
        pytest.skip(f"{real_data / 'SOURCES.csv'} does not list {collected}")
    listed = listed.loc[[collected]]
    got = list(DATASETS[name].sources)
    assert got == [
        Source.github(row.repository, row.commit, row.path, row.bytes, row.sha256) for row in listed.itertuples()
    ]


def test_local_files_are_those_of_the_collection(real_data):
    if not (real_data / "SHA256SUMS").is_file():
        pytest.skip(f"{real_data} has no SHA256SUMS to compare with")
    sums = dict(reversed(line.split()) for line in (real_data / "SHA256SUMS").read_text().splitlines())
    for name in ("paul15", "morpho-mnist-global"):
        (source,) = DATASETS[name].sources
        assert sums[source.path] == source.sha256
        assert source.url == ""
        if source.place.is_file():
            assert source.place.stat().st_size == source.bytes


def test_morpho_mnist_global_equals_its_arrays(real_data):
    dataset = DATASETS["morpho-mnist-global"]
    if reason := dataset.missing():
        pytest.skip(reason)
    data = dataset.load()
    with np.load(dataset.sources[0].place) as arrays:
        images = np.concatenate([arrays["x_train"], arrays["x_test"]])
        digits = np.concatenate([arrays["y_train"], arrays["y_test"]])
    np.testing.assert_array_equal(np.rint(data.X * 255).astype(np.uint8), images.reshape(len(images), -1))
    assert list(data.obs["digit"].astype(int)) == list(digits)
    assert dict(data.obs["split"].value_counts()) == {"train": 18_000, "test": 4_500}
    test = data.obs[data.obs["split"] == "test"]
    assert list(test["style"][:3]) == ["plain", "thin", "thick"]
    assert (test.groupby("source", observed=True)["style"].nunique() == 3).all()


def test_larry_mini_clones():
    dataset = DATASETS["larry-mini"]
    if reason := dataset.missing():
        pytest.skip(reason)
    data = dataset.load()
    np.testing.assert_allclose(np.expm1(data.X.astype(float)).sum(axis=1), 1e4, rtol=1e-4)
    clones = dense(data.obsm["X_clone"])
    assert clones.shape == (781, 339)
    assert list(clones.argmax(axis=1)) == list(data.obs["clone"].astype(int))


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
