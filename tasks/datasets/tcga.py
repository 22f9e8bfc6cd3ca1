"""Bulk expression of human cancers and adjacent normal tissue, from The Cancer Genome Atlas (TCGA).

- ``tcga-paired``: RNA-seq of 602 patients in 11 cancers, each one primary tumour and one adjacent normal
  sample; 3,341 genes, log2 expression as shipped by the R package MetaGSCA.
- ``tcga-mirna``: miRNA-seq of 9,697 samples in 30 cancers; 1,046 miRNA precursors, read counts as shipped by
  the R package RTCGA.miRNASeq.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.catalogue import RealDataset, Source
from tasks.datasets.reading import read_rda, reading

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_TCGA = "TCGA Research Network, https://www.cancer.gov/tcga"
_FIELDS = Fields(environment="condition", content="cancer_type", replicate="patient", control="normal")

# The sample type is the two digits after the patient: https://gdc.cancer.gov/resources-tcga-users.
_SAMPLE_TYPES = {
    "01": "primary tumor",
    "02": "recurrent tumor",
    "05": "additional primary",
    "06": "metastatic",
    "07": "additional metastatic",
    "11": "normal",
}


def build_paired(raw: Sequence[Path]) -> AnnData:
    """Build ``tcga-paired`` from one ``.RData`` file per cancer, each a matrix of genes x samples.

    The genes are those that all files have (3,556) less those with a missing value (215). Values are as
    shipped: nine cancers have a floor of -2, COAD and STAD go below it (and have the missing values).
    """
    import pandas as pd
    from anndata import AnnData

    matrices = {}
    for file in raw:
        (values,) = read_rda(file).values()
        matrix = values.to_pandas().T
        matrix.index = matrix.index.str.replace(".", "-")
        matrices[file.stem] = matrix
    expression = pd.concat(matrices.values(), join="inner").dropna(axis="columns").sort_index(axis="columns")
    cancers = np.repeat(list(matrices), [len(matrix) for matrix in matrices.values()])
    return AnnData(
        np.ascontiguousarray(expression, dtype=np.float32),
        obs=_describe(expression.index, cancers),
        var=pd.DataFrame(index=expression.columns.to_numpy()),
        uns={"X_units": "log2 expression as shipped (floor -2)"},
    )


def build_mirna(raw: Sequence[Path]) -> AnnData:
    """Build ``tcga-mirna`` from one ``.rda`` file per cancer, each a data frame of samples x miRNAs.

    A sample has three rows: ``read_count``, which is kept, ``reads_per_million_miRNA_mapped`` and
    ``cross-mapped``.

    Two oddities of the files stay. FPPP is the FFPE pilot, not a cancer: 19 of its 23 samples are also in
    the file of their cancer, and of such a barcode the alphabetically first file's row is kept, so that 8
    of them are labelled with their cancer and 11 with FPPP. And 16 aliquots of KIRP are there twice, the
    second time with a barcode that ends in 131.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    counts, platforms, barcodes, cancers = [], [], [], []
    for file in raw:
        columns, rows = read_factors(file)
        kept = np.flatnonzero(_decode(columns.pop("miRNA_ID")) == b"read_count")
        platforms.append(_decode(columns.pop("machine"), kept).astype(str))
        genes = list(columns)
        counts.append(np.stack([_decode(column, kept).astype(np.int32) for column in columns.values()], axis=1))
        barcodes.append(rows[kept])
        cancers.append(np.repeat(file.name.partition(".")[0], len(kept)))
    barcode = np.concatenate(barcodes)
    first = ~pd.Index(barcode).duplicated()
    matrix = np.concatenate(counts)[first]
    obs = _describe(pd.Index(barcode[first]), np.concatenate(cancers)[first])
    obs.insert(3, "platform", pd.Series(np.concatenate(platforms)[first], index=obs.index, dtype="category"))
    obs["n_counts"] = matrix.sum(axis=1, dtype=np.int64).astype(np.float32)
    return AnnData(
        csr_matrix(matrix, dtype=np.float32),
        obs=obs,
        var=pd.DataFrame({"n_samples": (matrix != 0).sum(axis=0)}, index=genes),
        uns={"X_units": "raw miRNA-seq read counts (read_count rows)"},
    )


