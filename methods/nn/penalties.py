"""Penalties of variational autoencoders: pure functions of tensors, tested against closed forms.

A result of shape (n_cells,) is to be averaged over cells; a scalar is the penalty of the minibatch. For stacked fits
(:mod:`methods.nn.stacked`) arguments and results have a leading axis, unless a function says otherwise.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.nn.kernels import mean_of_gaussians, product
from methods.nn.stacked import uniform_like

#: Widths σ of trVAE's kernel (Lotfollahi et al. 2020, Bioinformatics 36:i610, the authors' code).
TRVAE_WIDTHS = (
    *(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    *(5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0),
    *(1e2, 1e3, 1e4, 1e5, 1e6),
)


def kl_normal(mean: Tensor, log_variance: Tensor, prior_mean: Tensor | float = 0.0) -> Tensor:
    """Return KL(N(μ, diag σ²) ‖ N(m, I)) = ½ Σ_j ((μ_j − m_j)² + σ_j² − 1 − log σ_j²) for each cell, (n_cells,).

    Parameters
    ----------
    mean, log_variance, prior_mean
        μ, log σ² and m, each (n_cells, n_latent).
    """
    return 0.5 * ((mean - prior_mean).square() + log_variance.exp() - 1.0 - log_variance).sum(-1)


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


def pairwise_mmd(
    values: Tensor, conditions: Tensor, n_conditions: int, widths: tuple[float, ...] = TRVAE_WIDTHS
) -> Tensor:
    """Return the mean squared maximum mean discrepancy (MMD) over all pairs of the conditions present, a scalar.

    MMD(x, y) = mean k(x, x′) + mean k(y, y′) − 2 mean k(x, y), k(x, y) = mean over widths σ of exp(−‖x − y‖²/2σ): the
    V-statistic of trVAE (Gretton et al. 2012, JMLR 13, Eq. 5), in which each point is also compared with itself. It is
    never negative; for equal distributions its mean is (1 − E k)(1/n_x + 1/n_y), not 0.

    For P conditions present with n_a cells each, Σ_{a<b} MMD(a, b) = Σ_ij k(x_i, x_j) (P·[a_i = a_j] − 1)/(n_{a_i}
    n_{a_j}), so that one list of distances serves all pairs and widths. With fewer than two conditions present it is 0.
    It is the mean and not the sum, so that a weight means the same for any number of conditions (decision 0013).

    Parameters
    ----------
    values
        (n_cells, n_features).
    conditions
        The condition of each cell, integers below ``n_conditions``, (n_cells,).
    n_conditions
        Number of conditions, in the minibatch or not.
    widths
        The σ, in squared units of ``values``.
    """
    if values.dim() == 3:  # stacked fits; pdist takes one sample
        each = zip(values, conditions, strict=True)
        return torch.stack([pairwise_mmd(sample, numbers, n_conditions, widths) for sample, numbers in each])
    # pdist subtracts coordinates: distances from inner products would be lost in rounding at narrow widths
    kernel = mean_of_gaussians(torch.pdist(values).square(), widths)
    cells = (conditions.unsqueeze(1) == torch.arange(n_conditions, device=conditions.device)).sum(0)
    n_present = (cells > 0).sum()
    weight = cells.index_select(0, conditions).to(values.dtype).reciprocal()
    first, second = torch.triu_indices(len(values), len(values), 1, device=values.device)
    same = conditions.index_select(0, first) == conditions.index_select(0, second)
    pair = weight.index_select(0, first) * weight.index_select(0, second) * (n_present * same - 1)
    # two cells count in both orders; on the diagonal k is 1
    total = 2.0 * (pair @ kernel) + (n_present - 1) * weight.square().sum()
    return 2.0 * total / (n_present * (n_present - 1)).clamp(min=1)


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
    # no kernel is 0, by which the gradient of a product of kernels is divided
    return (x @ x.mT - norm - norm.mT).clamp(-80.0, 0.0).exp()


def delta_kernel(labels: Tensor) -> Tensor:
    """Return K_ik = [label_i = label_k], (n_cells, n_cells), of labels (n_cells,)."""
    return (labels.unsqueeze(-2) == labels.unsqueeze(-1)).to(torch.get_default_dtype())


def coordinate_kernels(z: Tensor) -> Tensor:
    """Return the Gaussian kernel of every latent dimension, for :func:`dhsic` of all of them.

    Parameters
    ----------
    z
        Codes (n_cells, n_latent). The result is (n_latent, n_cells, n_cells), which bounds the size of minibatches.
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
    joint, independent = product(kernels, -3).mean((-2, -1)), product(of_cell.mean(-1), -1)
    return joint + independent - 2.0 * product(of_cell, -2).mean(-1)


def sqrt_dhsic(kernels: Tensor, eps: float) -> Tensor:
    """Return √(dHSIC + ε), the penalty of Lopez et al. 2018, arXiv 1805.08672; a scalar.

    ε bounds the gradient where the variables are independent. Codes that shrink to a point are independent as well:
    only the other terms of the loss fix their size.

    Parameters
    ----------
    kernels
        As in :func:`dhsic`, from :func:`coordinate_kernels` or :func:`nuisance_kernels`.
    eps
        ε, above the rounding of dHSIC.
    """
    return (dhsic(kernels).clamp(min=0.0) + eps).sqrt()


