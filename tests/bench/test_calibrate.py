"""What the corruptions mean, and the command from end to end."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.jobs.job import run_job
from bench.plan import make_plan
from bench.studies.calibrate import (
    DOSES,
    MIXING,
    Corrupted,
    _reference,
    aligned,
    calibrate,
    collapse,
    corrupted,
    flatten,
    flip_signs,
    ladders,
    permute,
    rotate,
    shuffle_genes,
)
from tasks import load_task

PREDICTION, EMBEDDING = "unseen-cell-type/ifn-sim", "reembedding/pancancer-sim"
BOTH = "class-content/ifn-sim"


def rng():
    return np.random.default_rng(0)


@pytest.fixture
def codes():
    return np.random.default_rng(1).normal(size=(40, 5)) * [1, 2, 5, 1, 1] + 3


@pytest.fixture
def cells():
    source = np.random.default_rng(2).normal(size=(30, 20)).astype(np.float32)
    return source, source + np.linspace(-2, 2, 20, dtype=np.float32)


@pytest.fixture(scope="module")
def reference_jobs():
    """The first unit's reference jobs of a task, by name."""
    plan = make_plan([], [PREDICTION, EMBEDDING, BOTH], "smoke", 1, (), {})
    found = {}
    for job in plan.jobs:
        found.setdefault(job.task, {}).setdefault(job.method, job)
    return found


def test_rotation_keeps_distances_and_turns_latents(codes):
    turned = rotate(codes, codes, 1.0, rng())
    np.testing.assert_allclose(turned @ turned.T, codes @ codes.T, atol=1e-9)
    assert (np.abs(turned - codes).max(axis=0) > 0.1).sum() == 4, "the odd latent stays"
    pair = rotate(np.eye(2), np.eye(2), 1.0, rng())
    np.testing.assert_allclose(np.abs(pair), np.sqrt(0.5))
    np.testing.assert_array_equal(rotate(codes[:, :1], codes, 1.0, rng()), codes[:, :1])


def test_permutation_moves_the_share_it_says_and_doses_are_nested(codes):
    moved = [(permute(codes, codes, dose, rng()) != codes).any(axis=1) for dose in DOSES]
    assert [mask.sum() for mask in moved] == [0, 10, 20, 30, 40]
    assert all((small <= large).all() for small, large in pairwise(moved))
    np.testing.assert_array_equal(np.sort(permute(codes, codes, 1.0, rng()), axis=0), np.sort(codes, axis=0))


def test_collapse_shrinks_the_widest_latent_of_training(codes):
    half = collapse(codes[:3], codes, 0.5, rng())
    np.testing.assert_allclose(half, codes[:3] * [1, 1, 0.5, 1, 1])
    assert (collapse(codes, codes, 1.0, rng())[:, 2] == 0).all()
    assert collapse(codes[:, :0], codes[:, :0], 1.0, rng()).shape == (40, 0)


def test_variance_shrinks_around_the_mean(cells):
    source, predicted = cells
    half = flatten(predicted, source, 0.5, rng())
    np.testing.assert_allclose(half.mean(axis=0), predicted.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(half.std(axis=0), predicted.std(axis=0) / 2, rtol=1e-4)
    assert half.dtype == predicted.dtype


def test_genes_exchange_their_shifts_alone(cells):
    source, predicted = cells
    shift = (predicted - source).mean(axis=0)
    shuffled = shuffle_genes(predicted, source, 0.5, rng())
    found = (shuffled - source).mean(axis=0)
    np.testing.assert_allclose(np.sort(found), np.sort(shift), atol=1e-5)
    assert (np.abs(found - shift) > 1e-4).sum() == 10
    np.testing.assert_allclose(shuffled - shuffled.mean(axis=0), predicted - predicted.mean(axis=0), atol=1e-5)


def test_flipping_all_signs_turns_the_shift_round(cells):
    source, predicted = cells
    np.testing.assert_allclose(flip_signs(predicted, source, 1.0, rng()), 2 * source - predicted, atol=1e-4)
    half = (flip_signs(predicted, source, 0.5, rng()) - source).mean(axis=0) * np.sign(np.linspace(-2, 2, 20))
    assert (half < 0).sum() == 10


def test_alignment_finds_another_gauge(codes):
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))
    np.testing.assert_allclose(aligned(4 * codes @ turn + 1, 4 * codes @ turn + 1, codes), codes, atol=1e-9)
    assert aligned(codes, codes, codes[:, :2]).shape == (40, 2)
    assert np.isfinite(aligned(np.ones((40, 3)), np.ones((40, 3)), codes)).all()


