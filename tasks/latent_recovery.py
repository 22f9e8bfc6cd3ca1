"""Recovery of latent units and of the units that each perturbation targets, on simulated data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics.identifiability import match_latents
from tasks import factors
from tasks.base import Drawn, Fit, Known, Reference, scored
from tasks.datasets.base import DataError, labels
from tasks.datasets.reading import copies_of
from tasks.paired import CURVATURES, curvature_scores
from tasks.simulate.sparse_shift import latents_of
from tasks.splits import dealt, handed, parted, without_copies

if TYPE_CHECKING:
    from anndata import AnnData

#: The last fifth of the perturbations is held out whole.
SEEN = 0.8
#: Methods are trained on this share of the cells of each seen perturbation.
TRAINING = 0.8


class LatentRecovery(Drawn):
    """Recover 15 latent units and which of them each perturbation shifts.

    A unit is one draw of the simulator. Methods train on 80 % of the cells of the first 80 % of the
    perturbations and embed the remaining cells of those perturbations. The last 20 % of the perturbations are
    held out whole (they belong to the transfer task).

    Primary, all needed: ``mcc`` (mean absolute correlation after one-to-one matching), ``mcc_within`` (the same
    within perturbations, which the perturbation labels alone cannot give) and ``target_auprc``. Targets are the
    method's ``intervention_targets`` where it has them; for any other method they are read off its codes: the
    absolute shift of a perturbation's mean code in units of the within-perturbation standard deviation.

    ``mcc_rotated`` is the MCC after one rotation, fitted to the shifts of the training perturbations: it tells a code
    whose axes are wrong from a code that lacks the latents, as ``latent_r2`` does. The row ``rotated`` knows the
    latents but not their axes. ``structure`` is told the decoder; ``probe`` is told the latents of training cells.

    Mean MCC, MCC within and AUPRC over 3 development draws at the default size (standard deviations at most .07), the
    largest of the three errors relative to the baseline's, MCC after the rotation, and R²:

    =========  =====  ======  ======  ==============  =======  ====
    method     MCC    within  AUPRC   relative error  rotated  R²
    =========  =====  ======  ======  ==============  =======  ====
    floor      .37    .27     .35     3.5             .42      .41
    rotated    .52    .52     .48     2.9             .86      1
    PCA        .47    .40     .41     3.2             .57      .75
    VAE        .46    .39     .42     3.2             .59      .69
    FastICA    .69    .58     .81     1               .61      .75
    probe      .95    .81     1       .45             .81      .90
    structure  .97    .91     1       .21             .83      .95
    ceiling    1      1       1       .01             .86      1
    =========  =====  ======  ======  ==============  =======  ====

    ``rnamix``, real wells whose composition is known, has five latents (three proportions, log2 amount, protocol) and
    no perturbations: methods train on two thirds of the wells, with ten codes as in the task factors, so that one fit
    answers both, and ``mcc`` alone is primary. Over three splits MCC and R²: floor .20 and .04, PCA .75 and .90,
    FastICA .78 and .90, rotated truth .65 and 1.

    Stress tests, run by ``--tasks stress``: correlated latents, few cells. A wrong number of latents is a dose of the
    method: ``--methods 'svae-plus@n_latent=10,15,20'``.
    """

    name = "latent-recovery"
    version = 2
    tags = frozenset({"disentanglement"})
    paper = "Lopez et al. 2023, CLeaR: Learning causal representations of single cells via sparse mechanism shifts"
    datasets = (
        "sparse-shift",
        "sparse-shift-published",
        "sparse-shift-correlated",
        "sparse-shift-few-cells",
        "rnamix",
    )
    stress = ("sparse-shift-correlated", "sparse-shift-few-cells")
    requires = ("embed",)
    primary = ("mcc", "mcc_within", "target_auprc")
    primary_on: ClassVar[Mapping[str, tuple[str, ...]]] = {"rnamix": ("mcc",)}
    two_sided = True
    secondary = ("mcc_rotated", "latent_r2", "target_f1", *CURVATURES)
    references = (
        Reference("floor", "an untrained random encoder"),
        Reference("rotated", "the true latents, rotated at random"),
        Reference("baseline", "FastICA", ("fastica",)),
        Reference("probe", "a network trained on the true latents", on="simulated"),
        Reference("structure", "the true decoder, inverted for each cell by maximum likelihood", on="simulated"),
        Reference("ceiling", "the true latents"),
    )
    question = "Which method recovers the true latents, up to their order and sign?"
    unit = "simulation draw or split of the cells"
    settings: ClassVar[Mapping[str, Any]] = {"n_latent": 15}
    settings_on: ClassVar[Mapping[str, Mapping[str, Any]]] = {"rnamix": factors.Factors.settings}
    draws: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 5, "paper": 10}

    def check(self, data: AnnData) -> None:
        """Require also the true latents and, where there are perturbations, their targets."""
        super().check(data)
        if "z" not in data.obsm or ("perturbations" in data.uns and "targets" not in data.uns):
            raise DataError(f"{self.dataset.name}: obsm['z'] and uns['targets'], the truth, are needed")

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return the training cells: of seen perturbations, or two thirds where there are no perturbations."""
        return handed(self.data, self._split(unit, seed)[0])

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, embed the other cells, and compare with the truth."""
        data = self.data
        training = self.training_data(unit, seed)
        fitted = fit(training)
        z, codes = self.test_codes(fitted, unit, seed)
        arrays = {"z_true": z, "z": codes}
        metrics = list(dict.fromkeys([*self.primary_of(self.dataset.name), *self.secondary]))
        if "perturbations" in data.uns:
            arrays["groups"] = labels(data, "environment")[self._split(unit, seed)[1]]
            arrays |= self._targets(fitted, training, match_latents(z, codes))
            if not hasattr(fitted, "intervention_targets"):
                # F1 asks which scores are above a threshold, which shifts of codes do not have
                metrics.remove("target_f1")
        return scored(metrics, **arrays) | curvature_scores(fitted, training)

    def _targets(self, fitted: Any, training: AnnData, match: np.ndarray) -> dict[str, np.ndarray]:
        """Return true and learned targets of the seen perturbations, and their mean codes."""
        means, variances = self._means(fitted.embed(training), training)
        has_targets = hasattr(fitted, "intervention_targets")
        learned = fitted.intervention_targets() if has_targets else _shift_sizes(means, variances)
        matched = np.where(match[None, :] >= 0, learned[:, match], 0.0)
        return {"targets": self.data.uns["targets"][: self._n_seen(self.data)], "scores": matched, "shifts": means}

    def test_codes(self, fitted: Any, unit: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the true latents and the codes of the test cells."""
        data = self.data
        test = self._split(unit, seed)[1]
        return data.obsm["z"][test], fitted.embed(handed(data, test))

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return a reference that knows nothing, the true latents, or the decoder."""
        data = self.data
        z = data.obsm["z"]
        rng = np.random.default_rng([seed, 79])

        def fit(training: AnnData) -> Any:
            if reference == "floor":
                return _RandomEncoder(np.asarray(training.X), z.shape[1], rng)
            if reference == "probe":
                return _Probe(np.asarray(training.X), data[training.obs_names].obsm["z"], seed)
            if reference == "structure":
                return _Decoder(data.uns["structure"])
            rotation = np.linalg.qr(rng.standard_normal((z.shape[1], z.shape[1])))[0]
            return Known(data, z @ rotation if reference == "rotated" else z)

        return fit

    def _n_seen(self, data: AnnData) -> int:
        return int(SEEN * len(data.uns["perturbations"]))

    def _split(self, unit: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return training and test cells (indices): the same share of each seen perturbation, else of all cells."""
        data = self.data
        if "perturbations" not in data.uns:
            training, test = parted(data, unit, seed, factors.TRAINING)
            return np.sort(training), np.sort(test)
        rng, copies = np.random.default_rng([seed, 80]), copies_of(data)
        perturbations = labels(data, "environment")
        seen_cells: list[np.ndarray] = []
        test_cells: list[np.ndarray] = []
        for perturbation in data.uns["perturbations"][: self._n_seen(data)]:
            cells = rng.permutation(np.flatnonzero(perturbations == perturbation))
            seen, scored = dealt(cells, int(TRAINING * len(cells)), copies)
            seen_cells.append(seen)
            test_cells.append(scored)
        is_seen = np.isin(np.arange(data.n_obs), np.concatenate(seen_cells))
        return np.flatnonzero(without_copies(data, is_seen)), np.sort(np.concatenate(test_cells))

    def _means(self, codes: np.ndarray, training: AnnData) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance of the codes of each seen perturbation, (n_seen, n_latent) each."""
        of_cell = labels(training, "environment")
        groups = [codes[of_cell == name] for name in self.data.uns["perturbations"][: self._n_seen(self.data)]]
        return np.stack([g.mean(axis=0) for g in groups]), np.stack([g.var(axis=0) for g in groups])


def _shift_sizes(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return |mean code of a perturbation − mean of those means| / within-perturbation std, (n_seen, n_latent)."""
    within = np.sqrt(variances.mean(axis=0))
    shifts = np.abs(means - means.mean(axis=0))
    return np.divide(shifts, within, out=np.zeros_like(shifts), where=within > 0)


