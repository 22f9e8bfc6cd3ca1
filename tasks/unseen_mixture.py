"""A composition that was never seen: mixtures of known parts; methods are trained on all mixtures but one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Fit, Reference, Task, scored
from tasks.datasets.base import DataError, labels
from tasks.paired import PAIRED, distance_score, paired_scores
from tasks.splits import handed, without_copies

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: A mixture is held out if it is at least this far from the mean of the others (root mean square over the parts).
LEAST_DISTANCE = 0.05
#: Steps of the search for the proportions that explain counts; the last step changes them by at most .001.
N_STEPS = 300
#: A decoded well is the mean of this many draws of Poisson counts.
N_SAMPLES = 8
#: Expected share of a gene that no training well has: it keeps the likelihood finite.
LEAST_SHARE = 1e-9


class UnseenMixture(Task):
    """Read out, and predict, a mixture of cell lines that was never seen; the method is not told the proportions.

    Wells hold RNA of three lines in seven known mixtures. One mixture is held out; methods train on the others and
    embed the held-out wells. They are told the protocol, and neither mixture nor amount. The pure lines are
    extrapolation. The equal mixture is no unit: the mean of the other mixtures is equal parts, so that a code which
    knows nothing would be right.

    The primary metric is ``composition_error``: proportions are regressed linearly on the codes of the training wells,
    and the regression is applied to the held-out ones. Methods that decode also get ``profile_error``: their codes
    are regressed on the facts about training wells (proportions, log amount, protocol), the codes expected of the
    held-out wells are decoded, and their mean is compared with the true mean. It is secondary, as a conditional model
    does not decode from a code alone but needs a label. The disentanglement of the same fit is scored on its training
    wells, to see whether disentanglement helps composition, on real cells whose truth is known.

    ``structure`` is told what mixing is: each protocol's profiles of the lines are fitted to the training wells, linear
    in counts and by their known mixtures, and a well's proportions are those that explain its counts best. The
    ceiling has the same from profiles that are true (simulated) or fitted to all wells (real).

    Errors on rnamix-sim, the mean of 8 development draws, both relative to PCA's in brackets (geometric mean over units
    and draws), and composition errors on rnamix, with the six relative to PCA's in brackets:

    =================  ===========  ===========  ==============  ==============  ===========  ===========  =======
    method             pure line    mixed        both            profile         pure lines   mixed        all
    =================  ===========  ===========  ==============  ==============  ===========  ===========  =======
    floor              .55          .29          (5.1 ± .1)      (2.3 ± .2)      .54          .27 to .30   (4.3)
    random projection  .44          .25          (4.2 ± .1)                      .38 to .50   .24 to .27   (3.7)
    PCA                .077         .081         (1)             (1)             .12 to .18   .04 to .12   (1)
    structure          .036         .048         (.52 ± .05)     (.28 ± .02)     .11 to .15   .04 to .11   (.92)
    ceiling            .024         .047         (.41 ± .05)     (.15 ± .01)     .05 to .08   .04 to .11   (.66)
    =================  ===========  ===========  ==============  ==============  ===========  ===========  =======

    FastICA has the errors of PCA: its codes span the same space. 68:16:16 is read as less H2228 than it is by all, the
    ceiling included (.11).
    """

    name = "unseen-mixture"
    version = 1
    tags = frozenset({"ood"})
    paper = "Tian et al. 2019, Nat Methods 16:479; the question: Montero et al. 2021, ICLR (combinatorial)"
    datasets = ("rnamix-sim", "rnamix")
    requires = ("embed",)
    primary = ("composition_error",)
    secondary = ("profile_error", "ood_distance", *PAIRED)
    references = (
        Reference("floor", "the mean of the training wells"),
        Reference("baseline", "PCA", ("pca",)),
        Reference("structure", "the lines' profiles, fitted to the training wells' known mixtures, added up in counts"),
        Reference("ceiling", "the lines' true profiles, added up in counts", on="simulated"),
        Reference("ceiling", "the lines' profiles, fitted to all wells, added up in counts", on="real"),
    )
    question = "Which method's code holds a mixture that it never saw?"
    unit = "mixture"
    settings: ClassVar[Mapping[str, Any]] = {"n_latent": 10}
    draws: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 8, "paper": 16}

    def check(self, data: AnnData) -> None:
        """Require also the mixtures and their proportions."""
        super().check(data)
        if "mixture" not in data.obs or not {"proportions", "factors"} <= set(data.obsm):
            raise DataError(f"{self.dataset.name}: obs['mixture'], obsm['proportions'] and obsm['factors'] are needed")

    def units(self) -> list[str]:
        """Return the mixtures that differ from the mean of the others; of simulated data a pure and a mixed one.

        Simulated lines are alike, so that further mixtures of a draw tell less than another draw. ``smoke`` takes a
        pure and a mixed one of real wells, too.
        """
        proportions, mixtures = self.data.obsm["proportions"], self._mixtures
        named = []
        for name in np.unique(mixtures):
            here = mixtures == name
            distance = proportions[here].mean(axis=0) - proportions[~here].mean(axis=0)
            if np.sqrt(np.mean(distance**2)) >= LEAST_DISTANCE:
                named.append(str(name))
        if self.dataset.simulated or self.preset == "smoke":
            purity = [proportions[mixtures == name].max() for name in named]
            return [named[int(np.argmax(purity))], named[int(np.argmin(purity))]]
        return named

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return the wells of all other mixtures."""
        return handed(self.data, without_copies(self.data, self._mixtures != unit))

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, read the proportions of the held-out wells out of their codes, and predict their mean."""
        training, held_out = self.training_data(unit, seed), handed(self.data, self._mixtures == unit)
        fitted = fit(training)
        trained = self.data.obs_names.get_indexer(training.obs_names)
        hidden = np.flatnonzero(self._mixtures == unit)
        proportions, factors = self.data.obsm["proportions"], np.asarray(self.data.obsm["factors"], dtype=float)
        codes = np.asarray(fitted.embed(training), dtype=float)
        read_out = regressed(codes, proportions[trained], np.asarray(fitted.embed(held_out), dtype=float))
        scores = scored(self.primary, proportions=proportions[hidden], proportions_hat=read_out)
        if self.primary_only:
            return scores
        x, x_training = np.asarray(held_out.X), np.asarray(training.X)
        if hasattr(fitted, "decode"):
            expected = regressed(factors[trained], codes, factors[hidden]).astype(np.float32)
            scores |= scored(
                self.secondary,
                mean_true=x.mean(axis=0, dtype=float),
                mean_predicted=np.asarray(fitted.decode(expected)).mean(axis=0, dtype=float),
                mean_trained=x_training.mean(axis=0, dtype=float),
            )
        return scores | distance_score(x, x_training) | paired_scores(fitted, training, self.data)

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the mean (floor), or profiles that add up: fitted to training wells, or (ceiling) the true ones."""
        if reference == "floor":
            return _Mean
        known = self.data.obs_names, self.data.obsm["proportions"]
        if reference == "structure":
            return lambda training: _Mixing(training, *known)
        if "profiles" in self.data.uns:
            return lambda training: _Mixing(training, *known, profiles=self.data.uns["profiles"])
        return lambda training: _Mixing(handed(self.data, np.arange(self.data.n_obs)), *known)

    def inner(self, unit: str) -> Task:
        """Return the task on all other mixtures."""
        from tasks.datasets.memory import Memory

        others = self.data[self._mixtures != unit].copy()
        return type(self)(Memory(others, f"{self.dataset.name} without {unit}"), "default", primary_only=True)

    @property
    def _mixtures(self) -> np.ndarray:
        return self.data.obs["mixture"].to_numpy(str)


