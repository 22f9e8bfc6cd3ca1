"""The simulators: their moments, their known floors, and both ends of their dials."""

import dataclasses

import numpy as np
import pytest

from methods import METHODS
from metrics import METRICS
from tasks import DATASETS
from tasks.datasets.base import Fields
from tasks.datasets.memory import Memory, digest
from tasks.reembedding import Reembedding
from tasks.simulate import ifn, pancancer, sparse_shift
from tasks.simulate.base import log1p_cp10k
from tasks.simulate.tree import tree_distances, tree_traits
from tasks.unseen_cell_type import UnseenCellType

SIMULATED = [name for name in DATASETS if DATASETS[name].simulated]
SMALL = {
    "ifn-sim": {"n_types": 3, "n_cells": 20, "n_genes": 40, "n_truth": 20},
    "pancancer-sim": {"n_cancers": 3, "n_tumours": 20, "n_normals": 5, "n_genes": 40},
    "sparse-shift": {"n_perturbations": 8, "n_cells": 20},
    "sparse-shift-published": {"n_perturbations": 8, "n_cells": 20},
    "sparse-shift-correlated": {"n_perturbations": 8, "n_cells": 20},
    "sparse-shift-few-cells": {"n_perturbations": 8},
    "digits": {"n_per_digit": 20},
    "doubles-sim": {"n_cells": 20, "n_genes": 40, "n_truth": 20},
    "factor-expression": {"n_cells": 60, "n_genes": 40},
    "factor-images": {"n_cells": 60},
    "fate-sim": {"n_clones": 60, "n_genes": 40},
    "rnamix-sim": {"n_wells": 2, "n_genes": 40},
    "splatter-groups": {"n_cells": 120, "n_genes": 80},
}


def small(name):
    dataset = DATASETS[name]
    return dataclasses.replace(dataset, parameters={**dataset.parameters, **SMALL[name]}, sizes={})


# --- what holds of every simulator


@pytest.mark.parametrize("name", SIMULATED)
def test_data_are_canonical(name):
    data = small(name).load()
    assert data.X.dtype == np.float32
    assert data.X.flags["C_CONTIGUOUS"]
    assert np.isfinite(data.X).all()
    assert data.obs_names.is_unique
    assert data.var_names.is_unique
    assert data.uns["X_units"]
    fields = Fields.of(data)
    assert fields == DATASETS[name].fields
    assert {c for c in (fields.environment, fields.content, fields.replicate) if c} <= set(data.obs)
    if fields.control:
        assert fields.control in set(data.obs[fields.environment])
    if "counts" in data.layers:
        counts = data.layers["counts"]
        np.testing.assert_array_equal(counts, np.round(counts))
        assert counts.min() >= 0
        np.testing.assert_array_equal(data.X, log1p_cp10k(counts))


@pytest.mark.parametrize("name", SIMULATED)
def test_a_draw_is_reproducible_and_another_differs(name):
    first, again, other = small(name).load(draw=2), small(name).load(draw=2), small(name).load(draw=3)
    assert digest(first) == digest(again)
    assert digest(first) != digest(other)
    for key in first.obsm:
        np.testing.assert_array_equal(first.obsm[key], again.obsm[key])
        assert not np.array_equal(first.obsm[key], other.obsm[key])


@pytest.mark.parametrize("name", SIMULATED)
def test_digest_of_a_simulator_changes_with_its_arguments_and_name(name):
    dataset = DATASETS[name]
    digests = {
        dataset.digest("default"),
        dataset.digest("smoke"),
        small(name).digest(),
        dataclasses.replace(dataset, name="another").digest("default"),
    }
    assert len(digests) == 4
    assert dataset.digest("default") == dataset.digest("default")
    assert dataset.missing() is None


def test_sizes_of_a_preset_replace_parameters():
    dataset = dataclasses.replace(small("sparse-shift"), sizes={"smoke": {"n_cells": 3}})
    assert dataset.load("smoke").n_obs == 8 * 3
    assert dataset.load("default").n_obs == 8 * 20
    assert dataset.load("paper").n_obs == 8 * 20


def test_log1p_cp10k_of_known_counts_and_of_an_empty_cell():
    x = log1p_cp10k(np.array([[1.0, 3.0], [0.0, 0.0], [0.0, 7.0]]))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, np.log1p([[2500.0, 7500.0], [0.0, 0.0], [0.0, 1e4]]), rtol=1e-6)


