"""What shared-private scores of known blocks, of one code, and of groups that do not differ."""

import dataclasses

import numpy as np
import pytest

from methods import METHODS
from metrics import METRICS
from tasks.base import PRESETS
from tasks.datasets.base import DataError, Fields
from tasks.datasets.memory import Memory, digest
from tasks.shared_private import MAX_SCORED, SharedPrivate, block_matrix, blocks, one_hot
from tasks.simulate.splatter_groups import SPLATTER_GROUPS
from tasks.splits import handed

SMALL = dataclasses.replace(SPLATTER_GROUPS, parameters={"n_cells": 500, "n_genes": 120}, sizes={})


@pytest.fixture(scope="module")
def task():
    return SharedPrivate(SMALL)


@pytest.fixture(scope="module")
def in_memory():
    return SharedPrivate(Memory(SMALL.load(), "splatter"), primary_only=True)


def pca(data):
    return METHODS["pca"]().fit(data, 0)


class Given:
    """Blocks by the cell's name."""

    def __init__(self, names, shared, private):
        self.rows = {name: i for i, name in enumerate(names)}
        self.shared, self.private = shared, private

    def embed_blocks(self, data):
        rows = [self.rows[name] for name in data.obs_names]
        return {"shared": self.shared[rows], "private": self.private[rows]}


def scored(task, shared, private, seed=0):
    given = Given(task.data.obs_names, shared, private)
    scores = task.evaluate(lambda data: given, task.units()[0], seed)
    return scores["block_diagonality"]


# --- units and splits


def test_units_are_draws_of_a_simulator_and_splits_of_other_data(task, in_memory):
    assert task.units() == ["draw0"]
    assert SharedPrivate(SMALL, draw=1000).units() == ["draw1000"]
    assert [SharedPrivate(SMALL, preset).n_draws for preset in PRESETS] == [2, 10, 10]
    assert in_memory.units() == ["split0", "split1", "split2"]
    first, second = (SharedPrivate(SMALL, draw=draw).training_data(f"draw{draw}", 0) for draw in (0, 1))
    assert not np.array_equal(first.X[:100], second.X[:100])
    assert len({frozenset(in_memory.training_data(unit, 0).obs_names) for unit in in_memory.units()}) == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_half_of_every_group_and_type_trains_and_the_other_half_scores(in_memory, seed):
    training, test = in_memory._split("split0", seed)
    assert not set(training) & set(test)
    assert len(training) + len(test) == in_memory.data.n_obs
    assert digest(in_memory.training_data("split0", seed)) == digest(handed(in_memory.data, training))
    for _, cells in in_memory.data.obs.reset_index().groupby(["group", "cell_type"]):
        assert np.isin(cells.index, training).sum() == int(np.ceil(len(cells) / 2))


def test_no_more_than_the_most_are_scored():
    data = dataclasses.replace(SMALL, parameters={"n_cells": 2300, "n_genes": 20, "n_program_genes": 20}).load()
    assert len(SharedPrivate(Memory(data, "x"))._split("split0", 0)[1]) == MAX_SCORED


def test_the_program_is_no_column_that_a_method_sees(in_memory):
    assert list(in_memory.training_data("split0", 0).obs) == ["group", "cell_type"]


def test_data_without_a_type_in_two_groups_or_two_types_in_a_group_are_refused():
    data = SMALL.load()
    data.obs["group"] = data.obs["cell_type"].to_numpy()
    with pytest.raises(DataError, match=r"x: a label of obs\['cell_type'\] with 12 or more cells in two of the groups"):
        SharedPrivate(Memory(data, "x")).training_data("split0", 0)
    Fields("group", "").attach(data)
    with pytest.raises(DataError, match="x: its fields name no column of cell types"):
        SharedPrivate(Memory(data, "x")).training_data("split0", 0)


# --- known answers


