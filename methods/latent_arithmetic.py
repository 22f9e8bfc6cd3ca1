"""Latent vector arithmetic: prediction for every model that can encode and decode."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from methods.base import CannotFit, Method, column, control, group_means, means_state, parts_of, restored_means

if TYPE_CHECKING:
    from anndata import AnnData


class LatentArithmetic(Method):
    """Predict by encoding, adding a mean latent shift, and decoding (Lotfollahi et al. 2019, scGen, Eq. 1).

    The shift from environment a to b is the mean over content labels seen in both of
    mean z(b, content) − mean z(a, content): every label with 20 cells or more in both weighs the same (where there is
    none, every label), as scGen balances its cell types.
    An environment "A+B" that was not trained, and whose parts all were, is composed: its shift from the control is the
    sum of A's and B's, as CPA adds the latent effects of perturbations (Lotfollahi et al. 2023, Mol Syst Biol
    19:e11517). So do all methods that predict by adding a latent shift, which this class is the base of; one that
    decodes with a label of the environment instead (CVAE, trVAE, LORD, multiGroupVI) has no shift to add, and refuses.

    A subclass has ``embed`` and ``decode`` and calls :meth:`remember_latents` at the end of ``fit``.
    """

    def remember_latents(self, data: AnnData) -> None:
        """Keep the mean code of each (environment, content) of the training cells, and which is the control."""
        codes = self.embed(data)  # type: ignore[attr-defined]
        self.latent_means = group_means(codes, column(data, "environment"), column(data, "content"))
        self.latent_control = control(data)

    def adapt(self, data: AnnData) -> Self:
        """Return a copy that also remembers the mean codes of ``data``; encoder and decoder are shared, unchanged."""
        adapted = copy.copy(self)
        adapted.remember_latents(data)
        adapted.latent_means = self.latent_means.joined(adapted.latent_means)
        return adapted

    def latent_shift(self, source: str, target: str) -> np.ndarray:
        """Return the shift (n_latent,) from ``source`` to ``target``, composed where ``target`` is.

        From a source that is not the control a composed shift goes by way of the control, where the parts' start.
        """
        parts = parts_of(target, {environment for environment, _ in self.latent_means})
        if len(parts) == 1:
            return self.trained_shift(source, target)
        start = self.latent_control
        way = [] if source == start else [self.trained_shift(source, start)]
        return np.sum([*way, *(self.trained_shift(start, part) for part in parts)], axis=0)

    def trained_shift(self, source: str, target: str) -> np.ndarray:
        """Return the mean shift (n_latent,) between two trained environments, each content label weighing the same."""
        means = self.latent_means
        shifts = [means[target, content] - means[source, content] for content in means.shared(source, target)]
        if not shifts:
            seen = sorted({environment for environment, _ in means})
            raise CannotFit(
                f"no content label was trained in both {source!r} and {target!r}; trained environments: "
                f"{', '.join(seen)}"
            )
        return np.mean(shifts, axis=0)

    def moved(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the codes (n_cells, n_latent) of ``data``'s cells, each moved from its environment to the target."""
        codes = np.array(self.embed(data), dtype=np.float64)  # type: ignore[attr-defined]
        sources = column(data, "environment")
        for source in np.unique(sources):
            codes[sources == source] += self.latent_shift(str(source), target_environment)
        return codes.astype(np.float32)

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) expected of ``data``'s cells in ``target_environment``."""
        return self.decode(self.moved(data, target_environment))  # type: ignore[attr-defined]

    def latent_state(self) -> dict[str, Any]:
        """Return the remembered means, and the control, as part of a fitted state."""
        return {**means_state("latent", self.latent_means), "latent_control": self.latent_control}

    def restore_latents(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`latent_state` returned."""
        self.latent_means = restored_means("latent", state)
        self.latent_control = str(state["latent_control"])
