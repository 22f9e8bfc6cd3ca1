"""Perturbation prediction for a cell type that was never seen perturbed, or for a digit that was never seen thick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics.perturbation import deg_mask, deg_t_statistics, deg_weights
from tasks.base import Fit, Known, Reference, Task, scored
from tasks.datasets.base import DataError, labels
from tasks.datasets.checks import listed, notes_of_labels
from tasks.datasets.memory import Memory
from tasks.datasets.reading import copies_of
from tasks.paired import PAIRED, distance_score, paired_scores
from tasks.splits import distinct, halves, handed, without_copies

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: A cell type needs this many cells in a condition to be held out, and to count in a mean shift to that condition.
MIN_CELLS = 20
N_COMPONENTS = 20
N_TOP = 50
#: The classifier of predicted cells learns from at most this many real cells: a random sample.
MAX_REAL = 4000
#: Every third cell type of a simulated data set is held out, all of them together.
EVERY = 3


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

    Units are cell types with at least 20 cells in every condition, copies not counted. In simulated data every third
    of them is a unit, and all of these are held out together, so that one fit answers for them and draws are the
    replicates. A type that occurs in one condition alone is left out of training: it has no counterpart. All perturbed
    cells of a unit are held out. Where there are several conditions besides the control, each is predicted and scored
    for itself, and the unit's scores are their means, so that a unit stays one replicate. Four disjoint sets of cells
    are used: see :class:`Cells`. With Δ = mean(truth) − mean(control) and Δ̂ = mean(prediction) − mean(source), the
    primary metric is the skill over the mean shift Δ̄ of the training types, S = 1 − Σw(Δ − Δ̂)² / Σw(Δ − Δ̄)². The
    weights w come from the squared t statistics of half A. All types with 20 cells or more in control and condition
    weigh the same in Δ̄; the mean of fewer cells is mostly noise. One is perfect, zero is what the mean shift does,
    negative is worse.

    Measured on development draws, error relative to ridge's (geometric mean, in brackets the least and the largest of
    the draws; networks trained for 60 epochs at 5e-3). ifn-sim, 12 to 24 draws: ceiling .30 [.15, .59], linear readout
    of the true latents .59 [.34, .87] (with latents read off the expression by a ridge on true ones .62), CVAE .92, VAE
    with ``shift=regression`` .93, VAE .99 [.64, 1.50], nearest-type shift 1.16, PCA with regression 1.16, PCA 1.43,
    mean shift 1.87, no change 5.5. 60 cells a type and condition in place of 100 cost two thirds and leave less room
    (ceiling .42, readout .71). Variance of a difference of two methods' log errors: .20 within draws, .03 between: so
    small draws, and many. digits, 10 draws, of which each deals the images anew: ceiling .03, dilation .06, PCA with
    regression .52, CVAE .55, VAE .64, PCA .99, nearest 1.08, mean shift 1.38; .23 within and .007 between, so fewer
    draws. Their intervals are for these images and the digits 1, 4 and 7.

    The row ``shift=regression`` of a method with latent arithmetic uses the fit of the method itself: there the latent
    shift is a regression on the code and not a mean.

    ``transfer_error`` is the share of predicted cells that a classifier of real cells, trained on all of them, does not
    take for the type in its new condition (Gabbay & Hoshen 2020, who compare LORD with StarGAN by it).

    The legacy r² (squared Pearson correlation of gene means over all genes) is shown beside its value for
    no change, since it is blind to the size of the shift.
    """

    name = "unseen-cell-type"
    version = 3
    tags = frozenset({"ood", "prediction"})
    paper = "Lotfollahi et al. 2019, Nature Methods 16:715 (scGen); skill score as in forecast verification"
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
        "transfer_error",
        "mean_r2",
        "legacy_r2",
        "legacy_r2_no_change",
        "legacy_r2_top_degs",
        "ood_distance",
        *PAIRED,
    )
    references = (
        Reference("floor", "no change", ("no-change",)),
        Reference("baseline", "ridge regression of the shift on the source profile", ("ridge-shift",), on="simulated"),
        Reference(
            "baseline",
            "the simple baseline that does best on the other types",
            ("mean-shift", "nearest-type-shift", "ridge-shift", "pca"),
        ),
        Reference("structure", "a linear readout of the true latents", on="ifn-sim"),
        Reference("structure", "a grey dilation, of a neighbourhood that is learned", on="digits"),
        Reference("ceiling", "the noiseless shift", on="simulated"),
        Reference(
            "ceiling", "the shift of the other half of the held-out cells, its noise shrunk towards the mean shift"
        ),
    )
    question = "Which method predicts the response of a cell type that it never saw perturbed?"
    unit = "cell type"
    columns: ClassVar[Mapping[str, str]] = {
        "condition": "environment",
        "cell_type": "content",
        "control": "control",
        "replicate": "replicate",
    }
    needs_control = True
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"shift": "regression"} for name in ("pca", "vae")}
    draws: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 24, "default/digits": 12, "paper": 48}
    #: How many cell types must be large enough, so that a held-out type has two others to learn from (one, in an inner
    #: task).
    least_types = 3

    def units(self) -> list[str]:
        """Return the cell types that are held out: all large ones of real data, every third of simulated data.

        ``smoke`` takes two of them.
        """
        named = self._large[1::EVERY] if self.dataset.simulated else self._large
        return named[:2] if self.preset == "smoke" else named

    def held_out(self, unit: str) -> list[str]:
        """Return the cell types that are held out together with ``unit``, itself among them."""
        return self._large[1::EVERY] if self.dataset.simulated else [unit]

    @cached_property
    def _large(self) -> list[str]:
        """The cell types with enough cells in every condition."""
        large = self._sizes >= MIN_CELLS
        named = [str(t) for t in large.index[large.all(axis=1)]]
        if len(named) < self.least_types:
            raise DataError(self._too_few(len(named)))
        return named

    def _too_few(self, n_types: int) -> str:
        """Return a message: ``n_types`` are too few, these conditions lack cells, these labels look misspelt."""
        column = self.fields.environment
        large = (self._sizes >= MIN_CELLS).sum()
        totals = self.data.obs[column].astype(str).value_counts()
        fewest = large[large < large.max()].sort_values(kind="stable").index
        short = ", ".join(f"{c!r} ({totals[c]} cells, {large[c]} such labels)" for c in fewest[:5])
        parts = [
            f"{self.dataset.name}: obs[{self.fields.content!r}] has {n_types} labels with {MIN_CELLS} or more cells in "
            f"every condition of obs[{column!r}]; at least {self.least_types} are needed, so that a held-out label has "
            "others to learn from",
            *([f"short of cells: {short}; leave cells of such a condition out, or give it more"] if short else []),
            *notes_of_labels(self.data, self.fields),
        ]
        return "; ".join(parts)

    def notes(self) -> list[str]:
        """Return also which cell types are left out, and which are too small for a shift."""
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
        """Return all but the held-out perturbed cells, the control halves that score, and types of one condition."""
        held_out = self.held_out(unit)
        seen = ~np.isin(self.contents, held_out) | (self.environments == self.fields.control)
        for name in held_out:
            seen[self.cells(name, seed).control] = False
        alone = self._sizes.index[(self._sizes > 0).sum(axis=1) == 1]
        seen = without_copies(self.data, seen)
        return handed(self.data, seen & ~np.isin(self.contents, alone))

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, predict the held-out cells and score the shift, in each condition."""
        training = self.training_data(unit, seed)
        fitted = fit(training)
        of_target = [self._scores(fitted, training, self.cells(unit, seed, t), t, seed) for t in self._targets]
        scores = {name: float(np.mean([scores[name] for scores in of_target])) for name in of_target[0]}
        if self.primary_only:
            return scores
        scores |= self._transfer(fitted, unit, seed)
        if unit != self.held_out(unit)[0]:  # codes of one fit are the same for all its units
            return scores
        return scores | paired_scores(fitted, training, self.data)

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

    def _transfer(self, fitted: Any, unit: str, seed: int) -> dict[str, float]:
        """Return the error of a classifier of real cells on control cells that are moved to the other conditions."""
        real = np.random.default_rng([seed, 93]).permutation(self.data.n_obs)[:MAX_REAL]
        label = np.char.add(np.char.add(self.environments, "\x1f"), self.contents)
        moved = [
            fitted.predict(handed(self.data, self.cells(unit, seed, target).source), target) for target in self._targets
        ]
        return scored(
            ("transfer_error",),
            x_real=np.asarray(self.data.X)[real],
            labels_real=label[real],
            x_transferred=np.vstack(moved),
            labels_transferred=np.repeat([f"{t}\x1f{unit}" for t in self._targets], [len(x) for x in moved]),
        )

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the structure, or the ceiling: the noiseless shifts where known, else :func:`interpolated` ones."""
        if reference == "structure":
            latents = self.data.obsm.get("factors")
            return lambda data: _Dilation(data) if latents is None else _LatentReadout(data, Known(self.data, latents))
        truth, x = self.data.uns.get("truth"), np.asarray(self.data.X)
        shifts = {self.fields.control: np.zeros(x.shape[1])}
        for target in self._targets:
            if truth is not None:
                shifts[target] = truth[f"{unit}|{target}"] - truth[f"{unit}|{self.fields.control}"]
            else:
                parts = self.cells(unit, seed, target)
                half, source = x[parts.weights], x[parts.source]
                prior = self._mean_shift(self.training_data(unit, seed), target)
                noise = squared_error(half) + squared_error(source)
                shifts[target] = interpolated(mean(half) - mean(source), prior, noise)
        return lambda data: _Ceiling(shifts)

    def inner(self, unit: str) -> Task:
        """Return the task on all other cell types."""
        remaining = Memory(handed(self.data, self.contents != unit), f"{self.dataset.name} without {unit}")
        others = type(self)(remaining, "default", primary_only=True)
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


