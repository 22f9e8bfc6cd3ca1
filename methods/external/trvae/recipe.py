"""trVAE, by scArches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from methods.base import key
from methods.external.environment import External
from methods.program import Embeds, Predicts


class TrVAE(External, Embeds, Predicts):
    """trVAE (Lotfollahi et al. 2020) by its authors' later package, scArches: the reference beside our ``trvae``.

    loss = ‖x − x̂‖² + kl·KL + mmd·sum over all pairs of environments MMD(y of one environment, y of the other), the
    squared error summed over genes and the KL over latents, both averaged over cells. y are the activations of the
    first decoder layer, after dropout. ``predict`` encodes cells with their own environment and decodes the means of
    their codes with the target's; the package has no function for this, its authors' first one did it so. A cell of an
    environment that was not trained counts as one of the control, or of the first; an environment that was not trained
    is not predicted. X may have no negative values, since the output is a ReLU. The fit is on the CPU.

    Two settings are not the package's defaults: there the MMD is on the codes and the likelihood is that of counts. The
    published trVAE has the first decoder layer and the squared error of log-normalised data, as here. All else is as
    the package has it. The last tenth of each environment's cells is held out; their loss divides the learning rate by
    ten after 13 epochs without improvement and stops training after 20. The package means to put the best weights back
    but keeps no copy of them, so the last ones stay. It takes the order of cells as it is, so they are shuffled before.

    Our ``trvae`` differs. Its three terms have the weights of the authors' Kang notebook: beside the squared error its
    MMD weighs about half as much (10 times the mean of 19 kernels; here, once their sum) and its KL the same. It takes
    the mean over pairs of environments. It has the network of our VAE with LeakyReLU and a linear output, no weight
    decay (theirs is .04), a fixed number of steps, and its best weights back.
    """

    name = "external:trvae"
    tags = frozenset({"external", "embedding", "prediction", "vae", "conditional"})
    paper = "Lotfollahi et al. 2020, Bioinformatics 36:i610, doi 10.1093/bioinformatics/btaa800; scArches 0.6.1"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"max_epochs": 5}}

    @dataclass(frozen=True)
    class Config:
        """Size of the network, weights of the loss and training; all are scArches' defaults."""

        n_latent: int = key(10, above=0)
        hidden: tuple[int, ...] = key((256, 64), above=0)
        dropout: float = key(0.05, least=0)
        kl: float = key(1.0, least=0)  # its alpha_kl
        mmd: float = key(1.0, least=0)  # its beta
        max_epochs: int = key(400, above=0)
