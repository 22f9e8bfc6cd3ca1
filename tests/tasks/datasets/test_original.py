"""The loaders of the original distributions, on small files of the original formats that each test writes."""

import dataclasses
import gzip
import logging
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.io import mmwrite
from scipy.sparse import coo_matrix, csr_matrix

from tasks.command_line import command
from tasks.datasets import DATASETS, haber, kang, larry, morpho, norman, toil
from tasks.datasets.base import DataError, Fields
from tasks.datasets.reading import of_genes

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def directories(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))


def loaded(name: str, files: list[Path]) -> AnnData:
    """Give the files to the data set as a user does, then load it."""
    dataset = DATASETS[name]
    assert "original files are not in" in dataset.missing()
    for file in files:
        dataset.add(file)
    assert dataset.missing() is None
    data = dataset.load()
    # where genes are to be chosen it is as the files have it until then
    assert (dataset.n_genes > 0) or isinstance(data.X, np.ndarray)
    data = of_genes(data)
    assert data.X.dtype == np.float32
    assert data.X.flags.c_contiguous
    assert Fields.of(data) == dataset.fields
    return data


def refusal(function, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def cut(file: Path, keep: float = 0.6) -> Path:
    """Return a copy of the file that lacks its end."""
    content = file.read_bytes()
    shorter = file.with_name(f"cut_{file.name}")
    shorter.write_bytes(content[: int(len(content) * keep)])
    return shorter


def gz(file: Path, text: str, encoding: str = "utf-8") -> Path:
    with gzip.open(file, "wb") as stream:
        stream.write(text.encode(encoding))
    return file


# --- TCGA and GTEx from Xena

SAMPLES = {  # sample: disease or tissue, site, type, study
    "TCGA-AA-0001-01": ("Colon Adenocarcinoma", "Colon", "Primary Tumor", "TCGA"),
    "TCGA-AA-0001-11": ("Colon Adenocarcinoma", "Colon", "Solid Tissue Normal", "TCGA"),
    "TCGA-BB-0002-06": ("Skin Cutaneous Melanoma", "Skin", "Metastatic", "TCGA"),
    "TCGA-CC-0003-06": ("Thyroid Carcinoma", "Thyroid", "Metastatic", "TCGA"),
    "TCGA-CC-0004-02": ("Glioblastoma Multiforme", "Brain", "Recurrent Tumor", "TCGA"),
    "TARGET-20-PABHKY-03": ("Leukemia", "Blood", "Primary Tumor", "TARGET"),
    "GTEX-S4Q7-0003-SM-3NM8M": ("Colon - Sigmoid", "Colon", "Normal Tissue", "GTEX"),
    "GTEX-WVLH-0003-SM-3MJFN": ("Muscle - Skeletal", "Muscle", "Normal Tissue", "GTEX"),
    "GTEX-XXXX-0003-SM-XXXXX": ("Cells - Leukemia Cell Line (CML)", "Bone Marrow", "Cell Line", "GTEX"),
    "TCGA-DD-0005-01": ("", "", "Primary Tumor", "TCGA"),
}
KEPT = ["TCGA-AA-0001-01", "TCGA-AA-0001-11", "TCGA-BB-0002-06", "GTEX-S4Q7-0003-SM-3NM8M", "GTEX-WVLH-0003-SM-3MJFN"]
GENES = ["ENSG00000242268.2", "ENSG00000259041.1", "ENSG00000270112.3", "ENSG00000242268.5", "ENSGR0000002586.13"]


def xena(tmp_path: Path, end: str = "\n", samples: list[str] | None = None) -> tuple[list[Path], np.ndarray]:
    """Write matrix and phenotype table; return them and the TPM of the genes x samples."""
    samples = [*SAMPLES, "TCGA-ZZ-9999-01", "TCGA-AA-0001-01"] if samples is None else samples
    tpm = np.random.default_rng(1).gamma(1, 20, (len(GENES), len(samples)))
    tpm[0] = 0
    text = ["\t".join(["sample", *samples])]
    for gene, row in zip(GENES, tpm, strict=True):
        text.append("\t".join([gene, *(f"{value:.4f}" for value in np.log2(row + 0.001))]))
    columns = ["sample", "detailed_category", "primary disease or tissue", "_primary_site", "_sample_type", "_gender"]
    table = ["\t".join([*columns, "_study"])]
    for sample, (disease, site, kind, study) in SAMPLES.items():
        category = "Sjögren's" if study == "GTEX" else disease
        table.append("\t".join([sample, category, disease, site, kind, "Female", study]))
    table.append("\t".join(["TCGA-NO-EXPR-01", "", "Thymoma", "Thymus", "Primary Tumor", "Male", "TCGA"]))
    tmp_path.mkdir(exist_ok=True)
    expression = gz(tmp_path / "TcgaTargetGtex_rsem_gene_tpm.gz", end.join(text) + end)
    phenotype = gz(tmp_path / "TcgaTargetGTEX_phenotype.txt.gz", end.join(table) + end, "latin-1")
    return [expression, phenotype], tpm


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_tcga_gtex(tmp_path, caplog, end):
    files, tpm = xena(tmp_path, end)
    with caplog.at_level(logging.INFO):
        data = loaded("tcga-gtex", files)
    assert list(data.obs_names) == KEPT
    assert list(data.var_names) == ["ENSG00000242268", "ENSG00000259041", "ENSG00000270112", "ENSGR0000002586"]
    columns = [list(SAMPLES).index(sample) for sample in KEPT]
    # of the two rows of ENSG00000242268 the second has the greater mean
    np.testing.assert_allclose(data.X, np.log1p(tpm[[3, 1, 2, 4]][:, columns].T), atol=2e-4)
    assert list(data.obs["cancer_type"]) == ["COAD", "COAD", "SKCM", "Colon - Sigmoid", "Muscle - Skeletal"]
    assert list(data.obs["condition"]) == ["tumor", "normal", "tumor", "normal", "normal"]
    assert list(data.obs["study"]) == ["TCGA", "TCGA", "TCGA", "GTEx", "GTEx"]
    assert list(data.obs["patient"])[1:4] == ["TCGA-AA-0001", "TCGA-BB-0002", "GTEX-S4Q7"]
    assert data.obs["detailed_category"].iloc[3] == "Sjögren's"
    assert dict(data.uns["dropped"]) == {
        "samples missing from the phenotype table": 1,
        "second columns of a sample": 1,
        "samples of TARGET": 1,
        "samples of type Cell Line": 1,
        "samples of type Metastatic": 1,
        "samples of type Recurrent Tumor": 1,
        "samples without a disease or tissue": 1,
        "rows of a gene with another row": 1,
    }
    assert "tcga-gtex: left out 1 x samples missing from the phenotype table" in caplog.text
    assert "1 samples of the phenotype table have no expression" in caplog.text


def test_tcga_gtex_of_more_genes_than_a_block(tmp_path, monkeypatch):
    files, _ = xena(tmp_path)
    whole = toil.build(files)
    monkeypatch.setattr(toil, "_BLOCK", 1)
    np.testing.assert_array_equal(toil.build(files).X, whole.X)


def test_tcga_gtex_memory_is_the_result_and_a_block(tmp_path):
    import tracemalloc

    samples = [f"TCGA-AA-{i:04}-{'01' if i % 2 else '11'}" for i in range(400)]
    genes = 2000
    body = "\t".join(["-9.9658"] * len(samples))
    text = "\n".join(["\t".join(["sample", *samples]), *(f"ENSG{gene:011}.1\t{body}" for gene in range(genes))])
    expression = gz(tmp_path / "matrix.gz", text + "\n")
    table = ["\t".join(toil._COLUMNS)]
    for i, sample in enumerate(samples):
        kind = "Primary Tumor" if i % 2 else "Solid Tissue Normal"
        table.append("\t".join([sample, "x", "Thymoma", "Thymus", kind, "Male", "TCGA"]))
    phenotype = gz(tmp_path / "phenotype.gz", "\n".join(table) + "\n")
    toil.build([expression, phenotype])  # imports
    tracemalloc.start()
    data = toil.build([expression, phenotype])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.shape == (400, genes)
    result = data.X.nbytes  # 3.2 MB; as text 6.4 MB, as float64 6.4 MB
    assert peak < 1.6 * result + 1e6


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\t", "\tx", "line 2, column 'TCGA-AA-0001-01' has 'x-9.9658', expected a finite number"),
        ("ENSG00000259041.1\t", "ENSG00000259041.1\tNA\t", "line 3 has 13 values, expected 12"),
        ("\t-9.9658\t", "\tnan\t", "has 'nan', expected a finite number"),
        ("\t-9.9658\t", "\t\t", "has '', expected a finite number"),
        ("sample\t", "", None),
        ("sample\tTCGA-AA-0001-01\t", "", "line 1 has 11 tab-separated fields and line 2 has 13"),
    ],
)
def test_tcga_gtex_bad_matrix(tmp_path, old, new, said):
    (expression, phenotype), _ = xena(tmp_path)
    lines = gzip.decompress(expression.read_bytes()).decode().splitlines(keepends=True)
    target = 0 if old.startswith("sample") else 2 if old.startswith("ENSG") else 1
    lines[target] = lines[target].replace(old, new, 1)
    gz(expression, "".join(lines))
    if said is None:  # a header without the field for the genes is fine
        assert toil.build([expression, phenotype]).n_vars == 4
        return
    message = refusal(toil.build, [expression, phenotype])
    assert str(expression) in message
    assert said in message