class _LatentReadout:
    """Adds to every cell a shift that is linear in its true latents z.

    In each condition the expression is regressed on z, x ≈ b + z B; the shift is the difference of two regressions.

    Parameters
    ----------
    training
        The training cells.
    latents
        The true latents (n_cells, n_factors) of all cells.
    """

    def __init__(self, training: AnnData, latents: Known):
        self.latents = latents
        of_cell, x = labels(training, "environment"), np.asarray(training.X)
        z = self._with_ones(training)
        self.weights = {
            str(name): np.linalg.lstsq(z[of_cell == name], x[of_cell == name])[0] for name in np.unique(of_cell)
        }

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return ``data.X`` plus each cell's shift to the target, (n_cells, n_genes)."""
        z, sources = self._with_ones(data), labels(data, "environment")
        weights = np.stack([self.weights[target_environment] - self.weights[source] for source in sources])
        return np.asarray(data.X) + np.einsum("nk,nkg->ng", z, weights).astype(np.float32)

    def _with_ones(self, data: AnnData) -> np.ndarray:
        """Return the latents of cells, after a column of ones."""
        return np.column_stack([np.ones(data.n_obs), self.latents.embed(data)])


class _Dilation:
    """Thickens square images by a grey dilation; by which one is learned without pairs.

    The neighbourhood of the dilation, 3 x 3 at most, grows pixel by pixel. Each time the pixel is added that brings the
    mean thickened image of the plain images nearest to the mean thick image, over the digits seen in both styles.
    """

    def __init__(self, training: AnnData):
        digits, styles = labels(training, "content"), labels(training, "environment")
        plain = styles == training.uns["fields"]["control"]
        images = _square(training.X)
        both = np.intersect1d(digits[plain], digits[~plain])
        thick = np.stack([images[~plain & (digits == digit)].mean(axis=0) for digit in both])
        of_digit = digits[plain][:, None] == both

        def error(neighbours: tuple[tuple[int, int], ...]) -> float:
            dilated = _dilated(images[plain], neighbours)
            return float(np.square([dilated[of_one].mean(axis=0) for of_one in of_digit.T] - thick).sum())

        self.neighbours: tuple[tuple[int, int], ...] = ((0, 0),)
        left = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
        while left:
            best = min(left, key=lambda offset: error((*self.neighbours, offset)))
            if error((*self.neighbours, best)) >= error(self.neighbours):
                break
            self.neighbours = (*self.neighbours, best)
            left.remove(best)

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the plain images thickened, (n_images, n_pixels)."""
        return _dilated(_square(data.X), self.neighbours).reshape(data.shape)


def _square(x: np.ndarray) -> np.ndarray:
    """Return images (n_images, side, side) from their pixels row by row."""
    side = int(np.sqrt(x.shape[1]))
    return np.asarray(x).reshape(-1, side, side)


def _dilated(images: np.ndarray, neighbours: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Return each pixel's largest neighbour, by offsets (rows, columns); the border is repeated outside."""
    side = images.shape[1]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return np.max([padded[:, 1 + i : 1 + i + side, 1 + j : 1 + j + side] for i, j in neighbours], axis=0)


