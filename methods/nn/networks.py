"""Multilayer perceptrons for encoders and decoders.

All of them can be stacked (:mod:`methods.nn.stacked`): parameters, input and output then have a leading axis of fits.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn import ACTIVATIONS, NORMS
from methods.nn.kernels import normalise
from methods.nn.stacked import kept_like

_ACTIVATION: dict[str, type[nn.Module]] = dict(
    zip(ACTIVATIONS, (nn.ReLU, nn.LeakyReLU, nn.Softplus, nn.ELU, nn.SiLU), strict=True)
)


class Linear(nn.Linear):
    """A linear map; stacked fits have one each."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_cells, n_in) to (..., n_cells, n_out)."""
        if self.weight.dim() == 2:
            return super().forward(x)
        if self.bias is None:
            return torch.bmm(x, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(-2), x, self.weight.mT)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm; each stacked fit is normalised by its own cells."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_cells, width) to the same shape."""
        if self.weight.dim() == 1:
            return super().forward(x)
        gain, shift = self.weight.unsqueeze(-2), self.bias.unsqueeze(-2)
        if not self.training:
            inverse = gain * (self.running_var + self.eps).rsqrt().unsqueeze(-2)
            return torch.addcmul(shift, x - self.running_mean.unsqueeze(-2), inverse)
        output, mean, variance = normalise(x, gain, shift, self.eps)
        n = x.shape[-2]
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.squeeze(-2), self.momentum)
        self.running_var.lerp_(variance.squeeze(-2) * (n / (n - 1)), self.momentum)
        return output


class LayerNorm(nn.LayerNorm):
    """Layer norm; each stacked fit has its own gain and shift."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_cells, width) to the same shape."""
        if self.weight.dim() == 1:
            return super().forward(x)
        normal = F.layer_norm(x, self.normalized_shape, eps=self.eps)
        return torch.addcmul(self.bias.unsqueeze(-2), normal, self.weight.unsqueeze(-2))


class Dropout(nn.Dropout):
    """Dropout with a probability that is a multiple of 2⁻¹⁶, for which random numbers take a quarter of the time."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        dropped = round(self.p * 2**16)
        if not self.training or not dropped:
            return x
        return x * kept_like(x, dropped) * (1 / (1 - dropped / 2**16))


_NORM: dict[str, type[nn.Module]] = dict(zip(NORMS, (nn.Identity, LayerNorm, BatchNorm), strict=True))


def hidden_layers(sizes: tuple[int, ...], activation: str, norm: str, dropout: float) -> nn.Sequential:
    """Return blocks of linear, norm, activation, dropout through ``sizes``.

    The linear map has no bias before batch norm, which would subtract it. Without a norm the weights start so that
    standard normal inputs give linear outputs of mean 0 and variance 1 in every layer. PyTorch's start would shrink
    the differences between cells to a third or less in each layer, and thousands of steps go by until the latents are
    used: after 800 steps on two development draws of ifn-sim the Γ-VAE's validation loss was 644 from this start and
    689 from PyTorch's.
    """
    layers: list[nn.Module] = []
    mean, variance = 0.0, 1.0
    for fan_in, fan_out in pairwise(sizes):
        linear = Linear(fan_in, fan_out, bias=norm != "batch")
        layers.append(linear)
        if norm == "none":
            nn.init.normal_(linear.weight, std=(fan_in * variance) ** -0.5)
            linear.bias.data = -mean * linear.weight.detach().sum(1)
            mean, variance = moments(activation)
        else:
            layers.append(_NORM[norm](fan_out))
        layers.append(_ACTIVATION[activation]())
        if dropout > 0:
            layers.append(Dropout(dropout))
    return nn.Sequential(*layers)


@cache
def moments(activation: str) -> tuple[float, float]:
    """Return the mean and the variance of an activation of a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    values = _ACTIVATION[activation]()(torch.from_numpy(nodes)).numpy()
    mean = np.average(values, weights=weights)
    return float(mean), float(np.average((values - mean) ** 2, weights=weights))


