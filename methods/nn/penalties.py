"""Penalties of variational autoencoders: pure functions of tensors, tested against closed forms.

Where a function returns (n_cells,), average it over the cells; a scalar is of the minibatch as a whole. Of replicas
(:mod:`methods.nn.replicas`) arguments and results have a leading axis, unless a function says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.nn.draws import uniform_like

#: Widths σ of trVAE's kernel (Lotfollahi et al. 2020, Bioinformatics 36:i610, the authors' code).
TRVAE_WIDTHS = (
    *(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    *(5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0),
    *(1e2, 1e3, 1e4, 1e5, 1e6),
)


def kl_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ_j (μ_j² + σ_j² − 1 − log σ_j²) for each cell, (n_cells,).

    Parameters
    ----------
    mean, log_variance
        μ and log σ², each (n_cells, n_latent).
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)


def kl_normal(mean: Tensor, log_variance: Tensor, prior_mean: Tensor | float) -> Tensor:
    """Return KL(N(μ, diag σ²) ‖ N(m, I)) = ½ Σ_j ((μ_j − m_j)² + σ_j² − 1 − log σ_j²) for each cell, (n_cells,).

    Parameters
    ----------
    mean, log_variance, prior_mean
        μ, log σ² and m, each (n_cells, n_latent).
    """
    return kl_standard_normal(mean - prior_mean, log_variance)


def wasserstein_to_zero(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return W₂²(N(μ, diag σ²), δ₀) = ‖μ‖² + ‖σ‖² for each cell, (n_cells,).

    multiGroupVI's penalty on the codes that are private to other groups (Weinberger et al. 2022).

    Parameters
    ----------
    mean, log_variance
        μ and log σ², each (n_cells, n_latent).
    """
    return (mean.square() + log_variance.exp()).sum(-1)


# --- distances between samples


def mmd(x: Tensor, y: Tensor, widths: tuple[float, ...] = TRVAE_WIDTHS) -> Tensor:
    """Return the squared maximum mean discrepancy of two samples, a scalar (Gretton et al. 2012, JMLR 13, Eq. 5).

    mean k(x, x′) + mean k(y, y′) − 2 mean k(x, y), k(x, y) = mean over widths σ of exp(−‖x − y‖²/2σ): the V-statistic
    trVAE has, each point compared with itself as well. It is never negative, and of equal distributions its mean is
    (1 − E k)(1/n_x + 1/n_y), not 0.

    Parameters
    ----------
    x, y
        (n_x, n_features) and (n_y, n_features).
    widths
        The σ, in squared units of x.
    """
    conditions = torch.cat([torch.zeros_like(x[:, 0]), torch.ones_like(y[:, 0])]).long()
    return pairwise_mmd(torch.cat([x, y]), conditions, 2, widths)


def pairwise_mmd(
    values: Tensor, conditions: Tensor, n_conditions: int, widths: tuple[float, ...] = TRVAE_WIDTHS
) -> Tensor:
    """Return the mean of :func:`mmd` over all pairs of the conditions present, a scalar.

    Of P conditions present, a of n_a cells: Σ_{a<b} MMD(a, b) = Σ_ij k(x_i, x_j) (P·[a_i = a_j] − 1)/(n_{a_i} n_{a_j}),
    so that one list of distances serves all pairs and widths. Absent conditions are left out; with fewer than two
    present it is 0. The mean, not the sum, so that a weight means the same however many conditions there are
    (decision 0013).

    Parameters
    ----------
    values
        (n_cells, n_features).
    conditions
        The condition of each cell, integers below ``n_conditions``, (n_cells,).
    n_conditions
        How many there are, in the minibatch or not.
    widths
        As in :func:`mmd`.
    """
    if values.dim() == 3:  # replicas; pdist takes one sample
        each = zip(values, conditions, strict=True)
        return torch.stack([pairwise_mmd(sample, numbers, n_conditions, widths) for sample, numbers in each])
    # pdist subtracts coordinates: taken from inner products, the distances would drown in rounding at narrow widths
    kernel = _MeanOfGaussians.apply(torch.pdist(values).square(), widths)
    cells = (conditions.unsqueeze(1) == torch.arange(n_conditions, device=conditions.device)).sum(0)
    n_present = (cells > 0).sum()
    weight = cells.index_select(0, conditions).to(values.dtype).reciprocal()
    first, second = torch.triu_indices(len(values), len(values), 1, device=values.device)
    same = conditions.index_select(0, first) == conditions.index_select(0, second)
    pair = weight.index_select(0, first) * weight.index_select(0, second) * (n_present * same - 1)
    # two cells count in both orders; on the diagonal k is 1
    total = 2.0 * (pair @ kernel) + (n_present - 1) * weight.square().sum()
    return 2.0 * total / (n_present * (n_present - 1)).clamp(min=1)


