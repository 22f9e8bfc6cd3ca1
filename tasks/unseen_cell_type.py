"""Perturbation prediction for a cell type that was never seen perturbed, or for a digit that was never seen thick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics.perturbation import deg_mask, deg_t_statistics, deg_weights
from tasks.base import Fit, Reference, Task, scored
from tasks.datasets.base import DataError, labels
from tasks.datasets.checks import listed, notes_of_labels
from tasks.datasets.memory import Memory
from tasks.datasets.reading import copies_of
from tasks.paired import PAIRED, distance_score, paired_scores
from tasks.splits import distinct, halves, handed, without_copies

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Cells of a type in a condition without which it is not held out, and enters no shift between conditions.
MIN_CELLS = 20
N_COMPONENTS = 20
N_TOP = 50


@dataclass(frozen=True)
class Cells:
    """The parts of the cells when a cell type is held out, in one condition; indices, all disjoint.

    Attributes
    ----------
    source
        Half of the type's control cells: in training, and the start of predictions.
    control
        The other half, never seen by a method: the true shift is measured from it.
    weights
        Half A of the held-out perturbed cells, where differential expression is measured.
    truth
        Half B, which scores; from other donors than half A where possible.
    """

    source: np.ndarray
    control: np.ndarray
    weights: np.ndarray
    truth: np.ndarray


class UnseenCellType(Task):
    """Predict the perturbed cells of one cell type from its control cells, trained on everything else.

    Units are cell types with at least 20 cells in every condition, copies not counted. A type that occurs in one
    condition alone is left out of training: it has no counterpart. All of a unit's perturbed cells are held out, of
    every condition but the control; where there are several conditions each is predicted and scored for itself, and the
    unit's scores are their means, so that a unit stays one replicate. Four disjoint sets of cells are used: see
    :class:`Cells`. With Δ = mean(truth) − mean(control) and Δ̂ = mean(prediction) − mean(source), the
    primary metric is the skill over the mean shift Δ̄ of the training types (each with 20 cells or more in control and
    condition the same weight, as the mean of fewer is mostly noise), S = 1 − Σw(Δ − Δ̂)² / Σw(Δ − Δ̄)², w from the
    squared t statistics of half A. One is perfect, zero is what the mean shift does, negative is worse.

    The legacy r² (squared Pearson correlation of gene means over all genes) is shown beside its value for
    no change, since it is blind to the size of the shift.
    """

    name = "unseen-cell-type"
    version = 2
    tags = frozenset({"ood", "prediction"})
    reference = "Lotfollahi et al. 2019, Nature Methods 16:715 (scGen); skill score as in forecast verification"
    datasets = ("ifn-sim", "digits", "kang", "kang-full", "haber-infection", "morpho-mnist", "morpho-mnist-global")
    requires = ("predict",)
    primary = ("skill",)
    secondary = (
        "delta_cosine",
        "delta_pearson",
        "deg_sign_accuracy",
        "deg_auprc",
        "log_variance_error",
        "correlation_error",
        "energy_distance",
        "mmd",
        "mean_r2",
        "legacy_r2",
        "legacy_r2_no_change",
        "legacy_r2_top_degs",
        "ood_distance",
        *PAIRED,
    )
    references = (
        Reference("floor", "no change", ("no-change",)),
        Reference(
            "baseline",
            "the simple baseline that does best on the other types",
            ("mean-shift", "nearest-type-shift", "ridge-shift", "pca"),
        ),
        Reference("ceiling", "simulated: the noiseless shift; real: the shift of the other half of the held-out cells"),
    )
    unit = "cell type"
    columns: ClassVar[Mapping[str, str]] = {
        "condition": "environment",
        "cell_type": "content",
        "control": "control",
        "replicate": "replicate",
    }

    needs_control = True
    #: How many cell types must be large enough: a held-out one has two to learn from, in an inner task one.
    least_types = 3

    def units(self) -> list[str]:
        """Return the cell types with enough cells in every condition; ``smoke`` takes two of them."""
        large = self._sizes >= MIN_CELLS
        named = [str(t) for t in large.index[large.all(axis=1)]]
        if len(named) < self.least_types:
            raise DataError(self._too_few(len(named)))
        return named[:2] if self.preset == "smoke" else named

    def _too_few(self, n_types: int) -> str:
        """Return a message: ``n_types`` are too few, these conditions lack cells, these labels look misspelt."""
        column = self.fields.environment
        large = (self._sizes >= MIN_CELLS).sum()
        totals = self.data.obs[column].astype(str).value_counts()
        fewest = large[large < large.max()].sort_values(kind="stable").index
        short = ", ".join(f"{c!r} ({totals[c]} cells, {large[c]} such labels)" for c in fewest[:5])
        parts = [
            f"{self.dataset.name}: obs[{self.fields.content!r}] has {n_types} labels with {MIN_CELLS} or more cells in "
            f"every condition of obs[{column!r}]; at least {self.least_types} are needed, so that a held-out one has "
            "others to learn from",
            *([f"short of cells: {short}; leave cells of such a condition out, or give it more"] if short else []),
            *notes_of_labels(self.data, self.fields),
        ]
        return "; ".join(parts)

    def notes(self) -> list[str]:
        """Say also which cell types are left out, and which are too small for a shift."""
        notes, sizes = super().notes(), self._sizes
        column, alone = f"obs[{self.fields.content!r}]", sizes[(sizes > 0).sum(axis=1) == 1].index
        if len(alone):
            n_cells = int(np.isin(self.contents, alone).sum())
            notes.append(
                f"{len(alone)} labels of {column} ({n_cells} cells) occur in one obs[{self.fields.environment!r}] "
                f"alone and are left out: {listed(alone)}"
            )
        small = sizes[(sizes < MIN_CELLS).any(axis=1)].index.difference(alone)
        if len(small):
            notes.append(
                f"{len(small)} labels of {column} have fewer than {MIN_CELLS} cells in a condition: they are not held "
                f"out, and enter no shift to or from that condition: {listed(small)}"
            )
        return notes

    def cells(self, unit: str, seed: int, target: str = "") -> Cells:
        """Return the parts of the cells when ``target`` is predicted, by default the first condition."""
        rng = np.random.default_rng([seed, 77])
        of_type, copies = self.contents == unit, copies_of(self.data)
        replicates = self._replicates

        def split(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            cells = np.flatnonzero(mask)
            return halves(cells, None if replicates is None else replicates[cells], rng, copies)

        source, control = split(of_type & (self.environments == self.fields.control))
        perturbed = {condition: split(of_type & (self.environments == condition)) for condition in self._targets}
        return Cells(source, control, *perturbed[target or self._targets[0]])

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return all cells but the type's perturbed ones, the control half that scores, and types of one condition."""
        seen = (self.contents != unit) | (self.environments == self.fields.control)
        seen[self.cells(unit, seed).control] = False
        alone = self._sizes.index[(self._sizes > 0).sum(axis=1) == 1]
        seen = without_copies(self.data, seen)
        return handed(self.data, seen & ~np.isin(self.contents, alone))

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, predict the held-out cells and score the shift, in each condition."""
        training = self.training_data(unit, seed)
        fitted = fit(training)
        of_target = [self._scores(fitted, training, self.cells(unit, seed, t), t, seed) for t in self._targets]
        scores = {name: float(np.mean([scores[name] for scores in of_target])) for name in of_target[0]}
        return scores if self.primary_only else scores | paired_scores(fitted, training, self.data)

    def _scores(self, fitted: Any, training: AnnData, parts: Cells, target: str, seed: int) -> dict[str, float]:
        """Return the scores of one condition."""
        x = np.asarray(self.data.X)
        source, control, half_a, truth = x[parts.source], x[parts.control], x[parts.weights], x[parts.truth]
        predicted = np.asarray(fitted.predict(handed(self.data, parts.source), target))

        delta = mean(truth) - mean(control)
        delta_predicted = mean(predicted) - mean(source)
        mean_shift = self._mean_shift(training, target)
        shift = {"delta_true": delta, "delta_predicted": delta_predicted}
        scores = scored(self.primary, delta_mean_shift=mean_shift, weights=deg_weights(half_a, source), **shift)
        if self.primary_only:
            return scores
        degs = deg_mask(half_a, source)
        top = np.argsort(-np.abs(deg_t_statistics(half_a, source)), kind="stable")[:N_TOP]
        near = in_components(training, truth, predicted, np.random.default_rng([seed, 78]))
        return (
            scores
            | scored(
                self.secondary,
                **shift,
                degs=degs,
                top=top,
                x_true=truth[:, top],
                x_predicted=predicted[:, top],
                **near,
                mean_true=mean(np.vstack([half_a, truth])),
                mean_predicted=mean(predicted),
                mean_control=mean(np.vstack([source, control])),
            )
            | distance_score(truth, np.asarray(training.X))
        )

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the ceiling: the noiseless shifts where they are known, else those of half A of the held-out cells."""
        truth, x = self.data.uns.get("truth"), np.asarray(self.data.X)
        shifts = {self.fields.control: np.zeros(x.shape[1])}
        for target in self._targets:
            if truth is not None:
                shifts[target] = truth[f"{unit}|{target}"] - truth[f"{unit}|{self.fields.control}"]
            else:
                parts = self.cells(unit, seed, target)
                shifts[target] = mean(x[parts.weights]) - mean(x[parts.source])
        return lambda data: _Ceiling(shifts)

    def inner(self, unit: str) -> Task:
        """Return the task on all other cell types."""
        left = Memory(handed(self.data, self.contents != unit), f"{self.dataset.name} without {unit}")
        others = type(self)(left, "default", primary_only=True)
        others.least_types = 2
        return others

    @property
    def _replicates(self) -> np.ndarray | None:
        return labels(self.data, "replicate") if self.fields.replicate else None

    @cached_property
    def _sizes(self) -> pd.DataFrame:
        """Numbers of cells, copies not counted, of each cell type (rows) in each condition (columns)."""
        import pandas as pd

        types, conditions = self.contents, self.environments
        once_each = distinct(copies_of(self.data), types, conditions)
        return pd.crosstab(types[once_each], conditions[once_each])

    @property
    def _targets(self) -> list[str]:
        """The conditions that are predicted: all but the control."""
        return [str(name) for name in np.unique(self.environments) if name != self.fields.control]

    def _mean_shift(self, training: AnnData, target: str) -> np.ndarray:
        """Return the equal-weight mean shift (n_genes,) of the types that training holds in control and target."""
        x = np.asarray(training.X)
        types, conditions = labels(training, "content"), labels(training, "environment")
        perturbed, control = conditions == target, conditions == self.fields.control
        shifts = [
            mean(x[perturbed & (types == t)]) - mean(x[control & (types == t)])
            for t in contents_of_shift(types, perturbed, control)
        ]
        return np.mean(shifts, axis=0)


