from typing import Annotated, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metrics import METRICS, checked, family, metric
from metrics.arrays import Floats, Labels, Mask
from metrics.base import share


@checked
def arrays(
    codes: Annotated[Floats, "n_cells>=2 n_latent"],
    labels: Annotated[Labels, "n_cells"],
    mask: Annotated[Mask, "n_latent"] | None = None,
    names: Annotated[NDArray[Any], "n_names"] | None = None,
    seed: int = 0,
) -> tuple[Any, ...]:
    return codes, labels, mask, names, seed


def test_arrays_are_converted_as_their_annotations_say():
    codes, labels, mask, names, seed = arrays([[1, 2], [3, 4]], ["b", "a"], names=["x"], seed=5)
    assert codes.dtype == np.float64
    assert labels.tolist() == [1, 0]
    assert mask is None
    assert names.tolist() == ["x"]
    assert seed == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codes": [1.0, 2.0]}, r"codes has shape \(2,\); \(n_cells, n_latent\) is needed"),
        ({"codes": [[1.0, 2.0]]}, r"codes has shape \(1, 2\); n_cells must be at least 2"),
        ({"codes": np.zeros((2, 0))}, "n_latent must be at least 1"),
        ({"codes": [[1.0, np.nan], [0.0, 0.0]]}, "codes has 1 of 4 values that are NaN or infinite"),
        ({"labels": [1, 2, 3]}, r"labels has shape \(3,\); n_cells is 3, but 2 in codes"),
        ({"labels": [1.0, np.nan]}, "labels has 1 of 2 labels that are NaN"),
        ({"names": [["x"]]}, r"names has shape \(1, 1\); \(n_names\) is needed"),
    ],
)
def test_errors_quote_what_was_got(changed, message):
    with pytest.raises(ValueError, match=message):
        arrays(**({"codes": [[1.0, 2.0], [3.0, 4.0]], "labels": [0, 1]} | changed))


def test_a_mask_holds_zeros_and_ones():
    @checked
    def total(mask: Annotated[Mask, "n"]) -> int:
        return int(mask.sum())

    assert total([0, 1, True]) == 2
    with pytest.raises(ValueError, match="mask must hold only 0 and 1"):
        total([0, 2])


def test_a_family_gives_each_of_its_members():
    @family(low=share("here", "The lowest."), high=share("here", "The highest."))
    def both(values: Annotated[Floats, "n"]) -> dict[str, float]:
        """Return the range."""
        return {"low": float(values.min())} if values.any() else {}

    assert both([0.25, 0.5]) == {"low": 0.25}
    assert both.low([0.25, 0.5]) == 0.25
    assert np.isnan(both.high([0.25, 0.5]))  # left out
    assert both.low.info.summary == "The lowest."
    assert both.low.__name__ == "low"
    assert both.low.__doc__ == "The lowest.\n\nReturn the range."
    with pytest.raises(ValueError, match="n must be at least 1"):
        both.low([])


def test_every_member_is_found_by_its_name():
    for name in METRICS:
        assert METRICS[name].__name__ == name
    assert METRICS["dci_completeness"].family is METRICS["dci_disentanglement"].family


def test_a_metric_without_annotations_is_taken_as_it_is():
    @metric(better="lower", low=0, high=1, paper="here")
    def same(x):
        return x

    assert same("anything") == "anything"