def prepare_mirna(built: AnnData) -> AnnData:
    """Move the counts to ``layers["counts"]`` (dense); ``X`` is log1p of counts per million.

    The FPPP samples are left out: FPPP is no cancer but a pilot on formalin-fixed tumours of other cohorts, so
    that a held-out cancer would leave samples of itself behind under that name.
    """
    built = built[(built.obs["cancer_type"] != "FPPP").to_numpy()].copy()
    built.obs["cancer_type"] = built.obs["cancer_type"].cat.remove_unused_categories()
    counts = built.X.toarray()
    per_million = counts * (1e6 / counts.sum(axis=1, keepdims=True, dtype=np.float64))
    built.layers["counts"] = counts
    built.X = np.log1p(per_million).astype(np.float32)
    built.uns["X_units"] = "log1p of counts per million"
    return built


def _describe(barcodes: pd.Index, cancers: np.ndarray) -> pd.DataFrame:
    """Return what the barcodes say of their samples, e.g. TCGA-A7-A0CE-01A-11R-A00Z-07.

    In this order: project, tissue source site and participant (these three are the patient), sample type
    and vial, portion and analyte, plate, centre.
    """
    import pandas as pd

    parts = [barcode.split("-") for barcode in barcodes]
    sample_type = [_SAMPLE_TYPES[part[3][:2]] for part in parts]
    columns: dict[str, list[str]] = {
        "cancer_type": cancers.tolist(),
        "patient": ["-".join(part[:3]) for part in parts],
        "sample_type": sample_type,
        "tss": [part[1] for part in parts],
        "plate": [part[5] for part in parts],
        "condition": ["normal" if kind == "normal" else "tumor" for kind in sample_type],
    }
    return pd.DataFrame({name: pd.Categorical(values) for name, values in columns.items()}, index=barcodes.to_numpy())


# A column of a data frame: its values (for a factor, codes from 1) and its attributes (for a factor, "levels").
_Column = tuple[Any, dict[str, Any]]


def read_factors(file: Path) -> tuple[dict[str, _Column], np.ndarray]:
    """Read an ``.rda`` file that holds one data frame, xz-compressed.

    The files of RTCGA keep every number as the level of a factor: 31 million strings. The package rdata
    makes an object of each and takes half an hour for all files; this reader takes the level strings as
    bytes and makes nothing of them.

    Returns
    -------
    columns
        By name, in order; each for :func:`_decode`.
    rows
        The row names.
    """
    with reading(file, "an xz-compressed R data file"):
        data = lzma.decompress(file.read_bytes())
    if not data.startswith(b"RDX2\nX\n"):
        raise DataError(f"{file}: starts with {data[:7]!r}, not with the b'RDX2\\nX\\n' of R's binary format 2")
    ((columns, attributes),) = _Serialised(data, start=19).item().values()
    names = [name.decode() for name in attributes["names"][0]]
    return dict(zip(names, columns, strict=True)), np.array(attributes["row.names"][0]).astype(str)


def _decode(column: _Column, rows: Any = slice(None)) -> np.ndarray:
    """Return the level (bytes) of each of the rows of a factor."""
    codes, attributes = column
    return np.array(attributes["levels"][0])[codes[rows] - 1]


class _Serialised:
    """R's XDR serialisation, as far as a data frame of factors needs it.

    Of each item the low byte of the leading integer is the type, bit 9 says that attributes follow, and
    the rest of the symbol references is in bits 8 and up: R Internals, section 1.8 "Serialization Formats".
    """

    def __init__(self, data: bytes, start: int):
        self.data = data
        self.position = start
        self.symbols: list[str] = []

    def integer(self) -> int:
        self.position += 4
        return int.from_bytes(self.data[self.position - 4 : self.position], "big")

    def item(self) -> Any:
        """Return the next item: a dict for a pairlist, else the values of a vector with its attributes."""
        flags = self.integer()
        kind = flags & 0xFF
        if kind == 0xFF:
            return self.symbols[(flags >> 8) - 1]
        if kind == 1:
            (name,) = self.strings(1)
            self.symbols.append(name.decode())
            return self.symbols[-1]
        if kind == 2:
            pairs = {}
            while flags & 0xFF == 2:
                tag = self.item()
                pairs[tag] = self.item()
                flags = self.integer()
            return pairs
        length = self.integer()
        values: Any
        if kind == 13:
            values = np.frombuffer(self.data, ">i4", length, self.position)
            self.position += 4 * length
        elif kind == 16:
            values = self.strings(length)
        elif kind == 19:
            values = [self.item() for _ in range(length)]
        else:
            raise DataError(f"an R object of type {kind} is not part of a data frame of factors")
        return values, self.item() if flags & 0x200 else {}

    def strings(self, number: int) -> list[bytes]:
        """Return the next strings: each is a flag integer, a length and as many bytes."""
        data, start = self.data, self.position
        found = []
        for _ in range(number):
            end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "big")
            found.append(data[start + 8 : end])
            start = end
        self.position = start
        return found


