"""Operations with hand-written gradients; the modules that use them have the formulas.

Composed of PyTorch's operations, each would pass over its arrays, forward and backward, several times as often.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn.sparse import SparseRows

#: Blocks of rows in which a symmetric product is computed.
BLOCKS = 5

# --- batch norm


def normalise(x: Tensor, gain: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain · (x − mean) / √(variance + eps) + shift, the mean and the variance, over the last but one axis.

    PyTorch's batch norm has no leading axis of stacked fits.
    """
    return _Normalise.apply(x, gain, shift, eps)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(-2, keepdim=True)
        normal = x - mean
        variance = normal.square().mean(-2, keepdim=True)
        inverse = (variance + eps).rsqrt_()
        normal *= inverse
        ctx.save_for_backward(normal, inverse, gain)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(shift, normal, gain), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        normal, inverse, gain = ctx.saved_tensors
        n = by_output.shape[-2]
        by_shift = by_output.sum(-2, keepdim=True)
        by_gain = (by_output * normal).sum(-2, keepdim=True)
        by_x = torch.addcmul(by_output, normal, by_gain, value=-1 / n).sub_(by_shift, alpha=1 / n).mul_(gain * inverse)
        return by_x, by_gain, by_shift, None


# --- likelihoods


def squared_distance(x: Tensor, output: Tensor) -> Tensor:
    """Return Σ_g (x_g − μ_g)² of each cell, (n_cells,), of ``output`` μ; x has no gradient."""
    return _SquaredDistance.apply(x, output)


def count_log_prob(
    counts: SparseRows, library: Tensor, log_theta: Tensor, logits: Tensor, dropout: Tensor | None
) -> Tensor:
    """Return log p(counts) of the (zero-inflated) negative binomial summed over genes, (n_cells,).

    The gradients are closed forms, which are made in the forward pass; a second derivative raises RuntimeError. The
    log-gamma terms cancel at zeros, and are evaluated at the non-zeros only.
    """
    return _CountLogProb.apply(counts, library, log_theta, logits, dropout)


class _SquaredDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        difference = output - x
        ctx.save_for_backward(difference)
        return torch.linalg.vecdot(difference, difference)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[None, Tensor]:
        (difference,) = ctx.saved_tensors
        return None, difference * (2.0 * weight).unsqueeze(-1)


class _CountLogProb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, counts: SparseRows, library: Tensor, log_theta: Tensor, logits: Tensor, dropout: Tensor | None
    ) -> Tensor:
        row, column, at, count = counts.row, counts.column, counts.at, counts.value
        gradients = any(ctx.needs_input_grad)
        theta = log_theta.exp().unsqueeze(-2)
        # each stacked fit has its own dispersions
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
        log_prob += counts.sum(extra).view_as(log_prob)
        if extra_by_theta is None:
            return log_prob

        residual = mean.neg_()  # x − μ
        residual.view(-1).index_add_(0, at, count)
        residual.div_(odds.add_(1.0))
        by_theta = log1p_odds.mul_(theta).add_(residual)
        if dropout is not None:
            delta = log_delta.exp_()
            counts.clear(delta)
            by_dropout = delta - log_pi.exp_()
            kept = 1.0 - delta
            residual *= kept
            by_theta *= kept
        by_theta.view(-1).index_add_(0, at, extra_by_theta, alpha=-1.0)
        by_logits = residual.addcmul_(share, residual.sum(-1, keepdim=True), value=-1.0)
        by_outputs = (by_logits,) if dropout is None else (by_logits, by_dropout)
        ctx.save_for_backward(log_theta, logits, dropout, by_theta, *by_outputs)
        return log_prob

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        log_theta, logits, dropout, by_theta, *by_outputs = ctx.saved_tensors
        gradients = -(weight.unsqueeze(-2) @ by_theta).squeeze(-2), *(weight.unsqueeze(-1) * by for by in by_outputs)
        # given the inputs, a second derivative raises an error; otherwise it would be 0
        by_theta, *by_outputs = (_Once.apply(gradient, log_theta, logits, dropout, weight) for gradient in gradients)
        return None, None, by_theta, *by_outputs, *([None] if dropout is None else [])