# --- tree


def test_distances_of_four_and_five_leaves():
    np.testing.assert_array_equal(tree_distances(4), [[0, 1, 2, 2], [1, 0, 2, 2], [2, 2, 0, 1], [2, 2, 1, 0]])
    np.testing.assert_array_equal(tree_distances(5)[4], [3, 3, 3, 3, 0])
    np.testing.assert_array_equal(tree_distances(1), [[0]])


@pytest.mark.parametrize("n_leaves", [4, 6, 8])
def test_traits_have_unit_variance_and_correlate_by_distance(n_leaves):
    traits = tree_traits(np.random.default_rng(0), n_leaves, 40_000)
    assert traits.shape == (n_leaves, 40_000)
    depth = int(np.ceil(np.log2(n_leaves)))
    expected = 1 - tree_distances(n_leaves) / depth
    # the standard error of a covariance of 40,000 traits is at most .007
    np.testing.assert_allclose(traits @ traits.T / 40_000, expected, atol=0.035)


# --- sparse-shift


@pytest.mark.parametrize(("fan_in", "fan_out"), [(15, 40), (40, 40), (40, 100), (40, 10)])
def test_decoder_layers_are_orthonormal_up_to_the_stated_gain(fan_in, fan_out):
    weight = sparse_shift.orthogonal_layer(np.random.default_rng(0), fan_in, fan_out)
    assert weight.shape == (fan_in, fan_out)
    gain = np.sqrt(2 / (1 + 0.2**2)) * np.sqrt(2 / (fan_in + fan_out))
    gram = weight @ weight.T if fan_in <= fan_out else weight.T @ weight
    np.testing.assert_allclose(gram, gain**2 * np.eye(min(fan_in, fan_out)), atol=1e-12)


@pytest.fixture(scope="module")
def published():
    data = sparse_shift.simulate(np.random.default_rng(0), over="cells")
    return sparse_shift.SPARSE_SHIFT_PUBLISHED.fields.attach(data)


def test_published_form_has_the_published_counts(published):
    counts = published.layers["counts"]
    library = counts.sum(axis=1)
    assert counts.shape == (25_000, 100)
    assert counts.mean() == pytest.approx(40.0, abs=0.05)
    # gene by gene, too: each gene's softmax is over all cells
    np.testing.assert_allclose(counts.mean(axis=0), 40.0, atol=0.3)
    # the published code's own draw: 2,881 to 14,752 and .08 % zeros
    assert 2_500 < library.min() < 3_300
    assert 11_000 < library.max() < 15_500
    assert 0.0005 < (counts == 0).mean() < 0.002


def test_latents_correlate_within_perturbations_as_asked():
    plain, correlated = (
        sparse_shift.simulate(np.random.default_rng(0), n_cells=2000, n_perturbations=3, correlation=c)
        for c in (0, 0.9)
    )
    np.testing.assert_array_equal(plain.uns["targets"], correlated.uns["targets"])
    for data, expected in ((plain, 0.0), (correlated, 0.9)):
        for perturbation in data.uns["perturbations"]:
            z = data[(data.obs["perturbation"] == perturbation).to_numpy()].obsm["z"]
            off = np.corrcoef(z.T)[np.triu_indices(15, 1)]
            np.testing.assert_allclose(off, expected, atol=0.08)
            np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.06)


def test_default_form_has_a_log_normal_library():
    data = sparse_shift.simulate(np.random.default_rng(0))
    library = data.layers["counts"].sum(axis=1)
    assert data.shape == (25_000, 100)
    assert np.median(library) == pytest.approx(4000, rel=0.01)
    assert np.log(library).std() == pytest.approx(0.3, abs=0.01)
    # the library is drawn apart from the latents
    assert np.abs([np.corrcoef(np.log(library), z)[0, 1] for z in data.obsm["z"].T]).max() < 0.03


def test_rows_are_perturbations_of_equal_size(published):
    sizes = published.obs["perturbation"].value_counts()
    assert len(sizes) == 100
    assert set(sizes) == {250}
    assert published.uns["perturbations"].tolist() == sorted(sizes.index)
    assert published.uns["targets"].shape == (100, 15)
    assert published.obsm["z"].shape == (25_000, 15)


