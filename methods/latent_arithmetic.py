"""Latent arithmetic: prediction for every method that can encode and decode."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from methods.base import Method, column, control, key, parts_of
from methods.groups import group_means, moved, regressed

if TYPE_CHECKING:
    from anndata import AnnData


class LatentArithmetic(Method):
    """Predict by encoding, adding a mean latent shift, and decoding (Lotfollahi et al. 2019, scGen, Eq. 1).

    The shift from environment a to b is the mean over content labels of mean z(b, content) − mean z(a, content), each
    label with 20 cells or more in both environments weighing the same (where there is none, every label), as scGen
    balances its cell types. An environment "A+B" that was not trained, and whose parts all were, is composed: its shift
    from the control is the sum of A's and B's, as CPA adds the latent effects of perturbations (Lotfollahi et al. 2023,
    Mol Syst Biol 19:e11517). A method that decodes with a label or with latents of the environment (CVAE, trVAE, LORD,
    multiGroupVI) refuses such an environment.

    With ``shift="regression"`` the shift is no mean but a ridge regression, over the same labels, of their shift on
    their mean code in a (:func:`methods.groups.regressed`), taken at the code of each cell: the model may use a cell's
    state. A composed shift remains a sum of means.

    A subclass has ``embed`` and ``decode`` and calls :meth:`remember_latents` at the end of ``fit``.
    """

    unfitted: ClassVar[frozenset[str]] = frozenset({"shift"})

    @dataclass(frozen=True)
    class Config:
        """How a latent shift depends on the cell."""

        shift: str = key("mean", among=("mean", "regression"))  # Lotfollahi et al. 2019, scGen: the mean

    def remember_latents(self, data: AnnData) -> None:
        """Keep the mean code of each (environment, content) of the training cells, and the name of the control."""
        codes = self.embed(data)  # type: ignore[attr-defined]
        self.latent_means = group_means(codes, column(data, "environment"), column(data, "content"))
        self.latent_control = control(data)

    def adapt(self, data: AnnData) -> Self:
        """Return a copy that also knows the mean codes of ``data``; it shares encoder and decoder with this method."""
        adapted = copy.copy(self)
        adapted.remember_latents(data)
        adapted.latent_means = self.latent_means.joined(adapted.latent_means)
        return adapted

    def shift_at(self, codes: np.ndarray, source: str, target: str) -> np.ndarray:
        """Return the shift of ``codes`` to ``target``: of all, (n_latent,), or of each, (n_cells, n_latent)."""
        trained = any(environment == target for environment, _ in self.latent_means)
        if getattr(self.config, "shift", "mean") == "regression" and trained:
            return regressed(*self.latent_means.shifts(source, target), codes)
        return self.latent_shift(source, target)

    def latent_shift(self, source: str, target: str) -> np.ndarray:
        """Return the shift (n_latent,) from ``source`` to ``target``.

        If ``target`` is composed and ``source`` is not the control, the shift leads through the control.
        """
        parts = parts_of(target, {environment for environment, _ in self.latent_means})
        if len(parts) == 1:
            return self.trained_shift(source, target)
        start = self.latent_control
        to_control = [] if source == start else [self.trained_shift(source, start)]
        return np.sum([*to_control, *(self.trained_shift(start, part) for part in parts)], axis=0)

    def trained_shift(self, source: str, target: str) -> np.ndarray:
        """Return the mean shift (n_latent,) between two trained environments, each content label weighing the same."""
        return self.latent_means.shifts(source, target)[1].mean(axis=0)

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) expected of ``data``'s cells in ``target_environment``."""
        codes = np.array(self.embed(data), dtype=np.float64)  # type: ignore[attr-defined]

        def shift(codes: np.ndarray, source: str) -> np.ndarray:
            return self.shift_at(codes, source, target_environment)

        codes = moved(codes, column(data, "environment"), shift)
        return self.decode(codes.astype(np.float32))  # type: ignore[attr-defined]