def test_true_blocks_are_perfect_and_any_way_of_not_separating_scores_nothing(in_memory):
    obs = in_memory.data.obs
    types, programs = one_hot(obs["cell_type"]), one_hot(obs["program"])
    everything, nothing = np.hstack([types, programs]), np.zeros((len(obs), 3))
    assert scored(in_memory, types, programs) == pytest.approx(1.0, abs=0.04)
    for shared in (everything, nothing):
        for private in (everything, nothing):
            assert scored(in_memory, shared, private) == pytest.approx(0.0, abs=0.15)
    assert scored(in_memory, programs, types) == pytest.approx(-1.0, abs=0.15)


def test_half_a_matrix_by_hand(in_memory):
    obs = in_memory.data.obs
    types, groups, programs = (obs[name].to_numpy(str) for name in ("cell_type", "group", "program"))
    # the group is there and the program is not: half of the private row
    matrix = block_matrix(one_hot(types), one_hot(groups), types, groups, programs)
    np.testing.assert_allclose(matrix, [[1, 0], [0, 0.5]], atol=0.04)
    # without programs the group is all of it
    matrix = block_matrix(one_hot(types), one_hot(groups), types, groups)
    np.testing.assert_allclose(matrix, [[1, 0], [0, 1]], atol=0.04)


def test_types_are_asked_for_within_groups(in_memory):
    obs = in_memory.data.obs
    types, groups = (obs[name].to_numpy(str) for name in ("cell_type", "group"))
    # types that change their places from group to group are known within each
    number = np.unique(types, return_inverse=True)[1]
    moved = one_hot(np.where(groups == "group0", number, (number + 1) % 5))
    assert block_matrix(moved, moved, types, groups)[0, 0] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("seed", [0, 1])
def test_permuted_cells_score_chance(in_memory, seed):
    obs = in_memory.data.obs
    order = np.random.default_rng(seed).permutation(len(obs))
    types, programs = one_hot(obs["cell_type"])[order], one_hot(obs["program"])[order]
    # entries below 0 count as 0, so that chance lies a little off it
    assert scored(in_memory, types, programs, seed) == pytest.approx(0.0, abs=0.12)


def test_one_code_stands_for_both_blocks(in_memory):
    class Whole:
        def embed(self, data):
            return np.asarray(data.X)[:, :3]

    shared, private = blocks(Whole(), in_memory.data)
    assert shared is private
    assert in_memory.evaluate(pca, "split0", 0) == {"block_diagonality": 0.0}


def test_the_whole_is_scored_by_every_metric_and_the_primaries_are_the_same_alone(in_memory):
    whole = SharedPrivate(in_memory.dataset).evaluate(pca, "split0", 0)
    # kBET is computed at the preset "paper" alone
    assert set(whole) == {*SharedPrivate.primary, *SharedPrivate.secondary} - {"kbet_per_label"}
    assert all(type(value) is float for value in whole.values())
    for name, value in whole.items():
        assert METRICS[name].info.low <= value <= METRICS[name].info.high
    short = in_memory.evaluate(pca, "split0", 0)
    assert short == {name: whole[name] for name in SharedPrivate.primary}


def test_real_data_without_programs_are_scored_on_type_and_group():
    data = SMALL.load()
    del data.obs["program"]
    task = SharedPrivate(Memory(data, "real"), primary_only=True)
    ceiling = task.evaluate(task.reference_fit("ceiling", "split0", 0), "split0", 0)
    assert list(ceiling.values()) == pytest.approx([1.0], abs=0.04)


# --- groups that do not differ


@pytest.fixture(scope="module")
def null():
    """One group, split at random into two."""
    data = dataclasses.replace(SPLATTER_GROUPS, parameters={"n_cells": 1200, "n_genes": 400}).load()
    data = data[data.obs["group"] == "group0"].copy()
    data.obs["group"] = np.random.default_rng(0).choice(["a", "b"], data.n_obs)
    Fields.of(data).attach(data)
    return data


