"""Curvature of a decoder's manifold: how far the image of the latent space is from a flat plane with even coordinates.

For a decoder f: z → x let J_i = ∂_i f, H_ij = ∂_i ∂_j f, the metric g = JᵀJ and the Christoffel symbols of the first
kind Γ_κ,μν = J_κ · H_μν. The second derivative has a part tangent to the manifold, which another parametrisation of z
can remove, and a part normal to it, which none can:

- parameter-effects curvature², P² = Γ_κ,μν Γ_λ,ρσ g^κλ g^μρ g^νσ;
- extrinsic curvature², E² = (H_μν · H_ρσ) g^μρ g^νσ − P².

Both have the unit 1/x². Sources: Kim et al. 2024 (Γ-VAE), arXiv 2403.01078, and Kim, Sethna, Cohen, Sun 2026 (Γ-AE),
bioRxiv 10.64898/2026.02.07.704615, Eq. 3 and 4; the names come from Bates & Watts 1980, J. R. Stat. Soc. B 42:1.

All inner products are in the Gram matrix of the first and second derivatives. Derivatives are pushed through a
multilayer perceptron layer by layer, a = W h, ∂_i h′ = s′(a) ∂_i a, ∂_i ∂_j h′ = s′(a) ∂_i ∂_j a + s″(a) ∂_i a ∂_j a,
and a linear head W_o enters by M = W_oᵀW_o alone, so that the cost of a point does not grow with the number of genes.

Shapes: n_points, n_latent = d, n_pairs = d(d + 1)/2, k = d + n_pairs. A Gram matrix is (n_points, k, k) with rows
J_1 … J_d, then H_ij for i ≤ j, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from methods.errors import ConfigError
from methods.nn.kernels import head_product, tangent_products
from methods.nn.networks import Decoder


class Curvatures(NamedTuple):
    """P² and E², each (n_points,), in units of 1/x²."""

    parameter_effects: Tensor
    extrinsic: Tensor


def derivative_gram(decoder: Decoder, z: Tensor) -> Tensor:
    """Return the Gram matrices of a decoder's first and second derivatives, (n_points, k, k).

    The derivatives are those of its eval mode, also while it trains: no dropout, running statistics in batch norm.

    Parameters
    ----------
    decoder
        Maps (n_points, d) to (n_points, n_out).
    z
        Points, (n_points, d).

    Raises
    ------
    ConfigError
        A layer has a second derivative that is not known here, or that is 0 everywhere (ReLU, LeakyReLU).
    """
    return tangent_products(torch.cat(_push(decoder, z, _axes(z), _pairs)), head_product(decoder.head.weight))


def sampled_gram(decoder: Decoder, z: Tensor, jitter: float) -> Tensor:
    """Return the Gram matrices of J_1 … J_d and one ∂²f(u, v) of random u, v, (n_points, d + 1, d + 1).

    u and v are independent draws of N(0, g⁻¹), so that E|∂²f(u, v)|² is the full contraction of H · H with g⁻¹. (For
    u = v it is twice that plus the squared trace.) It needs about 2d tangents instead of k. The gradient includes that
    of u = L⁻ᵀε, g = LLᵀ, with respect to the decoder.

    Parameters
    ----------
    decoder, z
        As in :func:`derivative_gram`.
    jitter
        As in :func:`sampled_curvatures`.
    """
    head = head_product(decoder.head.weight)
    (first,) = _push(decoder, z, _axes(z))
    noise = torch.randn(*z.shape, 2, dtype=z.dtype, device=z.device)
    lower = _cholesky(tangent_products(first, head), jitter)
    u_and_v = torch.linalg.solve_triangular(lower.mT, noise, upper=True).movedim(-1, 0)
    _, second = _push(decoder, z, u_and_v, lambda tangents: tangents[:1] * tangents[1:])
    return tangent_products(torch.cat([first, second]), head)


def curvatures(gram: Tensor, n_latent: int, jitter: float = 0.0) -> Curvatures:
    """Return P² and E² of each point.

    Parameters
    ----------
    gram
        From :func:`derivative_gram`, (n_points, k, k).
    n_latent
        d.
    jitter
        Number that is added to the diagonal of g before the inversion, relative to the mean of the diagonal.
    """
    lower, tangent, normal = _decompose(gram, n_latent, jitter)
    # not by cholesky_inverse, which on a GPU goes matrix by matrix and cannot be recorded
    unit = torch.eye(n_latent, dtype=gram.dtype, device=gram.device).expand_as(lower)
    of_lower = torch.linalg.solve_triangular(lower, unit, upper=False)
    inverse = of_lower.mT @ of_lower
    i, j = torch.triu_indices(n_latent, n_latent, device=gram.device)
    straight = inverse[:, i[:, None], i] * inverse[:, j[:, None], j]
    crossed = inverse[:, i[:, None], j] * inverse[:, j[:, None], i]
    # an H_ij with i < j stands for two entries of the Hessian
    entries = 2.0 - (i == j).to(gram)
    weight = 0.5 * entries[:, None] * entries * (straight + crossed)
    return Curvatures((weight * tangent).sum((1, 2)), (weight * normal).sum((1, 2)))


def sampled_curvatures(gram: Tensor, n_latent: int, jitter: float = 0.0) -> Curvatures:
    """Return unbiased estimates of P² and E² of each point, from :func:`sampled_gram` with the same ``jitter``."""
    _, tangent, normal = _decompose(gram, n_latent, jitter)
    return Curvatures(tangent[:, 0, 0], normal[:, 0, 0])


def metric_scale(gram: Tensor, n_latent: int) -> Tensor:
    """Return how uneven the metric is over the points, mean_i ‖g_i − ḡ‖² / ‖ḡ‖² (Frobenius; ḡ their mean), a scalar.

    It is 0 where a step in latent space is equally long everywhere. Γ-AE asks for a scale of the manifold that is
    "approximately uniform" (before Eq. 5), and, since it has no prior, sets an absolute scale by the same term. Here
    the KL sets the scale, so that this term is relative to ḡ and does not depend on the units of x and z.
    """
    metric = gram[:, :n_latent, :n_latent]
    mean = metric.mean(0)
    return (metric - mean).square().sum((1, 2)).mean() / mean.square().sum()


def mixup(z: Tensor, eta: float) -> Tensor:
    """Return a point on the line through each point and another, (n_points, n_latent).

    z_a + t (z_b − z_a), b from a random permutation, t ~ U(−η, 1 + η): between the two points, or up to η times their
    distance beyond them.
    """
    partner = torch.randperm(len(z), device=z.device)
    t = torch.rand(len(z), 1, dtype=z.dtype, device=z.device)
    return torch.lerp(z, z[partner], (1 + 2 * eta) * t - eta)


def _axes(z: Tensor) -> Tensor:
    """The coordinate directions, (d, 1, d)."""
    return torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None]


def _pairs(tangents: Tensor) -> Tensor:
    """Products of every two of d tangents (d, n_points, width), in the order of pairs, (n_pairs, n_points, width)."""
    rows = tangents.unbind()  # its gradient is one stack; that of slices would be a sum of padded arrays
    return torch.stack([a * b for i, a in enumerate(rows) for b in rows[i:]])


def _push(
    decoder: Decoder, z: Tensor, directions: Tensor, products: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """Push directions at z, and second derivatives along pairs of them, to the decoder's last hidden layer.

    Parameters
    ----------
    decoder, z
        As in :func:`derivative_gram`.
    directions
        (n_first, n_points or 1, d).
    products
        Maps first derivatives (n_first, n_points, width) to products of pairs, (n_second, n_points, width); a second
        derivative is taken along each pair. Without it there are none.

    Returns
    -------
    First and, if any, second derivatives of the hidden units, (n_first or n_second, n_points, width).
    """
    value, first = z, directions.expand(-1, len(z), -1)
    second: Tensor | None = None  # the second derivative of z is 0
    for layer in decoder.body:
        match layer:
            case nn.Linear():
                value, first = layer(value), first @ layer.weight.mT
                second = None if second is None else second @ layer.weight.mT
            case nn.BatchNorm1d(running_mean=Tensor() as mean, running_var=Tensor() as variance):
                slope = layer.weight * torch.rsqrt(variance + layer.eps)
                value, first = (value - mean) * slope + layer.bias, slope * first
                second = None if second is None else slope * second
            case nn.Dropout():
                pass
            case _:
                value, slope, bend = _activate(layer, value)
                if products is not None:
                    source = bend * products(first)
                    second = source if second is None else torch.addcmul(source, slope, second)
                first = slope * first
    return [first] if second is None else [first, second]


def _activate(layer: nn.Module, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return s(a), s′(a) and s″(a) of an activation."""
    match layer:
        case nn.Softplus():
            slope = torch.sigmoid(a)
            return layer(a), slope, slope * (1 - slope)
        case nn.SiLU():
            gate = torch.sigmoid(a)
            return a * gate, gate * (1 + a * (1 - gate)), gate * (1 - gate) * (2 + a * (1 - 2 * gate))
        case nn.ELU():
            above = a >= 0
            bend = torch.exp(a.clamp(max=0)).masked_fill(above, 0)
            return layer(a), bend.masked_fill(above, 1), bend
    kind = type(layer).__name__
    if isinstance(layer, nn.ReLU | nn.LeakyReLU):
        raise ConfigError(f"the decoder's {kind} has no second derivative to penalise; use softplus, silu or elu")
    raise ConfigError(f"the decoder's {kind} layer has no known second derivative; use norm 'none' or 'batch'")


def _cholesky(metric: Tensor, jitter: float) -> Tensor:
    """Lower factor of g + jitter · mean diagonal of g · I; NaN where that is not positive definite."""
    diagonal = metric.diagonal(dim1=1, dim2=2)
    added = jitter * diagonal.mean(1, keepdim=True).expand_as(diagonal)
    lower, failed = torch.linalg.cholesky_ex(metric + torch.diag_embed(added))
    return lower.masked_fill(failed[:, None, None] > 0, torch.nan)


def _decompose(gram: Tensor, n_latent: int, jitter: float) -> tuple[Tensor, Tensor, Tensor]:
    """Lower factor of g, and Gram matrices of the tangent and normal parts of the second derivatives."""
    lower = _cholesky(gram[:, :n_latent, :n_latent], jitter)
    christoffel = gram[:, :n_latent, n_latent:]
    tangent_part = torch.linalg.solve_triangular(lower, christoffel, upper=False)
    tangent = tangent_part.mT @ tangent_part
    return lower, tangent, gram[:, n_latent:, n_latent:] - tangent