def _sources(repository: str, commit: str, path: str, files: dict[str, tuple[int, str]]) -> tuple[Source, ...]:
    return tuple(
        Source.github(repository, commit, path.format(cancer), size, sha256) for cancer, (size, sha256) in files.items()
    )


_PAIRED_FILES = {  # cancer: (bytes, SHA-256)
    "BRCA": (1_744_849, "54f27234276769abaa3defa6703c4de38eec742c96c46056f4b22362b432de3e"),
    "COAD": (623_495, "022feee4f4af3cabfc7df304dbd8e5e01f8865b4e5e4dbbc74a79f95d990f19d"),
    "HNSC": (677_378, "f165b4db1d8eb387f4211c01a45b682070ec972c0c24638248c489628a394402"),
    "KIRC": (1_122_184, "0e8b6df0809769aaabea155654d71579fcf2c83f38282a8077db116c6b75e60d"),
    "KIRP": (506_285, "c508d1c1d6311ff444f8357c42d4bb13eb81daa1315cf690113b791b027af5eb"),
    "LIHC": (753_017, "e0f36832df45c5fa9096e2c08760174ebd957256c3a0a10875682c8c870adfb5"),
    "LUAD": (894_664, "9c6d31f1794acddfcd8b458fd5bd9cafe3efe1d73b11142185b5f6d067abf9d6"),
    "LUSC": (808_033, "21e8498cea65284c18f185162cc5c80816efc5459e785035f5637994ed79790f"),
    "PRAD": (811_317, "e9ae84c2f970fc4d3989037310bf8fc71743ba1e911e5cf4df13ccd03d754e4d"),
    "STAD": (553_069, "dc0709988e3dcc8295ae3034a6382170abeadd76240a0f14ee4a393bdf4c6879"),
    "THCA": (909_270, "2d96aabb10779bfa49b30f5d13f5b8decf8739303e5fd099b3151440ce95f150"),
}
_MIRNA_FILES = {  # cancer: (bytes, SHA-256)
    "ACC": (319_816, "903e2d3f318cf464e32e1a3ca5a1b5bef9c71bb88ca6d14826e179e5b92b43db"),
    "BLCA": (1_655_660, "17d6463d054117eee6e301b7be2ea4ae954aab189bf41b76dfdf6f77940313c4"),
    "BRCA": (3_828_212, "ab91cba9faf9864c8267bb0d39e4fbee59c531afe9386af48915de42a6d3bf79"),
    "CESC": (1_148_528, "615b9d0f4e541aa02a41f3d86b01a7af6803c825fd933413b6013171c7c7416e"),
    "CHOL": (172_324, "7ce527e6e89184278b2b3eb6728a39ccc98da94883d7161aa2728675d2012b36"),
    "DLBC": (182_856, "6579818a3fa10856c386014d979734a1a3f75838c7041ca821949966843a56c3"),
    "ESCA": (720_672, "d41653f7b84e9c48143be6161627ef93184cc474459929e8a8e99bed70069a87"),
    "FPPP": (102_392, "7e2613ebadee557e596584502858aad8d10a8aed8f70e4be7105d8cfa0ed7214"),
    "GBM": (25_308, "41235a94fd04509dc2acee7656f13647382f77de947980b9eb90ba41e365aaa9"),
    "HNSC": (2_079_760, "8726facddaff17fc1152ed0f8060bf5c5940d7d9cc89d6d13ddca5a97679b2e7"),
    "KICH": (326_428, "c56ff07ad6688af4ccc2bcf04d1b0bc0201e6b7cd037ab1388d12d1230ee860d"),
    "KIRC": (1_800_884, "ab2696f104344da5cdafc031b7517785583e9adf9515361e9ea086ded8e2e05d"),
    "KIRP": (1_165_764, "e7de82916e4d0bb952fda22f7a14a28d2a329e03349588b5514e7746bc4d47f0"),
    "LGG": (1_904_228, "1ffed63ced8aea1b479e9eba0e728e5ae66f926bc649d595d80232dfbdbf775c"),
    "LIHC": (1_524_668, "9505ad09c4ca270e389a658c25e593c54acffcb5ba490c44c12e4530ad4f2816"),
    "LUAD": (2_014_432, "6a46f24df8d5b81378f53704e0c5c4fa3f7002ac50bb3c48899b1c7fde8bd34f"),
    "LUSC": (1_902_116, "0b8db1b15293a531f46c07f970fe139b2ec200d94cc6c8384fff8d178d37944f"),
    "MESO": (326_808, "cbb2dd77b32cb5fe3c8c5b8ea0895d1312fd10a3b3182fd2f7a1a31fbc875445"),
    "PAAD": (657_248, "36edf8c84444c127e2b56b5016f7f2607fdc3e095d3c944d37e5880365b05111"),
    "PCPG": (719_936, "011181807b0b735e1fa143f51b28a1ea3065feabbfb3a3327702c4ce5ea52e98"),
    "PRAD": (1_665_072, "05a6b9898172e80ec23af2c7a5cf484eaca75cd9b6a2c910c3bc8621a914b60f"),
    "SARC": (932_344, "bd08d89cb04d9c1bdde85af0fa008e051dc9723603c800c36bf005ded5a416ab"),
    "SKCM": (1_801_952, "547cc60e5ccc91e2ed30c9bfcc912ef8daca4c53a7e3fcd4ca84f183ee655a51"),
    "STAD": (1_673_740, "453a2f01e2c78a9961b52803152621ff695066a5e884f1880587ab09c2524b5b"),
    "TGCT": (771_040, "4491f7706f95f25e42876e081f52d06e7f6a4ad7ccfaf2c764c339df9b503f24"),
    "THCA": (1_966_952, "ad99e81547b7fc4bd5404fdc1a90591aefc9fccc86ebdc88d852f5d5e820ce85"),
    "THYM": (559_780, "d9aeb4f2bfef20b3cf35bc7cb0a25c4a3ef46b616abf9ddc9682446a06a7ff20"),
    "UCEC": (2_143_028, "826328af7b3a3d9b8d027ec4dfc37e6a3d4be56b2b8bf8b5739aace8a4331b34"),
    "UCS": (251_264, "c400927aa0310cbb6cc456fec5aba09d911d4413f140f95a48a4edc257fccc48"),
    "UVM": (311_428, "dbeaf6aa0e7ccf7d3ae24e6a2a9155f4eadfe93ce693930b7360de7d09ea7e62"),
}

