"""DRVI, by drvi-py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from methods.base import key
from methods.external.environment import External
from methods.program import Embeds


class DRVI(External, Embeds):
    """DRVI (Moinfar & Theis 2024) by its authors' package, drvi-py: a VAE whose decoder adds up one part a latent.

    Each latent is decoded by itself and the parts are pooled by log-sum-exp, so that latents take up separate
    processes. Counts have the package's log negative binomial likelihood ("pnb"); data without counts a normal one. The
    environment is a categorical covariate of the decoder, where there are several; a cell of an environment that was
    not trained counts as one of the control, or of the first. The KL rises over all epochs, as in the package's
    tutorials; everything else is as the package has it. The fit is on the CPU.
    """

    name = "external:drvi"
    tags = frozenset({"external", "embedding", "disentanglement", "vae"})
    paper = "Moinfar & Theis 2024, bioRxiv 2024.11.06.622266; drvi-py 0.2.8"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"max_epochs": 5}}

    @dataclass(frozen=True)
    class Config:
        """Size of the code and training."""

        n_latent: int = key(32, above=0)  # drvi-py
        hidden: tuple[int, ...] = key((128, 128), above=0)  # drvi-py
        max_epochs: int = key(400, above=0)  # drvi-py's tutorials
