"""Likelihoods of expression given a decoder's output; a class each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Gaussian(nn.Module):
    """Independent normals with a learned variance for each gene, log p = −½ Σ_g [log 2πσ_g² + (x − μ)²/σ_g²]."""

    def __init__(self, n_genes: int):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(n_genes))

    def log_prob(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return log p(x | mean) summed over genes, (n_cells,)."""
        # a gene reproduced exactly (a constant one) would send its variance to 0 and the density to infinity
        log_variance = self.log_variance.clamp(min=-10.0)
        squared = (x - mean).square() * torch.exp(-log_variance)
        return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)
