"""Units, strict units and families of re-embedding, and what its controls do."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import tasks.reembedding
from tasks.base import scored
from tasks.datasets.base import DataError, Fields
from tasks.datasets.memory import Memory
from tasks.paired import INTEGRATION
from tasks.reembedding import Reembedding


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


def test_n0_permutes_the_held_out_samples_and_leaves_the_others():
    task = Reembedding(cohort(SIZES))
    unit = "COAD"
    fitted = task.reference_fit("floor", unit, 0)(task.training_data(unit, 0))
    held_out = task.data[task._held_out(unit)]
    permuted, true = fitted.embed(held_out), fitted.pca.transform(held_out.X)
    assert not np.allclose(permuted, true)
    np.testing.assert_allclose(np.sort(permuted, axis=0), np.sort(true, axis=0))
    others = task.training_data(unit, 0)
    np.testing.assert_array_equal(fitted.embed(others), fitted.pca.transform(others.X))
    # the fit that has the unit is an ordinary one
    inside = task.reference_fit("floor", unit, 0)(task.data)
    np.testing.assert_array_equal(inside.embed(held_out), inside.pca.transform(held_out.X))


def test_p_never_lacks_the_unit():
    task = Reembedding(cohort(SIZES))
    fit = task.reference_fit("ceiling", "COAD", 0)
    without, full = fit(task.training_data("COAD", 0)), fit(task.data)
    np.testing.assert_array_equal(without.embed(task.data), full.embed(task.data))


# --- integration


class Components:
    """The first three genes as the code."""

    def embed(self, data):
        return np.asarray(data.X)[:, :3]


def test_studies_of_real_samples_are_asked_for_integration(monkeypatch):
    asked = []

    def integration(names, **arrays):
        asked.append(arrays.get("batches"))
        return scored([name for name in names if name not in INTEGRATION], **arrays)

    monkeypatch.setattr(tasks.reembedding, "scored", integration)
    memory = cohort(SIZES)
    Reembedding(memory).evaluate(lambda data: Components(), "COAD", 0)
    assert asked == [None, None]  # normal and tumour are no batches

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
