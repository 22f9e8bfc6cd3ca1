"""Known answers of the unseen cell type task: mean shift scores 0, the truth 1, half of the gap three quarters."""

import dataclasses

import numpy as np
import pytest
from anndata import concat

from methods import METHODS
from methods.groups import LEAST_CELLS
from tasks.datasets.base import DataError, Fields
from tasks.datasets.memory import Memory, digest
from tasks.paired import PAIRED
from tasks.simulate.digits import DIGITS, dilated
from tasks.simulate.ifn import IFN
from tasks.splits import handed
from tasks.unseen_cell_type import MIN_CELLS, UnseenCellType, contents_of_shift, interpolated


def simulated(**changes):
    parameters = {"n_types": 4, "n_cells": 60, "n_genes": 100, "n_truth": 100, **changes}
    return dataclasses.replace(IFN, parameters=parameters, sizes={}).load()


@pytest.fixture(scope="module")
def task():
    return UnseenCellType(Memory(simulated(), "stimulation"))


class AddsShift:
    def __init__(self, shift):
        self.shift = shift

    def predict(self, data, target):
        assert target == "stimulated"
        return np.asarray(data.X) + self.shift.astype(np.float32)


def truth_of(task, unit):
    """Δ and the mean shift of the other types, by hand."""
    parts, x, obs = task.cells(unit, 0), np.asarray(task.data.X, dtype=float), task.data.obs
    delta = x[parts.truth].mean(axis=0) - x[parts.control].mean(axis=0)
    shifts = []
    for other in sorted(set(obs["cell_type"]) - {unit}):
        of_type, perturbed = (obs["cell_type"] == other).to_numpy(), (obs["condition"] == "stimulated").to_numpy()
        shifts.append(x[of_type & perturbed].mean(axis=0) - x[of_type & ~perturbed].mean(axis=0))
    return delta, np.mean(shifts, axis=0)


@pytest.mark.parametrize("unit", ["type0", "type3"])
def test_skill_is_zero_for_the_mean_shift_one_for_the_truth_and_quadratic_between(task, unit):
    delta, mean_shift = truth_of(task, unit)
    for share, skill in ((0.0, 0.0), (0.5, 0.75), (1.0, 1.0), (-1.0, -3.0)):
        shift = mean_shift + share * (delta - mean_shift)
        scores = task.evaluate(lambda data, shift=shift: AddsShift(shift), unit, 0)
        assert scores["skill"] == pytest.approx(skill, abs=1e-4)
    baseline = task.evaluate(lambda data: METHODS["mean-shift"]().fit(data, 0), unit, 0)
    assert baseline["skill"] == pytest.approx(0.0, abs=1e-4)


def test_legacy_r2_is_shown_beside_its_value_for_no_change(task):
    scores = task.evaluate(lambda data: METHODS["no-change"]().fit(data, 0), "type0", 0)
    # no change predicts the source half; the value beside it uses all control cells
    assert scores["legacy_r2"] == pytest.approx(scores["legacy_r2_no_change"], abs=0.05)
    assert scores["delta_cosine"] == 0.0
    assert scores["delta_pearson"] == 0.0


@pytest.mark.parametrize("unit", ["type0", "type1", "type2", "type3"])
def test_cells_play_one_part_each_and_donors_are_apart(task, unit):
    obs = task.data.obs
    parts = task.cells(unit, 0)
    named = {field.name: getattr(parts, field.name) for field in dataclasses.fields(parts)}
    for name, condition in (
        ("source", "control"),
        ("control", "control"),
        ("weights", "stimulated"),
        ("truth", "stimulated"),
    ):
        assert set(obs["cell_type"].iloc[named[name]]) == {unit}
        assert set(obs["condition"].iloc[named[name]]) == {condition}
        assert len(named[name]) >= 15
    together = np.concatenate(list(named.values()))
    assert len(together) == len(set(together)) == 120
    donors = {name: set(obs["donor"].iloc[cells]) for name, cells in named.items()}
    assert donors["source"].isdisjoint(donors["control"])
    assert donors["weights"].isdisjoint(donors["truth"])


def test_smoke_takes_two_types_and_a_small_type_is_no_unit():
    data = simulated(n_types=5)
    rare = ((data.obs["cell_type"] == "type0") & (data.obs["condition"] == "stimulated")).to_numpy()
    kept = data[~rare | (np.cumsum(rare) <= 19)].copy()
    task = UnseenCellType(Memory(kept, "x"))
    assert task.units() == ["type1", "type2", "type3", "type4"]
    assert UnseenCellType(Memory(kept, "x"), "smoke").units() == ["type1", "type2"]
    # it still teaches
    assert (task.training_data("type1", 0).obs["cell_type"] == "type0").sum() == 60 + 19