class GaussianEncoder(nn.Module):
    """q(z | x) = N(μ(x), diag σ²(x)): a multilayer perceptron with two linear heads."""

    def __init__(self, n_in: int, hidden: tuple[int, ...], n_latent: int, activation: str, norm: str, dropout: float):
        super().__init__()
        self.body = hidden_layers((n_in, *hidden), activation, norm, dropout)
        self.mean = Linear(hidden[-1], n_latent)
        self.log_variance = Linear(hidden[-1], n_latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n_cells, n_in) to the mean and log-variance, each (n_cells, n_latent)."""
        h = self.body(x)
        # variances beyond e^±10 have no meaning, and their gradients explode
        return self.mean(h), self.log_variance(h).clamp(-10.0, 10.0)


class Encoders(nn.Module):
    """Several :class:`GaussianEncoder` of one input; their latents are concatenated."""

    def __init__(
        self, n_in: int, hidden: tuple[int, ...], widths: list[int], activation: str, norm: str, dropout: float
    ):
        super().__init__()
        shape = (activation, norm, dropout)
        self.parts = nn.ModuleList(GaussianEncoder(n_in, hidden, width, *shape) for width in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n_cells, n_in) to the mean and log-variance, each (n_cells, sum of the widths)."""
        means, log_variances = zip(*(part(x) for part in self.parts), strict=True)
        return torch.cat(means, -1), torch.cat(log_variances, -1)


class Decoder(nn.Module):
    """z to gene-wise outputs: a multilayer perceptron with a linear head."""

    def __init__(self, n_latent: int, hidden: tuple[int, ...], n_out: int, activation: str, norm: str, dropout: float):
        super().__init__()
        self.body = hidden_layers((n_latent, *hidden), activation, norm, dropout)
        self.head = Linear(hidden[-1], n_out)
        #: Number of modules of the first hidden layer, up to and including its activation, before dropout.
        self.n_first = 2 if norm == "none" else 3

    def first(self, z: Tensor) -> Tensor:
        """Map (n_cells, n_latent) to the activations of the first hidden layer, (n_cells, hidden[0])."""
        return self.body[: self.n_first](z)

    def hidden(self, first: Tensor) -> Tensor:
        """Map the first hidden layer to the last hidden layer, (n_cells, hidden[-1])."""
        return self.body[self.n_first :](first)

    def forward(self, z: Tensor) -> Tensor:
        """Map (n_cells, n_latent) to (n_cells, n_out)."""
        return self.head(self.hidden(self.first(z)))


class GenesOfBasis(nn.Module):
    """A head of K functions f_k; gene j follows function k with probability φ_jk, multiplied by s_jk."""

    def __init__(self, n_in: int, n_basis: int, n_genes: int):
        super().__init__()
        self.basis = Linear(n_in, n_basis)
        self.choice = nn.Parameter(0.1 * torch.randn(n_genes, n_basis))
        self.scale = nn.Parameter(torch.zeros(n_genes, n_basis))

    def assignment(self) -> Tensor:
        """Return φ, (n_genes, n_basis)."""
        return torch.softmax(self.choice, 1)

    def scales(self) -> Tensor:
        """Return s, in (.25, 1.75), (n_genes, n_basis)."""
        return 0.25 + 1.5 * torch.sigmoid(self.scale)

    def forward(self, h: Tensor) -> Tensor:
        """Map (n_cells, n_in) to Σ_k φ_jk s_jk f_k, (n_cells, n_genes)."""
        return self.basis(h) @ (self.assignment() * self.scales()).T

    @property
    def weight(self) -> Tensor:
        """The matrix (n_genes, n_in) that maps steps in h to steps of the genes, as the weight of a linear head."""
        return (self.assignment() * self.scales()) @ self.basis.weight

    def spread(self, h: Tensor) -> Tensor:
        """Return the variance of s_jk f_k over the choice of k, (n_cells, n_genes)."""
        f, chosen = self.basis(h), self.assignment() * self.scales()
        return f.square() @ (chosen * self.scales()).T - (f @ chosen.T).square()


class Scaler(nn.Module):
    """Centre each gene on its training mean and divide all genes by one number, the root of their mean variance.

    With one number the variances of genes stay in proportion. If each gene were divided by its own standard deviation,
    the noise of thousands of barely expressed genes would become as large as the signal.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("std", torch.ones(()))

    def set_moments(self, mean: Tensor, variance: Tensor) -> None:
        """Take the mean and the variance of each gene, (n_genes,); constant expression is divided by 1."""
        self.mean.copy_(mean)
        std = variance.mean().sqrt()
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Centre and divide."""
        return (x - self.mean.unsqueeze(-2)) / self.std[..., None, None]

    def inverse(self, x: Tensor) -> Tensor:
        """Undo :meth:`forward`."""
        return x * self.std[..., None, None] + self.mean.unsqueeze(-2)


class Constant(nn.Module):
    """A tensor that a loss reads; it moves to the device with its network, as a recorded step can make none."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)