class _MeanOfGaussians(torch.autograd.Function):
    """Mean over widths σ of exp(−d²/2σ), which keeps d² alone for the backward pass and not a matrix for each width."""

    generate_vmap_rule = True

    @staticmethod
    def forward(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
        total = torch.zeros_like(squared)
        for width in widths:
            total += _gaussian(squared, width)
        return total / len(widths)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, tuple[float, ...]], output: Tensor) -> None:
        squared, ctx.widths = inputs
        ctx.save_for_backward(squared)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (squared,) = ctx.saved_tensors
        slope = torch.zeros_like(squared)
        for width in ctx.widths:
            slope = slope.sub(_gaussian(squared, width), alpha=0.5 / width)
        return gradient * slope / len(ctx.widths), None


def _gaussian(squared: Tensor, width: float) -> Tensor:
    # an exponential that underflows takes ten times as long as one that does not
    return (squared * (-0.5 / width)).clamp_(min=-80.0).exp_()


# --- dependence


def gaussian_kernel(x: Tensor) -> Tensor:
    """Return K_ik = exp(−‖x_i − x_k‖²/2g²), g = 2Γ((d + 1)/2)/Γ(d/2), (..., n_cells, n_cells).

    g is E‖x − x′‖ of two standard normals in d dimensions (Lopez et al. 2018, arXiv 1805.08672, the authors' code).

    Parameters
    ----------
    x
        One variable of d dimensions, (..., n_cells, d).
    """
    d = x.shape[-1]
    bandwidth = 2.0 * math.exp(math.lgamma(0.5 * (d + 1)) - math.lgamma(0.5 * d))
    # distances from inner products lose digits to a common offset
    x = (x - x.mean(-2, keepdim=True)) / bandwidth
    norm = 0.5 * x.square().sum(-1, keepdim=True)
    return (x @ x.mT - norm - norm.mT).clamp(max=0.0).exp()


def delta_kernel(labels: Tensor) -> Tensor:
    """Return K_ik = [label_i = label_k], (n_cells, n_cells), of labels (n_cells,)."""
    return (labels.unsqueeze(-2) == labels.unsqueeze(-1)).to(torch.get_default_dtype())


def coordinate_kernels(z: Tensor) -> Tensor:
    """Return the Gaussian kernel of every latent dimension, for :func:`dhsic` of all of them.

    Parameters
    ----------
    z
        Codes (n_cells, n_latent). The result, (n_latent, n_cells, n_cells), bounds the minibatch.
    """
    return gaussian_kernel(z.mT.unsqueeze(-1))


def nuisance_kernels(z: Tensor, labels: Tensor) -> Tensor:
    """Return the kernels of the codes as a block and of a discrete covariate, for :func:`dhsic` of the two.

    Parameters
    ----------
    z, labels
        Codes (n_cells, n_latent) and the covariate (n_cells,). The result is (2, n_cells, n_cells).
    """
    return torch.stack([gaussian_kernel(z), delta_kernel(labels).to(z.dtype)], -3)


def dhsic(kernels: Tensor) -> Tensor:
    """Return the d-variable Hilbert–Schmidt independence criterion, a scalar (Pfister et al. 2018, JRSS B 80:5).

    mean_ik(Π_j K_j) + Π_j mean_ik(K_j) − 2 mean_i(Π_j mean_k K_j[i, k]): the V-statistic, which is never negative.
    For two independent variables its mean is (1 − E k₁)(1 − E k₂)/n_cells to first order, not 0.

    Parameters
    ----------
    kernels
        The kernel matrix of each of d variables, with ones on the diagonal, (d, n_cells, n_cells).
    """
    of_cell = kernels.mean(-1)
    return kernels.prod(-3).mean((-2, -1)) + of_cell.mean(-1).prod(-1) - 2.0 * of_cell.prod(-2).mean(-1)