def test_fewer_than_three_types_are_refused():
    task = UnseenCellType(Memory(simulated(n_types=2), "x"))
    with pytest.raises(DataError, match=r"x: obs\['cell_type'\] has 2 labels .* at least 3 are needed"):
        task.units()


@pytest.fixture(scope="module")
def two():
    """The task with every second stimulated cell moved on by 1 in all genes, as another condition."""
    data = simulated()
    condition = data.obs["condition"].to_numpy(object)
    moved = np.flatnonzero(condition == "stimulated")[::2]
    condition[moved] = "other"
    data.obs["condition"] = condition
    data.X[moved] += 1
    del data.uns["truth"]
    return UnseenCellType(Memory(data, "two"))


def test_all_perturbed_cells_of_the_type_are_held_out(two):
    obs = two.data.obs
    training = two.training_data("type1", 0)
    assert set(training.obs["condition"][training.obs["cell_type"] == "type1"]) == {"control"}
    others = obs["cell_type"] != "type1"
    assert set(obs.index[others]) <= set(training.obs_names)
    for target in ("other", "stimulated"):
        parts = two.cells("type1", 0, target)
        together = np.concatenate(list(dataclasses.astuple(parts)))
        assert len(together) == len(set(together)) == 60 + 30
        assert set(obs["condition"].iloc[[*parts.weights, *parts.truth]]) == {target}
        np.testing.assert_array_equal(parts.source, two.cells("type1", 0).source)
        np.testing.assert_array_equal(parts.control, two.cells("type1", 0).control)


def test_scores_are_the_means_over_the_conditions(two):
    class Alone:
        """Of two fitted methods one answers for "other", the other for "stimulated"."""

        def __init__(self, **methods):
            self.methods = methods

        def predict(self, data, target):
            return self.methods[target].predict(data, target)

    unit = "type2"
    none, ceiling = (
        METHODS["no-change"]().fit(two.training_data(unit, 0), 0),
        two.reference_fit("ceiling", unit, 0)(None),
    )
    either = [
        two.evaluate(lambda data, method=method: method, unit, 0)
        for method in (Alone(other=ceiling, stimulated=none), Alone(other=none, stimulated=ceiling))
    ]
    both = [two.evaluate(lambda data, method=method: method, unit, 0) for method in (none, ceiling)]
    # one condition right and one wrong: each of the two ways is half of the truth
    for name in ("skill", "mean_r2", "legacy_r2"):
        halves = [scores[name] for scores in either]
        assert sum(halves) == pytest.approx(sum(scores[name] for scores in both)), name
    assert both[0]["skill"] < min(scores["skill"] for scores in either) < both[1]["skill"]
    # the shift to "other" is 1 higher in every gene; the ceiling knows the one from the other
    moved = ceiling.shifts["other"].mean() - ceiling.shifts["stimulated"].mean()
    assert moved == pytest.approx(1.0, abs=0.2)


def test_a_control_must_be_named():
    data = simulated()
    Fields("condition", "cell_type").attach(data)
    with pytest.raises(DataError, match=r"x: the control is not named; with --data, add control=… to --columns"):
        UnseenCellType(Memory(data, "x")).units()


def test_a_type_in_one_condition_alone_is_left_out_and_said():
    data = simulated()
    gone = ((data.obs["cell_type"] == "type2") & (data.obs["condition"] == "control")).to_numpy()
    task = UnseenCellType(Memory(data[~gone].copy(), "x"))
    assert "type2" not in task.units()
    assert "type2" not in set(task.training_data(task.units()[0], 0).obs["cell_type"])
    (said,) = task.notes()
    n_cells = int((task.data.obs["cell_type"] == "type2").sum())
    assert f"1 labels of obs['cell_type'] ({n_cells} cells) occur in one obs['condition'] alone" in said
    assert "'type2'" in said


def with_rare_types(n_rare):
    """Three cells of each of ``n_rare`` further types in each condition, whose shift is another one."""
    data = simulated()
    rng = np.random.default_rng(0)
    rare = data[np.zeros(6 * n_rare, dtype=int)].copy()
    rare.obs_names = [f"rare{i}" for i in range(rare.n_obs)]
    rare.obs["cell_type"] = np.repeat([f"rare{i}" for i in range(n_rare)], 6)
    rare.obs["condition"] = ["control", "stimulated"] * (3 * n_rare)
    rare.X = rng.uniform(0, 8, rare.shape).astype(np.float32)
    whole = concat([data, rare], merge="same")
    return Fields.of(data).attach(whole)


