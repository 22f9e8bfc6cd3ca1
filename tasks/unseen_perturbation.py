"""Perturbations never seen in training: doubles composed of their singles, and new ones known from few cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics.identifiability import match_latents
from metrics.perturbation import deg_t_statistics
from tasks.base import Fit, Known, Reference, Task, scored
from tasks.datasets.base import DataError, labels
from tasks.datasets.memory import Memory
from tasks.datasets.reading import copies_of
from tasks.latent_recovery import SEEN, LatentRecovery
from tasks.paired import PAIRED, distance_score, paired_scores
from tasks.simulate.base import log1p_cp10k
from tasks.simulate.sparse_shift import N_LAYERS, counted, decoded, latents_of
from tasks.splits import dealt, halves, handed, without_copies
from tasks.unseen_cell_type import Cells, in_components, interpolated, mean, squared_error

if TYPE_CHECKING:
    from anndata import AnnData

MIN_CELLS = 20
N_TOP = 20
#: How many cells of a new perturbation methods adapt to, and further numbers at the preset ``paper``.
N_FEW = 10
DOSES = (50, 200)
#: At most this many cells of a new perturbation are scored, and at most half of its cells.
MAX_SCORED = 50
#: A latent counts as shifted if its mean is beyond this: half of the smallest shifts that are drawn, N(5, .5).
LARGE_SHIFT = 2.0
#: Metrics of one prediction among all held-out perturbations.
JOINT = ("perturbation_discrimination", "centroid_accuracy")
#: Samples of the importance-weighted likelihood.
N_SAMPLES = 100


class UnseenPerturbation(Task):
    """Predict the double perturbation "A+B" from control cells, trained on control and single perturbations.

    Units are doubles whose two singles are in the data too, each with at least 20 cells. No double is in training, so
    that one fit answers for all units of a seed. Only the cell type that has most of the doubles' cells is used: in
    norman-mini the others come from another study, which repressed the genes that were activated here.

    Four disjoint sets of cells are used as in unseen-cell-type: half of the control cells is in training and what
    predictions start from; half A of the double's cells names the top DEGs, half B is the truth m. The primary
    metric is the skill over adding the singles' shifts, over all genes alike,
    S = 1 − Σ(m − m̂)² / Σ(m − m_A − m_B + m_source)². One is perfect, zero is what additivity does. It compares means
    and needs no further control; the correlations of Δ do, and there Δ is measured from the other control half,
    which no method sees.

    Among the secondary metrics ``perturbation_discrimination`` and ``centroid_accuracy`` compare a prediction with the
    true means of all doubles. ``delta_pearson_perturbed`` measures Δ from the mean of the single perturbations, so that
    what all of them have in common earns nothing.

    Measured on doubles-sim, 12 development draws of 15 doubles, error relative to two thirds of the sum of the singles'
    shifts (geometric mean, least and largest of the draws; networks trained for 60 epochs at 5e-3): ceiling .46 [.38,
    .53], readout of the saturated true latents .82 [.71, .93], dHSIC-VAE .98, VAE .99 [.86, 1.25], β-VAE .99, PCA 1.19,
    the sum itself 1.69 [1.36, 2.25], no change 3.7. So networks have .58 of the error of adding, and no less than a
    factor has; with its default training the VAE has .91 [.85, .97] (four draws). Variance of a difference of two
    methods' log errors: .09 within draws, .01 between (with all 45 doubles .002); of a network, between seeds of one
    draw .003. So draws in place of seeds; and as a job scores one double, 12 draws of 15 doubles are as precise as 6 of
    45 and cost 180 jobs in place of 270.

    norman-mini, 5 doubles and 6 splits, error relative to additivity: ceiling .66 (half A itself, as noisy as the
    truth, .70), PCA .84, two thirds of the sum 1.29, no change 5.1.

    Each method composes in its own way; :class:`methods.latent_arithmetic.LatentArithmetic` adds latent shifts, as CPA
    does. A method that cannot compose (the mean shift has seen no cell type under A+B) says so and is skipped.
    """

    name = "unseen-perturbation"
    version = 2
    tags = frozenset({"ood", "prediction"})
    paper = "Norman et al. 2019, Science 365:786; Ahlmann-Eltze et al. 2025, Nature Methods: the additive baseline"
    datasets = ("doubles-sim", "norman-mini", "norman")
    requires = ("predict",)
    combines = True
    primary = ("skill",)
    secondary = (
        *JOINT,
        "delta_pearson_perturbed",
        "delta_pearson",
        "delta_pearson_top_degs",
        "energy_distance",
        "ood_distance",
        *PAIRED,
    )
    references = (
        Reference("floor", "no change", ("no-change",)),
        Reference(
            "baseline", "two thirds of the sum of the singles' shifts", ("scaled-additive-shift",), on="simulated"
        ),
        Reference(
            "baseline",
            "the simple baseline that does best on the other doubles",
            ("additive-shift", "pca"),
        ),
        Reference("structure", "a linear readout of the saturated true latents, which add up", on="simulated"),
        Reference("ceiling", "the noiseless mean", on="simulated"),
        Reference("ceiling", "the mean of the other half of the double's cells, its noise shrunk towards additivity"),
    )
    one_fit = True
    question = "Which method predicts two perturbations together from each alone?"
    unit = "double perturbation"
    needs_control = True
    draws: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 12, "paper": 16}
    #: The double that this task, an inner one, may not see.
    left_out = ""

    def units(self) -> list[str]:
        """Return the doubles whose two singles are in the data; ``smoke`` takes two of them."""
        named, counts = np.unique(self.environments[self._of_type], return_counts=True)
        enough = set(named[counts >= MIN_CELLS].tolist())
        doubles = [name for name in sorted(enough - {self.left_out}) if "+" in name and set(name.split("+")) <= enough]
        if len(doubles) < 2:
            raise DataError(
                f"{self.dataset.name}: obs[{self.fields.environment!r}] has {len(doubles)} doubles 'A+B' with "
                f"{MIN_CELLS} or more cells of A+B, A and B each; at least 2 are needed"
            )
        return doubles[:2] if self.preset == "smoke" else doubles

    def cells(self, unit: str, seed: int) -> Cells:
        """Return the parts of the cells; the control halves are the same for every unit."""
        parts: list[np.ndarray] = []
        for number, perturbation in enumerate((self.fields.control, unit)):
            cells = np.flatnonzero(self._of_type & (self.environments == perturbation))
            parts += halves(cells, None, np.random.default_rng([seed, 83, number]), copies_of(self.data))
        return Cells(*parts)

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return half of the control cells and all single perturbations, of the doubles' cell type."""
        double = np.char.find(self.environments, "+") >= 0
        seen = self._of_type & ~double
        seen[self.cells(unit, seed).control] = False
        return handed(self.data, without_copies(self.data, seen, self._of_type & ~seen))

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, predict the double from control cells and score the shift."""
        parts, training = self.cells(unit, seed), self.training_data(unit, seed)
        x = np.asarray(self.data.X)
        source, half_a, truth = x[parts.source], x[parts.weights], x[parts.truth]
        fitted = fit(training)
        predicted = np.asarray(fitted.predict(handed(self.data, parts.source), unit))
        scores = _skill_over(self.primary, truth, predicted, self._additive(unit, source))
        if self.primary_only:
            return scores
        top = np.argsort(-np.abs(deg_t_statistics(half_a, source)), kind="stable")[:N_TOP]
        delta, delta_predicted = mean(truth) - mean(x[parts.control]), mean(predicted) - mean(source)
        arrays = {"delta_true": delta, "delta_predicted": delta_predicted, "top": top}
        arrays |= {"mean_true": mean(truth), "mean_predicted": mean(predicted), "mean_perturbed": self._perturbed}
        arrays |= among(self.units(), unit, lambda other: mean(x[self.cells(other, seed).truth]))
        arrays |= in_components(training, truth, predicted, np.random.default_rng([seed, 84]))
        scores |= scored(self.secondary, **arrays) | distance_score(truth, np.asarray(training.X))
        return scores if unit != self.units()[0] else scores | paired_scores(fitted, training, self.data)

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the structure, or the ceiling: the noiseless mean where known, else an interpolated duplicate."""
        if reference == "structure":
            return lambda data: _SaturatingReadout(data, Known(self.data, self.data.obsm["factors"]))
        parts, x, truth = self.cells(unit, seed), np.asarray(self.data.X), self.data.uns.get("truth")
        if truth is None:
            half = x[parts.weights]
            target = interpolated(mean(half), self._additive(unit, x[parts.source]), squared_error(half))
        else:
            target = truth[unit]
        shifted = x[parts.source] + (target - mean(x[parts.source])).astype(np.float32)
        return lambda data: _Duplicate(shifted)

    def inner(self, unit: str) -> Task:
        """Return the task on the other doubles; no double is in training, so that the fits are the same."""
        others = UnseenPerturbation(self.dataset, self.preset, primary_only=True, draw=self.draw)
        others.left_out = unit
        return others

    def _additive(self, unit: str, source: np.ndarray) -> np.ndarray:
        """Return the mean (n_genes,) that adding the singles' shifts gives, from the control cells ``source``."""
        x = np.asarray(self.data.X)
        singles = [mean(x[self._of_type & (self.environments == part)]) for part in unit.split("+")]
        return np.sum(singles, axis=0) - (len(singles) - 1) * mean(source)

    @cached_property
    def _perturbed(self) -> np.ndarray:
        """The mean (n_genes,) of the means of all single perturbations."""
        x, names = np.asarray(self.data.X), self.environments
        singles = np.unique(names[self._of_type & (np.char.find(names, "+") < 0) & (names != self.fields.control)])
        return np.mean([mean(x[self._of_type & (names == single)]) for single in singles], axis=0)

    @cached_property
    def _of_type(self) -> np.ndarray:
        """The cells of the cell type that has most of the doubles' cells; all, where there are no types."""
        if not self.fields.content:
            return np.ones(self.data.n_obs, dtype=bool)
        contents = self.contents
        named, counts = np.unique(contents[np.char.find(self.environments, "+") >= 0], return_counts=True)
        return contents == (named[counts.argmax()] if len(named) else "")


