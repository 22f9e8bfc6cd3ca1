"""The registry of data sets, real (downloaded or local) and simulated (embedded)."""

from metrics.registry import Registry
from tasks.datasets.base import DataError, Dataset, Fields

__all__ = ["DATASETS", "DataError", "Dataset", "Fields"]

DATASETS = Registry(
    "data set",
    {
        # embedded simulators
        "pancancer-sim": "tasks.simulate.pancancer:PANCANCER",
        "ifn-sim": "tasks.simulate.ifn:IFN",
        "sparse-shift": "tasks.simulate.sparse_shift:SPARSE_SHIFT",
        "sparse-shift-published": "tasks.simulate.sparse_shift:SPARSE_SHIFT_PUBLISHED",
        "sparse-shift-correlated": "tasks.simulate.sparse_shift:SPARSE_SHIFT_CORRELATED",
        "sparse-shift-few-cells": "tasks.simulate.sparse_shift:SPARSE_SHIFT_FEW_CELLS",
        "splatter-groups": "tasks.simulate.splatter_groups:SPLATTER_GROUPS",
        "factor-images": "tasks.simulate.factor_images:FACTOR_IMAGES",
        "factor-expression": "tasks.simulate.factor_expression:FACTOR_EXPRESSION",
        "digits": "tasks.simulate.digits:DIGITS",
        "doubles-sim": "tasks.simulate.doubles:DOUBLES",
        "fate-sim": "tasks.simulate.fate_tree:FATE_TREE",
        "rnamix-sim": "tasks.simulate.mixtures:RNAMIX_SIM",
        # public data
        "tcga-paired": "tasks.datasets.tcga:TCGA_PAIRED",
        "tcga-mirna": "tasks.datasets.tcga:TCGA_MIRNA",
        "tcga-gtex": "tasks.datasets.toil:TCGA_GTEX",
        "kang": "tasks.datasets.kang:KANG",
        "kang-full": "tasks.datasets.kang:KANG_FULL",
        "norman-mini": "tasks.datasets.norman:NORMAN_MINI",
        "norman": "tasks.datasets.norman:NORMAN",
        "marques": "tasks.datasets.marques:MARQUES",
        "pbmc-3tech": "tasks.datasets.pbmc:PBMC",
        "haber-regions": "tasks.datasets.haber:HABER_REGIONS",
        "haber-infection": "tasks.datasets.haber:HABER_INFECTION",
        "larry-mini": "tasks.datasets.larry:LARRY_MINI",
        "larry": "tasks.datasets.larry:LARRY",
        "rnamix": "tasks.datasets.rnamix:RNAMIX",
        "morpho-mnist": "tasks.datasets.morpho:MORPHO_MNIST",
        # local files, which no address serves
        "morpho-mnist-global": "tasks.datasets.morpho:MORPHO_MNIST_GLOBAL",
    },
)
