"""Traits of cell types or organs that are leaves of a binary tree: near leaves have like traits."""

from __future__ import annotations

import numpy as np


def tree_traits(rng: np.random.Generator, n_leaves: int, n_traits: int) -> np.ndarray:
    """Return standard-normal-sized traits of the leaves of a balanced binary tree, (n_leaves, n_traits).

    A trait is a sum of independent normal steps along the path from the root, one a level, each level with
    the same variance; two leaves that part ``k`` of ``depth`` levels above the tips correlate ``1 − k / depth``.
    """
    depth = max(1, int(np.ceil(np.log2(n_leaves))))
    traits = np.zeros((1, n_traits))
    for _ in range(depth):
        traits = np.repeat(traits, 2, axis=0)
        traits += rng.standard_normal(traits.shape) / np.sqrt(depth)
    return traits[:n_leaves]


def tree_distances(n_leaves: int) -> np.ndarray:
    """Return the number of levels up to the last common ancestor of every two leaves, (n_leaves, n_leaves)."""
    leaves = np.arange(n_leaves)
    differing = leaves[:, None] ^ leaves[None, :]
    return np.where(differing > 0, np.floor(np.log2(np.maximum(differing, 1))) + 1, 0).astype(int)
