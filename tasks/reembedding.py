"""Re-embedding of a held-out cancer: does a model that never saw it place it as one that did?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Fit, Reference, Task, scored
from tasks.datasets.base import DataError, labels
from tasks.datasets.memory import Memory
from tasks.datasets.reading import copies_of
from tasks.paired import INTEGRATION, PAIRED, components, distance_score, paired_scores
from tasks.splits import distinct, handed, without_copies

if TYPE_CHECKING:
    from anndata import AnnData

#: Cancers of one organ or lineage, held out together where at least two of them are present.
FAMILIES = (("COAD", "READ"), ("KICH", "KIRC", "KIRP"), ("LUAD", "LUSC"))
#: Prefixes of the units that the preset ``paper`` adds. No label may have them: a unit is named by its label.
FAMILY, STRICT = "family:", "strict:"
MIN_TUMOURS = 20
N_COMPONENTS = 10
#: Most samples of which integration is asked.
MAX_INTEGRATED = 2000


class Reembedding(Task):
    """Fit with and without one cancer's tumours and embed those tumours with both.

    Units are cancers: the tumours (every environment but the control) of one cancer are held out while its
    normal tissue stays. The ``paper`` preset adds families ("family:LUAD+LUSC", held out together) and strict units
    ("strict:LUAD": the cancer's normal tissue is held out of training too). Scores are of tumours alone.
    A cancer with under 20 tumours, copies not counted, is no unit; it stays in training.

    Primary, both needed: ``displacement`` between the two embeddings after a Procrustes map fitted on training
    samples, and ``knn_recall`` of the held-out samples' neighbours in gene space (Euclidean on X). Stability
    alone can be had by a frozen random projection, neighbours alone by a model that moves. Of the secondary ones
    ``label_transfer`` is to be read with care: all that is held out are tumours, so codes that carry nothing name
    them rightly by the majority of the training samples.

    Where real samples are of several studies (a column ``study``; an environment that has no control), the integration
    metrics ask of a random sample of them whether the studies mix and the cancers stay apart.
    """

    name = "reembedding"
    version = 1
    tags = frozenset({"ood", "embedding"})
    reference = "Kim et al. 2024, arXiv 2403.01078: held-out cancers re-embed as if they were trained on"
    datasets = ("pancancer-sim", "tcga-paired", "tcga-mirna", "tcga-gtex")
    requires = ("embed",)
    primary = ("displacement", "knn_recall")
    two_sided = True
    secondary = (
        "distance_spearman",
        "trustworthiness",
        "continuity",
        "reconstruction_error",
        "label_transfer",
        "training_drift",
        "ood_distance",
        *INTEGRATION,
        *PAIRED,
    )
    references = (
        Reference("floor", "PCA whose held-out samples are permuted"),
        Reference("baseline", "PCA", ("pca",)),
        Reference("ceiling", "PCA that never lacks the cancer"),
    )
    unit = "cancer"
    columns: ClassVar[Mapping[str, str]] = {
        "unit": "content",
        "environment": "environment",
        "control": "control",
        "replicate": "replicate",
    }

    def units(self) -> list[str]:
        """Return the cancers with enough tumours; ``smoke`` takes two of them."""
        named = self._large
        if len(named) < 2:
            raise DataError(
                f"{self.dataset.name}: obs[{self.fields.content!r}] has {len(named)} labels with {MIN_TUMOURS} or "
                f"more samples outside the control {self.fields.control!r}; at least 2 are needed"
            )
        if self.preset == "smoke":
            return named[:2]
        if self.preset == "paper":
            return [*named, *self._families, *(STRICT + cancer for cancer in named)]
        return named

    def check(self, data: AnnData) -> None:
        """Refuse also labels that start like the names of the units that ``paper`` adds."""
        super().check(data)
        content = self.dataset.fields.content
        taken = sorted({label for label in data.obs[content].astype(str) if label.startswith((FAMILY, STRICT))})
        if taken and self.preset == "paper":
            raise DataError(
                f"{self.dataset.name}: obs[{content!r}] has the label {taken[0]!r}; with --preset paper labels that "
                f"start with {FAMILY!r} or {STRICT!r} are names of further units: rename it, or use another preset"
            )

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return every sample but the held-out tumours (and, strict, the cancer's normal tissue)."""
        strict = self.preset == "paper" and unit.startswith(STRICT)
        hidden = self._of_unit(unit) if strict else self._held_out(unit)
        return handed(self.data, without_copies(self.data, ~hidden))

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit with and without the unit and compare where its tumours land."""
        held_out = self._held_out(unit)
        training = self.training_data(unit, seed)
        queries = handed(self.data, held_out)
        inside, outside = fit(handed(self.data, np.ones(self.data.n_obs, dtype=bool))), fit(training)
        z_in, z_out = inside.embed(queries), outside.embed(queries)
        train_in, train_out = inside.embed(training), outside.embed(training)
        x, x_train = np.asarray(queries.X), np.asarray(training.X)
        spaces = {"z_in": z_in, "z_out": z_out, "train_in": train_in, "train_out": train_out}
        spaces |= {"reference_held_out": x, "reference_train": x_train, "z_held_out": z_out, "z_train": train_out}
        scores = scored(self.primary, **spaces)
        if self.primary_only:
            return scores
        spaces |= {"reference": x, "z": z_out, "x": x}
        if hasattr(outside, "decode"):
            spaces["x_hat"] = outside.decode(z_out)
        scores |= scored(
            self.secondary,
            **spaces,
            labels_train=labels(training, "environment"),
            labels_held_out=labels(queries, "environment"),
            **self._integration(np.vstack([z_out, train_out]), [*queries.obs_names, *training.obs_names]),
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
        """Return the floor, which permutes the held-out samples, or the ceiling, which never lacks the unit."""
        rng = np.random.default_rng(seed)
        held_out = set(self.data.obs_names[self._held_out(unit)])

        def fit(data: AnnData) -> Any:
            without_unit = held_out.isdisjoint(data.obs_names)
            if reference == "floor":
                return _PCA(np.asarray(data.X), rng if without_unit else None, held_out)
            return _PCA(np.asarray(self.data.X), None, held_out)

        return fit

    def inner(self, unit: str) -> Task:
        """Return the task on the other cancers."""
        left = Memory(handed(self.data, ~self._of_unit(unit)), f"{self.dataset.name} without {unit}")
        return Reembedding(left, "default", primary_only=True)

    @property
    def _studies(self) -> np.ndarray | None:
        """The study of each sample of real data; an environment with a control is a condition and no study."""
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


class _PCA:
    """The linear embedding of the references."""

    def __init__(self, x: np.ndarray, rng: np.random.Generator | None, permuted: set[str]):
        from sklearn.decomposition import PCA

        self.pca = PCA(min(N_COMPONENTS, *x.shape), random_state=0).fit(x)
        self.rng = rng
        self.permuted = permuted

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the scores; with ``rng``, those of the ``permuted`` samples change places."""
        codes = self.pca.transform(np.asarray(data.X))
        if self.rng is not None:
            rows = np.flatnonzero(data.obs_names.isin(self.permuted))
            codes[rows] = codes[self.rng.permutation(rows)]
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the expression of ``codes``."""
        return self.pca.inverse_transform(codes)
