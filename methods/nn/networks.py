"""Multilayer perceptrons for encoders and decoders."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from methods.nn import ACTIVATIONS, NORMS

_ACTIVATION: dict[str, type[nn.Module]] = dict(
    zip(ACTIVATIONS, (nn.ReLU, nn.LeakyReLU, nn.Softplus, nn.ELU), strict=True)
)
_NORM: dict[str, type[nn.Module]] = dict(zip(NORMS, (nn.Identity, nn.LayerNorm, nn.BatchNorm1d), strict=True))


def hidden_layers(sizes: tuple[int, ...], activation: str, norm: str, dropout: float) -> nn.Sequential:
    """Return blocks of linear, norm, activation, dropout through ``sizes``.

    The linear map has no bias before batch norm, which would subtract it.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers.append(nn.Linear(fan_in, fan_out, bias=norm != "batch"))
        if norm != "none":
            layers.append(_NORM[norm](fan_out))
        layers.append(_ACTIVATION[activation]())
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


class Scaler(nn.Module):
    """Centre each gene on its training mean and divide all genes by one number, their root mean variance.

    One scale for all genes leaves their variances in proportion: dividing each gene by its own would blow the
    noise of thousands of barely expressed genes up to the size of the signal.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("scale", torch.ones(()))

    def set(self, x: Tensor) -> None:
        """Take mean and scale from training expression (n_cells, n_genes); constant expression keeps scale 1."""
        self.mean.copy_(x.mean(0))
        scale = x.var(0, correction=0).mean().sqrt()
        self.scale.copy_(torch.where(scale > 1e-6, scale, torch.ones_like(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Centre and scale."""
        return (x - self.mean) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """Undo :meth:`forward`."""
        return x * self.scale + self.mean
