"""RNA of three lines mixed in known proportions: profiles add up in counts; the embedded twin of ``rnamix``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields
from tasks.simulate.base import Simulated, log1p_cp10k

if TYPE_CHECKING:
    from anndata import AnnData

#: The mixtures of Tian et al. 2019, in per cent: the pure lines, two thirds of each, and equal parts.
MIXTURES = ((100, 0, 0), (0, 100, 0), (0, 0, 100), (68, 16, 16), (16, 68, 16), (16, 16, 68), (33, 33, 33))
#: Picograms of RNA.
AMOUNTS = (3.75, 7.5, 15.0, 30.0)
PROTOCOLS = ("protocol1", "protocol2")
#: The library grows with this power of the amount; medians of ``rnamix`` rise by 1.75 for a doubling.
GROWTH = 0.8


def simulate(
    rng: np.random.Generator,
    n_wells: int = 10,
    n_genes: int = 300,
    library: float = 6000.0,
    line_effect: float = 1.5,
    protocol_effect: float = 0.4,
) -> AnnData:
    """Simulate wells of each mixture, amount and protocol, in random order.

    A line's profile is softmax(base + δ), δ ~ N(0, ``line_effect``²) in a third of the genes. A well's expected profile
    is the sum of the lines' profiles by its proportions, times the protocol's efficiency for each gene, and its library
    is log-normal about ``library`` · (amount / 30 pg)^.8. Counts are negative binomial. The mixture is linear in counts
    and hence curved in X, their logarithm.

    Parameters
    ----------
    rng
        Source of all randomness.
    n_wells
        Wells for each of 7 mixtures, 4 amounts and 2 protocols.
    n_genes
        Number of genes.
    library
        Median counts of a well of 30 pg.
    line_effect
        Standard deviation of a line's effects on log expression.
    protocol_effect
        Standard deviation of the logarithm of the second protocol's efficiency, gene by gene.

    Returns
    -------
    AnnData
        ``layers["counts"]``, ``X`` their log1p(CP10k); ``obs``: protocol, mixture ("68:16:16") and amount;
        ``obsm["proportions"]`` (n_wells, 3); ``obsm["factors"]`` and ``obsm["z"]``, the proportions, log2 of the amount
        and the protocol; ``uns["profiles"]``: for each protocol the lines' true profiles (3, n_genes).
    """
    import pandas as pd
    from anndata import AnnData

    shape = (len(MIXTURES[0]), n_genes)
    logits = rng.normal(0.0, 1.2, n_genes) + rng.normal(0.0, line_effect, shape) * (rng.random(shape) < 1 / 3)
    pure = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    efficiency = np.exp(rng.normal(0.0, protocol_effect, n_genes))
    profiles = {PROTOCOLS[0]: pure, PROTOCOLS[1]: pure * efficiency}
    profiles = {name: of_lines / of_lines.sum(axis=1).mean() for name, of_lines in profiles.items()}
    dispersion = rng.gamma(4.0, 2.5, n_genes)

    design = [(m, a, p) for m in MIXTURES for a in AMOUNTS for p in PROTOCOLS for _ in range(n_wells)]
    design = [design[i] for i in rng.permutation(len(design))]
    proportions = np.array([m for m, _, _ in design], dtype=float)
    proportions /= proportions.sum(axis=1, keepdims=True)
    amounts = np.array([a for _, a, _ in design])
    protocols = np.array([p for _, _, p in design])
    mean = np.einsum("nk,nkg->ng", proportions, np.stack([profiles[p] for p in protocols]))
    typical = library * (amounts / AMOUNTS[-1]) ** GROWTH
    mean *= (rng.lognormal(np.log(typical), 0.3) / mean.sum(axis=1))[:, None]
    counts = rng.poisson(mean * rng.gamma(dispersion, 1 / dispersion, mean.shape)).astype(np.float32)

    obs = pd.DataFrame(
        {
            "protocol": protocols,
            "mixture": [":".join(map(str, m)) for m, _, _ in design],
            "mRNA_amount": amounts,
        },
        index=[f"well{i}" for i in range(len(design))],
    )
    factors = np.column_stack([proportions, np.log2(amounts), protocols == PROTOCOLS[1]]).astype(np.float32)
    data = AnnData(
        log1p_cp10k(counts),
        obs=obs,
        layers={"counts": counts},
        obsm={"proportions": proportions, "factors": factors, "z": factors},
    )
    data.var_names = [f"gene{i}" for i in range(n_genes)]
    data.uns.update(profiles=profiles, X_units="log1p of counts per 10,000")
    return data


RNAMIX_SIM = Simulated(
    name="rnamix-sim",
    summary="three lines in 7 known mixtures, 4 amounts and 2 protocols, linear in counts: the twin of rnamix",
    paper="this suite; modelled on Tian et al. 2019, Nat Methods 16:479",
    fields=Fields(environment="protocol", content=""),
    simulate=simulate,
    sizes={"smoke": {"n_wells": 4, "n_genes": 150}, "paper": {"n_genes": 1000}},
)