def matrix_of(fit, data):
    task = SharedPrivate(Memory(data, "null"))
    fitted = fit(task)(task.training_data("split0", 0))
    cells = task._split("split0", 0)[1]
    obs = data.obs.iloc[cells]
    shared, private = blocks(fitted, handed(data, cells))
    labels = [obs[name].to_numpy(str) for name in ("cell_type", "group")]
    return block_matrix(shared, private, *labels), shared, labels


def test_true_private_blocks_of_a_group_split_at_random_are_empty(null):
    matrix, _, _ = matrix_of(lambda task: task.reference_fit("ceiling", "split0", 0), null)
    assert matrix[0, 0] > 0.95
    assert (matrix[:, 1] == 0).all()
    assert matrix[1, 0] < 0.15


def test_pca_finds_no_group_in_a_group_split_at_random(null):
    matrix, codes, (types, groups) = matrix_of(lambda task: pca, null)
    assert matrix[0, 0] > 0.9
    assert matrix[1].max() < 0.15
    assert abs(METRICS["conditional_leakage"](codes, groups, types)) < 0.15


def test_without_programs_the_groups_are_one():
    dataset = dataclasses.replace(SMALL, parameters={**SMALL.parameters, "program_probability": 0.0})
    scores = SharedPrivate(dataset).evaluate(pca, "draw0", 0)
    assert scores["conditional_leakage"] < 0.15
    assert abs(scores["findability"]) < 0.05
    assert scores["bayes_accuracy"] == pytest.approx(0.5, abs=0.02)


# --- controls


def test_n1_finds_private_directions_where_they_are():
    task = SharedPrivate(Memory(SPLATTER_GROUPS.load(), "splatter"))
    training = task.training_data("split0", 0)
    fitted = task.reference_fit("baseline", "split0", 0)(training)
    codes = fitted.embed_blocks(training)
    group0 = (training.obs["group"] == "group0").to_numpy()
    assert codes["private"].shape == (training.n_obs, 4)
    # each group has its own columns, zero off-group
    assert (codes["private"][group0][:, 2:] == 0).all()
    assert (codes["private"][~group0][:, :2] == 0).all()
    programs = task.data.obs.loc[training.obs_names, "program"].to_numpy(str)
    assert METRICS["cluster_ari"](codes["private"][group0], programs[group0]) > 0.8
    # group means are gone, and what is shared is orthogonal to what is private
    np.testing.assert_allclose(codes["shared"][group0].mean(axis=0), 0, atol=1e-3)
    assert np.abs(fitted.shared.T @ np.hstack(fitted.private)).max() < 1e-5


def test_references_are_in_order_over_development_draws():
    found = {}
    for draw in range(1000, 1004):
        task = SharedPrivate(SPLATTER_GROUPS, primary_only=True, draw=draw)
        unit = task.units()[0]
        for name in ("floor", "baseline", "structure", "ceiling"):
            fit = pca if name == "floor" else task.reference_fit(name, unit, 0)
            found.setdefault(name, []).append(task.evaluate(fit, unit, 0)["block_diagonality"])
    # measured 0, .875 ± .026, .974 ± .014, .980 ± .012
    found = {name: np.array(values) for name, values in found.items()}
    assert (found["floor"] == 0).all()
    assert (found["structure"] > found["baseline"] + 0.03).all()
    assert (1 - found["structure"]).mean() < 0.5 * (1 - found["baseline"]).mean()
    assert found["ceiling"].mean() > found["structure"].mean() - 0.01


def test_noise_in_place_of_the_scored_cells_and_of_the_truth_changes_no_training_data(in_memory):
    noised = SMALL.load()
    rng = np.random.default_rng(1)
    test = in_memory._split("split0", 0)[1]
    noised.X[test] = rng.random((len(test), noised.n_vars))
    noised.layers["counts"][test] = rng.poisson(3.0, (len(test), noised.n_vars))
    noised.obs["program"] = rng.permutation(noised.obs["program"])
    noised.obsm["programs"] = rng.random(noised.obsm["programs"].shape)
    training = SharedPrivate(Memory(noised, "noised")).training_data("split0", 0)
    assert digest(training) == digest(in_memory.training_data("split0", 0))