def sqrt_dhsic(kernels: Tensor, eps: float) -> Tensor:
    """Return √(dHSIC + ε), the penalty of Lopez et al. 2018, arXiv 1805.08672; a scalar.

    ε bounds the gradient where the variables are independent. Codes that shrink to a point are independent, too:
    only the other terms of the loss fix their scale.

    Parameters
    ----------
    kernels
        As in :func:`dhsic`; :func:`coordinate_kernels` and :func:`nuisance_kernels` are the two modes.
    eps
        ε, above the rounding of dHSIC.
    """
    return (dhsic(kernels).clamp(min=0.0) + eps).sqrt()


# --- total correlation and its relatives


def total_correlation(z: Tensor, mean: Tensor, log_variance: Tensor, n_cells: int) -> Tensor:
    """Return each cell's log q(z) − Σ_j log q(z_j), whose mean estimates KL(q(z) ‖ Π_j q(z_j)), (n_minibatch,).

    q(z) = mean over all n_cells training cells of q(z | x), from a minibatch of M of them (Chen et al. 2018, arXiv
    1802.04942, minibatch stratified sampling, appendix C.2): the cell from which z was drawn weighs 1/n_cells, the
    others share 1 − 1/n_cells. There one of the others, chosen at random, takes a weight of its own; here all weigh the
    same, the mean over that choice. Before the logarithm the estimate of q(z) is unbiased, and of equal posteriors the
    total correlation is 0. Their minibatch-weighted sampling differs: by a constant, −(n_latent − 1) log M when
    posteriors are equal and the constant is left out, and in that the cell's own posterior weighs 1/M.

    β-TCVAE's loss is reconstruction + KL + (β − 1)·total correlation, at β = 1 exactly the VAE's.

    Parameters
    ----------
    z
        A draw from each posterior, (n_minibatch, n_latent).
    mean, log_variance
        Of the posteriors, each (n_minibatch, n_latent).
    n_cells
        Training cells, n_minibatch ≤ n_cells.
    """
    n_minibatch = z.shape[-2]
    mean, log_variance = mean.unsqueeze(-3), log_variance.unsqueeze(-3)
    squared = (z.unsqueeze(-2) - mean).square() * torch.exp(-log_variance)
    log_density = -0.5 * (squared + log_variance + math.log(2 * math.pi))
    others = math.log((1 - 1 / n_cells) / max(n_minibatch - 1, 1))
    log_weight = torch.full((n_minibatch, n_minibatch), others, dtype=z.dtype, device=z.device)
    log_weight.fill_diagonal_(-math.log(n_cells))
    joint = torch.logsumexp(log_density.sum(-1) + log_weight, -1)
    return joint - torch.logsumexp(log_density + log_weight.unsqueeze(-1), -2).sum(-1)


def dip(mean: Tensor, log_variance: Tensor | None, lambda_od: float, lambda_d: float) -> Tensor:
    """Return λ_od Σ_{i≠j} C_ij² + λ_d Σ_i (C_ii − 1)², a scalar (Kumar et al. 2018, arXiv 1711.00848, Eq. 6 and 7).

    C is Cov[μ] over the minibatch (DIP-VAE-I), or with ``log_variance`` Cov[μ] + E[diag σ²] (DIP-VAE-II), the
    covariance divided by n_cells.

    Parameters
    ----------
    mean, log_variance
        μ, and log σ² or None, each (n_cells, n_latent).
    lambda_od, lambda_d
        Weights of the off-diagonal and of the diagonal.
    """
    centred = mean - mean.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / mean.shape[-2]
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    off_diagonal = covariance - torch.diag_embed(diagonal)
    if log_variance is not None:
        diagonal = diagonal + log_variance.exp().mean(-2)
    return lambda_od * off_diagonal.square().sum((-2, -1)) + lambda_d * (diagonal - 1.0).square().sum(-1)


