"""What the task unseen-mixture holds out, reads out of codes that are known, and what its references reach."""

import dataclasses

import numpy as np
import pytest
from anndata import AnnData

from methods import METHODS
from tasks import load_task
from tasks.base import PRESETS
from tasks.datasets.base import DataError
from tasks.datasets.memory import Memory
from tasks.factors import Factors
from tasks.latent_recovery import LatentRecovery
from tasks.simulate.mixtures import RNAMIX_SIM
from tasks.unseen_mixture import UnseenMixture, _Mixing, regressed

SMALL = dataclasses.replace(RNAMIX_SIM, parameters={"n_wells": 4}, sizes={})
PURE, MIXED = "0:0:100", "16:16:68"


@pytest.fixture(scope="module")
def task():
    return UnseenMixture(SMALL)


def pca(task):
    return lambda data: METHODS["pca"](METHODS["pca"].configure(**task.settings)).fit(data, 0)


class Given:
    """Codes that are known by the names of wells."""

    def __init__(self, data, codes):
        self.names, self.codes = data.obs_names, codes

    def embed(self, data):
        return self.codes[self.names.get_indexer(data.obs_names)]


def error(task, codes, unit=PURE):
    return task.evaluate(lambda training: Given(task.data, codes), unit, 0)["composition_error"]


# --- what is held out


def test_a_draw_has_a_pure_and_a_mixed_unit_and_real_wells_all_but_the_equal_mixture(task):
    assert task.units() == [PURE, MIXED]
    real = UnseenMixture(Memory(SMALL.load(), "wells"))
    assert real.units() == ["0:0:100", "0:100:0", "100:0:0", "16:16:68", "16:68:16", "68:16:16"]
    assert UnseenMixture(Memory(SMALL.load(), "wells"), "smoke").units() == [PURE, MIXED]
    assert [UnseenMixture(SMALL, preset).n_draws for preset in PRESETS] == [1, 8, 16]


def test_the_equal_mixture_is_given_away_by_the_mean_of_the_others(task):
    """Which is why it is no unit: a code that knows nothing is right."""
    nothing = np.zeros((task.data.n_obs, 1))
    assert error(task, nothing, "33:33:33") < 0.01
    assert error(task, nothing, PURE) == pytest.approx(0.55, abs=0.01)


def test_training_holds_all_other_mixtures_and_nothing_that_tells_them(task):
    training = task.training_data(PURE, 0)
    assert training.n_obs == 6 * 4 * 2 * 4
    assert list(training.obs) == ["protocol"]
    assert not set(training.obs_names) & set(task.data.obs_names[task.data.obs["mixture"] == PURE])


def test_data_without_the_mixtures_are_refused():
    data = SMALL.load()
    del data.obsm["proportions"]
    with pytest.raises(DataError, match=r"wells: obs\['mixture'\], obsm\['proportions'\]"):
        UnseenMixture(Memory(data, "wells")).units()


# --- what codes score


def test_codes_that_are_linear_in_the_proportions_are_read_out_exactly(task):
    mixing = np.random.default_rng(0).standard_normal((3, 5))
    codes = task.data.obsm["proportions"] @ mixing + 7.0
    assert error(task, codes, PURE) < 1e-9
    assert error(task, 1e6 * codes, MIXED) < 1e-9


def test_codes_that_bend_are_right_where_they_were_seen_and_wrong_at_the_pure_line(task):
    bent = np.tanh(3 * task.data.obsm["proportions"])
    assert error(task, bent, PURE) > 2 * error(task, bent, MIXED)


def test_a_constant_code_of_a_well_is_no_input():
    x, y = np.random.default_rng(0).standard_normal((2, 30, 2))
    with_constant = np.column_stack([x, np.full(30, 1e8)])
    other = np.column_stack([x, np.full(30, -5.0)])
    np.testing.assert_allclose(regressed(with_constant, y, other), regressed(x, y, x))


def test_methods_that_decode_have_a_profile_error_and_a_paired_disentanglement(task):
    scores = task.evaluate(pca(task), PURE, 0)
    assert 0 < scores["profile_error"] < 1
    assert {"mcc", "latent_r2", "mig", "sap", "training_reconstruction_error", "ood_distance"} <= set(scores)
    codes_alone = task.evaluate(lambda training: Given(task.data, task.data.obsm["proportions"]), PURE, 0)
    assert "profile_error" not in codes_alone
    assert set(UnseenMixture(SMALL, primary_only=True).evaluate(pca(task), PURE, 0)) == {"composition_error"}


