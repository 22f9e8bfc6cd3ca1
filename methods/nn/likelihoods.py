"""Likelihoods of expression given a decoder's output, with one interface."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.kernels import count_log_prob, squared_distance
from methods.nn.sparse import SparseRows

#: Data that are reproduced exactly (constant genes) would send the variance to 0 and the density to infinity.
LEAST_LOG_VARIANCE = -10.0


class Likelihood(nn.Module):
    """p(x | decoder output, library size), independent over genes given the output.

    For stacked fits (:mod:`methods.nn.stacked`) all shapes have a leading axis.

    Attributes
    ----------
    outputs_per_gene
        Decoder outputs for each gene: the decoder returns (n_cells, ``outputs_per_gene`` · n_genes), and its first
        n_genes columns are the first output of every gene.
    """

    outputs_per_gene: ClassVar[int] = 1

    def __init__(self, n_genes: int | None = None) -> None:
        super().__init__()

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) summed over genes, (n_cells,).

        Parameters
        ----------
        x
            Expression, (n_cells, n_genes).
        output
            The decoder's output, (n_cells, ``outputs_per_gene`` · n_genes).
        library
            Total counts of each cell, (n_cells,); only likelihoods of counts need it.
        """
        return self.gene_log_prob(x, output, library).sum(-1)

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) of each gene, (n_cells, n_genes)."""
        raise NotImplementedError

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return E[x | output, library], (n_cells, n_genes), on the scale of x."""
        raise NotImplementedError


class SquaredError(Likelihood):
    """Normals of variance 1 without their constant, log p = −½ Σ_g (x_g − μ_g)²: minus half the squared error."""

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return minus half the squared error, (n_cells,)."""
        return -0.5 * squared_distance(x, output)

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return −½ (x_g − μ_g)², (n_cells, n_genes)."""
        return -0.5 * (x - output).square()

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return the output itself."""
        return output


class Gaussian(Likelihood):
    """Normals with one learned variance for all genes, log p = −½ Σ_g [log 2πσ² + (x_g − μ_g)²/σ²].

    A learned σ² puts reconstruction and KL in proportion without a weight to tune: Rybkin, Daniilidis, Levine 2021,
    arXiv 2006.13202 (σ-VAE), Eq. 3.
    """

    def __init__(self, n_genes: int | None = None) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    def bounded(self) -> Tensor:
        """Return log σ², bounded below, in a shape that broadcasts to (n_cells, n_genes)."""
        return self.log_variance.clamp(min=LEAST_LOG_VARIANCE)[..., None, None]

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output) summed over genes, (n_cells,)."""
        log_variance = self.bounded().squeeze(-1)
        squared = squared_distance(x, output) * torch.exp(-log_variance)
        return -0.5 * (squared + x.shape[-1] * (log_variance + math.log(2 * math.pi)))

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output) of each gene, (n_cells, n_genes)."""
        log_variance = self.bounded()
        squared = (x - output).square() * torch.exp(-log_variance)
        return -0.5 * (squared + log_variance + math.log(2 * math.pi))

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return the output itself."""
        return output


class GeneGaussian(Gaussian):
    """Normals with a learned variance for each gene, log p = −½ Σ_g [log 2πσ_g² + (x_g − μ_g)²/σ_g²]."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(n_genes))

    def bounded(self) -> Tensor:
        """Return log σ², bounded below, in a shape that broadcasts to (n_cells, n_genes)."""
        return self.log_variance.clamp(min=LEAST_LOG_VARIANCE).unsqueeze(-2)

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output) summed over genes, (n_cells,)."""
        return self.gene_log_prob(x, output, library).sum(-1)


class Bernoulli(Likelihood):
    """Cross-entropy of x in [0, 1], log p = Σ_g [x_g log π_g + (1 − x_g) log(1 − π_g)], π = sigmoid(output).

    It is a probability where x is 0 or 1, and not normalised between them.
    """

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return minus the cross-entropy of each gene, (n_cells, n_genes)."""
        return -F.binary_cross_entropy_with_logits(output, x, reduction="none")

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return π."""
        return torch.sigmoid(output)


