"""Likelihoods of expression given a decoder's output; a class each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Gaussian(nn.Module):
    """Normals with one learned variance for all genes, log p = −½ Σ_g [log 2πσ² + (x_g − μ_g)²/σ²].

    Learning σ² puts reconstruction and KL into proportion without a weight to tune: Rybkin, Daniilidis, Levine
    2021, arXiv 2006.13202 (σ-VAE), Eq. 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    def log_prob(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return log p(x | mean) summed over genes, (n_cells,)."""
        # data reproduced exactly (constant genes alone) would send the variance to 0 and the density to infinity
        log_variance = self.log_variance.clamp(min=-10.0)
        squared = (x - mean).square() * torch.exp(-log_variance)
        return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)
