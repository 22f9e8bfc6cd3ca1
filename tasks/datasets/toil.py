"""Bulk RNA-seq of human cancers and healthy tissue from one pipeline: TCGA and GTEx, recomputed with Toil.

``tcga-gtex``: the gene-level TPM of UCSC Xena, 1.3 GB of text, 60,498 genes of about 19,000 samples. Tumours
and adjacent normal tissue of TCGA and healthy tissue of GTEx are kept, about 17,000 samples: 4 GB as float32.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import categories, lines, matrix_rows, note_dropped, read_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger(__name__)

_BLOCK = 256  # genes gathered before they are written into the matrix

_COLUMNS = (
    "sample",
    "detailed_category",
    "primary disease or tissue",
    "_primary_site",
    "_sample_type",
    "_gender",
    "_study",
)

# The abbreviations of TCGA: https://gdc.cancer.gov/resources-tcga-users/tcga-code-tables.
_CANCERS = {
    "Adrenocortical Cancer": "ACC",
    "Bladder Urothelial Carcinoma": "BLCA",
    "Brain Lower Grade Glioma": "LGG",
    "Breast Invasive Carcinoma": "BRCA",
    "Cervical & Endocervical Cancer": "CESC",
    "Cholangiocarcinoma": "CHOL",
    "Colon Adenocarcinoma": "COAD",
    "Diffuse Large B-Cell Lymphoma": "DLBC",
    "Esophageal Carcinoma": "ESCA",
    "Glioblastoma Multiforme": "GBM",
    "Head & Neck Squamous Cell Carcinoma": "HNSC",
    "Kidney Chromophobe": "KICH",
    "Kidney Clear Cell Carcinoma": "KIRC",
    "Kidney Papillary Cell Carcinoma": "KIRP",
    "Liver Hepatocellular Carcinoma": "LIHC",
    "Lung Adenocarcinoma": "LUAD",
    "Lung Squamous Cell Carcinoma": "LUSC",
    "Mesothelioma": "MESO",
    "Ovarian Serous Cystadenocarcinoma": "OV",
    "Pancreatic Adenocarcinoma": "PAAD",
    "Pheochromocytoma & Paraganglioma": "PCPG",
    "Prostate Adenocarcinoma": "PRAD",
    "Rectum Adenocarcinoma": "READ",
    "Sarcoma": "SARC",
    "Skin Cutaneous Melanoma": "SKCM",
    "Stomach Adenocarcinoma": "STAD",
    "Testicular Germ Cell Tumor": "TGCT",
    "Thymoma": "THYM",
    "Thyroid Carcinoma": "THCA",
    "Uterine Carcinosarcoma": "UCS",
    "Uterine Corpus Endometrioid Carcinoma": "UCEC",
    "Uveal Melanoma": "UVM",
}


def build(raw: Sequence[Path]) -> AnnData:
    """Build ``tcga-gtex`` from the matrix of genes x samples and the phenotype table.

    Tumours are primary tumours, and the metastases of melanoma, which is mostly sampled there; normal tissue is
    TCGA's "Solid Tissue Normal" and GTEx's "Normal Tissue". Everything else is left out, with all of TARGET and
    samples that the table does not have or does not place. Of Ensembl identifiers the version is cut off; of
    several rows that are then the same gene, the one with the greatest mean is kept.

    The text is read twice, once for the genes' names and once for their values, a block of genes at a time:
    besides the result, which is allocated once, no more than a block is in memory.
    """
    import pandas as pd
    from anndata import AnnData

    expression, phenotype = raw
    genes = _genes(expression)
    names, rows = matrix_rows(expression)
    dropped: Counter[str] = Counter()
    kept, obs = _samples(names, phenotype, expression, dropped)

    columns = {gene: column for column, gene in enumerate(dict.fromkeys(genes))}
    matrix = np.empty((len(kept), len(columns)), dtype=np.float32)
    means: dict[str, float] = {}
    waiting: dict[str, np.ndarray] = {}

    def write() -> None:
        if waiting:
            matrix[:, [columns[gene] for gene in waiting]] = np.stack(list(waiting.values()), axis=1)
            waiting.clear()

    for gene, (_, _, values) in zip(genes, rows, strict=True):
        chosen = values[kept]
        mean = float(chosen.mean())
        if gene in means:
            dropped["rows of a gene with another row"] += 1
            if mean <= means[gene]:
                continue
        means[gene] = mean
        waiting[gene] = chosen
        if len(waiting) == _BLOCK:
            write()
    write()
    data = AnnData(
        matrix,
        obs=obs,
        var=pd.DataFrame(index=np.array(list(columns), dtype=object)),
        uns={"X_units": "log2(TPM + 0.001)"},
    )
    return note_dropped(data, dropped, "tcga-gtex")


def _genes(expression: Path) -> list[str]:
    """Return the gene of each row, without its version: ENSG00000000003.14 is ENSG00000000003."""
    stream = lines(expression)
    next(stream, b"")
    names = (line.partition(b"\t")[0].decode("utf-8", "replace").strip().strip('"') for line in stream if line)
    return [name.partition(".")[0] for name in names]


def _samples(
    names: list[str], phenotype: Path, expression: Path, dropped: Counter[str]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the columns of the matrix that are kept, and the labels of their samples."""
    table = read_table(phenotype, _COLUMNS, encoding="latin-1")
    table = table.loc[~table["sample"].duplicated()].set_index("sample")
    known = table.reindex(names)
    study, kind = known["_study"].str.upper(), known["_sample_type"]
    disease = known["primary disease or tissue"]
    disease = disease.where(disease != "", known["detailed_category"])
    melanoma = disease == "Skin Cutaneous Melanoma"
    tumour = (study == "TCGA") & ((kind == "Primary Tumor") | (melanoma & (kind == "Metastatic")))
    normal = ((study == "TCGA") & (kind == "Solid Tissue Normal")) | ((study == "GTEX") & (kind == "Normal Tissue"))

    left = np.ones(len(names), dtype=bool)

    def leave_out(which: np.ndarray, reason: str) -> None:
        number = int((left & which).sum())
        if number:
            dropped[reason] += number
        left[which] = False

    leave_out(known["_study"].isna().to_numpy(), "samples missing from the phenotype table")
    leave_out(np.asarray(known.index.duplicated()), "second columns of a sample")
    leave_out((study == "TARGET").to_numpy(), "samples of TARGET")
    for other in sorted(set(kind[left & ~(tumour | normal).to_numpy()])):
        reason = f"samples of type {(other or 'unknown').replace('/', ' or ')}"
        leave_out((~(tumour | normal) & (kind == other)).to_numpy(), reason)
    leave_out((disease == "").to_numpy(), "samples without a disease or tissue")
    kept = np.flatnonzero(left)
    absent = len(table.index.difference(names))
    if absent:
        logger.info("tcga-gtex: %d samples of the phenotype table have no expression", absent)
    for what, number in (("tumour", tumour.to_numpy()[kept].sum()), ("normal", normal.to_numpy()[kept].sum())):
        if not number:
            raise DataError(
                f"{phenotype}: columns '_study' and '_sample_type' make no sample of {expression} a {what} sample, "
                "expected TCGA or GTEX with 'Primary Tumor', 'Solid Tissue Normal' or 'Normal Tissue'; take both files "
                "from the same release"
            )
    known, sample = known.iloc[kept], np.array(names, dtype=object)[kept]
    of_gtex = study.to_numpy()[kept] == "GTEX"
    pieces = [name.split("-") for name in sample]
    obs = categories(
        {
            "cancer_type": disease.iloc[kept].replace(_CANCERS),
            "condition": np.where(tumour.to_numpy()[kept], "tumor", "normal"),
            "study": np.where(of_gtex, "GTEx", "TCGA"),
            "patient": ["-".join(part[: 2 if gtex else 3]) for part, gtex in zip(pieces, of_gtex, strict=True)],
            "sample_type": known["_sample_type"],
            "detailed_category": known["detailed_category"],
            "site": known["_primary_site"],
            "gender": known["_gender"],
        },
        sample,
    )
    return kept, obs


