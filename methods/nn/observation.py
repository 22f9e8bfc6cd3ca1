"""From data to the input of a network, and from its output to expression; one class for each kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor, nn

from methods.errors import CannotFit
from methods.nn import LIKELIHOODS
from methods.nn.likelihoods import (
    Bernoulli,
    Gaussian,
    GeneGaussian,
    NegativeBinomial,
    SquaredError,
    ZeroInflatedNegativeBinomial,
)
from methods.nn.networks import Scaler
from methods.nn.sparse import SparseRows

if TYPE_CHECKING:
    from anndata import AnnData

#: Cells that are processed at once where all data are read.
BLOCK = 4096


class Observation(nn.Module):
    """The input of a network, the likelihood of its output, and its output on the scale of X.

    ``tensors`` of a data set go into minibatches; ``network_input`` returns the encoder's input for a minibatch;
    ``log_prob`` scores a decoder's output; ``expression`` turns the output into expected X.
    """

    def __init__(self, n_genes: int, likelihood: type[nn.Module]):
        super().__init__()
        self.n_genes = n_genes
        self.likelihood: Any = likelihood(n_genes)

    @property
    def outputs_per_gene(self) -> int:
        """Number of decoder outputs for each gene."""
        return int(self.likelihood.outputs_per_gene)

    def calibrate(self, data: AnnData) -> None:
        """Learn constants from training data; raise CannotFit where the data are not of this kind."""
        raise NotImplementedError

    def tensors(self, data: AnnData) -> dict[str, Any]:
        """Return the cells as tensors, or sparse rows, whose first axis is cells."""
        raise NotImplementedError

    def network_input(self, minibatch: Mapping[str, Any]) -> Tensor:
        """Return the encoder's input, (n_cells, n_genes)."""
        return minibatch["x"]

    def likelihood_input(self, minibatch: Mapping[str, Any], output: Tensor) -> tuple[Any, Tensor, Tensor | None]:
        """Return the arguments of the likelihood: x, the decoder's output, and the library for counts."""
        return self.network_input(minibatch), output, None

    def log_prob(self, minibatch: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return log p(cell | output), summed over genes, (n_cells,)."""
        return self.likelihood.log_prob(*self.likelihood_input(minibatch, output))

    def gene_log_prob(self, minibatch: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return log p(cell | output) of each gene, (n_cells, n_genes)."""
        return self.likelihood.gene_log_prob(*self.likelihood_input(minibatch, output))

    def log_volume(self) -> Tensor:
        """Return the number that turns ``log_prob`` of a cell into the log density of X."""
        return torch.zeros(())

    def expression(self, output: Tensor, minibatch: Mapping[str, Any] | None = None) -> Tensor:
        """Return the expectation of X given ``output``; without a minibatch, for a typical cell."""
        raise NotImplementedError


class Scaled(Observation):
    """X centred on gene means and divided by one number (:class:`Scaler`), under a density."""

    def __init__(self, n_genes: int, likelihood: type[nn.Module]):
        super().__init__(n_genes, likelihood)
        self.scaler = Scaler(n_genes)

    def calibrate(self, data: AnnData) -> None:
        """Take means and variance."""
        if issparse(data.X):
            mean, squares = (np.asarray(x.mean(0, dtype=np.float64)).ravel() for x in (data.X, data.X.multiply(data.X)))
            self.scaler.set_moments(torch.from_numpy(mean), torch.from_numpy(squares - mean**2))
        else:
            x = _x(data, self.scaler.mean)
            self.scaler.set_moments(x.mean(0), x.var(0, correction=0))

    def tensors(self, data: AnnData) -> dict[str, Any]:
        """Return the scaled expression as ``x``; sparse expression is scaled when a minibatch is made dense."""
        if issparse(data.X):
            return {"x": SparseRows.of_matrix(data.X, self.scaler.mean.device)}
        return {"x": self.scaler(_x(data, self.scaler.mean))}

    def network_input(self, minibatch: Mapping[str, Any]) -> Tensor:
        """Return the scaled expression."""
        x = minibatch["x"]
        return self.scaler(x.dense()) if isinstance(x, SparseRows) else x

    def log_volume(self) -> Tensor:
        """Return minus the logarithm of the divisor, for each gene."""
        return -len(self.scaler.mean) * torch.log(self.scaler.std)

    def expression(self, output: Tensor, minibatch: Mapping[str, Any] | None = None) -> Tensor:
        """Return the mean on the scale of X."""
        return self.scaler.inverse(self.likelihood.mean(output, None))


class Greys(Observation):
    """Grey levels in [0, 1] under a Bernoulli likelihood, a common model of images.

    A decoder's output is added to the log odds of the mean levels of the training data.
    """

    offset: Tensor

    def __init__(self, n_genes: int, likelihood: type[nn.Module]):
        super().__init__(n_genes, likelihood)
        self.register_buffer("offset", torch.zeros(n_genes))

    def calibrate(self, data: AnnData) -> None:
        """Refuse values outside [0, 1], and take the mean levels."""
        low, high = float(data.X.min()), float(data.X.max())
        if low < 0 or high > 1:
            raise CannotFit(f"likelihood 'bernoulli' needs X in [0, 1]; it goes from {low:.4g} to {high:.4g}")
        self.offset.copy_(_x(data, self.offset).mean(0).clamp(0.01, 0.99).logit())

    def tensors(self, data: AnnData) -> dict[str, Any]:
        """Return X as ``x``."""
        return {"x": _x(data, self.offset)}

    def likelihood_input(self, minibatch: Mapping[str, Any], output: Tensor) -> tuple[Any, Tensor, Tensor | None]:
        """Return X, and the output with the offset."""
        return minibatch["x"], output + self.offset.unsqueeze(-2), None

    def expression(self, output: Tensor, minibatch: Mapping[str, Any] | None = None) -> Tensor:
        """Return the probabilities."""
        return self.likelihood.mean(output + self.offset.unsqueeze(-2), None)


class Counts(Observation):
    """Counts under a count likelihood with the observed library; the encoder reads log1p of the counts.

    A decoder's output is added to the logarithm of the genes' shares in the training data.

    X is expected to be log1p(counts / c) with a constant c of each cell, such as its library / 10⁴ (over all genes,
    of which ``data`` may hold a part): c is computed as Σ counts / Σ expm1(X). The expectation of X is that of the
    logarithm, not the logarithm of the expectation, which for small counts is far larger:

        E log1p(k / c) = ∫₀^∞ (e^−t / t) (1 − E[exp(−t/c)^k]) dt,

    and E[u^k] is the likelihood's generating function; the integral over log t is summed on a grid.
    """

    offset: Tensor
    library: Tensor
    constant: Tensor

    def __init__(self, n_genes: int, likelihood: type[nn.Module]):
        super().__init__(n_genes, likelihood)
        #: Medians over training cells, for a typical cell.
        self.register_buffer("library", torch.ones(()))
        self.register_buffer("constant", torch.ones(()))
        # log odds of dropout, where there are such outputs: rare at first
        self.register_buffer("offset", torch.full((n_genes * self.outputs_per_gene,), -3.0))

    def calibrate(self, data: AnnData) -> None:
        """Refuse data without counts, and take the typical cell, the genes' shares and dispersions."""
        if "counts" not in data.layers:
            raise CannotFit("a count likelihood needs counts, and these data have none; set likelihood=gaussian")
        tensors = self.tensors(data)
        counts, library, constant = tensors["counts"], tensors["library"], tensors["constant"]
        if bool((counts.value < 0).any()) or bool((counts.value != counts.value.round()).any()):
            raise CannotFit("layers['counts'] has negative or fractional values; a count likelihood needs counts")
        blocks = torch.arange(data.n_obs, device=library.device).split(BLOCK)
        off = max(self._off(tensors, data, cells) for cells in blocks)
        if off > 0.01:
            raise CannotFit(
                f"X is not log1p of counts divided by a constant of each cell (off by {off:.3g}), so that "
                "predictions cannot be made on its scale; set likelihood=gaussian"
            )
        self.library.copy_(library.median())
        self.constant.copy_(constant.median())
        # half a count for each gene, so that a gene without counts has a share
        shares = self._sums(counts, counts.value) + 0.5
        self.offset[: self.n_genes].copy_((shares / shares.sum()).log())
        # dispersions start at the moments of the whole data and not at 1, from where Adam would need thousands of steps
        # to reach hundreds
        normalised = counts.value * (self.library / library.clamp(min=1.0)).index_select(0, counts.row)
        mean = self._sums(counts, normalised) / data.n_obs
        variance = self._sums(counts, normalised.square()) / data.n_obs - mean.square()
        theta = mean.square() / (variance - mean).clamp(min=1e-4)
        with torch.no_grad():
            self.likelihood.log_theta.copy_(theta.clamp(0.05, 1e4).log())

    def tensors(self, data: AnnData) -> dict[str, Any]:
        """Return ``counts`` by their non-zeros, and the ``library`` and ``constant`` of each cell."""
        where = self.library.device
        counts = SparseRows.of_matrix(data.layers["counts"], where)
        library = torch.zeros(data.n_obs, dtype=torch.float64, device=where)
        library.index_add_(0, counts.row, counts.value.double())
        # in blocks, since double precision takes twice the memory
        blocks = (_dense(data.X[i : i + BLOCK]) for i in range(0, data.n_obs, BLOCK))
        of_blocks = [np.expm1(block, dtype=np.float64).sum(1) for block in blocks]
        normalised = torch.from_numpy(np.concatenate(of_blocks)).to(where)
        constant = torch.where(normalised > 0, library / normalised, torch.ones_like(library))
        return {"counts": counts, "library": library.float(), "constant": constant.float()}

    def _off(self, tensors: Mapping[str, Any], data: AnnData, cells: Tensor) -> float:
        """Return the largest difference of X of some cells from log1p of counts divided by their constants."""
        normalised = tensors["counts"].index_select(0, cells).dense() / tensors["constant"][cells, None]
        return float((normalised.log1p() - _x(data[cells.cpu().numpy()], cells)).abs().max())

    def _sums(self, counts: SparseRows, values: Tensor) -> Tensor:
        """Return each gene's sum of values at the non-zeros, (n_genes,)."""
        return torch.bincount(counts.column, values.double(), minlength=self.n_genes)

    def network_input(self, minibatch: Mapping[str, Any]) -> Tensor:
        """Return log1p of the counts."""
        return minibatch["counts"].log1p()

    def likelihood_input(self, minibatch: Mapping[str, Any], output: Tensor) -> tuple[Any, Tensor, Tensor | None]:
        """Return the counts, the output with the offset, and the library."""
        return minibatch["counts"], output + self.offset.unsqueeze(-2), minibatch["library"]

    def gene_log_prob(self, minibatch: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return log p(counts | output, library) of each gene, (n_cells, n_genes)."""
        return super().gene_log_prob({**minibatch, "counts": minibatch["counts"].dense()}, output)

    def expression(self, output: Tensor, minibatch: Mapping[str, Any] | None = None) -> Tensor:
        """Return E log1p(counts / c)."""
        if minibatch is None:
            library, constant = (value.expand(len(output)) for value in (self.library, self.constant))
        else:
            library, constant = minibatch["library"], minibatch["constant"]
        # in log t the integrand is analytic, falls off like t·mean/c below and like exp(−t) above, so that the error
        # of this sum is about exp(−π²/step): 1e-6
        step = 0.7
        expected, output = torch.zeros(1, device=output.device), output + self.offset.unsqueeze(-2)
        for log_t in np.arange(-22.0, 4.0, step):
            t = float(np.exp(log_t))
            missing = self.likelihood.generating_deficit(-torch.expm1(-t / constant)[:, None], output, library)
            expected = expected + step * np.exp(-t) * missing
        return expected


_KINDS: tuple[tuple[type[Observation], type[nn.Module]], ...] = (
    (Scaled, Gaussian),
    (Scaled, GeneGaussian),
    (Scaled, SquaredError),
    (Counts, NegativeBinomial),
    (Counts, ZeroInflatedNegativeBinomial),
    (Greys, Bernoulli),
)


def observation(likelihood: str, n_genes: int) -> Observation:
    """Return the observation model for the name of a likelihood, one of :data:`methods.nn.LIKELIHOODS`."""
    kind, distribution = _KINDS[LIKELIHOODS.index(likelihood)]
    return kind(n_genes, distribution)


def _x(data: AnnData, like: Tensor) -> Tensor:
    return torch.from_numpy(_dense(data.X)).to(like.device)


def _dense(x: Any) -> np.ndarray:
    return np.ascontiguousarray(x.toarray() if issparse(x) else x, dtype=np.float32)