def permute_codes(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return z with each latent dimension permuted over the cells by itself (Kim & Mnih 2018, arXiv 1802.05983).

    Their algorithm 1.

    Parameters
    ----------
    z
        Codes (n_cells, n_latent), as draws from Π_j q(z_j) when they were draws from q(z).
    generator
        On the device of z; the default one if None.
    """
    noise = torch.rand(z.shape, generator=generator, device=z.device)
    return z.gather(0, noise.argsort(0))


def factor_total_correlation(logits: Tensor) -> Tensor:
    """Return mean log D(z)/(1 − D(z)), FactorVAE's estimate of KL(q(z) ‖ Π_j q(z_j)), a scalar (its Eq. 3).

    Parameters
    ----------
    logits
        The discriminator's log-odds that z is a draw from q(z) and was not permuted, any shape.
    """
    return logits.mean()


def discriminator_loss(joint: Tensor, permuted: Tensor) -> Tensor:
    """Return −½ [mean log D(z) + mean log(1 − D(z′))], a scalar (Kim & Mnih 2018, arXiv 1802.05983, Alg. 2).

    There z are the codes of one minibatch and z′ the permuted codes of another one, lest D see z and its own
    permutation: halve a minibatch. No gradient of it should reach the encoder. Where D cannot tell it is log 2.

    Parameters
    ----------
    joint, permuted
        D's log-odds for z and for z′, any shape.
    """
    return 0.5 * (F.softplus(-joint).mean() + F.softplus(permuted).mean())


# --- discrete variables


def gumbel_sigmoid(logits: Tensor, temperature: float) -> Tensor:
    """Draw b ~ Bernoulli(sigmoid(logits)), zeros and ones, with the gradient of sigmoid((logits + l)/temperature).

    l is logistic noise, b = [logits + l > 0]: the binary Concrete distribution with the straight-through estimator
    (Maddison et al. 2017, arXiv 1611.00712; Jang et al. 2017, arXiv 1611.01144).

    Parameters
    ----------
    logits
        Any shape.
    temperature
        Of the relaxation whose gradient is taken.
    """
    relaxed = torch.sigmoid((logits + torch.logit(uniform_like(logits), eps=1e-7)) / temperature)
    # in this order, exactly 0 or 1
    return (relaxed > 0.5).to(logits.dtype) + (relaxed - relaxed.detach())


def log_beta(logits: Tensor, a: float, b: float | Tensor) -> Tensor:
    """Return log Beta(q; a, b) = (a − 1) log q + (b − 1) log(1 − q) − log B(a, b) at q = sigmoid(logits), same shape.

    A density of q, not of the logits. sVAE+ (Lopez et al. 2023, arXiv 2211.03553) adds −Σ log Beta(q; 1, λ) over the
    probabilities of its mask; at λ = 1 that is 0 whatever q.

    Parameters
    ----------
    logits
        Any shape.
    a, b
        Parameters of the Beta distribution, above 0; ``b`` may be a tensor that broadcasts to the shape.
    """
    # a difference of large numbers
    first, second = (torch.as_tensor(value, dtype=torch.float64, device=logits.device) for value in (a, b))
    normaliser = (first.lgamma() + second.lgamma() - (first + second).lgamma()).to(logits.dtype)
    return (a - 1.0) * F.logsigmoid(logits) + (b - 1.0) * F.logsigmoid(-logits) - normaliser


def categorical_dirichlet_kl(logits: Tensor, concentration: float) -> Tensor:
    """Return BasisVAE's KL of the genes' assignments to K clusters, a scalar (Märtens & Yau 2020, arXiv 2003.03462).

    Gene j picks cluster w_j ~ Categorical(π), π ~ Dirichlet(α, …, α) is integrated out, and q(w) = Π_j q_j. With n_k
    genes in cluster k,

        log p(w) = log Γ(Kα) − log Γ(Kα + n_genes) + Σ_k [log Γ(α + n_k) − log Γ(α)].

    Its mean under q needs the distribution of n_k; as in the authors' code, n_k is replaced by its mean Σ_j q_jk:

        Σ_jk q_jk log q_jk − log Γ(Kα) + log Γ(Kα + n_genes) − Σ_k [log Γ(α + Σ_j q_jk) − log Γ(α)].

    log Γ is convex, so this is an upper bound of the KL and the loss remains a bound of the evidence; it is exact where
    every q_j is one-hot.

    Parameters
    ----------
    logits
        log q_jk up to a constant of the gene, (n_genes, K).
    concentration
        α.
    """
    n_genes, n_clusters = logits.shape
    log_q = torch.log_softmax(logits, -1)
    q = log_q.exp()
    total = n_clusters * concentration
    constant = math.lgamma(total + n_genes) - math.lgamma(total) + n_clusters * math.lgamma(concentration)
    return (q * log_q).sum() + constant - torch.lgamma(concentration + q.sum(0)).sum()
