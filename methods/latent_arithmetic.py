"""Latent vector arithmetic: prediction for every model that can encode and decode."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from methods.base import CannotFit, Method, column, group_means, means_state, restored_means

if TYPE_CHECKING:
    from anndata import AnnData


class LatentArithmetic(Method):
    """Predict by encoding, adding a mean latent shift, and decoding (Lotfollahi et al. 2019, scGen, Eq. 1).

    The shift from environment a to b is the mean over content labels seen in both of
    mean z(b, content) − mean z(a, content): every label weighs the same, as scGen balances its cell types.
    An environment "A+B" that was not trained is composed: its shift is the sum of A's and B's, as CPA adds the latent
    effects of perturbations (Lotfollahi et al. 2023, Mol Syst Biol 19:e11517).

    A subclass has ``embed`` and ``decode`` and calls :meth:`remember_latents` at the end of ``fit``.
    """

    def remember_latents(self, data: AnnData) -> None:
        """Keep the mean code of each (environment, content) of the training cells."""
        codes = self.embed(data)  # type: ignore[attr-defined]
        self.latent_means = group_means(codes, column(data, "environment"), column(data, "content"))

    def adapt(self, data: AnnData) -> Self:
        """Return a copy that also remembers the mean codes of ``data``; encoder and decoder are shared, unchanged."""
        adapted = copy.copy(self)
        adapted.remember_latents(data)
        adapted.latent_means = self.latent_means.joined(adapted.latent_means)
        return adapted

    def latent_shift(self, source: str, target: str) -> np.ndarray:
        """Return the mean shift (n_latent,) from ``source`` to ``target``, each content label weighing the same."""
        if "+" in target and all(environment != target for environment, _ in self.latent_means):
            return np.sum([self.latent_shift(source, part) for part in target.split("+")], axis=0)
        shifts = [
            mean - self.latent_means[source, content]
            for (environment, content), mean in self.latent_means.items()
            if environment == target and content in self.latent_means.shared(source, target)
        ]
        if not shifts:
            seen = sorted({environment for environment, _ in self.latent_means})
            raise CannotFit(
                f"no content label was trained in both {source!r} and {target!r}; trained environments: "
                f"{', '.join(seen)}"
            )
        return np.mean(shifts, axis=0)

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) expected of ``data``'s cells in ``target_environment``."""
        codes = np.array(self.embed(data), dtype=np.float64)  # type: ignore[attr-defined]
        sources = column(data, "environment")
        for source in np.unique(sources):
            codes[sources == source] += self.latent_shift(str(source), target_environment)
        return self.decode(codes.astype(np.float32))  # type: ignore[attr-defined]

    def latent_state(self) -> dict[str, Any]:
        """Return the remembered means as part of a fitted state."""
        return means_state("latent", self.latent_means)

    def restore_latents(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`latent_state` returned."""
        self.latent_means = restored_means("latent", state)
