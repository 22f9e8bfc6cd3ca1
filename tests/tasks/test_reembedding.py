"""Units, strict units and families of re-embedding, what is compared, and what its references do."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import tasks.base
from bench.jobs.fits import Fits
from methods import METHODS
from tasks.base import PRESETS, scored
from tasks.datasets.base import DataError, Fields
from tasks.datasets.memory import Memory, digest
from tasks.paired import INTEGRATION
from tasks.reembedding import UNITS, Reembedding
from tasks.simulate.pancancer import PANCANCER


def cohort(sizes, n_genes=30):
    """Tumours and five normals of each cancer."""
    rng = np.random.default_rng(0)
    cancers = np.concatenate([[name] * (n + 5) for name, n in sizes.items()])
    tumour = np.concatenate([[True] * n + [False] * 5 for n in sizes.values()])
    obs = pd.DataFrame({"cancer": cancers, "tissue": np.where(tumour, "tumor", "normal")})
    obs.index = [f"sample{i}" for i in range(len(obs))]
    data = AnnData(rng.normal(5, 1, (len(obs), n_genes)).astype(np.float32), obs=obs)
    data.uns["X_units"] = "log2 expression"
    return Memory(Fields("tissue", "cancer", control="normal").attach(data), "cohort")


class Components:
    """The first three genes as the code."""

    def embed(self, data):
        return np.asarray(data.X)[:, :3]


SIZES = {"COAD": 25, "READ": 20, "LUAD": 30, "LUSC": 19, "BRCA": 40}


def test_a_cancer_with_under_twenty_tumours_is_no_unit_but_stays_in_training():
    task = Reembedding(cohort(SIZES))
    assert task.units() == ["BRCA", "COAD", "LUAD", "READ"]
    assert (task.training_data("BRCA", 0).obs["cancer"] == "LUSC").sum() == 24


def test_smoke_takes_two_and_paper_adds_families_and_strict_units():
    assert Reembedding(cohort(SIZES), "smoke").units() == ["BRCA", "COAD"]
    named = ["BRCA", "COAD", "LUAD", "READ"]
    # LUSC is too small to be held out with LUAD, and one cancer is no family
    assert Reembedding(cohort(SIZES), "paper").units() == [
        *named,
        "family:COAD+READ",
        *(f"strict:{name}" for name in named),
    ]


def training_labels(unit):
    obs = Reembedding(cohort(SIZES), "paper").training_data(unit, 0).obs
    return set(zip(obs["cancer"], obs["tissue"], strict=True))


def test_a_cancers_normal_tissue_stays_unless_the_unit_is_strict():
    everything = {(cancer, tissue) for cancer in SIZES for tissue in ("tumor", "normal")}
    assert everything - training_labels("COAD") == {("COAD", "tumor")}
    assert everything - training_labels("strict:COAD") == {("COAD", "tumor"), ("COAD", "normal")}
    assert everything - training_labels("family:COAD+READ") == {("COAD", "tumor"), ("READ", "tumor")}


def queries_of(unit):
    task = Reembedding(cohort(SIZES), "paper")
    asked = []

    class Codes:
        def embed(self, data):
            asked.append(data.obs)
            return np.asarray(data.X)[:, :5]

    scores = task.evaluate(lambda data: Codes(), unit, 0)
    return asked[0], scores


@pytest.mark.parametrize(("unit", "n"), [("COAD", 25), ("strict:COAD", 25), ("family:COAD+READ", 45)])
def test_scores_are_of_the_units_tumours_alone(unit, n):
    asked, scores = queries_of(unit)
    assert len(asked) == n
    assert set(asked["tissue"]) == {"tumor"}
    assert set(asked["cancer"]) == set(unit.rpartition(":")[2].split("+"))
    # the same codes from both fits
    assert scores["neighbour_agreement"] == scores["agreement_two_seeds"] == 1
    assert scores["displacement"] == pytest.approx(0, abs=1e-12)
    assert scores["training_drift"] == pytest.approx(0, abs=1e-12)
    assert "reconstruction_error" not in scores


def test_inner_units_of_a_family_lack_the_whole_family():
    task = Reembedding(cohort(SIZES), "paper")
    assert set(task.inner("family:COAD+READ").data.obs["cancer"]) == {"BRCA", "LUAD", "LUSC"}
    assert set(task.inner("strict:COAD").data.obs["cancer"]) == {"BRCA", "READ", "LUAD", "LUSC"}


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_label_is_held_out_to_the_letter(preset):
    task = Reembedding(cohort({"COAD": 25, "READ": 20, "COAD+READ": 30, "COAD strict": 22}), preset)
    assert task.units()[:4] == ["COAD", "COAD strict", "COAD+READ", "READ"]
    for unit in task.units()[:4]:
        gone = task.data.obs.drop(task.training_data(unit, 0).obs_names)
        assert set(gone["cancer"]) == {unit}
        assert set(gone["tissue"]) == {"tumor"}
        assert unit not in set(task.inner(unit).data.obs["cancer"])


def test_labels_that_start_as_the_papers_own_units_are_refused_there_and_ordinary_elsewhere():
    data = cohort({"COAD": 25, "strict:COAD": 30})
    assert Reembedding(data).units() == ["COAD", "strict:COAD"]
    gone = set(Reembedding(data).data.obs_names) - set(Reembedding(data).training_data("strict:COAD", 0).obs_names)
    assert len(gone) == 30
    with pytest.raises(DataError, match=r"cohort: obs\['cancer'\] has the label 'strict:COAD'"):
        Reembedding(data, "paper").units()


def test_cells_are_told_apart_though_their_names_repeat():
    unique, repeated = cohort(SIZES), cohort(SIZES)
    repeated.load().obs_names = ["sample"] * repeated.load().n_obs
    for control in ("floor", "ceiling"):
        scores = []
        for data in (unique, repeated):
            task = Reembedding(data)
            scores.append(task.evaluate(task.reference_fit(control, "COAD", 0), "COAD", 0))
        assert scores[0] == scores[1]
    assert task.data.obs_names.is_unique


def test_too_few_cancers_are_refused_naming_data_set_and_column():
    with pytest.raises(DataError, match=r"cohort: obs\['cancer'\] has 1 labels with 20 or more"):
        Reembedding(cohort({"COAD": 30, "READ": 10})).units()


def test_the_floor_permutes_the_held_out_samples_and_leaves_the_others():
    task = Reembedding(cohort(SIZES))
    unit = "COAD"
    fitted = task.reference_fit("floor", unit, 0)(task.training_data(unit, 0))
    held_out = task.handed(task._held_out(unit))
    permuted, true = fitted.embed(held_out), fitted.pca.transform(held_out.X)
    assert not np.allclose(permuted, true)
    np.testing.assert_allclose(np.sort(permuted, axis=0), np.sort(true, axis=0))
    others = task.training_data(unit, 0)
    np.testing.assert_array_equal(fitted.embed(others), fitted.pca.transform(others.X))
    # the fit that has the unit is an ordinary one
    inside = task.reference_fit("floor", unit, 0)(task.handed(np.ones(task.data.n_obs, dtype=bool)))
    np.testing.assert_array_equal(inside.embed(held_out), inside.pca.transform(held_out.X))


@pytest.mark.parametrize("reference", ["ceiling", "structure"])
def test_no_fit_moves_ceiling_and_structure(reference):
    task = tiny(1000)
    fit = task.reference_fit(reference, "cancer0", 0)
    without, full = fit(task.training_data("cancer0", 0)), fit(task.data)
    np.testing.assert_array_equal(without.embed(task.data), full.embed(task.data))


# --- genes that no method is given


def test_methods_have_one_half_of_the_genes_of_real_data_and_faithfulness_is_asked_of_the_other():
    task, handed_over = Reembedding(cohort(SIZES)), []

    class Noted(Components):
        def __init__(self, data):
            handed_over.append(data)

    task.evaluate(Noted, "COAD", 0)
    genes = [set(data.var_names) for data in handed_over]
    assert genes[0] == genes[1] == genes[2]
    assert len(genes[0]) == 15
    hidden = set(task.data.var_names) - genes[0]
    np.testing.assert_array_equal(task._truth, np.asarray(task.data[:, sorted(hidden, key=int)].X))
    # and so it is on the genes that are chosen first, and on inner units
    few = Memory(cohort(SIZES).load(), "few", n_genes=20)
    assert Reembedding(few).training_data("COAD", 0).n_vars == 30
    assert Reembedding(few).prepared("COAD", 0).training_data("COAD", 0).n_vars == 10
    assert set(task.inner("COAD").training_data("READ", 0).var_names) == genes[0]


def test_noise_in_place_of_the_held_out_tumours_and_the_hidden_genes_changes_no_training_data():
    clean = Reembedding(cohort(SIZES))
    noised = cohort(SIZES).load().copy()
    rng = np.random.default_rng(5)
    noised.X[clean._held_out("COAD")] = rng.normal(50, 9, (25, 30))
    noised.X[:, clean._hidden] = rng.normal(50, 9, (noised.n_obs, 15))
    training = [task.training_data("COAD", 0) for task in (clean, Reembedding(Memory(noised, "noised")))]
    assert digest(training[0]) == digest(training[1])


def test_a_code_of_the_hidden_genes_is_faithful_and_one_of_the_others_is_not():
    task = Reembedding(cohort(SIZES))
    ceiling = task.evaluate(task.reference_fit("ceiling", "COAD", 0), "COAD", 0)
    assert ceiling["neighbour_agreement"] == 1
    # noise alone: what methods are given says nothing of the other genes; 15 components of 15 genes are all of them
    assert ceiling["knn_recall"] == pytest.approx(1)
    assert task.evaluate(lambda data: Components(), "COAD", 0)["knn_recall"] < 0.25


# --- seeds


class Seeded:
    """The first three genes, turned and stretched as the seed has it."""

    def __init__(self, seed):
        self.turn = np.random.default_rng(seed).standard_normal((3, 3))

    def embed(self, data):
        return np.asarray(data.X)[:, :3] @ self.turn


def test_the_fit_with_the_cancer_has_another_seed_and_so_has_the_second_one():
    task, seeds = Reembedding(cohort(SIZES)), []

    def seeded(seed):
        def fit(data):
            seeds.append((seed, data.n_obs))
            return Seeded(seed)

        return fit

    fit = seeded(0)
    fit.again = seeded(1)
    scores = task.evaluate(fit, "COAD", 0)
    n_all = task.data.n_obs
    assert seeds == [(1, n_all), (0, n_all), (0, n_all - 25)]
    # a code that its seed alone decides: the cancer's absence costs it nothing beyond its own floor
    assert scores["neighbour_agreement"] == scores["agreement_two_seeds"] < 1
    assert scores["displacement"] == scores["displacement_two_seeds"] > 0


def test_the_runner_fits_again_with_another_seed_and_keeps_it(tmp_path):
    task = tiny(1000)
    fits = Fits(tmp_path)
    fit = fits.of("random-projection", {"n_latent": 16}, 0)
    codes = [f(task.data).embed(task.data) for f in (fit, fit.again, fit)]
    assert not np.allclose(codes[0], codes[1])
    np.testing.assert_array_equal(codes[0], codes[2])


# --- draws


def tiny(draw, **sizes):
    parameters = {"n_cancers": 6, "n_tumours": 30, "n_normals": 10, "n_genes": 120, **sizes}
    return Reembedding(dataclasses.replace(PANCANCER, parameters=parameters, sizes={}), primary_only=True, draw=draw)


@pytest.mark.parametrize("preset", PRESETS)
def test_units_are_the_same_in_every_draw(preset):
    dataset = dataclasses.replace(PANCANCER, parameters={"n_cancers": 6, "n_genes": 60}, sizes={})
    units = [Reembedding(dataset, preset, draw=draw).units() for draw in (0, 1, 1000)]
    assert units[0] == units[1] == units[2]
    assert len([unit for unit in units[0] if ":" not in unit]) == UNITS[preset]


def test_references_are_in_order_over_development_draws_and_the_larger_error_counts():
    errors = {}
    for draw in range(1000, 1003):
        task = tiny(draw)
        for name in ("floor", "pca", "random-projection", "structure", "ceiling"):
            for unit in task.units():
                own = name in METHODS
                fit = Fits(None).of(name, {"n_latent": 16}, 0) if own else task.reference_fit(name, unit, 0)
                scores = task.evaluate(fit, unit, 0)
                errors.setdefault(name, []).append([max(1 - scores[m], 1e-3) for m in task.primary])
    log = {name: np.log(values).reshape(3, -1, 2).mean(axis=1) for name, values in errors.items()}
    relative = {name: np.exp((values - log["pca"]).mean(axis=0)).max() for name, values in log.items()}
    # measured on these: floor 1.8, random projection 2.2, structure .5, ceiling .4
    assert relative["ceiling"] < relative["structure"] < 0.75
    assert relative["floor"] > 1.4
    assert relative["random-projection"] > 1.4
    # in every draw
    assert (log["structure"].max(axis=1) < log["pca"].max(axis=1)).all()


# --- integration


def test_studies_of_real_samples_are_asked_for_integration(monkeypatch):
    asked = []

    def integration(names, **arrays):
        asked.append(arrays.get("batches"))
        return scored([name for name in names if name not in INTEGRATION], **arrays)

    monkeypatch.setattr(tasks.base, "scored", integration)
    memory = cohort(SIZES)
    Reembedding(memory).evaluate(lambda data: Components(), "COAD", 0)
    assert asked == [None]  # normal and tumour are no batches

    data = memory.load()
    data.obs["study"] = np.resize(["TCGA", "GTEx"], data.n_obs)
    Reembedding(Memory(data, "two studies")).evaluate(lambda data: Components(), "COAD", 0)
    assert len(asked[-1]) == data.n_obs
    assert set(asked[-1]) == {"TCGA", "GTEx"}

    data.obs["study"] = "TCGA"
    Reembedding(Memory(data, "one study")).evaluate(lambda data: Components(), "COAD", 0)
    assert asked[-1] is None


def test_studies_are_scored():
    data = cohort(SIZES).load()
    data.obs["study"] = np.resize(["TCGA", "GTEx"], data.n_obs)
    scores = Reembedding(Memory(data, "two studies")).evaluate(lambda data: Components(), "COAD", 0)
    assert set(INTEGRATION) - set(scores) == {"kbet_per_label"}
    assert scores["ilisi"] > 0.8  # the studies differ in nothing