TCGA_PAIRED = RealDataset(
    name="tcga-paired",
    summary="RNA-seq of 602 patients in 11 cancers, tumour and adjacent normal of each: 1,204 x 3,341",
    paper=f"{_TCGA}; shipped by the R package MetaGSCA",
    licence="GPL (>= 2) of the repository; the data are open-access TCGA",
    fields=_FIELDS,
    sources=_sources("hui-sheen/MetaGSCA", "47297285adcf091ff6dbbc1f8e5c0883cb381ea6", "data/{}.RData", _PAIRED_FILES),
    builder="tasks.datasets.tcga:build_paired",
    prepare="tasks.datasets.reading:prepare_shipped",
)

TCGA_MIRNA = RealDataset(
    name="tcga-mirna",
    summary="miRNA-seq of 30 cancers and some normal tissue, read counts: 9,697 x 1,046",
    paper=f"{_TCGA}; Broad GDAC Firehose, shipped by the R package RTCGA.miRNASeq (Kosinski et al. 2016)",
    licence="GPL-2 of the repository; the data are open-access TCGA",
    fields=_FIELDS,
    sources=_sources(
        "RTCGA/RTCGA.miRNASeq",
        "9b92779f9509c146ccbd1ec0d1aa2c118ba2129d",
        "data/{}.miRNASeq.rda",
        _MIRNA_FILES,
    ),
    builder="tasks.datasets.tcga:build_mirna",
    prepare="tasks.datasets.tcga:prepare_mirna",
)