def test_tcga_gtex_bad_phenotype(tmp_path):
    (expression, phenotype), _ = xena(tmp_path)
    table = gzip.decompress(phenotype.read_bytes()).decode("latin-1")
    gz(phenotype, table.replace("_sample_type", "sample_type"), "latin-1")
    message = refusal(toil.build, [expression, phenotype])
    assert f"{phenotype}: has no column '_sample_type', expected it among 'sample'" in message
    gz(phenotype, table.replace("GTEX\n", "X\n").replace("Solid Tissue Normal", "Tumor"), "latin-1")
    message = refusal(toil.build, [expression, phenotype])
    assert str(phenotype) in message
    assert "a normal sample" in message


def test_tcga_gtex_cut_off(tmp_path):
    (expression, phenotype), _ = xena(tmp_path)
    for files in ([cut(expression), phenotype], [expression, cut(phenotype)]):
        message = refusal(toil.build, files)
        assert "cut_" in message
        assert "cut off, damaged or another file" in message
    expression.write_bytes(b"<html>")
    assert str(expression) in refusal(toil.build, [expression, phenotype])
    gz(expression, "")
    assert "line 1 has 0 tab-separated fields" in refusal(toil.build, [expression, phenotype])


# --- Kang, all of it


def kang_file(tmp_path: Path, **changes) -> Path:
    counts = RNG.poisson(0.5, (40, 12)).astype(np.float32)
    counts[:, 3] = 0
    obs = pd.DataFrame(
        {
            "nCount_RNA": 10.0,
            "label": pd.Categorical(["ctrl", "stim"] * 20),
            "cell_type": pd.Categorical(["CD4 T cells", "B cells", "CD14+ Monocytes", "NK cells"] * 10),
            "replicate": pd.Categorical(["patient_101", "patient_1015"] * 20),
        },
        index=[f"AAAC{i}-1" for i in range(40)],
    )
    var = pd.DataFrame({"name": [f"g{i}" for i in range(12)]}, index=[f"G{i}" for i in range(12)])
    file = tmp_path / "kang.h5ad"
    AnnData(**{"X": csr_matrix(counts), "obs": obs, "var": var, **changes}).write_h5ad(file)
    return file