def test_each_perturbation_shifts_its_one_to_three_targets_by_five_and_no_other():
    data = sparse_shift.simulate(np.random.default_rng(1), n_cells=1000, n_perturbations=200, n_genes=5)
    targets = data.uns["targets"]
    assert set(np.unique(targets)) == {0.0, 1.0}
    z = data.obsm["z"].reshape(200, 1000, 15)
    means, stds = z.mean(axis=1), z.std(axis=1)
    shifts = means[targets == 1]
    assert np.abs(np.abs(shifts).mean() - 5.0) < 0.1
    assert np.abs(shifts).std() == pytest.approx(0.5, abs=0.1)
    assert np.abs(shifts).min() > 2.9
    assert np.abs(shifts).max() < 7.1
    assert (shifts > 0).mean() == pytest.approx(0.5, abs=0.12)
    assert np.abs(means[targets == 0]).max() < 5 / np.sqrt(1000)
    np.testing.assert_allclose(stds, 1.0, atol=0.15)


def test_numbers_of_targets_are_those_of_one_to_three_draws_with_replacement():
    data = sparse_shift.simulate(np.random.default_rng(1), n_cells=1, n_perturbations=5000, n_genes=5)
    n_targets = data.uns["targets"].sum(axis=1)
    shares = [(n_targets == n).mean() for n in (1, 2, 3)]
    assert sum(shares) == pytest.approx(1)
    # two of 15 coincide once in 15; a third each without replacement; the standard error is .007
    np.testing.assert_allclose(shares, [0.357, 0.373, 0.270], atol=0.022)
    np.testing.assert_allclose(data.uns["targets"].mean(axis=0), 1.913 / 15, atol=0.022)


def mcc_of(codes, data):
    z, groups = data.obsm["z"], data.obs["perturbation"].to_numpy(str)
    return METRICS["mcc"](z, codes), METRICS["mcc_within"](z, codes, groups)


def test_mcc_of_a_random_rotation_of_the_truth(published):
    z = published.obsm["z"]
    rng = np.random.default_rng(0)
    found = [mcc_of(z @ np.linalg.qr(rng.standard_normal((15, 15)))[0], published)[0] for _ in range(3)]
    assert min(found) > 0.45
    assert max(found) < 0.65


def test_mcc_of_principal_components(published):
    codes = METHODS["pca"](METHODS["pca"].configure(n_latent=15)).fit(published, 0).embed(published)
    assert 0.40 < mcc_of(codes, published)[0] < 0.50


def test_mcc_of_independent_components(published):
    method = METHODS["fastica"](METHODS["fastica"].configure(n_latent=15)).fit(published, 0)
    overall, within = mcc_of(method.embed(published), published)
    assert not method.unconverged
    assert 0.60 < overall < 0.85
    assert 0.50 < within < overall


def test_mcc_of_perturbation_means_is_high_overall_and_nothing_within(published):
    labels = published.obs["perturbation"].to_numpy(str)
    codes = np.zeros_like(published.obsm["z"])
    for label in np.unique(labels):
        codes[labels == label] = published.obsm["z"][labels == label].mean(axis=0)
    overall, within = mcc_of(codes, published)
    assert overall == pytest.approx(0.87, abs=0.03)
    assert within < 0.1
    assert mcc_of(codes + 1e-3 * np.random.default_rng(0).standard_normal(codes.shape), published)[1] < 0.1


# --- ifn


@pytest.fixture(scope="module")
def stimulation():
    return ifn.simulate(np.random.default_rng(0), n_types=3, n_cells=1500, n_genes=300, n_truth=1500)


def cells_of(data, cell_type, condition):
    return ((data.obs["cell_type"] == cell_type) & (data.obs["condition"] == condition)).to_numpy()


def test_types_and_conditions_are_balanced_and_donors_nearly(stimulation):
    obs = stimulation.obs
    assert set(obs.groupby(["cell_type", "condition"], observed=True).size()) == {1500}
    per_donor = obs.groupby(["cell_type", "condition", "donor"], observed=True).size()
    assert len(per_donor) == 3 * 2 * 6
    assert per_donor.min() > 180
    assert per_donor.max() < 320
    np.testing.assert_array_equal(stimulation.uns["tree_distance"], tree_distances(3))