def test_the_wrapper_has_the_abilities_of_what_it_wraps():
    class Embeds:
        def embed(self, data):
            return np.asarray(data)

        def decode(self, codes):
            return codes

    wrapped = Corrupted(Embeds(), None, np.eye(3), "collapse", 1.0, 0)
    assert {name for name in ("embed", "decode", "predict", "embed_blocks", "adapt") if hasattr(wrapped, name)} == {
        "embed",
        "decode",
    }
    assert (wrapped.embed(np.eye(3)) != np.eye(3)).sum() == 1
    unmoved = Corrupted(Embeds(), None, np.eye(3), "sign-flip", 1.0, 0)
    np.testing.assert_array_equal(unmoved.embed(np.eye(3)), np.eye(3))


@pytest.mark.parametrize("name", [PREDICTION, EMBEDDING, BOTH])
def test_the_ends_of_mixing_are_the_references_themselves(reference_jobs, name):
    of_name = reference_jobs[name]
    job, task = of_name["baseline"], load_task(name, "smoke")
    n_training = task.training_data(job.held_out, job.seed).n_obs
    for dose, reference in ((0.0, "ceiling"), (1.0, "floor")):
        fits = (_reference(task, "ceiling", job), _reference(task, "floor", job))
        scores = task.evaluate(corrupted(*fits, n_training, MIXING, dose, 0), job.held_out, job.seed)
        expected = run_job(of_name[reference], None).scores
        assert {key: value if np.isfinite(value) else None for key, value in scores.items()} == expected


@pytest.mark.parametrize(("name", "ladder"), [(PREDICTION, "sign-flip"), (EMBEDDING, "rotation"), (BOTH, "collapse")])
def test_dose_zero_is_bit_identical(reference_jobs, name, ladder):
    job, task = reference_jobs[name]["baseline"], load_task(name, "smoke")
    n_training = task.training_data(job.held_out, job.seed).n_obs
    fit, floor = _reference(task, "ceiling", job), _reference(task, "floor", job)
    plain = task.evaluate(fit, job.held_out, job.seed)
    assert task.evaluate(corrupted(fit, floor, n_training, ladder, 0.0, 0), job.held_out, job.seed) == plain


def test_half_a_mixture_of_predictions_is_halfway(reference_jobs):
    job, task = reference_jobs[PREDICTION]["baseline"], load_task(PREDICTION, "smoke")
    training = task.training_data(job.held_out, job.seed)
    fit, floor = _reference(task, "ceiling", job), _reference(task, "floor", job)
    half = corrupted(fit, floor, training.n_obs, MIXING, 0.5, 0)(training)
    ends = [one(training).predict(training, "stimulated") for one in (fit, floor)]
    np.testing.assert_allclose(half.predict(training, "stimulated"), np.mean(ends, axis=0), atol=1e-5)


def test_only_the_fit_without_the_unit_is_corrupted(reference_jobs):
    job, task = reference_jobs[EMBEDDING]["baseline"], load_task(EMBEDDING, "smoke")
    training = task.training_data(job.held_out, job.seed)
    fit = corrupted(
        _reference(task, "ceiling", job), _reference(task, "floor", job), training.n_obs, "permutation", 1.0, job.seed
    )
    assert isinstance(fit(training), Corrupted)
    assert not isinstance(fit(task.data), Corrupted)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrate")
    outcome = calibrate([PREDICTION, EMBEDDING], "smoke", 1, out, Console(quiet=True), "made up")
    assert outcome.failed == []
    table = pd.read_csv(outcome.files[1])
    return outcome, table.set_index(["task", "metric", "ladder"])


