"""From data to what a network sees, and from what it says back to expression; one class for each kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor, nn

from methods.base import CannotFit
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

#: Cells of the whole data are gone through so many at a time.
BLOCK = 4096


class Observation(nn.Module):
    """What a network is shown of a cell, what it is scored on, and its output on the scale of X.

    ``tensors`` of a data set go into minibatches; ``network_input`` makes of a minibatch what an encoder reads;
    ``log_prob`` scores a decoder's output; ``expression`` turns it into expected X.
    """

    likelihood: Any
    n_genes: int

    @property
    def outputs_per_gene(self) -> int:
        """How many outputs a decoder has for each gene."""
        return int(self.likelihood.outputs_per_gene)

    def calibrate(self, data: AnnData) -> None:
        """Learn constants from training data; raise CannotFit where data are not of this kind."""

    def tensors(self, data: AnnData) -> dict[str, Any]:
        """Return the cells as tensors, or sparse counts, whose first axis is cells."""
        raise NotImplementedError

    def network_input(self, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return what an encoder reads, (n_cells, n_genes)."""
        return minibatch["x"]

    def log_prob(self, minibatch: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Return log p(cell | output), summed over genes, (n_cells,)."""
        return self.likelihood.log_prob(minibatch["x"], output, None)

    def gene_log_prob(self, minibatch: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Return the same of each gene, (n_cells, n_genes)."""
        return self.likelihood.gene_log_prob(minibatch["x"], output, None)

    def log_volume(self) -> Tensor:
        """Return what must be added to ``log_prob`` for a density of X itself, of one cell."""
        return torch.zeros(())

    def expression(self, output: Tensor, minibatch: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the expectation of X given ``output``; without a minibatch, of a typical cell."""
        raise NotImplementedError


class Scaled(Observation):
    """X centred on gene means and divided by one scale (:class:`Scaler`), under a density."""

    def __init__(self, n_genes: int, likelihood: type[nn.Module]):
        super().__init__()
        self.n_genes = n_genes
        self.scaler = Scaler(n_genes)
        self.likelihood = likelihood(n_genes)

    def calibrate(self, data: AnnData) -> None:
        """Take means and scale."""
        if issparse(data.X):
            mean, squares = (np.asarray(x.mean(0, dtype=np.float64)).ravel() for x in (data.X, data.X.multiply(data.X)))
            self.scaler.set_moments(torch.from_numpy(mean), torch.from_numpy(squares - mean**2))
        else:
            x = _x(data, self.scaler.mean)
            self.scaler.set_moments(x.mean(0), x.var(0, correction=0))

    def tensors(self, data: AnnData) -> dict[str, Any]:
        """Return the scaled expression as ``x``, or sparse expression as it is, to be scaled when it is dense."""
        if issparse(data.X):
            return {"x": SparseRows.of_matrix(data.X, self.scaler.mean.device)}
        return {"x": self.scaler(_x(data, self.scaler.mean))}

    def network_input(self, minibatch: Mapping[str, Any]) -> Tensor:
        """Return the scaled expression."""
        x = minibatch["x"]
        return self.scaler(x.dense()) if isinstance(x, SparseRows) else x

    def log_prob(self, minibatch: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return log p(scaled x | output), summed over genes, (n_cells,)."""
        return self.likelihood.log_prob(self.network_input(minibatch), output, None)

    def gene_log_prob(self, minibatch: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return the same of each gene, (n_cells, n_genes)."""
        return self.likelihood.gene_log_prob(self.network_input(minibatch), output, None)

    def log_volume(self) -> Tensor:
        """Return minus the logarithm of the scale, for each gene."""
        return -len(self.scaler.mean) * torch.log(self.scaler.scale)

    def expression(self, output: Tensor, minibatch: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the mean on the scale of X."""
        return self.scaler.inverse(self.likelihood.mean(output, None))


class Offset(Observation):
    """An observation that adds a number to each output of the decoder, so that this starts where the data are."""

    offset: Tensor

    def shifted(self, output: Tensor) -> Tensor:
        """Return the decoder's output with the offset."""
        return output + self.offset.unsqueeze(-2)


class Greys(Offset):
    """Grey levels in [0, 1] under a Bernoulli likelihood, as images are commonly modelled.

    A decoder's output is added to the log odds of the mean levels of the training data.
    """

    def __init__(self, n_genes: int, likelihood: type[nn.Module]):
        super().__init__()
        self.n_genes = n_genes
        self.register_buffer("offset", torch.zeros(n_genes))
        self.likelihood = likelihood(n_genes)

    def calibrate(self, data: AnnData) -> None:
        """Refuse what is not in [0, 1], and take the mean levels."""
        low, high = float(data.X.min()), float(data.X.max())
        if low < 0 or high > 1:
            raise CannotFit(f"likelihood 'bernoulli' needs X in [0, 1]; it goes from {low:.4g} to {high:.4g}")
        self.offset.copy_(_x(data, self.offset).mean(0).clamp(0.01, 0.99).logit())

    def tensors(self, data: AnnData) -> dict[str, Any]:
        """Return X as ``x``."""
        return {"x": _x(data, self.offset)}

    def log_prob(self, minibatch: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Return log p(x | output), summed over genes, (n_cells,)."""
        return self.likelihood.log_prob(minibatch["x"], self.shifted(output), None)

    def gene_log_prob(self, minibatch: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Return the same of each gene, (n_cells, n_genes)."""
        return self.likelihood.gene_log_prob(minibatch["x"], self.shifted(output), None)

    def expression(self, output: Tensor, minibatch: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the probabilities."""
        return self.likelihood.mean(self.shifted(output), None)


class Counts(Offset):
    """Counts under a count likelihood with the observed library; the encoder reads log1p of the counts.

    A decoder's output is added to the logarithm of the genes' shares in the training data.

    X is expected to be log1p(counts / c) with a constant c of each cell, such as its library / 10⁴ (over all genes,
    of which ``data`` may hold some only): c is read off as Σ counts / Σ expm1(X). The expectation of X is that of
    the logarithm, not the logarithm of the expectation, which for small counts is far larger:

        E log1p(k / c) = ∫₀^∞ (e^−t / t) (1 − E[exp(−t/c)^k]) dt,

    and E[u^k] is the likelihood's generating function; the integral over log t is summed on a grid.
    """

    library: Tensor
    constant: Tensor

    def __init__(self, n_genes: int, likelihood: type[nn.Module]):
        super().__init__()
        self.n_genes = n_genes
        #: Medians over training cells, for a typical cell.
        self.register_buffer("library", torch.ones(()))
        self.register_buffer("constant", torch.ones(()))
        self.likelihood = likelihood(n_genes)
        # of further outputs, log odds of dropout: rare at first
        self.register_buffer("offset", torch.full((n_genes * self.outputs_per_gene,), -3.0))

    def calibrate(self, data: AnnData) -> None:
        """Refuse what are no counts, and take the typical cell and the genes' shares."""
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
        # half a count for each gene, so that one that is never seen has a share
        shares = self._sums(counts, counts.value) + 0.5
        self.offset[: self.n_genes].copy_((shares / shares.sum()).log())
        # dispersions start at the moments of the whole data, from where they have to rise, not from 1: at Adam's pace
        # hundreds would be thousands of steps away
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
        # in blocks: twice the precision is twice the memory
        blocks = (_dense(data.X[i : i + BLOCK]) for i in range(0, data.n_obs, BLOCK))
        of_blocks = [np.expm1(block, dtype=np.float64).sum(1) for block in blocks]
        normalised = torch.from_numpy(np.concatenate(of_blocks)).to(where)
        constant = torch.where(normalised > 0, library / normalised, torch.ones_like(library))
        return {"counts": counts, "library": library.float(), "constant": constant.float()}

    def _off(self, tensors: Mapping[str, Any], data: AnnData, cells: Tensor) -> float:
        """Return how far X of some cells is from log1p of counts divided by their constants, at most."""
        normalised = tensors["counts"].index_select(0, cells).dense() / tensors["constant"][cells, None]
        return float((normalised.log1p() - _x(data[cells.cpu().numpy()], cells)).abs().max())

    def _sums(self, counts: SparseRows, values: Tensor) -> Tensor:
        """Return each gene's sum of values at the non-zeros, (n_genes,)."""
        return torch.bincount(counts.column, values.double(), minlength=self.n_genes)

    def network_input(self, minibatch: Mapping[str, Any]) -> Tensor:
        """Return log1p of the counts."""
        return minibatch["counts"].log1p()

    def log_prob(self, minibatch: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return log p(counts | output, library)."""
        return self.likelihood.log_prob(minibatch["counts"], self.shifted(output), minibatch["library"])

    def gene_log_prob(self, minibatch: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return the same of each gene, (n_cells, n_genes)."""
        return self.likelihood.gene_log_prob(minibatch["counts"].dense(), self.shifted(output), minibatch["library"])

    def expression(self, output: Tensor, minibatch: Mapping[str, Any] | None = None) -> Tensor:
        """Return E log1p(counts / c)."""
        if minibatch is None:
            library, constant = (value.expand(len(output)) for value in (self.library, self.constant))
        else:
            library, constant = minibatch["library"], minibatch["constant"]
        # in log t the integrand is analytic, falls off like t·mean/c below and like exp(−t) above, so that the error
        # of this sum is about exp(−π²/step): 1e-6
        step = 0.7
        expected, output = torch.zeros(1, device=output.device), self.shifted(output)
        for log_t in np.arange(-22.0, 4.0, step):
            t = float(np.exp(log_t))
            missing = self.likelihood.generating_deficit(-torch.expm1(-t / constant)[:, None], output, library)
            expected = expected + step * np.exp(-t) * missing
        return expected


_OBSERVATIONS: dict[str, tuple[type[Observation], type[nn.Module]]] = dict(
    zip(
        LIKELIHOODS,
        (
            (Scaled, Gaussian),
            (Scaled, GeneGaussian),
            (Scaled, SquaredError),
            (Counts, NegativeBinomial),
            (Counts, ZeroInflatedNegativeBinomial),
            (Greys, Bernoulli),
        ),
        strict=True,
    )
)


def observation(likelihood: str, n_genes: int) -> Observation:
    """Return the observation model of a likelihood's name, one of :data:`methods.nn.LIKELIHOODS`."""
    kind, distribution = _OBSERVATIONS[likelihood]
    return kind(n_genes, distribution)


def _x(data: AnnData, like: Tensor) -> Tensor:
    return torch.from_numpy(_dense(data.X)).to(like.device)


def _dense(x: Any) -> np.ndarray:
    return np.ascontiguousarray(x.toarray() if issparse(x) else x, dtype=np.float32)