class NegativeBinomial(Likelihood):
    """Negative binomial of counts with mean μ = library · softmax(output) and a learned dispersion of each gene.

    log p(x) = log Γ(x + θ) − log Γ(θ) − log Γ(x + 1) + x log μ/(μ + θ) + θ log θ/(μ + θ),
    with variance μ + μ²/θ: the likelihood of scVI (Lopez et al. 2018, Nature Methods 15:1053) with gene-wise θ and
    observed library sizes, which have no gradient. The gradients are closed forms and cannot be differentiated again:

    d log p/d log μ = (x − μ)/(1 + μ/θ),
    d log p/d log θ = θ[ψ(x + θ) − ψ(θ)] − θ log(1 + μ/θ) − (x − μ)/(1 + μ/θ).
    """

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    def bounded(self) -> Tensor:
        """Return log θ, bounded for single precision, (n_genes,)."""
        # beyond e^±15 counts are Poisson or all zero, and θ log(1 + μ/θ) leaves single precision
        return self.log_theta.clamp(-15.0, 15.0)

    def log_prob(self, x: Tensor | SparseRows, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) summed over genes, (n_cells,); faster for x by its non-zeros."""
        counts = x if isinstance(x, SparseRows) else SparseRows.of_tensor(x)
        return count_log_prob(counts, _given(library), self.bounded(), *self._logits(output))

    @torch.no_grad()
    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) of each gene, (n_cells, n_genes), in double precision; without gradient."""
        # in single precision log Γ(x + θ) − log Γ(θ) loses all digits at a large θ
        x, log_theta = x.double(), self.bounded().double()
        theta, mean = log_theta.exp(), NegativeBinomial.mean(self, output.double(), library)
        theta = theta.unsqueeze(-2)
        log_binomial = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        return log_binomial + torch.xlogy(x, mean / (mean + theta)) - theta * torch.log1p(mean / theta)

    def _logits(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        return output, None

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return library · softmax(output), in counts."""
        return torch.softmax(output, -1) * _given(library).unsqueeze(-1)

    def generating_deficit(self, v: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return 1 − E[(1 − v)^x] = 1 − (1 + μv/θ)^−θ for v in [0, 1], which broadcasts to (n_cells, n_genes).

        It takes v and not 1 − v, since μv matters also where 1 − v is rounded to 1.
        """
        theta = self.bounded().exp().unsqueeze(-2)
        return -torch.expm1(-theta * torch.log1p(NegativeBinomial.mean(self, output, library) * v / theta))


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """A zero with probability π, else :class:`NegativeBinomial`; outputs are the logits of softmax, then of π.

    log p(0) = log[π + (1 − π) NB(0)], log p(x) = log(1 − π) + log NB(x) for x > 0; the mean is (1 − π) μ
    (scVI, Lopez et al. 2018, Nature Methods 15:1053). The gradients are closed forms: those of NB, at zeros times the
    posterior probability 1 − δ that the zero is NB's, and d log p/d logit π = δ − π, with δ = 0 for x > 0.
    """

    outputs_per_gene: ClassVar[int] = 2

    @torch.no_grad()
    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) of each gene, (n_cells, n_genes), in double precision; without gradient."""
        logits, dropout = self._logits(output.double())
        counted = F.logsigmoid(-dropout) + super().gene_log_prob(x, logits, library)
        return torch.where(x == 0, torch.logaddexp(F.logsigmoid(dropout), counted), counted)

    def _logits(self, output: Tensor) -> tuple[Tensor, Tensor]:
        logits, dropout = output.chunk(2, -1)
        return logits, dropout

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return (1 − π) · library · softmax(logits), in counts."""
        logits, dropout = self._logits(output)
        return torch.sigmoid(-dropout) * super().mean(logits, library)

    def generating_deficit(self, v: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return 1 − E[(1 − v)^x], 1 − π times the negative binomial's."""
        logits, dropout = self._logits(output)
        return torch.sigmoid(-dropout) * super().generating_deficit(v, logits, library)


def _given(library: Tensor | None) -> Tensor:
    if library is None:
        raise ValueError("a likelihood of counts needs library=, the total counts of each cell (n_cells,); got None")
    return library
