"""scGen, by its authors' package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from methods.base import key
from methods.external.environment import External
from methods.program import Embeds, Predicts


class ScGen(External, Embeds, Predicts):
    """scGen (Lotfollahi, Wolf, Theis 2019) by its authors' package: a VAE and one shift of its codes an environment.

    loss = ½‖x − x̂‖² + ½·5e-5·KL, summed over genes and latents, averaged over cells. The network reads no labels.
    An environment's shift is the mean code of its training cells less that of the control's, both with as many cells of
    each content and equally many in all, by the package's own function; where data have no content all cells count as
    one. ``predict`` adds the target's shift to the means of cells' codes, less that of the cells' own environment, and
    decodes. The package adds shifts to cells of the control alone; for these the two agree. An environment that was not
    trained is not predicted. Network and batch norm are the package's; training is that of its tutorial: 100 epochs,
    early stopping after 25 without improvement, last weights. The fit is on the CPU.
    """

    name = "external:scgen"
    tags = frozenset({"external", "embedding", "prediction", "vae"})
    paper = "Lotfollahi, Wolf, Theis 2019, Nature Methods 16:715; scgen 2.1.0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"max_epochs": 5}}

    @dataclass(frozen=True)
    class Config:
        """Sizes and training."""

        n_latent: int = key(100, above=0)  # the package
        width: int = key(800, above=0)  # the package
        depth: int = key(2, above=0)  # the package
        dropout: float = key(0.2, least=0)  # the package
        minibatch: int = key(32, above=1)  # the package's tutorial, as the next two
        patience: int = key(25, above=0)
        max_epochs: int = key(100, above=0)