# --- references


def test_the_floor_is_the_training_mean(task):
    floor = task.evaluate(task.reference_fit("floor", PURE, 0), PURE, 0)
    assert floor["profile_error"] == pytest.approx(1)
    trained = task.data.obsm["proportions"][task.data.obs["mixture"] != PURE].mean(axis=0)
    truth = task.data.obsm["proportions"][task.data.obs["mixture"] == PURE]
    assert floor["composition_error"] == pytest.approx(np.sqrt(np.mean((truth - trained) ** 2)))


def test_mixing_inverts_counts_without_noise():
    rng = np.random.default_rng(0)
    profiles, proportions = rng.dirichlet(np.ones(50), 3), rng.dirichlet(np.ones(3), 20)
    counts = 1e5 * proportions @ profiles
    wells = AnnData(np.log1p(counts / 10), layers={"counts": counts})
    wells.obs["protocol"] = "one"
    wells.uns["fields"] = {"environment": "protocol"}
    mixing = _Mixing(wells, wells.obs_names, proportions)
    np.testing.assert_allclose(mixing.profiles["one"], profiles, atol=1e-8)
    np.testing.assert_allclose(mixing.embed(wells)[:, :3], proportions, atol=0.01)
    np.testing.assert_allclose(mixing.embed(wells)[:, 3], np.log(1e5), rtol=1e-6)


def test_the_order_of_the_references_holds_on_development_draws():
    """Mean log errors over draws, and structure below the baseline in each."""
    errors = {}
    for draw in (1000, 1001, 1002):
        task = load_task("unseen-mixture/rnamix-sim", "default", draw=draw)
        for unit in task.units():
            for name in ("floor", "baseline", "structure", "ceiling"):
                fit = pca(task) if name == "baseline" else task.reference_fit(name, unit, 0)
                scores = task.evaluate(fit, unit, 0)
                errors.setdefault(name, []).append([scores["composition_error"], scores["profile_error"]])
    logs = {name: np.log(values) for name, values in errors.items()}
    assert (logs["structure"] < logs["baseline"]).all()
    means = {name: values.mean(axis=0) for name, values in logs.items()}
    for better, worse, margin in (
        ("baseline", "floor", 0.5),
        ("structure", "baseline", 0.5),
        ("ceiling", "structure", 0.1),
    ):
        assert (means[better] < means[worse] - margin).all(), (better, worse)


def test_pca_is_the_best_simple_method_on_development_draws():
    task = load_task("unseen-mixture/rnamix-sim", "default", draw=1000)
    found = {}
    for name in ("pca", "random-projection", "fastica"):
        cls = METHODS[name]
        fit = lambda data, cls=cls: cls(cls.configure(n_latent=10)).fit(data, 0)  # noqa: E731
        found[name] = np.mean([task.evaluate(fit, unit, 0)["composition_error"] for unit in task.units()])
    assert found["pca"] < found["random-projection"] / 2
    # the same subspace, so the same linear readout
    assert found["fastica"] == pytest.approx(found["pca"], rel=0.02)


# --- the other tasks on wells of known composition


@pytest.mark.parametrize("cls", [Factors, LatentRecovery])
def test_splits_of_real_wells_are_other_ones_and_both_tasks_share_them(cls):
    task = cls(Memory(SMALL.load(), "rnamix"))
    assert task.units() == [f"split{i}" for i in range(5)]
    first, second = (set(task.training_data(unit, 0).obs_names) for unit in task.units()[:2])
    assert len(first) == len(second) == int(task.data.n_obs * 2 / 3)
    assert first != second
    assert first == set(Factors(task.dataset).training_data("split0", 0).obs_names)
    assert task.settings_of("rnamix") == {"n_latent": 10}


def test_recovery_without_perturbations_has_no_targets_and_its_truth_scores_one():
    task = LatentRecovery(Memory(SMALL.load(), "rnamix"))
    assert task.primary_of("rnamix") == ("mcc",)
    truth = task.evaluate(task.reference_fit("ceiling", "split0", 0), "split0", 0)
    assert truth == pytest.approx({"mcc": 1, "latent_r2": 1})
    assert 0.4 < task.evaluate(pca(task), "split0", 0)["mcc"] < 0.95