def prepare(built: AnnData) -> AnnData:
    """Turn log2(TPM + 0.001) into log1p(TPM), in place, a block of samples at a time."""
    x = built.X
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        x[start : start + _BLOCK] = np.log1p(np.maximum(np.exp2(block) - np.float32(0.001), 0))
    built.uns["X_units"] = "log1p of transcripts per million"
    return built


_HUB = "https://toil-xena-hub.s3.us-east-1.amazonaws.com/download"

TCGA_GTEX = RealDataset(
    name="tcga-gtex",
    summary="RNA-seq of 32 cancers, adjacent normal and healthy tissue, one pipeline: about 17,000 x 60,498",
    paper="Vivian et al. 2017, Nat Biotechnol 35:314 (Toil); Goldman et al. 2020, Nat Biotechnol 38:675 (Xena)",
    licence="the data are open-access TCGA and GTEx",
    fields=Fields(environment="condition", content="cancer_type", replicate="patient", control="normal"),
    sources=(
        Source.first_use(f"{_HUB}/TcgaTargetGtex_rsem_gene_tpm.gz", "toil-xena-hub"),
        Source.first_use(f"{_HUB}/TcgaTargetGTEX_phenotype.txt.gz", "toil-xena-hub"),
    ),
    builder="tasks.datasets.toil:build",
    prepare="tasks.datasets.toil:prepare",
    n_genes=2000,
)
