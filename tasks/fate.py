"""Fate separation in lineage tracing: is what a progenitor will become in its code already?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Fit, Known, Reference, Task, scored
from tasks.datasets.base import DataError, labels
from tasks.paired import CURVATURES, curvature_scores
from tasks.simulate.fate_tree import bias_of
from tasks.splits import handed, without_copies

if TYPE_CHECKING:
    from anndata import AnnData

N_FOLDS = 5
#: A fate counts if at least this many clones have it: then every training set has it, though single folds may not.
MIN_CLONES = 10
N_COMPONENTS = 10


class Fate(Task):
    """Predict the fate of clones from the codes of their early cells; the method was not told the fates.

    The progenitor type is the most frequent cell type of the first day. Early cells are the progenitors of any day
    but the last; the fate of a clone is the most frequent other cell type among its cells of the last day.
    Clones with a tie, without early cells or with a fate of under 10 such clones have no fate; they stay
    in training.

    Units are fifths of the clones, dealt anew for each seed; a draw of the simulator has one unit. All cells of a
    held-out clone are out of training, its late ones too: the question is what a new progenitor becomes, and a method
    that saw its late sisters could place it by them. Probes are fitted on the early cells of training clones, whose
    fates follow from late training cells.

    Primary, both of the linear probe, as in the papers: ``fate_skill`` (log-loss against base rates: is the probability
    right?) and ``fate_auroc`` (is the order right, whatever the calibration?). The kNN probe, shown beside them, orders
    the references alike with half of the range.

    Skill and AUROC over 8 development draws (mean and standard deviation of one fold each), and the errors relative to
    the baseline's (geometric mean, standard error of the logarithm):

    =========  ===========  ===========  ===============  ===============
    method     skill        AUROC        1 − skill        1 − AUROC
    =========  ===========  ===========  ===============  ===============
    floor      −.02 ± .03   .50 ± .07    1.31 ± .07       2.78 ± .13
    PCA        .12 ± .10    .71 ± .09    1.13 ± .05       1.57 ± .10
    VAE        .14 ± .07    .73 ± .07    1.11 ± .05       1.46 ± .10
    all genes  .22 ± .14    .81 ± .06    1                1
    structure  .34 ± .11    .86 ± .06    .84 ± .05        .75 ± .10
    ceiling    .44 ± .10    .91 ± .03    .71 ± .04        .49 ± .07
    =========  ===========  ===========  ===============  ===============

    ``larry-mini`` does not resolve methods: 30 clones of two fates (17 Monocyte, 13 Neutrophil) are left, and over
    5 folds x 3 seeds the skill is −.06 ± .26 (floor), .01 ± .12 (baseline), .08 ± .18 (PCA), .84 ± .08 (ceiling).
    """

    name = "fate"
    version = 2
    tags = frozenset({"disentanglement"})
    paper = "Weinreb et al. 2020, Science 367:eaaw3381; Kim et al. 2024, arXiv 2403.01078: fate in latent space"
    datasets = ("fate-sim", "larry-mini", "larry")
    requires = ("embed",)
    primary = ("fate_skill", "fate_auroc")
    secondary = ("fate_skill_knn", "fate_auroc_knn", *CURVATURES)
    references = (
        Reference("floor", "PCA whose early cells are permuted"),
        Reference("baseline", "all genes as the code, so that the probe is a logistic regression on genes"),
        Reference("structure", "the early state that explains a cell best by all true programs", on="simulated"),
        Reference("ceiling", "the clone's true early state as the code", on="simulated"),
        Reference("ceiling", "a clone's mean late cell as the code of its early ones", on="real"),
    )
    question = "Which method's code of early cells tells what they become?"
    unit = "fold of clones"
    draws: ClassVar[Mapping[str, int]] = {"smoke": 2, "default": 8, "paper": 8}

    def check(self, data: AnnData) -> None:
        """Require also clones, and days that are numbers."""
        super().check(data)
        fields = self.dataset.fields
        if not (fields.replicate and fields.content):
            raise DataError(f"{self.dataset.name}: no column of clones, or none of cell types, is named in its fields")
        days = sorted(set(data.obs[fields.environment].astype(str)))
        if len(days) < 2 or not all(day.replace(".", "", 1).isdigit() for day in days):
            raise DataError(
                f"{self.dataset.name}: obs[{fields.environment!r}] has {', '.join(days)}; at least 2 days, as numbers, "
                "are needed"
            )

    def units(self) -> list[str]:
        """Return the folds: one of a simulated draw, two (``smoke``) or all of real data; ``paper`` has all of both."""
        fates = np.setdiff1d(self._fates, "")
        if len(fates) < 2:
            raise DataError(
                f"{self.dataset.name}: {', '.join(fates) or 'no fate'} alone has {MIN_CLONES} or more "
                "clones with progenitors before the last day and differentiated cells on it; at least 2 such fates "
                "are needed"
            )
        if self.preset == "paper":
            n_folds = N_FOLDS
        elif self.dataset.simulated:
            n_folds = 1
        else:
            n_folds = 2 if self.preset == "smoke" else N_FOLDS
        return [f"fold{i}" for i in range(n_folds)]

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return all cells, of all days, of the clones that are not held out."""
        return handed(self.data, self._seen(unit, seed))

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, embed the early cells of both sides, and probe the codes."""
        training = self.training_data(unit, seed)
        fitted = fit(training)
        early = self._fates != ""
        cells: dict[str, np.ndarray] = {}
        for side, among in (("train_", self._seen(unit, seed)), ("", self._held_out(unit, seed))):
            of_side = np.flatnonzero(early & among)
            cells[f"{side}codes"] = fitted.embed(handed(self.data, of_side))
            cells[f"{side}fates"], cells[f"{side}clones"] = self._fates[of_side], self._clones[of_side]
        scores = scored(self.primary, **cells)
        if self.primary_only:
            return scores
        return scores | scored(self.secondary, **cells) | curvature_scores(fitted, training)

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return permuted codes (floor), genes (baseline), or the true early state or the late sisters (ceiling)."""
        rng = np.random.default_rng([seed, 82])

        def fit(data: AnnData) -> Any:
            if reference == "baseline":
                return _Genes()
            if reference == "floor":
                return _Permuted(np.asarray(data.X), rng)
            if reference == "structure":
                return _Structure(self.data.uns["structure"])
            if "bias" in self.data.obsm:
                return Known(self.data, self.data.obsm["bias"])
            late = self._last_day & (self.contents != self._progenitor)
            return _LateSisters(np.asarray(self.data.X)[late], self._clones[late])

        return fit

    @property
    def _clones(self) -> np.ndarray:
        return labels(self.data, "replicate")

    @property
    def _days(self) -> np.ndarray:
        return self.environments.astype(float)

    @property
    def _last_day(self) -> np.ndarray:
        return self._days == self._days.max()

    @property
    def _progenitor(self) -> str:
        types, counts = np.unique(self.contents[self._days == self._days.min()], return_counts=True)
        return str(types[counts.argmax()])

    @cached_property
    def _fates(self) -> np.ndarray:
        """The fate of each early cell's clone, (n_cells,); empty for every other cell."""
        clones, clone = np.unique(self._clones, return_inverse=True)
        types, kind = np.unique(self.contents, return_inverse=True)
        progenitor = self.contents == self._progenitor
        early, late = progenitor & ~self._last_day, ~progenitor & self._last_day
        numbers = np.zeros((len(clones), len(types)), dtype=int)
        np.add.at(numbers, (clone[late], kind[late]), 1)
        most = numbers.max(axis=1)
        tie = (numbers == most[:, None]).sum(axis=1) > 1
        known = (most > 0) & ~tie & np.isin(np.arange(len(clones)), clone[early])
        fate = np.where(known, types[numbers.argmax(axis=1)], "")
        common, counts = np.unique(fate, return_counts=True)
        fate[~np.isin(fate, common[counts >= MIN_CLONES])] = ""
        return np.where(early, fate[clone], "")

    def _seen(self, unit: str, seed: int) -> np.ndarray:
        """Return a mask of the training cells: those of the other clones that are no copy of a held-out cell."""
        return without_copies(self.data, ~self._held_out(unit, seed))

    def _held_out(self, unit: str, seed: int) -> np.ndarray:
        """Return a mask of the cells of the fold's clones: a fifth of all clones, whatever their fates."""
        clones, clone = np.unique(self._clones, return_inverse=True)
        fold = np.random.default_rng([seed, 81]).permutation(len(clones)) % N_FOLDS
        return fold[clone] == int(unit.removeprefix("fold"))


