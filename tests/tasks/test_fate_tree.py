"""The differentiation tree: what its cells hold, and both ends of its dial."""

import dataclasses

import numpy as np
import pytest

from tasks.datasets.memory import Memory
from tasks.fate import Fate
from tasks.simulate.base import log1p_cp10k
from tasks.simulate.fate_tree import DAYS, FATE_TREE, FIDELITY, simulate


def small(draw=0, **changes):
    parameters = {"n_clones": 400, "n_genes": 100, **changes}
    return dataclasses.replace(FATE_TREE, parameters=parameters, sizes={}).make(draw=draw)


@pytest.fixture(scope="module")
def data():
    return small()


def test_data_are_canonical(data):
    counts = data.layers["counts"]
    assert data.X.dtype == np.float32
    assert data.X.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(counts, np.round(counts))
    np.testing.assert_array_equal(data.X, log1p_cp10k(counts))
    assert data.obs_names.is_unique
    assert set(data.obs["time"]) == set(DAYS)
    assert set(data.obs["cell_type"]) == {"progenitor", "fate0", "fate1", "fate2"}
    # library sizes are as drawn: log-normal about 2,000
    assert np.median(counts.sum(axis=1)) == pytest.approx(2000, rel=0.05)


def test_draws_are_reproducible_and_differ(data):
    np.testing.assert_array_equal(small().X, data.X)
    assert small(draw=1).shape != data.shape or not np.array_equal(small(draw=1).X, data.X)


def test_clone_sizes_are_geometric(data):
    sizes = data.obs["clone"].value_counts().to_numpy()
    assert len(sizes) == 400
    assert sizes.min() == 1
    assert sizes.mean() == pytest.approx(6.0, rel=0.15)
    # mean 6: standard deviation √30
    assert sizes.std() == pytest.approx(np.sqrt(30), rel=0.2)


def test_cells_progress_with_the_day_and_are_labelled_past_the_trunk(data):
    progress, day = data.obsm["progress"][:, 0], data.obs["time"].to_numpy(str)
    means = [progress[day == d].mean() for d in DAYS]
    assert means == pytest.approx([1 / 7, 1 / 2, 3 / 4], abs=0.03)
    progenitor = (data.obs["cell_type"] == "progenitor").to_numpy()
    np.testing.assert_array_equal(progenitor, progress * 3 <= 1 + 1e-6)
    late = ~progenitor
    own = (data.obs["cell_type"] == data.obs["fate"]).to_numpy()
    assert own[late].mean() == pytest.approx(FIDELITY + (1 - FIDELITY) / 3, abs=0.03)


def test_fates_of_one_branch_are_nearer_in_expression(data):
    x, kind = np.asarray(data.X), data.obs["cell_type"].to_numpy(str)
    far_along = data.obsm["progress"][:, 0] > 0.8
    profile = [x[(kind == f"fate{i}") & far_along].mean(axis=0) for i in range(3)]
    assert np.linalg.norm(profile[0] - profile[1]) < np.linalg.norm(profile[0] - profile[2])
    assert np.linalg.norm(profile[0] - profile[1]) < np.linalg.norm(profile[1] - profile[2])


@pytest.mark.parametrize("n_fates", [2, 4])
def test_other_numbers_of_fates(n_fates):
    data = simulate(np.random.default_rng(0), n_clones=100, n_genes=60, n_fates=n_fates)
    assert set(data.obs["fate"]) == {f"fate{i}" for i in range(n_fates)}
    assert data.obsm["bias"].shape[1] == n_fates


def share_of_largest(strength):
    data = small(strength=strength)
    first = np.unique(data.obs["clone"], return_index=True)[1]
    largest = np.char.add("fate", data.obsm["bias"][first].argmax(axis=1).astype(str))
    return (data.obs["fate"].to_numpy(str)[first] == largest).mean()


def test_the_dial_runs_from_unpredictable_to_certain():
    assert share_of_largest(0.0) == pytest.approx(1 / 3, abs=0.07)
    assert share_of_largest(3.0) == pytest.approx(0.75, abs=0.1)
    assert share_of_largest(100.0) > 0.97


class Knows:
    """Codes that are the true early state."""

    def __init__(self, data):
        self.data = data

    def embed(self, data):
        return self.data[data.obs_names].obsm["bias"]


class Genes:
    def embed(self, data):
        return np.asarray(data.X)


@pytest.mark.parametrize(
    ("strength", "skills", "aurocs"), [(0.0, (-0.03, 0.03), (0.4, 0.6)), (10.0, (0.2, 1.0), (0.75, 1.0))]
)
def test_every_code_scores_chance_at_strength_zero_and_well_at_ten(strength, skills, aurocs):
    """The genes, the true early state, and all others between: at 0 there is nothing to be known."""
    data = small(strength=strength)
    task = Fate(Memory(data, "dial"))
    for code in (Knows(data), Genes()):
        scores = [task.evaluate(lambda cells, code=code: code, unit, 0) for unit in task.units()]
        mean = {name: np.mean([score[name] for score in scores]) for name in task.primary}
        assert skills[0] < mean["fate_skill"] < skills[1]
        assert aurocs[0] < mean["fate_auroc"] < aurocs[1]