class FewShotPerturbation(Task):
    """Predict a new perturbation of which few cells are known; encoder and decoder are frozen.

    The training cells are those of latent-recovery (80 % of the cells of the first 80 perturbations), so that one fit
    is scored for disentanglement and here. Units are the 20 perturbations that are held out whole. Half of a unit's
    cells is scored, 50 at most. Of the others ten are what a method adapts to: ``adapt(cells)`` returns a copy that
    knows the new environment and differs in the parameters of that environment alone. Then ``predict`` sends all
    training cells to the new environment; there is no control arm.

    The preset ``paper`` has further units ("p080 n=50") in which a method adapts to 50 or 200 cells. Their rows make a
    curve; each is compared with the mean of as many cells. Replicates are the draws.

    The primary metric is the skill of the mean predicted after n cells over the mean of these n, S = 1 − Σ(m − m̂)² /
    Σ(m − m_few)², unweighted over genes, m the mean of the scored cells. ``skill_half`` is the same after all cells
    that are not scored, where no dose is named. Δ of the secondary metrics is to the mean of the training cells, which
    are all perturbed. ``perturbation_discrimination`` and ``centroid_accuracy`` are among the true means of all units.
    A method that has ``log_likelihood`` also gets its gain over the unadapted model, which gives cells of an
    environment that it does not know the prior of an unperturbed cell. A method whose adapted copy has
    ``intervention_targets``, with the new environment in the last row, gets ``target_auprc`` of that row: its latents
    are matched to the true latents on the cells that score in latent-recovery.

    Measured on five development draws, error relative to the mean of the few cells (geometric mean, least and largest
    of the draws; networks trained for 60 epochs at 5e-3): ceiling .18 [.17, .21], structure .29 [.26, .33], VAE 2.08
    [1.48, 2.97], PCA 2.10 [1.86, 2.41], β-VAE 4.39 [3.42, 5.87], no change 13.2. Variance of a difference of two
    methods' log errors: .28 within draws, .015 between.
    """

    name = "few-shot-perturbation"
    version = 3
    tags = frozenset({"ood", "prediction"})
    paper = "Lopez et al. 2023, CLeaR: Learning causal representations of single cells via sparse mechanism shifts"
    datasets = ("sparse-shift",)
    requires = ("predict", "adapt")
    primary = ("skill",)
    secondary = (
        "skill_half",
        *JOINT,
        "delta_pearson",
        "delta_pearson_top_degs",
        "energy_distance",
        "likelihood_gain",
        "target_auprc",
        "ood_distance",
        *PAIRED,
    )
    references = (
        Reference("floor", "no change: the mean of the training cells", ("no-change",)),
        Reference(
            "baseline", "the mean of the few cells: each training perturbation is shifted there", ("mean-shift",)
        ),
        Reference("structure", "the true decoder, and large shifts of the few cells' latents alone", on="simulated"),
        Reference("ceiling", "the noiseless mean"),
    )
    question = "Which method predicts a perturbation that it knows from ten cells?"
    unit = "perturbation"
    #: The perturbation that this task, an inner one, may not see.
    left_out = ""
    settings: ClassVar[Mapping[str, Any]] = LatentRecovery.settings
    #: Number of held-out perturbations that are units.
    n_units: ClassVar[Mapping[str, int]] = {"smoke": 2, "default": 20, "paper": 20}
    draws = LatentRecovery.draws
    one_fit = True

    def units(self) -> list[str]:
        """Return the first of the held-out perturbations; ``paper`` adds those with more cells to adapt to."""
        new = [name for name in self._new if name != self.left_out]
        smallest = min(int((self.environments == name).sum()) for name in new)
        if smallest < 2 * N_FEW:
            raise DataError(
                f"{self.dataset.name}: a held-out perturbation has {smallest} cells; at least {2 * N_FEW} are needed, "
                f"{N_FEW} to adapt to and as many to score"
            )
        names = new[: self.n_units[self.preset]]
        known = smallest - min(MAX_SCORED, smallest // 2)
        doses = [n for n in DOSES if n <= known] if self.preset == "paper" else []
        return names + [f"{name} n={n}" for n in doses for name in names]

    @cached_property
    def _new(self) -> list[str]:
        """All perturbations that latent-recovery holds out."""
        names = [str(name) for name in self.data.uns["perturbations"]]
        return sorted(names[int(SEEN * len(names)) :])

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return what latent-recovery trains on."""
        return self._recovery.training_data(self._recovery.units()[0], seed)

    def cells(self, unit: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells of the unit that can be adapted to, the few first, and those that are scored."""
        cells = np.flatnonzero(self.environments == unit.partition(" n=")[0])
        cells = np.random.default_rng([seed, 85]).permutation(cells)
        known, hidden = dealt(cells, len(cells) - min(MAX_SCORED, len(cells) // 2), copies_of(self.data))
        return known, np.sort(hidden)

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, adapt to few cells and to many, and score the predicted mean."""
        (known, hidden), training = self.cells(unit, seed), self.training_data(unit, seed)
        perturbation, _, dose = unit.partition(" n=")
        few, x = known[: int(dose or N_FEW)], np.asarray(self.data.X)
        truth = x[hidden]
        fitted = fit(training)
        adapted = fitted.adapt(handed(self.data, few))
        predicted = np.asarray(adapted.predict(training, perturbation))
        scores = _skill_over(self.primary, truth, predicted, mean(x[few]))
        if self.primary_only:
            return scores
        centre = np.asarray(training.X)
        top = np.argsort(-np.abs(deg_t_statistics(x[known], centre)), kind="stable")[:N_TOP]
        arrays = {
            "delta_true": mean(truth) - mean(centre),
            "delta_predicted": mean(predicted) - mean(centre),
            "top": top,
        }
        named = [name for name in self.units() if " n=" not in name]
        arrays |= {"mean_predicted": mean(predicted)}
        arrays |= among(named, perturbation, lambda other: mean(x[self.cells(other, seed)[1]]))
        arrays |= in_components(training, truth, predicted, np.random.default_rng([seed, 86]))
        if not dose:
            of_half = fitted.adapt(handed(self.data, known)).predict(training, perturbation)
            arrays |= {"mean_true": mean(truth), "mean_after_half": mean(of_half), "mean_half": mean(x[known])}
        if hasattr(fitted, "log_likelihood"):
            queries = handed(self.data, hidden)
            for name, model in (("adapted", adapted), ("unadapted", fitted)):
                arrays[name] = model.log_likelihood(queries, N_SAMPLES)
        if hasattr(adapted, "intervention_targets") and hasattr(fitted, "embed"):
            arrays |= self._targets(fitted, adapted, perturbation, seed)
        scores |= scored(self.secondary, n_genes=self.data.n_vars, **arrays) | distance_score(truth, centre)
        return scores if unit != self.units()[0] else scores | paired_scores(fitted, training, self.data)

    def _targets(self, fitted: Any, adapted: Any, perturbation: str, seed: int) -> dict[str, np.ndarray]:
        """Return the true targets of the perturbation, and the learned ones in the order of the true latents."""
        z, codes = self._recovery.test_codes(fitted, self._recovery.units()[0], seed)
        match = match_latents(z, codes)
        learned = np.asarray(adapted.intervention_targets())[-1]
        true = self.data.uns["targets"][list(self.data.uns["perturbations"]).index(perturbation)]
        return {"targets": true[None], "scores": np.where(match >= 0, learned[match], 0.0)[None]}

    def inner(self, unit: str) -> Task:
        """Return the task on the other new perturbations, of which none is in training: the fits are the same."""
        others = FewShotPerturbation(self.dataset, self.preset, primary_only=True, draw=self.draw)
        others.left_out = unit.partition(" n=")[0]
        return others

    @cached_property
    def _recovery(self) -> LatentRecovery:
        return LatentRecovery(Memory(self.data, self.dataset.name), self.preset, draw=self.draw)

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the ceiling, which knows the noiseless mean, or the structure, which knows the decoder."""
        if reference == "structure":
            return lambda data: _TrueDecoder(self.data.uns["structure"], seed)
        truth = self.data.uns["truth"][unit.partition(" n=")[0]]
        return lambda data: _Duplicate(truth[None])


class _SaturatingReadout:
    """Adds latent shifts and reads the expression off the saturated latents.

    The expression is regressed on tanh(z) of the training cells' true latents z. A double's shift is the sum of its
    singles' true mean shifts from the control; a cell changes by the difference of the regression at z + shift and z.

    Parameters
    ----------
    training
        The training cells.
    latents
        The true latents (n_cells, n_factors) of all cells.
    """

    def __init__(self, training: AnnData, latents: Known):
        self.latents = latents
        z, of_cell = latents.embed(training), labels(training, "environment")
        control = z[of_cell == training.uns["fields"]["control"]].mean(axis=0)
        self.shifts = {str(name): z[of_cell == name].mean(axis=0) - control for name in np.unique(of_cell)}
        design = np.column_stack([np.ones(len(z)), np.tanh(z)])
        self.weights = np.linalg.lstsq(design, np.asarray(training.X))[0][1:]

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return control cells in the environment "A+B", (n_cells, n_genes)."""
        z = self.latents.embed(data)
        shift = np.sum([self.shifts[part] for part in target_environment.split("+")], axis=0)
        return np.asarray(data.X) + ((np.tanh(z + shift) - np.tanh(z)) @ self.weights).astype(np.float32)


def among(names: Sequence[str], own: str, mean_of: Callable[[str], np.ndarray]) -> dict[str, Any]:
    """Return the true means of all held-out perturbations and which of them is ``own``, as :data:`JOINT` takes them."""
    return {"means": np.stack([mean_of(name) for name in names]), "own": list(names).index(own)}


@dataclass(frozen=True)
class _TrueDecoder:
    """Samples cells of a new perturbation by the simulator's decoder, with a shift that is read off the few cells.

    Their latents are those that explain their counts best. A latent is shifted where their mean is more than half of
    the least shift there is: perturbations shift few latents, and by about 5.
    """

    structure: dict[str, np.ndarray]
    seed: int
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def adapt(self, data: AnnData) -> _TrueDecoder:
        """Return a copy that knows the shift (n_latent,) of ``data``'s cells."""
        latents = latents_of(data.layers["counts"].astype(float), self.structure).mean(axis=0)
        return replace(self, shift=np.where(np.abs(latents) > LARGE_SHIFT, latents, 0.0))

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return as many cells of the perturbation as ``data`` has, (n_cells, n_genes)."""
        rng = np.random.default_rng([self.seed, 91])
        z = self.shift + rng.standard_normal((data.n_obs, len(self.shift)))
        layers = [self.structure[f"layer{i}"] for i in range(N_LAYERS)]
        return log1p_cp10k(counted(rng, decoded(z, layers)))


@dataclass(frozen=True)
class _Duplicate:
    """A fitted method that has the answer in cells, (n_known, n_genes)."""

    cells: np.ndarray

    def adapt(self, data: AnnData) -> _Duplicate:
        """Return itself: there is nothing left to learn."""
        return self

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the cells it has, as often as they are needed, (n_cells, n_genes)."""
        return np.resize(self.cells, data.shape)


def _skill_over(
    metrics: tuple[str, ...], truth: np.ndarray, predicted: np.ndarray, baseline: np.ndarray
) -> dict[str, float]:
    """Return the skill of the predicted mean over the ``baseline`` (n_genes,), all genes alike."""
    means = {"delta_true": mean(truth), "delta_predicted": mean(predicted), "delta_mean_shift": baseline}
    return scored(metrics, weights=np.ones(len(baseline)), **means)
