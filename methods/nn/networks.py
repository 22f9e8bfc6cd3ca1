"""Multilayer perceptrons for encoders and decoders."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
}
NORMS: dict[str, type[nn.Module]] = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


def hidden_layers(sizes: tuple[int, ...], activation: str, norm: str, dropout: float) -> nn.Sequential:
    """Return blocks of linear, norm, activation, dropout through ``sizes``.

    The linear map has no bias before batch norm, which would subtract it.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers.append(nn.Linear(fan_in, fan_out, bias=norm != "batch"))
        if norm != "none":
            layers.append(NORMS[norm](fan_out))
        layers.append(ACTIVATIONS[activation]())
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class GaussianEncoder(nn.Module):
    """q(z | x) = N(μ(x), diag σ²(x)): a multilayer perceptron with two linear heads."""

    def __init__(self, n_in: int, hidden: tuple[int, ...], n_latent: int, activation: str, norm: str, dropout: float):
        super().__init__()
        self.body = hidden_layers((n_in, *hidden), activation, norm, dropout)
        self.mean = nn.Linear(hidden[-1], n_latent)
        self.log_variance = nn.Linear(hidden[-1], n_latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n_cells, n_in) to the mean and log-variance, each (n_cells, n_latent)."""
        h = self.body(x)
        # beyond e^±10 a variance says nothing more and its gradient explodes
        return self.mean(h), self.log_variance(h).clamp(-10.0, 10.0)


class Decoder(nn.Module):
    """z to gene-wise outputs: a multilayer perceptron with a linear head."""

    def __init__(self, n_latent: int, hidden: tuple[int, ...], n_out: int, activation: str, norm: str, dropout: float):
        super().__init__()
        self.body = hidden_layers((n_latent, *hidden), activation, norm, dropout)
        self.head = nn.Linear(hidden[-1], n_out)

    def forward(self, z: Tensor) -> Tensor:
        """Map (n_cells, n_latent) to (n_cells, n_out)."""
        return self.head(self.body(z))


class Standardiser(nn.Module):
    """Gene-wise mean and standard deviation of the training cells, as buffers.

    A gene that is constant in training has standard deviation 1, so that it stays what it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("std", torch.ones(n_genes))

    def set(self, x: Tensor) -> None:
        """Take mean and standard deviation (ddof 0) from training expression (n_cells, n_genes)."""
        self.mean.copy_(x.mean(0))
        std = x.std(0, correction=0)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Undo the standardisation."""
        return x * self.std + self.mean
