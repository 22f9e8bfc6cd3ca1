"""Biolord, by its authors' package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from methods.base import key
from methods.external.environment import External
from methods.program import Predicts


class Biolord(External, Predicts):
    """Biolord (Piran et al. 2024) by its authors' package: a decoder of known attributes and of one code a cell.

    The known attributes are the environment and, where the data have it, the content; each value has an embedding.
    What is left of a cell is a code of its own, with noise in training and a penalty on its size. The likelihood is the
    package's normal one of X, plus its squared error. ``predict`` keeps a cell's code and content and exchanges the
    environment, as the package does. Codes are parameters, as in LORD: the package has them of training cells alone,
    and no encoder. Other cells are not predicted, nor an environment that was not trained, and there is no embedding.
    The epochs are the package's largest number; it takes fewer with more than 20,000 cells. No checkpoints are written,
    and a minibatch of one or two cells, at which the package fails, is avoided by a smaller size. The rest is as the
    package has it. The fit is on the CPU.
    """

    name = "external:biolord"
    tags = frozenset({"external", "prediction", "disentanglement"})
    paper = "Piran et al. 2024, Nature Biotechnology 42:1678; biolord 0.0.3"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"max_epochs": 5}}

    @dataclass(frozen=True)
    class Config:
        """Sizes and training; all are the package's defaults."""

        n_latent: int = key(128, above=0)
        n_attribute: int = key(4, above=0)  # its n_latent_attribute_categorical
        width: int = key(512, above=0)  # of the decoder
        depth: int = key(4, above=0)
        max_epochs: int = key(400, above=0)