def test_types_of_few_cells_enter_no_mean_shift_and_are_said():
    with_rare, without = (UnseenCellType(Memory(data, "x")) for data in (with_rare_types(5), simulated()))
    assert with_rare.units() == without.units()
    shifts = [task._mean_shift(task.training_data("type0", 0), "stimulated") for task in (with_rare, without)]
    np.testing.assert_array_equal(*shifts)
    (said,) = with_rare.notes()
    assert said.startswith("5 labels of obs['cell_type'] have fewer than 20 cells in a condition")
    assert "'rare0'" in said
    # the limit is that of the methods' shifts
    assert MIN_CELLS == LEAST_CELLS


def test_where_no_type_has_enough_cells_all_of_them_make_the_shift():
    contents = np.array(["a"] * 4 + ["b"] * 4)
    control = np.array([True, True, False, False] * 2)
    assert list(contents_of_shift(contents, ~control, control)) == ["a", "b"]


def test_three_types_are_enough_and_the_inner_task_has_two():
    data = simulated()
    three = data[data.obs["cell_type"].isin(["type0", "type1", "type2"]).to_numpy()].copy()
    task = UnseenCellType(Memory(three, "x"))
    assert task.units() == ["type0", "type1", "type2"]
    inner = task.inner("type1")
    assert inner.units() == ["type0", "type2"]
    scores = inner.evaluate(lambda training: METHODS["mean-shift"]().fit(training, 0), "type0", 0)
    assert np.isfinite(scores["skill"])
    two = data[data.obs["cell_type"].isin(["type0", "type1"]).to_numpy()].copy()
    with pytest.raises(DataError, match="at least 3 are needed"):
        UnseenCellType(Memory(two, "x")).units()


def test_a_condition_that_is_short_of_cells_is_named():
    data = simulated()
    labels = data.obs["condition"].astype(str).to_numpy(copy=True)
    labels[np.flatnonzero(labels == "control")[::9]] = "control "
    data.obs["condition"] = labels
    n_cells = (labels == "control ").sum()
    with pytest.raises(DataError) as caught:
        UnseenCellType(Memory(data, "x")).units()
    assert f"'control ' ({n_cells} cells, 0 such labels)" in str(caught.value)
    assert "differ by blanks or case alone: 'control' and 'control '" in str(caught.value)


