"""Imported by the fork server alone: what every cell needs is imported, and compiled, once for all of them."""

import os

import anndata  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.decomposition  # noqa: F401

import bench.cell  # noqa: F401
from methods import METHODS

for name in filter(None, os.environ.get("BENCH_PRELOAD", "").split(",")):
    METHODS[name].preload()