class _Once(torch.autograd.Function):
    """A gradient that cannot be differentiated with respect to any of the inputs."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor | None) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError("a likelihood of counts can be differentiated once only; its gradients are closed forms")


def _log_gamma_terms(count: Tensor, theta: Tensor, gene: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None]:
    """Return log Γ(x + θ) − log Γ(θ) − log Γ(x + 1) and θ[ψ(x + θ) − ψ(θ)] of counts x ≥ 1, each (n_counts,).

    The difference of ``torch.lgamma`` at x + θ and at θ loses all digits at a large θ; here the leading terms are
    subtracted analytically. Both functions together take less time than ``torch.digamma``.
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

    Stirling's series at a (Abramowitz & Stegun 6.1.41, 6.3.18) and Γ(a) = Γ(z) Π_{k<8} (z + k).
    """
    a = z + 8.0
    inverse = a.reciprocal()
    s = inverse.square()
    # the product in pairs: (z + k)(z + 7 − k) = z(z + 7) + k(7 − k)
    t = (z + 7.0).mul_(z)
    pairs = (t, t + 6.0, t + 10.0, t + 12.0)
    # divided by a⁸, to avoid overflow
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


# --- penalties


def mean_of_gaussians(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Return the mean over ``widths`` σ of exp(−d²/2σ) of squared distances d², same shape.

    It keeps d² alone for the backward pass, not a matrix for each width.
    """
    return _MeanOfGaussians.apply(squared, widths)


class _MeanOfGaussians(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, squared: Tensor, widths: tuple[float, ...]) -> Tensor:
        ctx.widths = widths
        ctx.save_for_backward(squared)
        total = torch.zeros_like(squared)
        for width in widths:
            total += _gaussian(squared, width)
        return total / len(widths)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (squared,) = ctx.saved_tensors
        slope = torch.zeros_like(squared)
        for width in ctx.widths:
            slope = slope.sub(_gaussian(squared, width), alpha=0.5 / width)
        return gradient * slope / len(ctx.widths), None


def product(factors: Tensor, axis: int) -> Tensor:
    """Return the product over an axis; the gradient of a factor of 0 is not a number.

    PyTorch's gradient asks whether there is a 0, for which a GPU has to be waited for.
    """
    return _Product.apply(factors, axis)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, factors: Tensor, axis: int) -> Tensor:
        ctx.axis, total = axis, factors.prod(axis)
        ctx.save_for_backward(factors, total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        factors, total = ctx.saved_tensors
        others = total.unsqueeze(ctx.axis) / factors
        return gradient.unsqueeze(ctx.axis) * others, None


def _gaussian(squared: Tensor, width: float) -> Tensor:
    # an exponential that underflows takes ten times as long
    return (squared * (-0.5 / width)).clamp_(min=-80.0).exp_()


# --- curvature


def head_product(weight: Tensor) -> Tensor:
    """Return WᵀW, (width, width), of W (n_out, width); its gradient is one product of that size."""
    return _HeadProduct.apply(weight)


def tangent_products(tangents: Tensor, head: Tensor) -> Tensor:
    """Return t_aᵀ M t_b of tangents t (n_tangents, n_points, width) and M, (n_points, n_tangents, n_tangents)."""
    return _TangentProducts.apply(tangents, head)


class _HeadProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        # symmetric: in each block of rows only the part right of its diagonal is computed, three fifths of the whole
        blocks = weight.split(-(-weight.shape[-1] // BLOCKS), -1)
        starts = [0, *accumulate(block.shape[-1] for block in blocks)]
        right = [block.mT @ weight[..., start:] for block, start in zip(blocks, starts, strict=False)]
        rows = []
        for i, row in enumerate(right):
            left = [right[j][..., starts[i] - starts[j] : starts[i + 1] - starts[j]].mT for j in range(i)]
            rows.append(torch.cat([*left, row], -1))
        return torch.cat(rows, -2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return weight @ (gradient + gradient.mT)


class _TangentProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tangents: Tensor, head: Tensor) -> Tensor:
        weighted = tangents @ head
        ctx.save_for_backward(tangents, weighted)
        return tangents.movedim(0, 1) @ weighted.permute(1, 2, 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        tangents, weighted = ctx.saved_tensors
        both = gradient + gradient.mT
        mixed = (both @ tangents.movedim(0, 1)).movedim(1, 0)
        of_head = 0.5 * mixed.flatten(0, 1).mT @ tangents.flatten(0, 1)
        return (both @ weighted.movedim(0, 1)).movedim(1, 0), of_head
