"""Shared against private variation: is what groups of cells have in common kept apart from what each has alone?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics.blocks import MIN_PER_GROUP, Probe, probe_accuracy
from metrics.latents import processes_of
from tasks.base import Drawn, Fit, Reference, scored
from tasks.datasets.base import DataError, labels
from tasks.datasets.reading import copies_of
from tasks.paired import INTEGRATION, components
from tasks.splits import dealt, distinct, handed, once, without_copies

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Share of the cells of each group and cell type that methods are trained on.
TRAINING = 0.5
#: A cell type is probed in a group where it has at least this many cells; half of them are scored.
MIN_CELLS = 2 * MIN_PER_GROUP
#: At most this many held-out cells are scored: a random sample.
MAX_SCORED = 1000
#: Components that the linear baseline works in, and the widths of its blocks.
N_COMPONENTS, N_SHARED, N_PRIVATE = 50, 10, 2


class SharedPrivate(Drawn):
    """Learn a shared block of codes (variation of all groups) and a private block (variation of one group alone).

    Units are draws of the simulator; of a real data set, random splits of its cells. Methods train on half of the
    cells of every group (environment) and cell type and embed the others, which score. Blocks are the method's
    ``embed_blocks``, whose private block holds the codes of all groups side by side, zero for cells of other groups. A
    method without it has one code, which stands for both blocks. Both blocks then know the same, so that it scores 0 in
    ``block_diagonality``, whatever it has learned.

    The cell type belongs to the shared block; the group, and the programs where the data have them
    (``obs["program"]``, the truth, which no method sees; each occurs in one group alone), to the private one. Private
    latents have a meaning on the cells of their group only. So the probes ask for cell type and program within each
    group, in both blocks, and the mean over groups is taken; they ask for the group over all cells.

    Primary: ``block_diagonality`` of the matrix (:func:`block_matrix`) of shared and private factors by shared and
    private block. Its two rows weigh the same, so that any single code scores 0: everything in one block, everything in
    both, nothing at all. It asks that everything be there, and in its place. What the shared block knows of the group
    is in the matrix; beside it ``conditional_leakage`` asks for the group within cell types, so that groups may differ
    in their composition. It was primary, too, but the baseline has next to none (.07 to .22, from probes of some 25
    cells a type), so that an error relative to it is mostly noise.

    How hard a draw is stands beside each row: ``findability``, by contrastive PCA and k-means, of the programs of the
    held-out cells (over 12 development draws .77 ± .21, from .50 to 1), and ``bayes_accuracy``, of the true model (.996
    to 1).

    The floor is the code that has everything and separates nothing. Mean and standard deviation over 8 development
    draws, and the error relative to the baseline's (geometric mean, standard error of the logarithm):

    ============  =================  ===============
    method        block_diagonality  relative error
    ============  =================  ===============
    floor         0                  8.2 ± .1
    multiGroupVI  .57 ± .09          3.4 ± .1
    baseline      .875 ± .026        1
    structure     .974 ± .014        .18 ± .26
    ceiling       .980 ± .012        .11 ± .43
    ============  =================  ===============
    """

    name = "shared-private"
    version = 2
    tags = frozenset({"disentanglement"})
    paper = "Weinberger et al. 2022, multiGroupVI, github.com/Genentech/multiGroupVI"
    datasets = ("splatter-groups", "marques", "pbmc-3tech", "haber-regions")
    requires = ("embed",)
    primary = ("block_diagonality",)
    secondary = (
        "conditional_leakage",
        "leakage_linear",
        "leakage_boosted",
        "cluster_ari",
        "cluster_nmi",
        "findability",
        "bayes_accuracy",
        "lms_smi",
        "msas_smi",
        "msgs_smi",
        *INTEGRATION,
    )
    references = (
        Reference("floor", "PCA, one code that stands for both blocks", ("pca",)),
        Reference("baseline", "PCA without group means, and contrastive PCA of each group as the private block"),
        Reference("structure", "what a cell's counts say of type and program by the true means", on="simulated"),
        Reference("ceiling", "the true factors as blocks"),
    )
    question = "Which method separates what groups share from what each has for itself?"
    unit = "simulation draw or split of the cells"
    columns: ClassVar[Mapping[str, str]] = {"group": "environment", "cell_type": "content", "replicate": "replicate"}
    draws: ClassVar[Mapping[str, int]] = {"smoke": 2, "default": 10, "paper": 10}
    splits: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 3, "paper": 10}

    def check(self, data: AnnData) -> None:
        """Require also a cell type in two groups, and a group with two cell types, with enough cells to probe."""
        super().check(data)
        fields = self.dataset.fields
        if not fields.content:
            raise DataError(f"{self.dataset.name}: its fields name no column of cell types, which the blocks share")
        obs = data.obs[[fields.environment, fields.content]].astype(str)
        sizes = (
            obs[distinct(copies_of(data), *(obs[name] for name in obs))].value_counts().rename_axis(["group", "type"])
        )
        enough = sizes[sizes >= MIN_CELLS].reset_index()
        if enough["type"].is_unique or enough["group"].is_unique:
            raise DataError(
                f"{self.dataset.name}: a label of obs[{fields.content!r}] with {MIN_CELLS} or more cells in two of the "
                f"groups obs[{fields.environment!r}], and a group with as many cells of two labels, are needed; there "
                f"are {len(enough)} pairs of group and label with as many cells"
            )

    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return half of the cells of every group and cell type."""
        return handed(self.data, self._split(unit, seed)[0])

    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit, embed the other half in blocks, and ask each block for each factor."""
        data = self.data
        training, test = self.training_data(unit, seed), self._split(unit, seed)[1]
        fitted = fit(training)
        held_out = handed(data, test)
        types, groups = labels(held_out, "content"), labels(held_out, "environment")
        programs = data.obs["program"].to_numpy(str)[test] if "program" in data.obs else None
        shared, private = blocks(fitted, held_out)
        shared_code = {"codes": shared, "attribute": groups, "given": types, "labels": types, "batches": groups}
        shared_code["processes"] = processes_of(types)
        leakage = scored(("leakage_boosted",), **shared_code)
        matrix = block_matrix(shared, private, types, groups, programs, leakage["leakage_boosted"])
        scores = scored(self.primary, matrix=matrix, **shared_code)
        if self.primary_only:
            return scores
        if programs is not None:
            linear = _LinearBlocks(training).embed_blocks(held_out)["private"]
            scores |= scored(("findability",), private=linear, programs=programs, groups=groups)
        if "programs" in data.obsm:
            true = one_hot(data.obs["program"])[test]
            scores |= scored(("bayes_accuracy",), posterior=data.obsm["programs"][test], one_hot=true)
        others = [name for name in self.secondary if name not in leakage]
        before, kbet = components(np.asarray(held_out.X)), self.preset == "paper"
        return scores | leakage | scored(others, before=before, kbet=kbet, **shared_code)

    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return linear blocks (baseline), the posterior of the true factors (structure), or the true factors."""
        data, fields = self.data, self.dataset.fields
        if reference == "baseline":
            return _LinearBlocks
        if reference == "structure":
            return lambda training: _KnownBlocks(data, data.obsm["types"], data.obsm["programs"])
        return lambda training: _KnownBlocks(data, *true_blocks(data.obs, fields.content, fields.environment))

    def _split(self, unit: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return training and scored cells (indices)."""
        rng = np.random.default_rng([seed, 83, int(unit.removeprefix("draw").removeprefix("split"))])
        obs, fields = self.data.obs, self.dataset.fields
        copies = copies_of(self.data)
        pairs = np.array([f"{g}\x1f{c}" for g, c in zip(obs[fields.environment], obs[fields.content], strict=True)])
        training = np.zeros(len(pairs), dtype=bool)
        for pair in np.unique(pairs):
            cells = rng.permutation(np.flatnonzero(pairs == pair))
            training[dealt(cells, int(np.ceil(TRAINING * len(cells))), copies)[0]] = True
        scored = rng.permutation(np.flatnonzero(~training))
        return np.flatnonzero(without_copies(self.data, training)), np.sort(once(scored, copies)[:MAX_SCORED])


def blocks(fitted: Any, data: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return the shared and the private codes of ``data``; without blocks the whole code stands for both."""
    if hasattr(fitted, "embed_blocks"):
        codes = fitted.embed_blocks(data)
        return codes["shared"], codes["private"]
    code = fitted.embed(data)
    return code, code


def block_matrix(
    shared: np.ndarray,
    private: np.ndarray,
    types: np.ndarray,
    groups: np.ndarray,
    programs: np.ndarray | None = None,
    leakage: float | None = None,
) -> np.ndarray:
    """Return what the shared and the private block know of shared and private factors, (2, 2) in [0, 1].

    Rows are the cell type (linear probe), and the mean of program, where given, and group (boosted); columns are the
    blocks. Entries are held-out balanced accuracies between chance, 0, and perfect, 1; below chance counts as 0.

    Parameters
    ----------
    shared, private
        Codes (n_cells, n_latent of the block).
    types, groups, programs
        Labels (n_cells,).
    leakage
        How well a boosted probe finds the group in the shared block, where that is known already.
    """

    def within(codes: np.ndarray, labels: np.ndarray, probe: Probe) -> float:
        accuracies = [probe_accuracy(codes[groups == g], labels[groups == g], probe) for g in np.unique(groups)]
        return float(np.nanmean(np.maximum(accuracies, 0.0)))

    def private_factors(codes: np.ndarray, known: float | None = None) -> float:
        group = max(0.0, probe_accuracy(codes, groups, "boosted") if known is None else known)
        return group if programs is None else (group + within(codes, programs, "boosted")) / 2

    columns = [(within(shared, types, "linear"), private_factors(shared, leakage))]
    columns.append(columns[0] if private is shared else (within(private, types, "linear"), private_factors(private)))
    return np.array(columns).T


class _LinearBlocks:
    """Group means removed, and contrastive PCA (Abid et al. 2018, Nature Communications 9:2134).

    Both are made in the first principal components of the centred cells. The private directions of a group are the
    leading eigenvectors of (its covariance − the mean covariance of the other groups). The shared directions are the
    principal components of what is left when all private directions are projected out. Private codes of cells of other
    groups are zero.
    """

    def __init__(self, data: AnnData):
        from sklearn.decomposition import PCA

        x, groups = np.asarray(data.X), labels(data, "environment")
        self.groups = np.unique(groups)
        self.means = {g: x[groups == g].mean(axis=0) for g in self.groups}
        centred = x - np.stack([self.means[g] for g in groups])
        self.pca = PCA(min(N_COMPONENTS, *x.shape), svd_solver="randomized", random_state=0).fit(centred)
        z = self.pca.transform(centred)
        covariances = np.stack([np.cov(z[groups == g].T) for g in self.groups])
        n_others = max(1, len(self.groups) - 1)
        self.private = [
            np.linalg.eigh(group - (covariances.sum(axis=0) - group) / n_others)[1][:, -N_PRIVATE:]
            for group in covariances
        ]
        span = np.linalg.svd(np.hstack(self.private), full_matrices=False)[0]
        rest = z - z @ span @ span.T
        self.shared = np.linalg.svd(rest, full_matrices=False)[2][:N_SHARED].T

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the shared block."""
        return self.embed_blocks(data)["shared"]

    def embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        """Return both blocks; the private one holds each group's codes side by side."""
        groups = labels(data, "environment")
        z = self.pca.transform(np.asarray(data.X) - np.stack([self.means[g] for g in groups]))
        private = [z @ axes * (groups == g)[:, None] for g, axes in zip(self.groups, self.private, strict=True)]
        return {"shared": z @ self.shared, "private": np.hstack(private)}


def one_hot(labels: Any) -> np.ndarray:
    """Return 1 for the label of each cell and 0 for the others, in alphabetical order, (n_cells, n_labels)."""
    values = np.asarray(labels).astype(str)
    return (values[:, None] == np.unique(values)).astype(np.float32)


def true_blocks(obs: pd.DataFrame, content: str, environment: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the true factors, one-hot: the cell type, and the programs that one group alone has (else the groups).

    The private block is of width 0 where nothing is private.
    """
    private = obs["program" if "program" in obs else environment].astype(str)
    n_groups = obs[environment].astype(str).groupby(private).nunique()
    return one_hot(obs[content]), one_hot(private)[:, n_groups.to_numpy() == 1]


class _KnownBlocks:
    """Blocks that are known beforehand, by the names of cells."""

    def __init__(self, data: AnnData, shared: np.ndarray, private: np.ndarray):
        self.names, self.codes = data.obs_names, {"shared": shared, "private": private}

    def embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        """Return both blocks, (n_cells, n_latent of the block) each."""
        rows = self.names.get_indexer(data.obs_names)
        return {name: codes[rows] for name, codes in self.codes.items()}