def test_truth_is_the_mean_of_the_cells_within_monte_carlo_error(stimulation):
    for pair, truth in stimulation.uns["truth"].items():
        cells = stimulation.X[cells_of(stimulation, *pair.split("|"))]
        error = np.sqrt(2 * cells.var(axis=0) / 1500)
        squared = np.square((cells.mean(axis=0) - truth) / error)
        assert 0.7 < squared.mean() < 1.4, pair
        # and no other's
        for other, wrong in stimulation.uns["truth"].items():
            if other != pair:
                assert np.square((cells.mean(axis=0) - wrong) / error).mean() > 10


def test_response_activity_is_zero_in_controls_and_gated_in_stimulated_cells(stimulation):
    stimulated = (stimulation.obs["condition"] == "stimulated").to_numpy()
    a = stimulation.obsm["a"]
    assert (a[~stimulated] == 0).all()
    assert (a[stimulated] > 0).all()
    assert a.max() < 2.0
    assert a[stimulated].std() > 0.2


def test_without_interaction_every_stimulated_cell_responds_alike():
    data = ifn.simulate(np.random.default_rng(0), n_types=3, n_cells=20, n_genes=30, n_truth=5, interaction=0.0)
    stimulated = (data.obs["condition"] == "stimulated").to_numpy()
    np.testing.assert_allclose(data.obsm["a"][stimulated], 1.0)


def test_genes_of_a_program_respond_and_the_others_hardly(stimulation):
    truth, programs = stimulation.uns["truth"], stimulation.uns["programs"]
    shift = np.mean([truth[f"type{t}|stimulated"] - truth[f"type{t}|control"] for t in range(3)], axis=0)
    assert 0.05 < (programs >= 0).mean() < 0.16
    inside, outside = shift[programs >= 0], shift[programs < 0]
    # measured .66 against .13
    assert np.abs(inside).mean() > 3 * np.abs(outside).mean()
    assert (inside > 0).mean() > 0.8


def test_types_differ_by_their_tree_distance():
    by_distance = {1: [], 2: [], 3: []}
    for draw in range(5):
        data = ifn.simulate(np.random.default_rng(draw), n_types=8, n_cells=2, n_genes=300, n_truth=100)
        profiles = np.stack([data.uns["truth"][f"type{t}|control"] for t in range(8)])
        for i, j in zip(*np.triu_indices(8, 1), strict=True):
            by_distance[data.uns["tree_distance"][i, j]].append(np.square(profiles[i] - profiles[j]).mean())
    near, middle, far = (np.mean(by_distance[distance]) for distance in (1, 2, 3))
    # measured .52, 1.08, 1.58
    assert near < 0.8 * middle
    assert middle < 0.95 * far


def test_counts_are_overdispersed_as_a_negative_binomial():
    data = ifn.simulate(np.random.default_rng(0), n_types=1, n_cells=4000, n_genes=300, n_truth=2, n_donors=1)
    counts = data.layers["counts"][cells_of(data, "type0", "control")]
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    high = mean > 2
    assert high.sum() > 50
    # 1/dispersion has median 1/1.84 = .54; library (log-std .3) and state add .1 to .2; a Poisson has 0
    excess = np.median((variance - mean)[high] / mean[high] ** 2)
    assert 0.5 < excess < 0.95  # measured .76
    # the number of zeros, too, is that of a gamma mixture and not that of a Poisson
    low = (mean > 1) & (mean < 4)
    zeros = (counts == 0).mean(axis=0)
    assert (zeros[low] > 1.1 * np.exp(-mean[low])).mean() > 0.95


def skills(interaction):
    """The mean skill over the types of each simple baseline and of the noiseless ceiling, at the default size."""
    data = Memory(ifn.IFN.fields.attach(ifn.simulate(np.random.default_rng([0, 2024]), interaction=interaction)), "x")
    task = UnseenCellType(data, primary_only=True)

    def mean(fit):
        return np.mean([task.evaluate(fit(unit), unit, 0)["skill"] for unit in task.units()])

    simple = ("mean-shift", "nearest-type-shift", "ridge-shift")
    found = {name: mean(lambda unit, name=name: lambda cells: METHODS[name]().fit(cells, 0)) for name in simple}
    found["ceiling"] = mean(lambda unit: task.reference_fit("ceiling", unit, 0))
    return found


def test_without_interaction_no_simple_baseline_beats_the_mean_shift():
    found = skills(0.0)
    assert found["mean-shift"] == pytest.approx(0.0, abs=1e-6)
    assert max(found["nearest-type-shift"], found["ridge-shift"]) < 0.1
    assert found["ceiling"] < 0.6


