"""Imported by the fork server alone, so that packages are imported, and functions compiled, once for all jobs.

Nothing here may ask PyTorch for a GPU: a process that is forked after that cannot use one.
"""

import contextlib
import gc
import os

import anndata  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.decomposition
import sklearn.discriminant_analysis
import sklearn.neighbors  # noqa: F401

import bench.jobs.executors.local  # noqa: F401
from bench.environment import describe
from bench.plan.plugins import PluginError, load_plugin
from bench.records import PlanError
from methods import METHODS
from methods.wrapping import is_address

for name in filter(None, os.environ.get("BENCH_PRELOAD", "").split(",")):
    if is_address(name):
        with contextlib.suppress(PlanError, PluginError):  # a job that cannot import it either says so
            load_plugin(name)
    if name in METHODS:
        METHODS[name].preload()
describe()  # asks git, which takes as long as starting a job
# a job's first whole collection would look at all of this, and thereby copy it: half a second
gc.collect()
gc.freeze()