def test_kang_full(tmp_path):
    file = kang_file(tmp_path)
    data = loaded("kang-full", [file])
    shipped = anndata.read_h5ad(file)
    expected = np.delete(shipped.X.toarray(), 3, axis=1)
    np.testing.assert_array_equal(data.layers["counts"], expected)
    np.testing.assert_allclose(data.X, np.log1p(expected / expected.sum(axis=1, keepdims=True) * 1e4), rtol=1e-5)
    assert list(data.obs["label"]) == ["ctrl", "stim"] * 20
    assert list(data.obs["replicate"].cat.categories) == ["patient_101", "patient_1015"]
    assert dict(data.uns["dropped"]) == {"genes that no cell expresses": 1}


def test_kang_full_bad(tmp_path):
    good = kang_file(tmp_path)
    shipped = anndata.read_h5ad(good)
    assert "cut_kang.h5ad: cannot be read as an .h5ad file" in refusal(kang.build_full, [cut(good)])
    shipped.obs["cell_type"] = shipped.obs["cell_type"].astype(object)
    shipped.obs.loc[["AAAC3-1", "AAAC7-1"], "cell_type"] = None
    data = kang.build_full([kang_file(tmp_path, obs=shipped.obs)])
    assert data.n_obs == 38
    assert data.uns["dropped"]["cells without a label"] == 2
    message = refusal(kang.build_full, [kang_file(tmp_path, X=np.log1p(shipped.X.toarray()))])
    assert "kang.h5ad: X has values that are not whole numbers" in message
    message = refusal(kang.build_full, [kang_file(tmp_path, obs=shipped.obs.rename(columns={"label": "condition"}))])
    assert "kang.h5ad: has no column 'label', expected it among 'nCount_RNA', 'condition'" in message


