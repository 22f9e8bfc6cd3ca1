"""Likelihoods of expression given a decoder's output; a class each, one interface for all."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.sparse import SparseRows

#: Data reproduced exactly (constant genes alone) would send the variance to 0 and the density to infinity.
LEAST_LOG_VARIANCE = -10.0


class Likelihood(nn.Module):
    """p(x | decoder output, library size), independent over genes given the output.

    Of replicas (:mod:`methods.nn.replicas`) all shapes below have a leading axis.

    Attributes
    ----------
    outputs_per_gene
        Decoder outputs a gene needs: the decoder returns (n_cells, ``outputs_per_gene`` · n_genes), its first
        n_genes columns being the first output of every gene.
    """

    outputs_per_gene: ClassVar[int] = 1

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) summed over genes, (n_cells,).

        Parameters
        ----------
        x
            Expression, (n_cells, n_genes).
        output
            What the decoder returns, (n_cells, ``outputs_per_gene`` · n_genes).
        library
            Total counts of each cell, (n_cells,); of use to likelihoods of counts only.
        """
        return self.gene_log_prob(x, output, library).sum(-1)

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) of each gene, (n_cells, n_genes)."""
        raise NotImplementedError

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return E[x | output, library], (n_cells, n_genes), on the scale of x."""
        raise NotImplementedError

    def sample(self, output: Tensor, library: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw x once for each cell, (n_cells, n_genes); without gradient."""
        raise NotImplementedError


class SquaredError(Likelihood):
    """Normals of variance 1 without their constant, log p = −½ Σ_g (x_g − μ_g)²: minus half the squared error."""

    def __init__(self, n_genes: int | None = None) -> None:
        super().__init__()

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return minus half the squared error, (n_cells,)."""
        return -0.5 * _SquaredDistance.apply(x, output)[0]

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return −½ (x_g − μ_g)², (n_cells, n_genes)."""
        return -0.5 * (x - output).square()

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return the output itself."""
        return output

    @torch.no_grad()
    def sample(self, output: Tensor, library: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw from normals of variance 1."""
        return output + _normal(output, generator)


class Gaussian(Likelihood):
    """Normals with one learned variance for all genes, log p = −½ Σ_g [log 2πσ² + (x_g − μ_g)²/σ²].

    Learning σ² puts reconstruction and KL into proportion without a weight to tune: Rybkin, Daniilidis, Levine
    2021, arXiv 2006.13202 (σ-VAE), Eq. 3.
    """

    def __init__(self, n_genes: int | None = None) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    def bounded(self) -> Tensor:
        """Return log σ², kept from −∞, as it broadcasts to (n_cells, n_genes)."""
        return self.log_variance.clamp(min=LEAST_LOG_VARIANCE)[..., None, None]

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output) summed over genes, (n_cells,)."""
        log_variance = self.bounded().squeeze(-1)
        squared = _SquaredDistance.apply(x, output)[0] * torch.exp(-log_variance)
        return -0.5 * (squared + x.shape[-1] * (log_variance + math.log(2 * math.pi)))

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output) of each gene, (n_cells, n_genes)."""
        log_variance = self.bounded()
        squared = (x - output).square() * torch.exp(-log_variance)
        return -0.5 * (squared + log_variance + math.log(2 * math.pi))

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return the output itself."""
        return output

    @torch.no_grad()
    def sample(self, output: Tensor, library: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw from the normals."""
        return output + torch.exp(0.5 * self.bounded()) * _normal(output, generator)


class GeneGaussian(Gaussian):
    """Normals with a learned variance for each gene, log p = −½ Σ_g [log 2πσ_g² + (x_g − μ_g)²/σ_g²]."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(n_genes))

    def bounded(self) -> Tensor:
        """Return log σ², kept from −∞, as it broadcasts to (n_cells, n_genes)."""
        return self.log_variance.clamp(min=LEAST_LOG_VARIANCE).unsqueeze(-2)

    def log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output) summed over genes, (n_cells,)."""
        return self.gene_log_prob(x, output, library).sum(-1)


class Bernoulli(Likelihood):
    """Cross-entropy of x in [0, 1], log p = Σ_g [x_g log π_g + (1 − x_g) log(1 − π_g)], π = sigmoid(output).

    A probability where x is 0 or 1; between them it is not normalised.
    """

    def __init__(self, n_genes: int | None = None) -> None:
        super().__init__()

    def gene_log_prob(self, x: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return minus the cross-entropy of each gene, (n_cells, n_genes)."""
        return -F.binary_cross_entropy_with_logits(output, x, reduction="none")

    def mean(self, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return π."""
        return torch.sigmoid(output)

    @torch.no_grad()
    def sample(self, output: Tensor, library: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(torch.sigmoid(output), generator=generator)


class NegativeBinomial(Likelihood):
    """Negative binomial of counts with mean μ = library · softmax(output) and a learned dispersion of each gene.

    log p(x) = log Γ(x + θ) − log Γ(θ) − log Γ(x + 1) + x log μ/(μ + θ) + θ log θ/(μ + θ),
    of variance μ + μ²/θ: the likelihood of scVI (Lopez et al. 2018, Nature Methods 15:1053) with gene-wise θ and
    observed library sizes, which get no gradient. The gradients are closed forms and are not differentiable again:

    d log p/d log μ = (x − μ)/(1 + μ/θ),
    d log p/d log θ = θ[ψ(x + θ) − ψ(θ)] − θ log(1 + μ/θ) − (x − μ)/(1 + μ/θ).
    """

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    def bounded(self) -> Tensor:
        """Return log θ, kept within single precision, (n_genes,)."""
        # beyond e^±15 counts are Poisson or all zero, and θ log(1 + μ/θ) leaves single precision
        return self.log_theta.clamp(-15.0, 15.0)

    def log_prob(self, x: Tensor | SparseRows, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return log p(x | output, library) summed over genes, (n_cells,).

        In the non-zeros of a dense x the search for them takes a quarter of the time.
        """
        counts = x if isinstance(x, SparseRows) else SparseRows.of_tensor(x)
        logits, dropout = self._logits(output)
        of_counts = counts.row, counts.column, counts.at, counts.value, counts.count
        gradients = torch.is_grad_enabled()
        return _ClosedForm.apply(gradients, *of_counts, _given(library), self.bounded(), logits, dropout)[0]

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

    @torch.no_grad()
    def sample(self, output: Tensor, library: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw counts, as Poisson with gamma-distributed rates."""
        mean = NegativeBinomial.mean(self, output, library)
        theta = self.bounded().exp().unsqueeze(-2).expand_as(mean)
        # torch.distributions.Gamma takes no generator
        return torch.poisson(torch._standard_gamma(theta, generator=generator) * mean / theta, generator=generator)

    def generating_deficit(self, v: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return 1 − E[(1 − v)^x] = 1 − (1 + μv/θ)^−θ for v in [0, 1], which broadcasts to (n_cells, n_genes).

        Of v and not of u = 1 − v, since μv matters also where 1 − v is rounded to 1.
        """
        theta = self.bounded().exp().unsqueeze(-2)
        return -torch.expm1(-theta * torch.log1p(NegativeBinomial.mean(self, output, library) * v / theta))


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """A zero with probability π, else :class:`NegativeBinomial`; outputs are the logits of softmax, then those of π.

    log p(0) = log[π + (1 − π) NB(0)], log p(x) = log(1 − π) + log NB(x) for x > 0; the mean is (1 − π) μ
    (scVI, Lopez et al. 2018, Nature Methods 15:1053). The gradients are closed forms as well: those of NB, at zeros
    times the posterior probability 1 − δ that the zero is NB's, and d log p/d logit π = δ − π, δ = 0 for x > 0.
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

    @torch.no_grad()
    def sample(self, output: Tensor, library: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw counts and set each to zero with probability π."""
        logits, dropout = self._logits(output)
        kept = torch.bernoulli(torch.sigmoid(-dropout), generator=generator)
        return kept * super().sample(logits, library, generator)

    def generating_deficit(self, v: Tensor, output: Tensor, library: Tensor | None = None) -> Tensor:
        """Return 1 − E[(1 − v)^x], 1 − π times the negative binomial's."""
        logits, dropout = self._logits(output)
        return torch.sigmoid(-dropout) * super().generating_deficit(v, logits, library)


def _given(library: Tensor | None) -> Tensor:
    if library is None:
        raise ValueError("a likelihood of counts needs library=, the total counts of each cell (n_cells,); got None")
    return library


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


class _SquaredDistance(torch.autograd.Function):
    """Σ_g (x_g − μ_g)² of each cell, (n_cells,), and the differences, which are kept for the gradient by μ.

    Three passes over (n_cells, n_genes) where PyTorch's operations make a dozen.
    """

    @staticmethod
    def forward(x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        difference = output - x
        return torch.linalg.vecdot(difference, difference), difference

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor | None, *_: None) -> tuple[None, Tensor | None]:
        (difference,) = ctx.saved_tensors
        return None, None if weight is None else difference * (2.0 * weight).unsqueeze(-1)


class _ClosedForm(torch.autograd.Function):
    """Sum over genes of log p(x) of the (zero-inflated) negative binomial, (n_cells,), with closed-form gradients.

    They come out of the forward pass, which has all of their parts: composed of PyTorch's operations, the two passes
    would run over (n_cells, n_genes) dozens of times. The log-gamma terms cancel where x = 0 and are evaluated at the
    non-zeros only.
    """

    @staticmethod
    def forward(
        gradients: bool,
        row: Tensor,
        column: Tensor,
        at: Tensor,
        count: Tensor,
        lengths: Tensor,
        library: Tensor,
        log_theta: Tensor,
        logits: Tensor,
        dropout: Tensor | None,
    ) -> tuple[Tensor, ...]:
        theta = log_theta.exp().unsqueeze(-2)
        # replicas have a dispersion each for a gene
        n_cells, n_genes = logits.shape[-2:]
        gene = column if logits.dim() == 2 else column + row.div(n_cells, rounding_mode="floor") * n_genes
        share = torch.softmax(logits, -1)
        mean = share * library.unsqueeze(-1)
        odds = mean * theta.reciprocal()  # μ/θ
        log1p_odds = odds.log1p()  # −log NB(0)/θ

        # log softmax at the non-zeros only; that of the largest logit is the log of its share
        log_rate = (library.log() + share.amax(-1).log() - logits.amax(-1)).view(-1)
        log_fraction = logits.reshape(-1).index_select(0, at).add_(log_rate.index_select(0, row))
        log_fraction.sub_(log_theta.reshape(-1).index_select(0, gene)).sub_(log1p_odds.view(-1).index_select(0, at))
        extra, extra_by_theta = _log_gamma_terms(count, theta.reshape(-1), gene, gradients)
        extra += count * log_fraction  # log μ/(μ + θ)

        if dropout is None:
            log_prob = -(log1p_odds @ theta.mT).squeeze(-1)
        else:
            # δ = π/[π + (1 − π) NB(0)] = sigmoid(excess)
            excess = torch.addcmul(dropout, log1p_odds, theta)
            log_pi, log_delta = F.logsigmoid(dropout), F.logsigmoid(excess)
            log_prob = (log_pi - log_delta).sum(-1)
            extra += (log_delta - excess).view(-1).index_select(0, at)
        # index_add would sum in no fixed order on a GPU
        log_prob += torch.segment_reduce(extra, "sum", lengths=lengths).view_as(log_prob)
        if extra_by_theta is None:
            return (log_prob,)

        residual = mean.neg_()  # x − μ
        residual.view(-1).index_add_(0, at, count)
        residual.div_(odds.add_(1.0))
        by_theta = log1p_odds.mul_(theta).add_(residual)
        if dropout is not None:
            delta = log_delta.exp_()
            delta.view(-1).index_fill_(0, at, 0.0)
            by_dropout = delta - log_pi.exp_()
            kept = 1.0 - delta
            residual *= kept
            by_theta *= kept
        by_theta.view(-1).index_add_(0, at, extra_by_theta, alpha=-1.0)
        by_logits = residual.addcmul_(share, residual.sum(-1, keepdim=True), value=-1.0)
        return (log_prob, by_theta, by_logits) if dropout is None else (log_prob, by_theta, by_logits, by_dropout)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        *_, log_theta, logits, dropout = inputs
        ctx.save_for_backward(log_theta, logits, dropout, *output[1:])

    @staticmethod
    def backward(ctx: Any, weight: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if weight is None:
            return (None,) * 10
        log_theta, logits, dropout, by_theta, by_logits, *by_dropout = ctx.saved_tensors
        # with the inputs, that a second derivative is refused, not taken for 0
        inputs = log_theta, logits, dropout, weight
        of_genes = -(weight.unsqueeze(-2) @ by_theta).squeeze(-2)
        gradients = of_genes, *(weight.unsqueeze(-1) * by for by in (by_logits, *by_dropout))
        by_theta, by_logits, *by_dropout = (_Once.apply(gradient, *inputs) for gradient in gradients)
        return *(None,) * 7, by_theta, by_logits, by_dropout[0] if by_dropout else None


class _Once(torch.autograd.Function):
    """A gradient that cannot be differentiated by any of the inputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *inputs: Tensor | None) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError("a likelihood of counts can be differentiated once only; its gradients are closed forms")


def _log_gamma_terms(count: Tensor, theta: Tensor, gene: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None]:
    """Return log Γ(x + θ) − log Γ(θ) − log Γ(x + 1) and θ[ψ(x + θ) − ψ(θ)] of counts x ≥ 1, each (n_counts,).

    ``torch.lgamma`` at x + θ less that at θ loses all digits at a large θ; here the leading terms are subtracted by
    hand. Both functions together take less time than ``torch.digamma``.
    """
    of_gene, digamma_of_gene = _gamma_remainders(theta, gradients)
    theta = theta.index_select(0, gene)
    z = count + theta
    remainder, digamma_remainder = _gamma_remainders(z, gradients)
    log_ratio = torch.log1p(count / (theta + 8.0))
    value = (theta + 7.5).mul_(log_ratio).addcmul_(count, (z + 8.0).log_()).sub_(count)
    value.add_(remainder).sub_(of_gene.index_select(0, gene)).sub_((count + 1.0).lgamma())
    if digamma_of_gene is None or digamma_remainder is None:
        return value, None
    digamma = log_ratio.add_(digamma_remainder).sub_(digamma_of_gene.index_select(0, gene))
    return value, digamma.mul_(theta)


def _gamma_remainders(z: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None]:
    """Return log Γ(z) − [(a − ½) log a − a + ½ log 2π] and ψ(z) − log a at a = z + 8, to 1e-11.

    Stirling's series at a (Abramowitz & Stegun 6.1.41, 6.3.18), led back to z by Γ(a) = Γ(z) Π_{k<8} (z + k).
    """
    a = z + 8.0
    inverse = a.reciprocal()
    s = inverse.square()
    # the product in pairs: (z + k)(z + 7 − k) = z(z + 7) + k(7 − k)
    t = (z + 7.0).mul_(z)
    pairs = (t, t + 6.0, t + 10.0, t + 12.0)
    # over a⁸, lest it overflow
    product = (pairs[0] * s).mul_(pairs[1] * s).mul_(pairs[2] * s).mul_(pairs[3] * s)
    series = (s * (-1 / 1680)).add_(1 / 1260).mul_(s).sub_(1 / 360).mul_(s).add_(1 / 12)
    log_gamma = series.mul_(inverse).sub_(product.log_()).sub_(a.log_(), alpha=8.0)
    if not gradients:
        return log_gamma, None
    series = (s * (1 / 240)).sub_(1 / 252).mul_(s).add_(1 / 120).mul_(s).sub_(1 / 12)
    by_product = pairs[0].reciprocal_()
    for pair in pairs[1:]:
        by_product += pair.reciprocal_()
    digamma = series.mul_(s).sub_(inverse, alpha=0.5).sub_((2.0 * z).add_(7.0).mul_(by_product))
    return log_gamma, digamma
