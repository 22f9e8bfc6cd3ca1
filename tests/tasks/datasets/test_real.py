"""The real data sets, built from the original files, equal the AnnData that were made of them elsewhere."""

import lzma

import anndata
import numpy as np
import pandas as pd
import pytest
import rdata
from scipy.sparse import issparse

from tasks.datasets import DATASETS, rnamix
from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import Source
from tasks.datasets.tcga import TCGA_MIRNA, read_factors

pytestmark = pytest.mark.data

EXPECTED = {
    "tcga-paired": "tcga_paired_tumor_normal.h5ad",
    "tcga-mirna": "tcga_mirna_counts.h5ad",
    "kang": "kang_scgen_valid.h5ad",
    "norman-mini": "perturbench_norman19_mcfaline23.h5ad",
    "marques": "marques_oligodendrocytes.h5ad",
    "pbmc-3tech": "pbmc_3tech_symphony.h5ad",
    "larry-mini": "larry_cospar_test.h5ad",
}
COUNTS = {
    "tcga-mirna": 1e6,
    "kang": None,
    "marques": 1e4,
    "rnamix": 1e4,
}  # and the sum that X was scaled to


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


@pytest.mark.parametrize("name", [*EXPECTED, "morpho-mnist-global", "rnamix"])
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


@pytest.mark.parametrize("name", [*EXPECTED, "rnamix"])
def test_sources_are_those_of_the_collection(name, real_data):
    if not (real_data / "SOURCES.csv").is_file():
        pytest.skip(f"{real_data} has no SOURCES.csv to compare with")
    listed = pd.read_csv(real_data / "SOURCES.csv").set_index("data_set")
    if name not in listed.index:
        pytest.skip(f"{real_data / 'SOURCES.csv'} does not list {name}")
    listed = listed.loc[[name]]
    got = list(DATASETS[name].sources)
    assert got == [
        Source.github(row.repository, row.commit, row.path, row.bytes, row.sha256) for row in listed.itertuples()
    ]


def test_a_local_file_is_that_of_the_collection(real_data):
    if not (real_data / "SHA256SUMS").is_file():
        pytest.skip(f"{real_data} has no SHA256SUMS to compare with")
    sums = dict(reversed(line.split()) for line in (real_data / "SHA256SUMS").read_text().splitlines())
    (source,) = DATASETS["morpho-mnist-global"].sources
    assert sums[source.path] == source.sha256
    assert source.url == ""
    if source.place.is_file():
        assert source.place.stat().st_size == source.bytes


def test_rnamix_has_the_published_wells_and_knows_what_they_are_made_of():
    """Facts of the original files: shape, sums, names, and each well's row of the metadata."""
    dataset = DATASETS["rnamix"]
    if reason := dataset.missing():
        pytest.skip(reason)
    data = dataset.load()
    counts = data.layers["counts"]
    assert data.shape == (636, 13_906)
    assert (int(counts.sum(dtype=np.float64)), counts.nnz) == (24_067_261, 4_368_905)
    assert float(np.square(counts.data.astype(float)).sum()) == 2_488_632_055
    assert list(data.var_names[:3]) == ["ENSG00000072858", "ENSG00000125538", "ENSG00000276182"]
    assert list(data.obs_names[[0, 1, 340]]) == ["celseq2-L19", "celseq2-A10", "sortseq-L19"]
    library = np.asarray(counts.sum(axis=1)).ravel()
    assert (library.min(), library.max()) == (6273, 128_353)
    assert dict(data.obs["protocol"].value_counts()) == {"celseq2": 340, "sortseq": 296}
    pure = ["100:0:0", "0:100:0", "0:0:100"]
    assert set(data.obs["mixture"]) == {*pure, "68:16:16", "16:68:16", "16:16:68", "33:33:33"}
    first = data.obsm["factors"][0]
    np.testing.assert_allclose(first, [0.68, 0.16, 0.16, np.log2(30), 0], rtol=1e-6)
    np.testing.assert_allclose(data.obsm["proportions"].sum(axis=1), 1, atol=0.011)  # .33 three times is .99
    np.testing.assert_array_equal(data.obsm["z"], data.obsm["factors"])


@pytest.mark.parametrize("damage", ["order", "column", "fraction"])
def test_rnamix_refuses_files_that_do_not_belong_together(damage, tmp_path):
    counts = pd.DataFrame([[1, 2], [3, 4]], index=["g1", "g2"], columns=["A1", "A2"])
    known = {"H2228_prop": 1.0, "H1975_prop": 0.0, "HCC827_prop": 0.0, "mRNA_amount": 30.0}
    about = pd.DataFrame([known, known], index=["A1", "A2"])
    if damage == "order":
        about = about.iloc[::-1]
    elif damage == "column":
        about = about.drop(columns="mRNA_amount")
    else:
        counts = counts + 0.5
    files = [tmp_path / "counts.csv.gz", tmp_path / "metadata.csv.gz"]
    counts.to_csv(files[0])
    about.to_csv(files[1])
    message = {"order": "in another order or others", "column": "no column 'mRNA_amount'", "fraction": "not whole"}
    with pytest.raises(DataError, match=message[damage]):
        rnamix.build([*files, *files])


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
