"""Data for the benchmarks, of any size."""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tasks.datasets.base import Fields

#: Mean count, which leaves 90 % zeros, and dispersion.
DEPTH, THETA = 0.145, 2.0


def sparse_counts(n_cells, n_genes, seed=0, n_environments=2, n_types=10):
    """Negative binomial counts with 90 % zeros as CSR, X their log1p(CP10k) as CSR; cells of types and environments."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(0.0, 1.5, n_genes) * rng.lognormal(0.0, 0.5, (n_types, n_genes))
    share /= share.sum(1, keepdims=True)
    cell_type = rng.integers(n_types, size=n_cells)
    blocks = []
    for types in np.array_split(cell_type, -(-n_cells // 5000)):
        library = DEPTH * n_genes * rng.lognormal(0.0, 0.3, (len(types), 1))
        rate = share[types] * library * rng.gamma(THETA, 1 / THETA, (len(types), n_genes))
        blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    counts = sparse.vstack(blocks, format="csr")
    x = counts.multiply(1e4 / counts.sum(1)).tocsr().astype(np.float32)
    x.data = np.log1p(x.data)
    environment = rng.integers(n_environments, size=n_cells).astype(str)
    return _data(x, environment, cell_type.astype(str), counts)


def expression(n_cells, n_genes, seed=0, n_environments=2, n_latent=10):
    """Expression of a linear model with noise, dense; cells of two environments that shift it."""
    rng = np.random.default_rng(seed)
    environment = rng.integers(n_environments, size=n_cells)
    z = rng.standard_normal((n_cells, n_latent)) + rng.standard_normal((n_environments, n_latent))[environment]
    x = z.astype(np.float32) @ rng.standard_normal((n_latent, n_genes), dtype=np.float32)
    x += rng.standard_normal(x.shape, dtype=np.float32)
    return _data(x, environment.astype(str), np.full(n_cells, "one"))


def in_steps(epochs, n_cells, minibatch=128):
    """The gradient steps of so many passes over the cells."""
    return epochs * -(-int(n_cells) // minibatch)


def dense(data):
    """The same with X and counts as arrays, which is what methods are handed."""
    data = data.copy()
    data.X = data.X.toarray()
    data.layers["counts"] = data.layers["counts"].toarray()
    return data


def _data(x, environment, content, counts=None):
    obs = pd.DataFrame({"environment": environment, "content": content}, index=[f"cell{i}" for i in range(x.shape[0])])
    data = AnnData(x, obs=obs, layers={} if counts is None else {"counts": counts})
    return Fields("environment", "content", control="0").attach(data)
