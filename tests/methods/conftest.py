"""Data with known answers."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from tasks.datasets.base import Fields


def _labelled(x, environments, contents=None):
    contents = np.full(len(x), "a") if contents is None else contents
    obs = pd.DataFrame(
        {"condition": np.asarray(environments, dtype=object), "cell_type": np.asarray(contents, dtype=object)},
        index=[f"cell{i}" for i in range(len(x))],
    )
    data = AnnData(np.ascontiguousarray(x, dtype=np.float32), obs=obs)
    data.uns["X_units"] = "log1p of counts per 10,000"
    return Fields("condition", "cell_type", control="control").attach(data)


@pytest.fixture(scope="session")
def labelled():
    """Return a function that makes an AnnData of expression, environments and content labels."""
    return _labelled


@pytest.fixture(scope="session")
def crossed():
    """Return a function that makes cells around a given profile and shift for each type.

    ``crossed(profiles, shifts, n_cells, lacking)``: the mean over a type's cells is exact; the types whose
    index is in ``lacking`` have no stimulated cells.
    """

    def make(profiles, shifts, n_cells=6, lacking=(), noise=0.1):
        rng = np.random.default_rng(0)
        sizes = np.broadcast_to(n_cells, len(profiles))
        x, environments, contents = [], [], []
        for i, (profile, shift, n) in enumerate(zip(profiles, shifts, sizes, strict=True)):
            for environment, mean in (("control", profile), ("stimulated", np.add(profile, shift))):
                if environment == "stimulated" and i in lacking:
                    continue
                deviation = noise * rng.standard_normal((n, len(profile)))
                x.append(np.asarray(mean) + deviation - deviation.mean(axis=0))
                environments += [environment] * n
                contents += [f"type{i}"] * n
        return _labelled(np.vstack(x), environments, contents)

    return make


@pytest.fixture(scope="session")
def structured():
    """300 cells of 30 genes that three latent factors explain up to a little noise; two conditions, two types."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, 3))
    stimulated, types = np.arange(300) % 2, np.arange(300) // 2 % 2
    z[:, 0] += 2.0 * stimulated
    z[:, 1] += 2.0 * types
    x = 5 + z @ rng.standard_normal((3, 30)) + 0.3 * rng.standard_normal((300, 30))
    return _labelled(x, np.array(["control", "stimulated"])[stimulated], np.array(["a", "b"])[types])
