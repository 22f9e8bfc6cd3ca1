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
        # public data
        "tcga-paired": "tasks.datasets.tcga:TCGA_PAIRED",
        "tcga-mirna": "tasks.datasets.tcga:TCGA_MIRNA",
        "kang": "tasks.datasets.kang:KANG",
    },
)