class _Genes:
    """The cells themselves as their codes."""

    def embed(self, data: AnnData) -> np.ndarray:
        """Return ``data.X``."""
        return np.asarray(data.X)


class _Structure:
    """The simulator's true structure, which tells the early state of a cell."""

    def __init__(self, structure: Mapping[str, Any]):
        self.structure = structure

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the early state (n_cells, n_fates)."""
        return bias_of(np.asarray(data.layers["counts"]), self.structure)


class _Permuted:
    """Principal components whose cells change places."""

    def __init__(self, x: np.ndarray, rng: np.random.Generator):
        self.pca, self.rng = _components(x), rng

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the scores in random order, (n_cells, n_components)."""
        return self.rng.permutation(self.pca.transform(np.asarray(data.X)))


class _LateSisters:
    """Each cell's code is the mean of the late cells of its clone, in principal components of all late cells."""

    def __init__(self, x: np.ndarray, clones: np.ndarray):
        self.scores, self.clones = _components(x).transform(x), clones

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the mean score of each cell's late sisters, (n_cells, n_components)."""
        clones = labels(data, "replicate")
        return np.stack([self.scores[self.clones == clone].mean(axis=0) for clone in clones])


def _components(x: np.ndarray) -> Any:
    from sklearn.decomposition import PCA

    return PCA(min(N_COMPONENTS, *x.shape), random_state=0).fit(x)