def regressed(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the least-squares prediction of y (n, n_outputs) from x (n, n_inputs), with a constant, at other inputs.

    Inputs are standardised, so that the smallest of several solutions does not depend on their scale; one that is
    constant has no part.
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    varies = std > 1e-6 * np.maximum(1.0, np.abs(mean))
    design, inputs = ((values[:, varies] - mean[varies]) / std[varies] for values in (x, at))
    weights = np.linalg.lstsq(design, y - y.mean(axis=0))[0]
    return inputs @ weights + y.mean(axis=0)


class _Mean:
    """Knows the mean of the training wells and tells no well from another."""

    def __init__(self, training: AnnData):
        self.mean = np.asarray(training.X).mean(axis=0)

    def embed(self, data: AnnData) -> np.ndarray:
        """Return zeros (n_wells, 1)."""
        return np.zeros((data.n_obs, 1))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the mean for each code, (n_wells, n_genes)."""
        return np.tile(self.mean, (len(codes), 1))


class _Mixing:
    """Adds up profiles in counts.

    A well's code is the proportions that explain its counts best, the logarithm of its library, and the number of its
    protocol. ``decode`` gives the mean of X over Poisson counts.

    Parameters
    ----------
    wells
        Wells that profiles are fitted to: for each protocol and gene the non-negative least squares of a gene's share
        of the library on proportions.
    names, proportions
        Names (n_cells,) and proportions (n_cells, n_parts) of all wells.
    profiles
        Profiles (n_parts, n_genes) by protocol, where they are known.
    """

    def __init__(
        self,
        wells: AnnData,
        names: pd.Index,
        proportions: np.ndarray,
        profiles: Mapping[str, np.ndarray] | None = None,
    ):
        protocols, known = labels(wells, "environment"), proportions[names.get_indexer(wells.obs_names)]
        shares = np.expm1(np.asarray(wells.X, dtype=float)) / 1e4  # of the whole library, also where genes are chosen
        self.profiles = profiles or {
            str(p): _profiles(shares[protocols == p], known[protocols == p]) for p in np.unique(protocols)
        }

    def embed(self, data: AnnData) -> np.ndarray:
        """Return proportions, log library and protocol, (n_wells, n_parts + 2)."""
        counts, protocols = np.asarray(data.layers["counts"], dtype=float), labels(data, "environment")
        libraries = counts.sum(axis=1) / (np.expm1(np.asarray(data.X, dtype=float)).sum(axis=1) / 1e4)
        codes = np.empty((data.n_obs, len(next(iter(self.profiles.values()))) + 2))
        for number, (protocol, profiles) in enumerate(self.profiles.items()):
            here = protocols == protocol
            read_out = _proportions(counts[here], np.maximum(profiles, LEAST_SHARE))
            codes[here] = np.column_stack([read_out, np.log(libraries[here]), np.full(here.sum(), number)])
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the mean of X over Poisson counts of the mixed profiles, (n_wells, n_genes)."""
        profiles = np.stack(list(self.profiles.values()))
        of_well = profiles[np.clip(codes[:, -1].round().astype(int), 0, len(profiles) - 1)]
        mixed = np.maximum(np.einsum("nk,nkg->ng", codes[:, :-2], of_well), 0.0)
        library, rng = np.exp(codes[:, [-2]]), np.random.default_rng(94)
        drawn = [rng.poisson(library * mixed) for _ in range(N_SAMPLES)]
        return np.mean([np.log1p(1e4 * counts / library) for counts in drawn], axis=0)


def _profiles(shares: np.ndarray, proportions: np.ndarray) -> np.ndarray:
    """Return the parts' profiles (n_parts, n_genes), non-negative least squares of shares (n_wells, n_genes)."""
    from scipy.optimize import nnls

    profiles = np.linalg.lstsq(proportions, shares)[0]
    for gene in np.flatnonzero((profiles < 0).any(axis=0)):
        profiles[:, gene] = nnls(proportions, shares[:, gene])[0]
    return profiles


def _proportions(counts: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Return the proportions (n_wells, n_parts) of Poisson counts whose mean is a @ profiles: EM for a, then shares.

    Multiplicative steps for the Poisson likelihood (Richardson 1972; Lucy 1974; Shepp & Vardi 1982).
    """
    totals = profiles.sum(axis=1)
    amounts = np.tile(counts.sum(axis=1, keepdims=True) / totals.sum(), (1, len(profiles)))
    for _ in range(N_STEPS):
        amounts = amounts * ((counts / (amounts @ profiles)) @ profiles.T) / totals
    return amounts / amounts.sum(axis=1, keepdims=True)