@dataclass(frozen=True)
class _Ceiling:
    """A fitted method that knows the shift of the held-out type from the control to each condition."""

    shifts: Mapping[str, np.ndarray]

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return ``data.X`` plus the shift from each cell's condition to the target, (n_cells, n_genes)."""
        sources, out = labels(data, "environment"), np.array(data.X)
        for source in np.unique(sources):
            out[sources == source] += (self.shifts[target_environment] - self.shifts[source]).astype(np.float32)
        return out


def contents_of_shift(contents: np.ndarray, perturbed: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Return the contents that make a mean shift: those large enough on both sides; where there is none, all on both.

    Parameters
    ----------
    contents
        Labels (n_cells,).
    perturbed, control
        Masks (n_cells,) of the two sides.
    """
    both = np.intersect1d(contents[perturbed], contents[control])
    sizes = [min(np.sum(side & (contents == c)) for side in (perturbed, control)) for c in both]
    large = both[np.array(sizes, dtype=int) >= MIN_CELLS]
    return large if len(large) else both


def in_components(
    training: AnnData, truth: np.ndarray, predicted: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return as many true as predicted cells, in principal components of the training cells."""
    from sklearn.decomposition import PCA

    x, n_cells = np.asarray(training.X), min(len(truth), len(predicted))
    pca = PCA(min(N_COMPONENTS, *x.shape), svd_solver="randomized", random_state=0).fit(x)
    return {
        name: pca.transform(cells[rng.permutation(len(cells))[:n_cells]])
        for name, cells in (("cells_true", truth), ("cells_predicted", predicted))
    }


def mean(x: np.ndarray) -> np.ndarray:
    """Return the gene means in float64."""
    return x.mean(axis=0, dtype=np.float64)
