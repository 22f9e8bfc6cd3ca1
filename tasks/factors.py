"""Classic disentanglement: known independent factors, discrete and continuous, against the learned codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics.latents import processes_of
from tasks.base import Drawn, Fit, Known, Reference
from tasks.datasets.base import DataError
from tasks.datasets.reading import copies_of
from tasks.paired import CURVATURES, curvature_scores
from tasks.simulate import factor_expression, factor_images
from tasks.splits import handed, once, parted

if TYPE_CHECKING:
    from anndata import AnnData

#: Share of the cells that methods are trained on.
TRAINING = 2 / 3
#: At most this many held-out cells are scored: a random sample.
MAX_SCORED = 2000


class Factors(Drawn):
    """Recover independent factors, each in a code of its own.

    A unit is one draw of the simulator, or a random split of real cells. Methods train on two thirds of the cells,
    without the factors, and embed the rest, which score. Every method has 10 codes, as usual on dSprites (Locatello et
    al. 2019), for 5 or 6 factors: a method is not told how many there are.

    Primary, both needed: ``mig``, which asks whether a factor sits in one code and is blind to a code that holds
    several, and ``dci_disentanglement``, which asks whether a code holds one factor and is blind to a factor
    spread over many codes. DCI's learner is gradient boosting, fitted once for its three scores; other learners'
    scores cannot be compared with these.

    The baseline is FastICA on expression, whose factors are independent and mostly not normal, and PCA on images.
    ``structure`` fits factors to each cell by the true programs, or takes those of the nearest of 20,000 renderings: no
    method can be expected to know more. Mean MIG and DCI-D over 4 (images 3) development draws, standard deviations at
    most .08, and the mean of both errors relative to the baseline's (geometric mean over draws):

    =================  ==================  ========  ==============  ========
    method             expression          relative  images          relative
    =================  ==================  ========  ==============  ========
    random projection  .02, .06            1.47      .02, .16        1.28
    PCA                .08, .26            1.25      .08, .45        1
    FastICA            .22, .45            1         .03, .22        1.22
    VAE                .08, .27            1.25
    β-TCVAE            .09, .25            1.25
    structure          .28, .56            .86       .59, .93        .23
    ceiling            .83, 1              .05       .94, 1          .03
    =================  ==================  ========  ==============  ========

    ``rnamix`` has the factors of its wells: three proportions, log2 amount, protocol. Proportions depend on each other,
    so that their very values as codes have a MIG of .51 and DCI-D of .77: that is the ceiling. Over three splits random
    projection .03 and .06, FastICA .24 and .41, PCA, the baseline, .28 and .41.
    """

    name = "factors"
    version = 2
    tags = frozenset({"disentanglement"})
    paper = "Locatello et al. 2019, ICML; Chen et al. 2018, NeurIPS (MIG); Eastwood & Williams 2018, ICLR (DCI)"
    datasets = ("factor-images", "factor-expression", "rnamix")
    requires = ("embed",)
    primary = ("mig", "dci_disentanglement")
    secondary = (
        "dci_completeness",
        "dci_informativeness",
        "sap",
        "modularity",
        "explicitness",
        "infom",
        "infoc",
        "infoe",
        "factor_vae_score",
        "beta_vae_score",
        "irs",
        "lms_smi",
        "msas_smi",
        "msgs_smi",
        "lms_asc",
        "msas_asc",
        "msgs_asc",
        *CURVATURES,
    )
    references = (
        Reference("floor", "a frozen random projection", ("random-projection",)),
        Reference("baseline", "FastICA", ("fastica",), on="factor-expression"),
        Reference("baseline", "PCA", ("pca",)),
        Reference("structure", "the factors that explain a cell best, by the true structure", on="simulated"),
        Reference("ceiling", "the true factors as the codes"),
    )
    question = "Which method finds the independent factors of the data, one by one?"
    unit = "simulation draw or split of the cells"
    settings: ClassVar[Mapping[str, Any]] = {"n_latent": 10}
    draws: ClassVar[Mapping[str, int]] = {"smoke": 2, "default": 10, "paper": 10}

    def check(self, data: AnnData) -> None:
        """Require also the true factors."""
        super().check(data)
        if "factors" not in data.obsm:
            raise DataError(f"{self.dataset.name}: obsm['factors'], the truth, is needed")

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return two thirds of the cells."""
        return handed(self.data, self._split(unit, seed)[0])

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, embed the other cells, and compare the codes with the factors."""
        test, training = self._split(unit, seed)[1], self.training_data(unit, seed)
        fitted = fit(training)
        codes = fitted.embed(handed(self.data, test))
        factors = self.data.obsm["factors"][test]
        arrays = {"codes": codes, "factors": factors, "seed": seed}
        if (processes := processes_of(factors)).shape[1]:  # levels of discrete factors, where there are any
            arrays["processes"] = processes
        scores = self.scores(**arrays)
        return scores if self.primary_only else scores | curvature_scores(fitted, training)

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the ceiling, whose codes are the true factors, or the structure, which fits factors to each cell."""
        data = self.data
        if reference == "structure":
            return lambda training: _Structure(data.uns["structure"])
        return lambda training: Known(data, data.obsm["factors"])

    def _split(self, unit: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return training and scored cells (indices)."""
        training, scored = parted(self.data, unit, seed, TRAINING)
        return np.sort(training), np.sort(once(scored, copies_of(self.data))[:MAX_SCORED])


class _Structure:
    """The simulator's true structure, which tells the factors of a cell or an image."""

    def __init__(self, structure: Mapping[str, Any]):
        self.structure = structure

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the factors (n_cells, n_factors)."""
        if "counts" in data.layers:
            return factor_expression.factors_of(np.asarray(data.layers["counts"]), self.structure)
        return factor_images.factors_of(np.asarray(data.X), self.structure)