def test_an_interpolated_duplicate_keeps_what_is_no_noise():
    measured, prior = np.array([3.0, 3.0, 3.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    found = interpolated(measured, prior, np.array([0.0, 1.0, 9.0, 1.0]))
    np.testing.assert_allclose(found, [3.0, 1 + 2 * 0.75, 1.0, 1.0])


def test_ceiling_is_the_noiseless_shift_where_it_is_known_and_half_a_elsewhere(task):
    unit = "type1"
    known = task.reference_fit("ceiling", unit, 0)(task.training_data(unit, 0))
    truth = task.data.uns["truth"]
    np.testing.assert_array_equal(known.shifts["stimulated"], truth["type1|stimulated"] - truth["type1|control"])
    data = task.data.copy()
    del data.uns["truth"]
    real = UnseenCellType(Memory(data, "real"))
    parts = real.cells(unit, 0)
    duplicate = real.reference_fit("ceiling", unit, 0)(real.training_data(unit, 0))
    x = np.asarray(data.X, dtype=float)
    half = x[parts.weights].mean(axis=0) - x[parts.source].mean(axis=0)
    prior = real._mean_shift(real.training_data(unit, 0), "stimulated")
    noise = sum(x[cells].var(axis=0, ddof=1) / len(cells) for cells in (parts.weights, parts.source))
    np.testing.assert_allclose(duplicate.shifts["stimulated"], interpolated(half, prior, noise), atol=1e-6)
    assert real.evaluate(lambda cells: duplicate, unit, 0)["skill"] > 0


# --- simulated data: several types are held out together

SMALL = {"n_types": 8, "n_cells": 60, "n_genes": 100, "n_truth": 100, "interaction": 1.0, "trait": 1.2, "spread": 1.0}


def drawn(draw=0, dataset=None, **kinds):
    changed = dataset or dataclasses.replace(IFN, parameters=SMALL, sizes={})
    return UnseenCellType(changed, primary_only=True, draw=draw, **kinds)


def test_every_third_type_of_a_simulator_is_held_out_and_one_fit_answers_for_all():
    task = drawn()
    assert task.units() == ["type1", "type4", "type7"]
    assert drawn(preset="smoke").units() == ["type1", "type4"]
    handed_over = {digest(task.training_data(unit, 0)) for unit in task.units()}
    assert handed_over == {digest(drawn(preset="smoke").training_data("type1", 0))}
    training = task.training_data("type1", 0)
    of_unit = training.obs["cell_type"].isin(task.units())
    assert set(training.obs["condition"][of_unit]) == {"control"}
    assert training.n_obs == 5 * 120 + sum(len(task.cells(unit, 0).source) for unit in task.units())
    for unit in task.units():
        parts = task.cells(unit, 0)
        assert set(task.data.obs_names[parts.source]) <= set(training.obs_names)
        assert not set(task.data.obs_names[parts.control]) & set(training.obs_names)


def test_secondary_metrics_of_a_fit_are_those_of_its_first_unit():
    task = UnseenCellType(dataclasses.replace(IFN, parameters=SMALL, sizes={}))
    fitted = METHODS["pca"]().fit(task.training_data("type1", 0), 0)
    first, second = (set(task.evaluate(lambda data: fitted, unit, 0)) for unit in ("type1", "type4"))
    assert first - second == {*PAIRED} - {"extrinsic_curvature", "parameter_effects_curvature"}
    assert not second - first


def noised(task):
    """The same task with noise in place of all cells that are not in training, and of every truth."""
    other, rng = drawn(), np.random.default_rng(0)
    hidden = ~other.data.obs_names.isin(task.training_data("type1", 0).obs_names)
    other.data.X = np.where(hidden[:, None], rng.uniform(0, 9, other.data.shape), other.data.X).astype(np.float32)
    other.data.layers["counts"][hidden] = rng.poisson(50, (hidden.sum(), other.data.n_vars))
    other.data.obsm["factors"][hidden] = rng.standard_normal((hidden.sum(), other.data.obsm["factors"].shape[1]))
    other.data.uns["truth"] = {name: rng.random(other.data.n_vars) for name in other.data.uns["truth"]}
    return other


def test_noise_in_place_of_what_is_held_out_changes_no_prediction():
    task = drawn()
    other = noised(task)
    for unit in task.units():
        cells = task.cells(unit, 0).source
        for name in ("ridge-shift", "pca", "structure"):
            predicted = []
            for where in (task, other):
                training = where.training_data(unit, 0)
                known = name == "structure"
                fitted = where.reference_fit(name, unit, 0)(training) if known else METHODS[name]().fit(training, 0)
                predicted.append(fitted.predict(handed(where.data, cells), "stimulated"))
            np.testing.assert_array_equal(*predicted)
    # and it is noise for the ceiling
    assert noised(task).evaluate(other.reference_fit("ceiling", "type1", 0), "type1", 0)["skill"] < 0.5


def test_the_linear_readout_is_exact_where_expression_is_linear_in_the_latents():
    task = drawn()
    rng = np.random.default_rng(0)
    stimulated = (task.data.obs["condition"] == "stimulated").to_numpy()
    own, response = rng.standard_normal((2, 8, task.data.n_vars))
    z = task.data.obsm["factors"]
    task.data.X = (z @ own + stimulated[:, None] * (1 + z @ response)).astype(np.float32)
    for unit in task.units():
        assert task.evaluate(task.reference_fit("structure", unit, 0), unit, 0)["skill"] > 0.5
        fitted = task.reference_fit("structure", unit, 0)(task.training_data(unit, 0))
        cells = task.cells(unit, 0).source
        expected = task.data.X[cells] + 1 + z[cells] @ response
        np.testing.assert_allclose(fitted.predict(handed(task.data, cells), "stimulated"), expected, atol=1e-3)


def test_the_dilation_is_found_without_pairs():
    task = drawn(dataset=DIGITS)
    fitted = task.reference_fit("structure", "1", 0)(task.training_data("1", 0))
    # a pixel is at the upper left of its neighbourhood
    assert set(fitted.neighbours) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    images = task.data.X[:20]
    np.testing.assert_allclose(
        fitted.predict(task.data[:20], "thick"), dilated(images.reshape(-1, 8, 8)).reshape(-1, 64), atol=1e-6
    )


def relative_errors(dataset, draws):
    """Mean error (1 − skill) of each reference in each draw, relative to the baseline's, (draws, references)."""
    rows = []
    for draw in draws:
        task = drawn(draw, dataset)
        logs = {}
        for reference in task.references_here:
            for unit in task.units():
                if reference.methods:
                    (name,) = reference.methods
                    fit = lambda data, name=name: METHODS[name]().fit(data, 0)  # noqa: E731
                else:
                    fit = task.reference_fit(reference.name, unit, 0)
                logs.setdefault(reference.name, []).append(np.log(1 - task.evaluate(fit, unit, 0)["skill"]))
        means = {name: np.mean(values) for name, values in logs.items()}
        rows.append({name: np.exp(value - means["baseline"]) for name, value in means.items()})
    return rows


@pytest.mark.parametrize("dataset", [IFN, DIGITS], ids=lambda dataset: dataset.name)
def test_ceiling_structure_baseline_and_floor_are_in_order_in_each_development_draw(dataset):
    for errors in relative_errors(dataset, range(1000, 1004)):
        assert errors["ceiling"] < 0.8 * errors["structure"]
        assert errors["structure"] < 0.9
        assert errors["baseline"] == 1.0
        assert errors["floor"] > 2.5
