"""Class against content: is the content code free of the class, and does changing the class change that alone?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics.blocks import probe_accuracy
from tasks.base import Fit, Known, Reference, scored
from tasks.datasets.base import labels
from tasks.datasets.reading import copies_of
from tasks.paired import INTEGRATION, components
from tasks.shared_private import blocks
from tasks.splits import handed, once
from tasks.unseen_cell_type import UnseenCellType, contents_of_shift

if TYPE_CHECKING:
    from anndata import AnnData

#: At most this many training cells are probed: a random sample.
MAX_PROBED = 800
N_COMPONENTS = 10


class ClassContent(UnseenCellType):
    """Separate the class (environment: a known condition or style) from the content (all else), LORD's setting.

    Units, held-out cells and training data are those of the task unseen-cell-type: a held-out content is never seen in
    any class but the control. So the same fit answers both tasks. The content code is ``embed_blocks()["shared"]``
    where the method has it, else ``embed``.

    Primary, both needed:

    - ``leakage_boosted``: the class, found by boosted trees in the content codes of the held-out cells and of the
      control cells of the same content that are hidden from methods. No other content is among them, so
      there is nothing but the class to find. Boosted rather than the mean of both probes: it is the stronger adversary,
      and a mean would reward a code for hiding the class from straight lines. An empty code leaks nothing.
    - ``skill`` of the swap: the class of control cells is swapped and the prediction is scored as in
      unseen-cell-type; 0 is the mean shift of the other contents. An empty code cannot do it.

    Where cells have replicates, the perturbed cells probed are those of the hidden control cells' replicates, or the
    replicate would tell the class.

    The floor is a code that has everything and separates nothing: a random encoder leaks less, since it knows less.
    Mean leakage, skill and ``transfer_error`` over 3 development draws, and the errors leakage and 1 − skill relative
    to the baseline's (geometric mean, standard error of the logarithm):

    ==================  =======  =====  ==============  =============  =============
    ifn-sim             leakage  skill  transfer error  leakage        1 − skill
    ==================  =======  =====  ==============  =============  =============
    floor               .78      −2.6   1               1.35 ± .07     3.70 ± .08
    PCA                 .78      .24    .62             1.35 ± .07     .86 ± .07
    baseline            .59      .13    .67             1              1
    structure           .01      .68    .52             .02            .35 ± .20
    ceiling             0        .81    .25             .01            .17 ± .21
    ==================  =======  =====  ==============  =============  =============

    On digits: floor .99, −3.6 and 1 (relative 1.16 and 5.3); PCA .99, .26, .83 (1.16, .88); baseline .85, .17, .79;
    structure .04, .93, .09 (.03, .05); ceiling 0, .97, .02 (.01, .03).

    Secondary are ``transfer_error``, as in unseen-cell-type, and some metrics of training cells, which the first unit
    of a fit alone has: ``conditional_leakage``, each content by itself; ``block_diagonality`` of content and class by
    shared and private block (leakage both ways; one code for both scores 0); ``cluster_ari`` of the contents; and the
    integration metrics of the content codes, with classes as batches and contents as labels.
    """

    name = "class-content"
    version = 3
    tags = frozenset({"disentanglement"})
    paper = "Gabbay & Hoshen 2020, ICLR: Demystifying Inter-Class Disentanglement (LORD)"
    datasets = UnseenCellType.datasets
    # mypy takes the parent's tuples, by their lengths, for the type
    requires = ("embed", "predict")  # type: ignore[assignment]
    primary = ("leakage_boosted", "skill")  # type: ignore[assignment]
    two_sided = True
    secondary = (  # type: ignore[assignment]
        "leakage_linear",
        "transfer_error",
        "conditional_leakage",
        "block_diagonality",
        "cluster_ari",
        "delta_pearson",
        "energy_distance",
        *INTEGRATION,
    )
    references = (  # type: ignore[assignment]
        Reference("floor", "PCA as the content code, and no change as the swap"),
        Reference("baseline", "PCA of cells less their class's mean shift; the swap adds the other class's"),
        Reference("structure", "the true latents as the code, and a linear readout of them as the swap", on="ifn-sim"),
        Reference(
            "structure", "PCA of the image made thick, and a grey dilation that is learned as the swap", on="digits"
        ),
        Reference("ceiling", "the true content as the code, and the ceiling of unseen-cell-type as the swap"),
    )
    question = "Which method keeps what a cell is apart from the class that it comes from?"
    unit = "content of one class"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    draws: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 8, "paper": 16}

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, probe the content codes for the class, and score the swap."""
        training = self.training_data(unit, seed)
        fitted = fit(training)
        swap = super().evaluate(lambda data: fitted, unit, seed)
        held_out = handed(self.data, self._probed(unit, seed))
        codes, classes = blocks(fitted, held_out)[0], labels(held_out, "environment")
        metrics = self.primary if self.primary_only else (*self.primary, *self.secondary)
        scores = {name: swap[name] for name in metrics if name in swap}
        scores |= scored(metrics, codes=codes, attribute=classes)
        if self.primary_only:
            return scores
        if unit != self.held_out(unit)[0]:  # what follows is of training cells, the same for all units of a fit
            return scores
        copies = copies_of(self.data)[self.data.obs_names.get_indexer(training.obs_names)]
        seen = once(np.random.default_rng([seed, 84]).permutation(training.n_obs), copies)[:MAX_PROBED]
        seen_cells = handed(training, seen)
        shared, private = blocks(fitted, seen_cells)
        seen_classes, contents = labels(seen_cells, "environment"), labels(seen_cells, "content")
        matrix = [[max(0.0, probe_accuracy(b, y)) for b in (shared, private)] for y in (contents, seen_classes)]
        return scores | scored(
            [name for name in metrics if name not in scores],
            codes=shared,
            attribute=seen_classes,
            batches=seen_classes,
            given=contents,
            labels=contents,
            matrix=np.array(matrix),
            before=components(np.asarray(seen_cells.X)),
            kbet=self.preset == "paper",
        )

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return a linear model without the mean shift (floor) or with it (baseline), or the truth (ceiling)."""
        if reference == "ceiling":
            swap = super().reference_fit("ceiling", unit, seed)
            labels = {name: np.unique(self.data.obs[name]) for name in (self.fields.content, self.fields.environment)}
            return lambda data: _Known(swap(data), labels)
        if reference == "structure":
            swap = super().reference_fit("structure", unit, seed)
            latents = self.data.obsm.get("factors")
            return lambda data: _Thickened(swap(data), data) if latents is None else _Latents(swap(data), self.data)
        return lambda data: _Linear(data, shifted=reference == "baseline")

    def _probed(self, unit: str, seed: int) -> np.ndarray:
        """Return the cells (indices) of one content, of all classes, that no method trained on."""
        control = self.cells(unit, seed).control
        held_out = np.flatnonzero((self.contents == unit) & (self.environments != self.fields.control))
        replicates = self._replicates
        if replicates is not None:
            alike = held_out[np.isin(replicates[held_out], replicates[control])]
            held_out = alike if len(alike) else held_out
        return once(np.sort(np.concatenate([control, held_out])), copies_of(self.data))


class _Linear:
    """x ↦ z = E (x − δ(class)), and back, D z + δ(other class); E and D are those of PCA.

    δ is the shift of the class from the control, the mean over the contents seen in both; or 0 throughout.
    """

    def __init__(self, data: AnnData, shifted: bool):
        from sklearn.decomposition import PCA

        fields = data.uns["fields"]
        self.shifted = shifted
        x, contents = np.asarray(data.X), labels(data, "content")
        classes = labels(data, "environment")
        control = classes == fields["control"]
        self.shifts = {str(name): np.zeros(x.shape[1]) for name in np.unique(classes)}
        for name in np.unique(classes[~control]) if shifted else ():
            of_class = classes == name
            of_content = [
                x[of_class & (contents == c)].mean(axis=0) - x[control & (contents == c)].mean(axis=0)
                for c in contents_of_shift(contents, of_class, control)
            ]
            self.shifts[str(name)] = np.mean(of_content, axis=0)
        self.pca = PCA(min(N_COMPONENTS, *x.shape), svd_solver="randomized", random_state=0)
        self.pca.fit(self._unshifted(data))

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the content codes."""
        return self.pca.transform(self._unshifted(data))

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the cells in the target class; unchanged where there is no shift."""
        if not self.shifted:
            return np.asarray(data.X)
        return self.pca.inverse_transform(self.embed(data)) + self.shifts[target_environment]

    def _unshifted(self, data: AnnData) -> np.ndarray:
        classes = labels(data, "environment")
        return np.asarray(data.X) - np.stack([self.shifts[name] for name in classes])


class _Known:
    """The content and the class, one-hot, as blocks, and a swap that is known."""

    def __init__(self, swap: Any, labels: dict[str, np.ndarray]):
        self.predict, self.labels = swap.predict, labels

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the content (n_cells, n_contents)."""
        return self.embed_blocks(data)["shared"]

    def embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        """Return the content as the shared and the class as the private block."""
        content, environment = (
            (data.obs[name].to_numpy(str)[:, None] == values.astype(str)).astype(np.float32)
            for name, values in self.labels.items()
        )
        return {"shared": content, "private": environment}


class _Latents(Known):
    """The true latents, and a swap that is made of them."""

    def __init__(self, swap: Any, data: AnnData):
        super().__init__(data, data.obsm["factors"])
        self.predict = swap.predict


class _Thickened:
    """PCA of images of which the plain ones are first made thick, by the swap."""

    def __init__(self, swap: Any, training: AnnData):
        from sklearn.decomposition import PCA

        self.predict, self.control = swap.predict, training.uns["fields"]["control"]
        self.pca = PCA(N_COMPONENTS, svd_solver="randomized", random_state=0).fit(self._thick(training))

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the content codes."""
        return self.pca.transform(self._thick(data))

    def _thick(self, data: AnnData) -> np.ndarray:
        plain = labels(data, "environment") == self.control
        return np.where(plain[:, None], self.predict(data, ""), np.asarray(data.X))
