"""Re-embedding of a held-out cancer: does a model that never saw it place it as one that did?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Fit, Known, Reference, Task
from tasks.datasets.base import DataError, labels
from tasks.datasets.memory import Memory
from tasks.datasets.reading import copies_of
from tasks.paired import INTEGRATION, PAIRED, components, distance_score, paired_scores
from tasks.simulate.pancancer import codes_of
from tasks.splits import distinct, handed, without_copies

if TYPE_CHECKING:
    from anndata import AnnData

#: Cancers of one organ or lineage, held out together where at least two of them are present.
FAMILIES = (("COAD", "READ"), ("KICH", "KIRC", "KIRP"), ("LUAD", "LUSC"))
#: Prefixes of the units that the preset ``paper`` adds. No label may start with them: a unit is named by its label.
FAMILY, STRICT = "family:", "strict:"
MIN_TUMOURS = 20
#: How many cancers of a simulated draw are held out, one at a time.
UNITS = {"smoke": 1, "default": 2, "paper": 4}
#: Size of every method's code: the true factors need 11, PCA more.
N_LATENT = 16
#: Integration is measured on at most this many samples.
MAX_INTEGRATED = 2000


class Reembedding(Task):
    """Fit with and without one cancer's tumours and embed those tumours with both.

    Units are cancers: the tumours (every environment but the control) of one cancer are held out while its
    normal tissue stays. The ``paper`` preset adds families ("family:LUAD+LUSC", held out together) and strict units
    ("strict:LUAD": the cancer's normal tissue is held out of training too). Scores are of tumours alone.
    A cancer with under 20 tumours, copies not counted, is no unit; it stays in training.

    Primary, both needed:

    - ``knn_recall``, how *faithful* the fit without the cancer is: the share of a tumour's nearest neighbours, among
      all samples, in a space that shares no noise with what the method saw. Simulated: the expression without noise
      and study. Real: genes that no method is given, a random half; methods have the other half.
    - ``neighbour_agreement`` of the fit without the cancer and a fit with it *and another seed*: the share of a
      tumour's nearest training samples that are the same in both. With one seed for both fits, a random projection
      would agree with itself whatever it shows. Beside it ``agreement_two_seeds``, of two fits that both have the
      cancer: what the method loses to its own training, and not to the cancer's absence.

    The fits with the cancer are those of all samples, and shared by the units of a draw or data set.

    The baseline is PCA, also on real data: of the simple methods it has the smallest product of both errors. The
    relative error of each, and of the references, is the geometric mean over 8 development draws of four units each,
    with the standard error of the logarithm over draws:

    =================  ==============  ==============  =========================
    method             1 − recall      1 − agreement   agreement (of two seeds)
    =================  ==============  ==============  =========================
    floor              1.42 ± .01      2.02 ± .04      .43
    PCA                1 (.52)         1 (.28)         .72 (1)
    FastICA            .95 ± .01       1.85 ± .02      .48 (1)
    random projection  .88 ± .02       2.58 ± .05      .28 (.28)
    VAE                .94 ± .02       1.42 ± .05      .60 (.71)
    dHSIC-VAE          .94 ± .02       1.49 ± .05      .58 (.66)
    structure          .49 ± .04       0               1 (1)
    ceiling            .37 ± .06       .09             .97 (.97)
    =================  ==============  ==============  =========================

    On tcga-paired (11 cancers) PCA has a recall of .61 (.47 to .72) and an agreement of .87 (.75 to .94), and relative
    errors are: floor 2.1 and 5.4, FastICA 1.1 and 2.2, random projection 1.6 and 7.4, ceiling .92 and .01. So no linear
    code of this size is much more faithful there, and what resolves methods is their agreement.

    The ceiling's code is the same for all normal samples of an organ: they tie, and it agrees with itself in .97.

    The difference of two methods' log errors varies within draws (variance .0003 to .13 a unit) and hardly between
    them (at most .003), so that more units a draw are as good as more draws and cheaper: a draw takes two fits of all
    samples whatever its number of units. Fewer than eight draws leave a sign-flip test without small p-values.

    Read ``label_transfer`` with care: all held-out samples are tumours, so codes without information still name them
    rightly, by the majority of the training samples.

    Where real samples come from several studies (a column ``study``, or an environment without a control), the
    integration metrics say whether the studies mix and the cancers stay apart, on a random sample.
    """

    name = "reembedding"
    version = 2
    tags = frozenset({"ood", "embedding"})
    paper = "Kim et al. 2024, arXiv 2403.01078: held-out cancers re-embed as if they were trained on"
    datasets = ("pancancer-sim", "tcga-paired", "tcga-mirna", "tcga-gtex")
    requires = ("embed",)
    primary = ("knn_recall", "neighbour_agreement")
    two_sided = True
    secondary = (
        "agreement_two_seeds",
        "displacement",
        "displacement_two_seeds",
        "training_drift",
        "distance_spearman",
        "trustworthiness",
        "continuity",
        "reconstruction_error",
        "label_transfer",
        "ood_distance",
        *INTEGRATION,
        *PAIRED,
    )
    references = (
        Reference("floor", "PCA whose held-out samples are permuted"),
        Reference("baseline", "PCA", ("pca",)),
        Reference(
            "structure", "the sample's factors, fitted to it by the true profiles of all cancers", on="simulated"
        ),
        Reference("ceiling", "the true factors as the code", on="simulated"),
        Reference("ceiling", "PCA of the genes that no method is given, of all samples", on="real"),
    )
    question = "Which method places a cancer that it never saw as if it had been trained on it?"
    unit = "cancer"
    columns: ClassVar[Mapping[str, str]] = {
        "unit": "content",
        "environment": "environment",
        "control": "control",
        "replicate": "replicate",
    }
    settings: ClassVar[Mapping[str, Any]] = {"n_latent": N_LATENT}
    draws: ClassVar[Mapping[str, int]] = {"smoke": 2, "default": 8, "paper": 8}

    def units(self) -> list[str]:
        """Return cancers with enough tumours: some, far apart in the tree, of a draw; all (or two) of real data."""
        named = self._large
        if len(named) < 2:
            raise DataError(
                f"{self.dataset.name}: obs[{self.fields.content!r}] has {len(named)} labels with {MIN_TUMOURS} or "
                f"more samples outside the control {self.fields.control!r}; at least 2 are needed"
            )
        if not self.dataset.simulated:
            named = named[:2] if self.preset == "smoke" else named
        elif len(named) > (n_units := UNITS[self.preset]):
            named = named[:: len(named) // n_units][:n_units]
        if self.preset == "paper":
            return [*named, *self._families, *(STRICT + cancer for cancer in named)]
        return named

    def check(self, data: AnnData) -> None:
        """Refuse also labels that start as the names of the further units of ``paper`` do."""
        super().check(data)
        content = self.dataset.fields.content
        taken = sorted({label for label in data.obs[content].astype(str) if label.startswith((FAMILY, STRICT))})
        if taken and self.preset == "paper":
            raise DataError(
                f"{self.dataset.name}: obs[{content!r}] has the label {taken[0]!r}; with --preset paper labels that "
                f"start with {FAMILY!r} or {STRICT!r} are names of further units: rename it, or use another preset"
            )

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return every sample but the held-out tumours (a strict unit holds out the cancer's normal tissue, too)."""
        strict = self.preset == "paper" and unit.startswith(STRICT)
        hidden = self._of_unit(unit) if strict else self._held_out(unit)
        return self.handed(without_copies(self.data, ~hidden))

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit with and without the unit, and with it once more, and compare where its tumours land."""
        held_out = self._held_out(unit)
        training = self.training_data(unit, seed)
        queries, all_samples = self.handed(held_out), self.handed(np.ones(self.data.n_obs, dtype=bool))
        inside = getattr(fit, "again", fit)(all_samples)
        spaces = {"z_in": inside.embed(queries), "train_in": inside.embed(training)}
        if not self.primary_only:
            again = fit(all_samples)
            spaces |= {"z_again": again.embed(queries), "train_again": again.embed(training)}
        outside = fit(training)
        z, z_train = outside.embed(queries), outside.embed(training)
        spaces |= {"z_out": z, "train_out": z_train, "z_held_out": z, "z_train": z_train, "z": z}
        truth, seen = self._truth, self.data.obs_names.isin(training.obs_names)
        spaces |= {"reference_held_out": truth[held_out], "reference_train": truth[seen], "reference": truth[held_out]}
        if self.primary_only:
            return self.scores(**spaces)
        x, x_train = np.asarray(queries.X), np.asarray(training.X)
        if hasattr(outside, "decode"):
            spaces |= {"x": x, "x_hat": outside.decode(z)}
        scores = self.scores(
            **spaces,
            labels_train=labels(training, "environment"),
            labels_held_out=labels(queries, "environment"),
            **self._integration(np.vstack([z, z_train]), [*queries.obs_names, *training.obs_names]),
        )
        return scores | distance_score(x, x_train) | paired_scores(outside, training, self.data)

    def _integration(self, codes: np.ndarray, names: list[str]) -> dict[str, Any]:
        """Return the arrays that the integration metrics ask for; none where all samples are of one study."""
        studies = self._studies
        if studies is None or len(np.unique(studies)) < 2:
            return {}
        chosen = np.sort(np.random.default_rng(90).permutation(len(names))[:MAX_INTEGRATED])
        cells = self.data.obs_names.get_indexer(names)[chosen]
        return {
            "codes": codes[chosen],
            "batches": studies[cells],
            "labels": self.contents[cells],
            "before": components(np.asarray(self.data.X)[cells]),
            "kbet": self.preset == "paper",
        }

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the floor, which permutes the held-out samples, or a reference whose codes no fit changes."""
        from sklearn.decomposition import PCA

        if reference == "ceiling":
            truth, known = self._truth, self.data.obsm.get("code")
            codes = PCA(min(N_LATENT, *truth.shape), random_state=0).fit_transform(truth) if known is None else known
            return lambda data: Known(self.data, codes)
        if reference == "structure":
            return lambda data: _Structure(self.data.uns["structure"])
        rng, held_out = np.random.default_rng(seed), set(self.data.obs_names[self._held_out(unit)])
        return lambda data: _Permuted(data, rng, held_out)

    def inner(self, unit: str) -> Task:
        """Return the task on the other cancers."""
        others = Memory(handed(self.data, ~self._of_unit(unit)), f"{self.dataset.name} without {unit}")
        return Reembedding(others, "default", primary_only=True)

    def handed(self, cells: np.ndarray) -> AnnData:
        """Return what a method may see of samples: of real data, half of the genes, once these are chosen."""
        data = super().handed(cells)
        return data if self._hidden is None or self.dataset.n_genes else data[:, ~self._hidden].copy()

    @cached_property
    def _hidden(self) -> np.ndarray | None:
        """Which genes no method is given, (n_genes,): a random half; None where the true state is known."""
        n_genes = self.data.n_vars
        if "state" in self.data.obsm:
            return None
        return np.random.default_rng(91).permutation(n_genes) < n_genes // 2

    @property
    def _truth(self) -> np.ndarray:
        """The space that defines true neighbours, (n_samples, n_features); it shares no noise with what methods see."""
        return self.data.obsm["state"] if self._hidden is None else np.asarray(self.data.X)[:, self._hidden]

    @property
    def _studies(self) -> np.ndarray | None:
        """The study of each sample of real data, (n_samples,); an environment with a control is no study."""
        if self.dataset.simulated:
            return None
        name = "study" if "study" in self.data.obs else "" if self.fields.control else self.fields.environment
        return self.data.obs[name].to_numpy(str) if name else None

    @cached_property
    def _large(self) -> list[str]:
        """Cancers with enough tumours, copies not counted."""
        tumours = self._tumour & distinct(copies_of(self.data), self.contents, self._tumour)
        cancers, counts = np.unique(self.contents[tumours], return_counts=True)
        return [str(cancer) for cancer in cancers[counts >= MIN_TUMOURS]]

    @cached_property
    def _families(self) -> dict[str, list[str]]:
        """Families of which two cancers or more have enough tumours, by the names of their units."""
        families = [[name for name in family if name in self._large] for family in FAMILIES]
        return {FAMILY + "+".join(family): family for family in families if len(family) > 1}

    @property
    def _tumour(self) -> np.ndarray:
        return self.environments != self.fields.control

    def _of_unit(self, unit: str) -> np.ndarray:
        if self.preset == "paper":
            return np.isin(self.contents, self._families.get(unit, [unit.removeprefix(STRICT)]))
        return self.contents == unit

    def _held_out(self, unit: str) -> np.ndarray:
        return self._of_unit(unit) & self._tumour


class _Permuted:
    """PCA; where the fit lacks some samples, their codes change places."""

    def __init__(self, data: AnnData, rng: np.random.Generator, names: set[str]):
        from sklearn.decomposition import PCA

        x = np.asarray(data.X)
        self.pca = PCA(min(N_LATENT, *x.shape), random_state=0).fit(x)
        self.rng = rng
        self.names = names if names.isdisjoint(data.obs_names) else set()

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the scores, those of the samples ``names`` in random order."""
        codes = self.pca.transform(np.asarray(data.X))
        rows = np.flatnonzero(data.obs_names.isin(self.names))
        codes[rows] = codes[self.rng.permutation(rows)]
        return codes


class _Structure:
    """The factors of a sample, fitted to it with the simulator's true structure."""

    def __init__(self, structure: dict[str, np.ndarray]):
        self.structure = structure

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_samples, n_latent)."""
        return codes_of(np.asarray(data.X), self.structure)