class _RandomEncoder:
    """Two random tanh layers on standardised expression."""

    def __init__(self, x: np.ndarray, n_latent: int, rng: np.random.Generator):
        self.mean, self.std = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        self.first = rng.standard_normal((x.shape[1], 128)) / np.sqrt(x.shape[1])
        self.second = rng.standard_normal((128, n_latent)) / np.sqrt(128)

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        return np.tanh(np.tanh((np.asarray(data.X) - self.mean) / self.std @ self.first) @ self.second)


class _Probe:
    """A network trained to give the true latents from the expression."""

    def __init__(self, x: np.ndarray, z: np.ndarray, seed: int):
        from sklearn.neural_network import MLPRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        network = MLPRegressor(
            hidden_layer_sizes=(128,), batch_size=128, max_iter=200, early_stopping=True, random_state=seed
        )
        self.probe = make_pipeline(StandardScaler(), network).fit(x, z)

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the predicted latents (n_cells, n_latent)."""
        return self.probe.predict(np.asarray(data.X))


class _Decoder:
    """The simulator's decoder, which tells the latents of a cell."""

    def __init__(self, structure: dict[str, np.ndarray]):
        self.structure = structure

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the latents (n_cells, n_latent)."""
        return latents_of(np.asarray(data.layers["counts"]), self.structure)
