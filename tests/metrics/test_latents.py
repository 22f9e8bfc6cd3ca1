"""DRVI's latent metrics: equal to drvi-py's own, and known answers."""

import numpy as np
import pytest

from metrics import METRICS
from metrics.latents import mutual_information, processes_of, rank_correlation

SMI, ASC = ("lms_smi", "msas_smi", "msgs_smi"), ("lms_asc", "msas_asc", "msgs_asc")


@pytest.fixture(scope="module")
def example():
    """Codes that hold labels and factors in part."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    factors = np.column_stack([rng.standard_normal(400), rng.integers(0, 6, 400), rng.uniform(size=400)])
    codes = rng.standard_normal((400, 5))
    codes[:, 0] += 2 * (labels == 0)
    codes[:, 1] += 3 * (labels == 1) - 2 * (labels == 2)
    codes[:, 2] = 0.5 * codes[:, 2] + factors[:, 0]
    codes[:, 3] += factors[:, 1] - factors[:, 0]
    return codes, labels, factors


@pytest.mark.parametrize(
    ("n_latent", "smi", "asc"),
    [
        # latent_matching_score, most_similar_averaging_score and most_similar_gap_score of drvi-py 0.2.8 on
        # discrete_scaled_mutual_info_score and spearman_correlation_score of these very arrays
        (
            5,
            (0.3278923303078532, 0.5024529228248341, 0.4048328654721924),
            (0.5536928396756569, 0.5659999165948876, 0.40181552443810536),
        ),
        (
            2,  # fewer latents than processes
            (0.3153473046736428, 0.5024529228248341, 0.4048328654721924),
            (0.02947886274722353, 0.03433651810756953, 0.016540184105211863),
        ),
    ],
)
def test_equal_to_drvi_py(example, n_latent, smi, asc):
    codes, labels, factors = example
    ours = mutual_information(codes[:, :n_latent], processes_of(labels))
    assert [ours[name] for name in SMI] == pytest.approx(smi, abs=1e-12)
    ours = rank_correlation(codes[:, :n_latent], factors)
    assert [ours[name] for name in ASC] == pytest.approx(asc, abs=1e-12)


def test_a_latent_for_each_process_is_perfect_and_a_copy_costs_the_gap_alone():
    labels = np.random.default_rng(0).integers(0, 3, 300)
    codes = processes_of(labels)
    assert mutual_information(codes, codes) == pytest.approx({"lms_smi": 1, "msas_smi": 1, "msgs_smi": 1}, abs=0.4)
    perfect = mutual_information(codes, codes)
    assert perfect["lms_smi"] == pytest.approx(1)
    doubled = mutual_information(np.hstack([codes, codes]), codes)
    assert (doubled["lms_smi"], doubled["msas_smi"], doubled["msgs_smi"]) == pytest.approx((1, 1, 0))


def test_one_latent_that_holds_all_processes_counts_once():
    labels = np.random.default_rng(0).integers(0, 4, 400)
    scores = mutual_information(labels[:, None].astype(float), processes_of(labels))
    assert scores["msas_smi"] == pytest.approx(1)
    assert scores["lms_smi"] == pytest.approx(1 / 4)
    assert scores["msgs_smi"] == pytest.approx(1)  # there is no second latent


def test_correlation_is_of_ranks_and_blind_to_sign():
    factor = np.random.default_rng(0).standard_normal((200, 1))
    assert rank_correlation(-np.exp(3 * factor), factor) == pytest.approx(dict.fromkeys(ASC, 1))


@pytest.mark.parametrize("family", [mutual_information, rank_correlation])
def test_what_is_constant_is_similar_to_nothing(family):
    process = (np.arange(40) % 2).astype(float)[:, None]
    assert set(family(np.ones((40, 3)), process).values()) == {0.0}
    assert all(np.isnan(value) for value in family(process, np.ones((40, 1))).values())


def test_processes_are_levels_and_either_of_two():
    factors = np.column_stack([np.arange(60) % 2, np.arange(60) % 3, np.random.default_rng(0).random(60)])
    assert processes_of(factors).shape == (60, 1 + 3)
    assert processes_of(factors[:, [2]]).shape == (60, 0)
    assert processes_of(np.array(["a", "b", "c"] * 4)).sum(axis=0).tolist() == [4, 4, 4]
    with pytest.raises(ValueError, match="processes must be 0 or 1"):
        METRICS["lms_smi"](factors, factors)