# --- total correlation and its relatives


def total_correlation(z: Tensor, mean: Tensor, log_variance: Tensor, n_cells: int) -> Tensor:
    """Return each cell's log q(z) − Σ_j log q(z_j), whose mean estimates KL(q(z) ‖ Π_j q(z_j)), (n_minibatch,).

    q(z) = mean over all n_cells training cells of q(z | x), estimated from a minibatch of M cells by minibatch
    stratified sampling (Chen et al. 2018, arXiv 1802.04942, appendix C.2): the cell from which z was drawn has the
    weight 1/n_cells, the others share 1 − 1/n_cells. There a randomly chosen other cell has a separate weight; here all
    others have the same weight, the mean over that choice. The estimate of q(z) is unbiased before the logarithm, and
    for equal posteriors the total correlation is 0. Their minibatch-weighted sampling differs by a constant,
    −(n_latent − 1) log M for equal posteriors, and gives the cell's own posterior the weight 1/M.

    Parameters
    ----------
    z
        A draw from each posterior, (n_minibatch, n_latent).
    mean, log_variance
        Parameters of the posteriors, each (n_minibatch, n_latent).
    n_cells
        Number of training cells, n_minibatch ≤ n_cells.
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


def permute_codes(z: Tensor) -> Tensor:
    """Return z with each latent permuted over the cells by itself (Kim & Mnih 2018, arXiv 1802.05983, Alg. 1).

    Parameters
    ----------
    z
        Codes (n_cells, n_latent). If they are draws from q(z), the result is draws from Π_j q(z_j).
    """
    return z.gather(0, torch.rand(z.shape, device=z.device).argsort(0))


def discriminator_loss(joint: Tensor, permuted: Tensor) -> Tensor:
    """Return −½ [mean log D(z) + mean log(1 − D(z′))], a scalar (Kim & Mnih 2018, arXiv 1802.05983, Alg. 2).

    z are codes and z′ permuted codes. It is log 2 for a discriminator at chance, and must not move the encoder.

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
        Temperature of the relaxation whose gradient is taken.
    """
    relaxed = torch.sigmoid((logits + torch.logit(uniform_like(logits), eps=1e-7)) / temperature)
    # in this order the result is exactly 0 or 1
    return (relaxed > 0.5).to(logits.dtype) + (relaxed - relaxed.detach())


def log_beta(logits: Tensor, a: float, b: float | Tensor) -> Tensor:
    """Return log Beta(q; a, b) = (a − 1) log q + (b − 1) log(1 − q) − log B(a, b) at q = sigmoid(logits), same shape.

    It is a density of q, not of the logits. sVAE+ (Lopez et al. 2023, arXiv 2211.03553) adds −Σ log Beta(q; 1, λ) over
    the probabilities of its mask, which is 0 at λ = 1 for any q.

    Parameters
    ----------
    logits
        Any shape.
    a, b
        Parameters of the Beta distribution, above 0; ``b`` may be a tensor that broadcasts to the shape.
    """
    # in double precision: a difference of large numbers
    first = logits.new_full((), a, dtype=torch.float64)
    second = b.double() if isinstance(b, Tensor) else logits.new_full((), b, dtype=torch.float64)
    normaliser = (first.lgamma() + second.lgamma() - (first + second).lgamma()).to(logits.dtype)
    return (a - 1.0) * F.logsigmoid(logits) + (b - 1.0) * F.logsigmoid(-logits) - normaliser


def categorical_dirichlet_kl(logits: Tensor, concentration: float) -> Tensor:
    """Return BasisVAE's KL of the genes' assignments to K clusters, a scalar (Märtens & Yau 2020, arXiv 2003.03462).

    Gene j has the cluster w_j ~ Categorical(π), π ~ Dirichlet(α, …, α) is integrated out, and q(w) = Π_j q_j. With n_k
    genes in cluster k,

        log p(w) = log Γ(Kα) − log Γ(Kα + n_genes) + Σ_k [log Γ(α + n_k) − log Γ(α)].

    Its mean under q depends on the distribution of n_k; as in the authors' code, n_k is replaced by its mean Σ_j q_jk:

        Σ_jk q_jk log q_jk − log Γ(Kα) + log Γ(Kα + n_genes) − Σ_k [log Γ(α + Σ_j q_jk) − log Γ(α)].

    log Γ is convex, so that this is an upper bound of the KL and the loss remains a bound of the evidence. It is exact
    where every q_j is one-hot.

    Parameters
    ----------
    logits
        log q_jk up to a constant for each gene, (n_genes, K).
    concentration
        α.
    """
    n_genes, n_clusters = logits.shape
    log_q = torch.log_softmax(logits, -1)
    q = log_q.exp()
    total = n_clusters * concentration
    constant = math.lgamma(total + n_genes) - math.lgamma(total) + n_clusters * math.lgamma(concentration)
    return (q * log_q).sum() + constant - torch.lgamma(concentration + q.sum(0)).sum()
