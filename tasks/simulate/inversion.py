"""What a simulator's true structure says of the cells that it made: the factors that explain their counts best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

N_STEPS = 15

#: Gives logits (n_cells, n_genes) and their derivatives (n_cells, n_factors, n_genes), or (1, ...) where these are the
#: same for all cells, at factors (n_cells, n_factors).
Decoder = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def most_likely(counts: np.ndarray, decoder: Decoder, start: np.ndarray, variance: float) -> np.ndarray:
    """Return the factors of each cell with the highest posterior, (n_cells, n_factors).

    Counts are taken as multinomial given their sum, with the softmax of the decoder's logits, and each factor as
    N(0, ``variance``). Damped Gauss-Newton steps, each cell by itself; a step that does not help is not taken.

    Parameters
    ----------
    counts
        (n_cells, n_genes).
    decoder
        The simulator's logits, and their derivatives.
    start
        Where steps start, (n_cells, n_factors).
    variance
        Of each factor.
    """
    counts = np.asarray(counts, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)

    def at(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, jacobian = decoder(z)
        logits = logits - logits.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        posterior = np.sum(counts * (logits - normaliser), axis=1) - np.sum(z**2, axis=1) / (2 * variance)
        return posterior, totals * np.exp(logits - normaliser), jacobian

    z, damping = start, np.full((len(start), 1), 1e-2)
    posterior, mean, jacobian = at(z)
    for _ in range(N_STEPS):
        gradient = np.einsum("ndg,ng->nd", jacobian, counts - mean) - z / variance
        along = np.einsum("ndg,ng->nd", jacobian, mean)
        information = (jacobian * mean[:, None, :]) @ jacobian.transpose(0, 2, 1)
        information -= along[:, :, None] * along[:, None, :] / np.maximum(totals, 1)[:, :, None]
        information += np.eye(z.shape[1]) / variance
        np.einsum("ndd->nd", information)[:] *= 1 + damping
        there = z + np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        reached = at(there)
        better = reached[0] > posterior
        posterior = np.where(better, reached[0], posterior)
        z, mean = (np.where(better[:, None], new, old) for new, old in ((there, z), (reached[1], mean)))
        jacobian = np.where(better[:, None, None], reached[2], jacobian)
        damping *= np.where(better[:, None], 0.3, 4.0)
    return z