def test_with_full_interaction_the_state_aware_baselines_win_and_the_ceiling_is_high():
    found = skills(1.0)
    assert max(found["nearest-type-shift"], found["ridge-shift"]) > 0.2
    assert found["ceiling"] > 0.7
    assert found["ceiling"] - max(found["nearest-type-shift"], found["ridge-shift"]) > 0.2


# --- pancancer


def test_expression_is_linear_in_the_true_coordinates_where_there_is_no_novelty_and_no_noise():
    data = pancancer.simulate(np.random.default_rng(0), n_cancers=4, n_genes=80, novelty=0.0, noise=0.0)
    factors = data.obsm["factors"]
    assert factors.shape == (data.n_obs, 8 + 3)
    # one map of the coordinates, the organ's among them, for all cancers
    design = np.column_stack([factors, np.ones(len(factors))])
    fitted = design @ np.linalg.lstsq(design, data.X, rcond=None)[0]
    assert np.abs(data.X - fitted).max() < 1e-3
    # with full novelty no shared program is active
    novel = pancancer.simulate(np.random.default_rng(0), n_cancers=4, n_genes=80, novelty=1.0, noise=0.0)
    assert np.abs(novel.obsm["factors"][:, :6]).max() == 0


def test_coordinates_labels_and_purity_agree():
    data = pancancer.simulate(np.random.default_rng(0), n_cancers=4, n_tumours=30, n_normals=10, n_genes=80)
    tumour = (data.obs["condition"] == "tumor").to_numpy()
    coordinates, purity, study, organ = np.split(data.obsm["factors"], [6, 7, 8], axis=1)
    assert len(np.unique(organ.round(4), axis=0)) == 4
    assert (coordinates[~tumour] == 0).all()
    assert (purity[~tumour] == 0).all()
    assert (purity[tumour] > 0).all()
    assert purity.max() < 1
    assert purity[tumour].mean() == pytest.approx(6 / 9, abs=0.05)
    assert [f"study{int(s)}" for s in study[:, 0]] == data.obs["study"].tolist()
    sizes = data.obs.groupby(["cancer_type", "condition"], observed=True).size().unstack()
    assert set(sizes["tumor"]) == {30}
    assert set(sizes["normal"]) == {10}


def test_noise_is_the_residual_of_the_same_draw_without_it():
    noisy, clean = (pancancer.simulate(np.random.default_rng(0), noise=noise).X for noise in (0.5, 0.0))
    assert (noisy - clean).std() == pytest.approx(0.5, rel=0.01)


def test_codes_of_the_true_structure_are_the_true_ones_and_keep_distances_within_a_cancer():
    data = pancancer.simulate(np.random.default_rng(0), noise=0.0)
    code, state = data.obsm["code"], data.obsm["state"]
    found = pancancer.codes_of(np.asarray(data.X, dtype=float), data.uns["structure"])
    np.testing.assert_allclose(found, code, atol=1e-2)
    one = np.flatnonzero(data.obs["cancer_type"] == "cancer3")
    distances = [np.linalg.norm(space[one][:, None] - space[one][None], axis=2) for space in (code, state)]
    np.testing.assert_allclose(*distances, atol=1e-2)
    noisy = pancancer.simulate(np.random.default_rng(0))
    found = pancancer.codes_of(np.asarray(noisy.X, dtype=float), noisy.uns["structure"])
    # .5 of noise a gene is as much in each of four orthonormal directions
    assert np.sqrt(np.mean((found - noisy.obsm["code"])[:, -4:] ** 2)) < 0.7


def agreements(novelty):
    simulated = pancancer.simulate(np.random.default_rng([0, 2024]), novelty=novelty)
    task = Reembedding(Memory(pancancer.PANCANCER.fields.attach(simulated), "x"), primary_only=True)
    pca = METHODS["pca"].configure(n_latent=16)
    scores = [task.evaluate(lambda cells: METHODS["pca"](pca).fit(cells, 0), unit, 0) for unit in task.units()]
    return [s["neighbour_agreement"] for s in scores], [s["knn_recall"] for s in scores]


def test_without_novelty_a_held_out_cancer_re_embeds_and_with_full_novelty_it_cannot():
    (known, known_recall), (novel, novel_recall) = agreements(0.0), agreements(1.0)
    assert min(known) > max(novel)
    assert np.mean(known) - np.mean(novel) > 0.15
    assert np.mean(known_recall) - np.mean(novel_recall) > 0.2