# --- Haber


def haber_file(file: Path, names: list[str], counts: np.ndarray, corner: str = "", end: str = "\n") -> Path:
    rows = [corner + "\t".join(names)]
    rows += [f"Gene{i}\t" + "\t".join(map(str, row)) for i, row in enumerate(counts)]
    return gz(file, end.join(rows) + end)


INFECTION = [
    "B1_AAACATACCACAAC_Control_Enterocyte.Progenitor",
    "B1_AAACGCACGAGGAC_Control_Stem",
    "B3_AAACGCACTAGCCA_Hpoly.Day3_TA.Early",
    "B5_AAACGCACTGTCCC_Hpoly.Day10_Stem",
    "B9_AAACTTGACCACCT_Salmonella_Tuft",
]
REGIONAL = [
    "AACATACTGTATCG_Duodenum_M1_Enterocyte",
    "AACATTGACTTGCC_Ileum_M1_Stem",
    "AACCGATGAGTTCG_Jejunum_M2_TA.Early",
    "AACGTTCTAGCGGA_Ileum_M2_Paneth_1",
]


@pytest.mark.parametrize("corner", ["", "gene\t", '""\t'], ids=["R", "named", "quoted"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_haber_infection(tmp_path, corner, end):
    counts = RNG.poisson(1, (6, 5))
    counts[2] = 0
    counts[0] += 1
    file = haber_file(tmp_path / "GSE92332_SalmHelm_UMIcounts.txt.gz", INFECTION, counts, corner, end)
    data = loaded("haber-infection", [file])
    expressed = counts.sum(axis=1) > 0
    assert list(data.obs_names) == INFECTION
    assert list(data.var_names) == [f"Gene{i}" for i in np.flatnonzero(expressed)]
    np.testing.assert_array_equal(data.layers["counts"], counts[expressed].T)
    np.testing.assert_allclose(np.expm1(data.X).sum(axis=1), 1e4, rtol=1e-4)
    assert list(data.obs["condition"]) == ["Control", "Control", "Hpoly.Day3", "Hpoly.Day10", "Salmonella"]
    assert list(data.obs["cell_type"]) == ["Enterocyte.Progenitor", "Stem", "TA.Early", "Stem", "Tuft"]
    assert list(data.obs["replicate"]) == ["B1", "B1", "B3", "B5", "B9"]
    assert data.uns["dropped"]["genes that no cell expresses"] == (~expressed).sum()


@pytest.mark.parametrize("swapped", [False, True])
def test_haber_regions(tmp_path, swapped):
    names = REGIONAL
    if swapped:  # the mouse first
        names = ["_".join([*name.split("_")[2::-1], *name.split("_")[3:]]) for name in REGIONAL]
    counts = RNG.poisson(1, (6, 4)) + 1
    data = loaded("haber-regions", [haber_file(tmp_path / "GSE92332_Regional_UMIcounts.txt.gz", names, counts)])
    assert list(data.obs["region"]) == ["Duodenum", "Ileum", "Jejunum", "Ileum"]
    assert list(data.obs["cell_type"]) == ["Enterocyte", "Stem", "TA.Early", "Paneth_1"]
    assert list(data.obs["replicate"]) == ["M1", "M1", "M2", "M2"]
    assert data.obs["barcode"].iloc[0] == "AACATACTGTATCG"
    np.testing.assert_array_equal(data.layers["counts"], counts.T)


def test_haber_bad(tmp_path):
    counts = RNG.poisson(1, (6, 5)) + 1
    file = tmp_path / "table.txt.gz"

    def said(names: list[str], values: np.ndarray = counts, build=haber.build_infection) -> str:
        message = refusal(build, [haber_file(file, names, values)])
        assert str(file) in message
        return message

    assert "line 1, column 2 is 'B1_AAAC_Stem', expected replicate" in said([INFECTION[0], "B1_AAAC_Stem", *"abc"])
    wrong = INFECTION[0].replace("Control", "Ctrl")
    assert "expected one of Control, Hpoly.Day10, Hpoly.Day3, Salmonella as its part 3" in said([wrong, *INFECTION[1:]])
    assert "as its part 2" in said(INFECTION, build=haber.build_regions)
    assert "line 1 has 1 names more than once" in said([*INFECTION[:4], INFECTION[0]])
    assert "fields and line 2 has 6" in said(INFECTION[:3])
    fractions = counts.astype(object)
    fractions[3, 1] = 0.5
    assert f"line 5, column {INFECTION[1]!r} has 0.5, expected a UMI count" in said(INFECTION, fractions)
    fractions[3, 1] = "NA"
    assert f"line 5, column {INFECTION[1]!r} has 'NA', expected a finite number" in said(INFECTION, fractions)
    good = haber_file(file, INFECTION, counts)
    assert "cut off" in refusal(haber.build_infection, [cut(good)])
    text = gzip.decompress(good.read_bytes()).decode()
    gz(file, text[: text.rindex("\t")] + "\n")
    assert "line 7 has 4 values, expected 5" in refusal(haber.build_infection, [file])
    gz(file, text.replace("Gene4", "Gene1"))
    assert "line 6 has the gene 'Gene1' again (first in line 3)" in refusal(haber.build_infection, [file])


# --- LARRY


@dataclasses.dataclass
class Larry:
    """The four files of the site; 30 cells, 7 genes, 5 clones."""

    counts: np.ndarray
    clones: np.ndarray
    files: list[Path]


def larry_files(tmp_path: Path, counts_turned: bool = False, clones_turned: bool = False) -> Larry:
    counts = RNG.poisson(2, (30, 7)).astype(float) + 1
    counts[4:, 6] = 0  # expressed by one of the cells that are kept
    counts = counts / counts.sum(axis=1, keepdims=True) * 3000
    clones = np.zeros((30, 5))
    clones[np.arange(3, 30), np.arange(3, 30) % 5] = 1  # three cells have none
    clones[29] = [1, 1, 0, 0, 0]  # and one has two
    files = []
    for part, matrix, turned in (("normed_counts", counts, counts_turned), ("clone_matrix", clones, clones_turned)):
        plain = tmp_path / f"{part}.mtx"
        mmwrite(plain, coo_matrix(matrix.T if turned else matrix))
        files.append(tmp_path / f"stateFate_inVitro_{part}.mtx.gz")
        files[-1].write_bytes(gzip.compress(plain.read_bytes()))
    names = gz(tmp_path / "stateFate_inVitro_gene_names.txt.gz", "".join(f"Gene{i}\n" for i in range(7)))
    columns = ["Library", "Cell barcode", "Time point", "Starting population", "Cell type annotation", "Well"]
    rows = ["\t".join([*columns, "SPRING-x", "SPRING-y"])]
    for i in range(30):
        kind = ["Undifferentiated", "Monocyte", "Neutrophil"][i % 3]
        rows.append("\t".join(["d6_2_2", f"GCGTG-{i}", f"{2 + i % 3 * 2}", "Lin-Kit+Sca1-", kind, "2", "1.5", "-3"]))
    metadata = gz(tmp_path / "stateFate_inVitro_metadata.txt.gz", "\n".join(rows) + "\n")
    return Larry(counts, clones, [files[0], names, files[1], metadata])


@pytest.mark.parametrize("counts_turned", [False, True])
@pytest.mark.parametrize("clones_turned", [False, True])
def test_larry(tmp_path, monkeypatch, counts_turned, clones_turned):
    monkeypatch.setattr(larry, "MIN_SHARE", 0.1)
    written = larry_files(tmp_path, counts_turned, clones_turned)
    data = loaded("larry", written.files)
    kept = np.arange(3, 29)
    assert list(data.obs_names) == [str(i) for i in kept]
    assert list(data.var_names) == [f"Gene{i}" for i in range(6)]
    np.testing.assert_allclose(data.X, np.log1p(written.counts[kept, :6] / 3000 * 1e4), rtol=1e-4)
    np.testing.assert_array_equal(data.obsm["X_clone"].toarray(), written.clones[kept])
    assert list(data.obs["clone"].astype(int)) == list(kept % 5)
    assert list(data.obs["time"]) == [str(2 + i % 3 * 2) for i in kept]
    assert list(data.obs["cell_type"][:3]) == ["Undifferentiated", "Monocyte", "Neutrophil"]
    assert set(data.obs) >= {"library", "barcode", "starting_population", "well"}
    assert dict(data.uns["dropped"]) == {
        "cells without a clone": 3,
        "cells with several clones": 1,
        "genes that fewer than one in a thousand cells express": 1,
    }


def test_larry_bad(tmp_path):
    expression, genes, clones, metadata = larry_files(tmp_path).files

    fewer = gz(tmp_path / "fewer.txt.gz", "".join(f"Gene{i}\n" for i in range(6)))
    message = refusal(larry.build, [expression, fewer, clones, metadata])
    assert f"{expression}: is a matrix of 30 x 7, expected 30 x 6 (cells of the metadata x gene names)" in message
    message = refusal(larry.build, [expression, genes, expression, metadata])
    assert "no cell has exactly one clone" in message
    table = gzip.decompress(metadata.read_bytes()).decode()
    shorter = gz(tmp_path / "shorter.txt.gz", table[: table.rindex("d6_2_2")])
    message = refusal(larry.build, [expression, genes, clones, shorter])
    assert f"{clones}: is a matrix of 30 x 5, expected 29 x any" in message
    day = gz(tmp_path / "day.txt.gz", table.replace("GCGTG-4\t4", "GCGTG-4\tday 4"))
    message = refusal(larry.build, [expression, genes, clones, day])
    assert f"{day}: line 6, column 'Time point' has 'day 4', expected 2, 4 or 6" in message
    table_cut = gz(tmp_path / "table_cut.txt.gz", table[: table.rindex("GCGTG-29") + 8])
    message = refusal(larry.build, [expression, genes, clones, table_cut])
    assert f"{table_cut}: line 31, column 'Time point' has '', expected 2, 4 or 6" in message
    column = gz(tmp_path / "column.txt.gz", table.replace("Time point", "Day"))
    assert "has no column 'Time point'" in refusal(larry.build, [expression, genes, clones, column])

    for wrong in ([cut(expression), genes, clones, metadata], [expression, genes, cut(clones), metadata]):
        message = refusal(larry.build, wrong)
        assert "cut_stateFate" in message
        assert "cannot be read as a Matrix Market file" in message
    lines = gzip.decompress(expression.read_bytes()).decode().splitlines(keepends=True)
    short = gz(tmp_path / "short.mtx.gz", "".join(lines[:-3]))
    message = refusal(larry.build, [short, genes, clones, metadata])
    assert f"{short}: cannot be read as a Matrix Market file" in message
    for wrong in ([expression, cut(genes, 0.8), clones, metadata], [expression, genes, clones, cut(metadata)]):
        assert "cut off" in refusal(larry.build, wrong)


# --- Norman


def norman_file(tmp_path: Path, x: np.ndarray, counts: np.ndarray | None = None, column="perturbation_name") -> Path:
    obs = pd.DataFrame(
        {column: pd.Categorical(["control", "KLF1", "KLF1+TGFBR2"] * 10), "gemgroup": 1},
        index=[f"c{i}" for i in range(30)],
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(x.shape[1])])
    layers = {} if counts is None else {"counts": csr_matrix(counts)}
    file = tmp_path / "norman.h5ad"
    AnnData(csr_matrix(x), obs=obs, var=var, layers=layers).write_h5ad(file)
    return file


@pytest.mark.parametrize("has", ["log", "log and counts", "counts"])
def test_norman(tmp_path, has):
    counts = (RNG.poisson(1, (30, 8)) + 1).astype(np.float32)
    log = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    file = norman_file(tmp_path, counts if has == "counts" else log, counts if has == "log and counts" else None)
    data = loaded("norman", [file])
    np.testing.assert_allclose(data.X, log, rtol=1e-5)
    assert ("counts" in data.layers) == (has != "log")
    if has != "log":
        np.testing.assert_array_equal(data.layers["counts"], counts)
    assert list(data.obs["perturbation"][:3]) == ["control", "KLF1", "KLF1+TGFBR2"]
    assert set(data.obs["cell_type"]) == {"K562"}


def test_norman_bad(tmp_path):
    log = RNG.gamma(1, 1, (30, 8)).astype(np.float32)
    assert "cut_norman.h5ad" in refusal(norman.build, [cut(norman_file(tmp_path, log))])
    message = refusal(norman.build, [norman_file(tmp_path, log - 1)])
    assert "norman.h5ad: X has values below zero" in message
    message = refusal(norman.build, [norman_file(tmp_path, log, column="guide")])
    assert "norman.h5ad: has no column 'perturbation_name', expected it among 'guide', 'gemgroup'" in message


# --- Morpho-MNIST


def idx(file: Path, values: np.ndarray) -> Path:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    with gzip.open(file, "wb") as stream:
        stream.write(header + values.astype(np.uint8).tobytes())
    return file


def morpho_files(tmp_path: Path, n: tuple[int, int] = (12, 5)) -> tuple[list[Path], list[np.ndarray]]:
    files, arrays = [], []
    for split, size in zip(("train", "t10k"), n, strict=True):
        for part, values in (
            ("images-idx3", RNG.integers(0, 256, (size, 28, 28))),
            ("labels-idx1", RNG.integers(0, 10, size)),
            ("pert-idx1", np.arange(size) % 3),
        ):
            files.append(idx(tmp_path / f"{split}-{part}-ubyte.gz", values))
            arrays.append(values)
    return files, arrays


def test_morpho_mnist(tmp_path):
    files, arrays = morpho_files(tmp_path)
    assert f"with `{command('data', 'add', 'FILE', '--name', 'morpho-mnist')}`" in DATASETS["morpho-mnist"].missing()
    data = loaded("morpho-mnist", files[::-1])
    assert data.shape == (17, 784)
    images = np.concatenate([arrays[0], arrays[3]])
    np.testing.assert_allclose(data.X, images.reshape(17, -1) / 255, rtol=1e-6)
    assert list(data.obs["digit"].astype(int)) == [*arrays[1], *arrays[4]]
    assert list(data.obs["style"][:3]) == ["plain", "thin", "thick"]
    assert list(data.obs["split"]) == ["train"] * 12 + ["test"] * 5
    assert data.var_names[29] == "row01_column01"


def test_morpho_mnist_bad(tmp_path):
    files, arrays = morpho_files(tmp_path)

    def said(number: int, values: np.ndarray) -> str:
        idx(files[number], values)
        message = refusal(morpho.build, files)
        assert str(files[number]) in message
        idx(files[number], arrays[number])
        return message

    assert "starts with b'\\x00\\x00\\x08\\x01', expected b'\\x00\\x00\\x08\\x03'" in said(0, arrays[1])
    assert "has images of (14, 14), expected 28 x 28" in said(3, arrays[3][:, :14, :14])
    assert "has 11 labels, expected 12" in said(1, arrays[1][1:])
    assert "has the label 7, expected 0 to 4" in said(2, arrays[2] * 0 + 7)
    content = gzip.decompress(files[0].read_bytes())
    files[0].write_bytes(gzip.compress(content[:-100]))
    assert "has 9308 values, expected 9408 for its shape (12, 28, 28)" in refusal(morpho.build, files)
    files[0].write_bytes(gzip.compress(content)[:200])
    assert "cannot be read as a gzip-compressed idx file" in refusal(morpho.build, files)


def test_morpho_mnist_global_bad(tmp_path):
    file = tmp_path / "morpho_mnist_global.npz"
    np.savez(file, x_train=np.zeros((3, 28, 28)))
    assert f"{file}: has no array x_test, y_train" in refusal(morpho.build_global, [file])
    assert "cannot be read as an .npz file" in refusal(morpho.build_global, [cut(file)])