def test_known_pitfalls_of_predictions_show(measured):
    _, table = measured
    verdict = table.loc[PREDICTION]["verdict"]
    # Shrinking the shift: correlations and signs see it only when nothing is left.
    for metric in ("delta_pearson", "delta_cosine", "deg_sign_accuracy", "deg_auprc"):
        assert verdict[metric, MIXING] == "cliff"
    assert verdict["skill", MIXING] == "worse"
    # Metrics of means are blind to the cells' spread, those of cells are not.
    for metric in ("skill", "legacy_r2", "mean_r2"):
        assert verdict[metric, "variance"] == "flat"
    for metric in ("energy_distance", "mmd", "log_variance_error"):
        assert verdict[metric, "variance"] == "worse"
    # The size of a shift has no sign.
    assert verdict["deg_auprc", "sign-flip"] == "flat"
    # A metric that does not look at the prediction has no range; neither have those that adding a shift leaves alone.
    narrow = table.loc[PREDICTION]["narrow"]
    for metric in ("legacy_r2_no_change", "log_variance_error", "correlation_error"):
        assert set(narrow[metric]) == {"too narrow"}
    # Three quarters of the legacy r² are there for no change at all.
    assert (table.loc[PREDICTION].loc["legacy_r2", "floor"] > 0.75).all()


def test_known_pitfalls_of_embeddings_show(measured):
    _, table = measured
    verdict = table.loc[EMBEDDING]["verdict"]
    assert verdict["displacement", "rotation"] == verdict["knn_recall", "rotation"] == "flat"
    assert verdict["displacement", "permutation"] == verdict["knn_recall", "permutation"] == "worse"
    assert verdict["displacement", MIXING] == verdict["knn_recall", MIXING] == "worse"
    # Codes that carry nothing name held-out tumours rightly, as the task's docstring says.
    scores = table.loc[EMBEDDING].loc[("label_transfer", "permutation")]
    assert scores["dose_1"] > scores["dose_0"] + 0.3


def test_every_ladder_of_a_task_has_all_doses(measured):
    outcome, _ = measured
    for name in (PREDICTION, EMBEDDING):
        task = load_task(name, "smoke")
        of_task = outcome.rows[(outcome.rows["task"] == name) & (outcome.rows["metric"] == task.primary[0])]
        found = of_task.groupby("ladder")["dose"].unique().map(list).to_dict()
        assert found == {
            **{name: list(DOSES) for name in ladders(task)},
            "floor": [0.0],
            "baseline": [0.0],
            "ceiling": [0.0],
        }


def test_the_command_from_end_to_end(inside, tmp_path):
    done = inside("calibrate", "--tasks", PREDICTION, "--preset", "smoke", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2  unseen-cell-type/ifn-sim · draw0/type4 · seed 0" in done.stdout
    assert "too narrow to resolve methods: log_variance_error, correlation_error, legacy_r2_no_change" in done.stdout
    names = {"calibration.md", "calibration.csv", "calibration.parquet", "unseen-cell-type.ifn-sim.png"}
    assert {file.name for file in (tmp_path / "out" / "calibration").iterdir()} == names
    page = (tmp_path / "out" / "calibration" / "calibration.md").read_text()
    assert f"Command: python -m bench calibrate --tasks {PREDICTION}" in page


def test_an_absent_data_set_is_said_and_a_wrong_name_is_refused(inside, tmp_path):
    asked = ("--tasks", "unseen-perturbation/doubles-sim,unseen-cell-type/kang", "--preset", "smoke", "--out", "out")
    absent = inside("calibrate", *asked, BENCH_CACHE_DIR=str(tmp_path / "cache"))
    assert absent.returncode == 0
    assert "skipped  unseen-cell-type/kang" in absent.stdout
    wrong = inside("calibrate", "--tasks", "unseen-job-typ/ifn-sim", "--out", "out2")
    assert wrong.returncode == 2
    assert "unseen-cell-type/ifn-sim" in wrong.stderr
    assert not (tmp_path / "out2").exists()


def test_a_failure_is_said_and_costs_its_own_scores_alone(tmp_path, monkeypatch):
    from tasks.unseen_cell_type import UnseenCellType

    evaluate = UnseenCellType.evaluate

    def fails(self, fit, unit, seed):
        if unit == "type1" and isinstance(fit(self.training_data(unit, seed)), Corrupted):
            raise ArithmeticError("planted")
        return evaluate(self, fit, unit, seed)

    monkeypatch.setattr(UnseenCellType, "evaluate", fails)
    outcome = calibrate([PREDICTION], "smoke", 1, tmp_path, Console(quiet=True), "made up")
    assert all("type1 · seed 0 · " in failure and "planted" in failure for failure in outcome.failed)
    assert len(outcome.failed) == 3 + 3 * 4, "all doses but the two that are the references"
    assert set(outcome.rows.loc[outcome.rows["unit"] == "draw0/type1", "ladder"]) > {"floor", "baseline", "ceiling"}
    assert "planted" in outcome.files[0].read_text()