def contents_of_shift(contents: np.ndarray, perturbed: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Return the contents that make a mean shift: those that are large enough on both sides, else all that are on both.

    Parameters
    ----------
    contents
        Labels (n_cells,).
    perturbed, control
        Masks (n_cells,) of the two sides.
    """
    shared = np.intersect1d(contents[perturbed], contents[control])
    sizes = [min(np.sum(side & (contents == c)) for side in (perturbed, control)) for c in shared]
    large = shared[np.array(sizes, dtype=int) >= MIN_CELLS]
    return large if len(large) else shared


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


def interpolated(measured: np.ndarray, prior: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return an interpolated duplicate (n_genes,): a noisy measurement, moved towards a simple prediction gene by gene.

    A duplicate of few cells is as noisy as the truth and can be worse than a simple prediction: then it is no ceiling.
    A gene keeps the share 1 − noise / (measured − prior)² of its distance from the prior, and none where that is
    negative (after the interpolated duplicate of Miller et al. 2025, which weighs by differential expression).

    Parameters
    ----------
    measured, prior, noise
        A mean or shift, its simple prediction, and the squared standard error of the measured one, (n_genes,) each.
    """
    distance = measured - prior
    share = 1.0 - np.divide(noise, distance**2, out=np.ones_like(distance), where=distance != 0)
    return prior + distance * np.maximum(share, 0.0)


def squared_error(cells: np.ndarray) -> np.ndarray:
    """Return the squared standard error of the gene means of cells (n_cells, n_genes), in float64."""
    variance: np.ndarray = cells.var(axis=0, ddof=1, dtype=np.float64)
    return variance / len(cells)


def mean(x: np.ndarray) -> np.ndarray:
    """Return the gene means in float64."""
    return x.mean(axis=0, dtype=np.float64)
