"""Bad data are refused with one sentence that names the data set and what is wrong."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from tasks.datasets.base import DataError, Fields
from tasks.datasets.checks import check_expression, check_fields, notes_of_labels

FIELDS = Fields(environment="condition", content="cell_type", replicate="donor", control="control")


@pytest.fixture
def data() -> AnnData:
    counts = np.arange(24, dtype=np.float32).reshape(6, 4)
    obs = pd.DataFrame(
        {
            "condition": ["control", "treated"] * 3,
            "cell_type": ["B", "B", "NK", "NK", "B", "B"],
            "donor": list("aabbcc"),
        },
        index=[f"cell{i}" for i in range(6)],
    )
    var = pd.DataFrame(index=["g0", "g1", "g2", "g3"])
    return AnnData(np.log1p(counts), obs=obs, var=var, layers={"counts": counts})


def refusal(function, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message.startswith("my.h5ad: ")
    assert "\n" not in message
    return message


def test_good_data_pass(data):
    check_expression(data, "my.h5ad")
    check_fields(data, FIELDS, "my.h5ad")
    assert notes_of_labels(data, FIELDS) == []


def test_good_sparse_data_pass(data):
    data.X = csr_matrix(data.X)
    data.layers["counts"] = csr_matrix(data.layers["counts"])
    check_expression(data, "my.h5ad")


@pytest.mark.parametrize(("cells", "genes", "what"), [(0, 4, "no cells"), (6, 0, "no genes")])
def test_empty(data, cells, genes, what):
    message = refusal(check_expression, data[:cells, :genes].copy(), "my.h5ad")
    assert what in message
    assert f"{cells} cells x {genes} genes" in message


def test_duplicate_genes(data):
    data.var_names = ["g0", "g1", "g1", "g3"]
    message = refusal(check_expression, data, "my.h5ad")
    assert "'g1'" in message
    assert "'g0'" not in message


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("where", ["X", "counts"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(data, where, value, sparse):
    matrix = data.X.copy() if where == "X" else data.layers[where].copy()
    matrix[[1, 2, 3], [2, 2, 3]] = value
    matrix = csr_matrix(matrix) if sparse else matrix
    if where == "X":
        data.X = matrix
    else:
        data.layers[where] = matrix
    message = refusal(check_expression, data, "my.h5ad")
    assert ("X has 3" if where == "X" else "layers['counts'] has 3") in message
    assert "2 of 4 genes: 'g2', 'g3'" in message


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("value", "what"), [(-2.0, "negative, such as -2"), (1.5, "not whole numbers, such as 1.5")])
def test_counts(data, value, what, sparse):
    counts = data.layers["counts"].copy()
    counts[4, 1] = value
    data.layers["counts"] = csr_matrix(counts) if sparse else counts
    message = refusal(check_expression, data, "my.h5ad")
    assert what in message
    assert "'g1'" in message


def test_missing_column(data):
    data.obs = data.obs.rename(columns={"cell_type": "celltype"})
    message = refusal(check_fields, data, FIELDS, "my.h5ad")
    assert "no column 'cell_type'" in message
    assert "'condition', 'celltype', 'donor'" in message
    assert "nearest is 'celltype'" in message


def test_fields_without_replicate_and_control_need_neither(data):
    del data.obs["donor"]
    check_fields(data, Fields(environment="condition", content="cell_type"), "my.h5ad")


def test_gap_in_a_column(data):
    data.obs.loc["cell3", "donor"] = None
    assert "obs['donor'] is empty for 1 of 6 cells" in refusal(check_fields, data, FIELDS, "my.h5ad")


def test_absent_control(data):
    data.obs["condition"] = ["ctrl", "treated"] * 3
    message = refusal(check_fields, data, FIELDS, "my.h5ad")
    assert "no control 'control'" in message
    assert "'ctrl', 'treated'" in message


@pytest.mark.parametrize("blank", ["", " ", "\t"])
@pytest.mark.parametrize("column", ["condition", "cell_type", "donor"])
def test_a_blank_label_is_refused_as_an_absent_one_is(data, column, blank):
    data.obs.loc[["cell1", "cell3"], column] = blank
    data.obs.loc["cell5", column] = None
    assert f"obs[{column!r}] is empty for 3 of 6 cells" in refusal(check_fields, data, FIELDS, "my.h5ad")


def test_labels_that_differ_by_blanks_or_case_alone_are_said(data):
    data.obs["condition"] = pd.Categorical(["control", "control ", "Control", "treated", "treated", "un treated"])
    (said,) = notes_of_labels(data, FIELDS)
    assert "obs['condition']" in said
    assert "'Control' and 'control' and 'control '" in said
    assert "treated" not in said


def test_a_column_of_genes_says_that_the_axes_are_exchanged(data):
    message = refusal(check_fields, data.T.copy(), FIELDS, "my.h5ad")
    assert "no column 'condition'" in message
    assert "cells and genes look exchanged" in message
    assert "data.T" in message
