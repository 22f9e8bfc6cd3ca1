"""Penalties of variational autoencoders: pure functions, tested against closed forms."""

from __future__ import annotations

from torch import Tensor


def kl_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ_j (μ_j² + σ_j² − 1 − log σ_j²) for each cell, (n_cells,).

    Parameters
    ----------
    mean, log_variance
        μ and log σ², each (n_cells, n_latent).
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)
