"""The contract of a task."""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metrics import METRICS
from tasks.datasets.base import DataError, Dataset, Fields, labels
from tasks.datasets.memory import Selected
from tasks.datasets.reading import copies_of
from tasks.preprocessing import chosen_genes

if TYPE_CHECKING:
    from anndata import AnnData

#: Fits a method to the cells that it is handed and returns the fitted method. The runner supplies it. Its attribute
#: ``again``, where it has one, does the same with another seed.
Fit = Callable[["AnnData"], Any]

PRESETS = ("smoke", "default", "paper")


@dataclass(frozen=True)
class Reference:
    """A reference score that belongs to the task.

    Attributes
    ----------
    name
        ``floor`` (knows nothing), ``baseline`` (the strongest simple method), ``structure`` (a simple method that is
        handed the simulator's true structure, such as its latents, and not the answer) or ``ceiling`` (the best score
        in reach).
    description
        What it does, in a phrase.
    methods
        Registered methods that stand for it. If there are several, the method with the best score on the inner units
        (:meth:`Task.inner`) is taken. Empty: the task builds it itself, in :meth:`Task.reference_fit`.
    on
        ``simulated``, ``real`` or the name of a data set: where the reference exists. Empty: everywhere.
    """

    name: str
    description: str
    methods: tuple[str, ...] = ()
    on: str = ""


def scored(metrics: Iterable[str], **arrays: Any) -> dict[str, float]:
    """Return the value of each of these metrics whose arguments are all there.

    Parameters
    ----------
    metrics
        Names of registered metrics.
    arrays
        The arguments, by the names of the metrics' parameters. A parameter that has a default may be missing. A metric
        without the arguments that it needs, such as labels that the data do not have, is left out.
    """
    scores: dict[str, float] = {}
    computed: dict[Callable[..., Any], dict[str, float]] = {}
    for name in metrics:
        function, parameters = _function(name)
        if any(p.default is p.empty and p.name not in arrays for p in parameters.values()):
            continue
        if function not in computed:
            values = function(**{key: arrays[key] for key in parameters if key in arrays})
            computed[function] = values if isinstance(values, dict) else {name: values}
        if name in computed[function]:
            scores[name] = computed[function][name]
    return scores


def _function(name: str) -> tuple[Callable[..., Any], Mapping[str, inspect.Parameter]]:
    """Return the function that computes a metric, perhaps with others, and its parameters."""
    function = getattr(METRICS[name], "family", METRICS[name])
    return function, inspect.signature(function).parameters


class Task(ABC):
    """A question asked of every method: what is held out, what is handed over, how the answer is scored.

    Parameters
    ----------
    dataset
        Where the cells come from.
    preset
        ``smoke``, ``default`` or ``paper``: how many units and seeds, and how large a simulation.
    primary_only
        Leave the secondary metrics out, as when a baseline is chosen on inner units.
    draw
        Which draw of a simulated data set. Draws from 1,000 on are for development: no board shows them.
    """

    name: ClassVar[str]
    #: This number grows whenever a score changes its meaning; scores of two versions are never compared.
    version: ClassVar[int]
    tags: ClassVar[frozenset[str]]
    paper: ClassVar[str]
    #: Names of the data sets that it runs on.
    datasets: ClassVar[tuple[str, ...]]
    #: Data sets that are run only when named, or by the tag ``stress``.
    stress: ClassVar[tuple[str, ...]] = ()
    #: What a method must be able to do.
    requires: ClassVar[tuple[str, ...]]
    #: Whether it asks for combinations "A+B" of trained environments.
    combines: ClassVar[bool] = False
    #: The metrics that make the score; all of them are needed.
    primary: ClassVar[tuple[str, ...]]
    #: The primary metrics on a data set that lacks what the others need, by its name; see :meth:`primary_of`.
    primary_on: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Whether a poor method can score well in each of them alone, so that a score needs all of them.
    two_sided: ClassVar[bool] = False
    #: Whether all units of a draw and seed are scored from one and the same fit.
    one_fit: ClassVar[bool] = False
    #: The metrics that are shown beside the primary ones.
    secondary: ClassVar[tuple[str, ...]]
    #: References on all data sets; :attr:`references_here` has those of one.
    references: ClassVar[tuple[Reference, ...]]
    #: Options of the command line that name the columns of a user's file, and the field of each; empty: not offered.
    columns: ClassVar[Mapping[str, str]] = {}
    #: What it asks, in words of its users.
    question: ClassVar[str]
    #: What is held out, in a word ("cancer", "cell type").
    unit: ClassVar[str]
    #: Whether the data must name the control among the environments.
    needs_control: ClassVar[bool] = False
    #: Configuration that the task fixes for every method that has the key, such as the size of the code.
    settings: ClassVar[Mapping[str, Any]] = {}
    #: The same on one data set, by its name; see :meth:`settings_of`.
    settings_on: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: Settings that make a further row of a method, by its name.
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: Seeds a preset runs.
    seeds: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 1, "paper": 5}
    #: Draws of a simulated data set that a preset runs: the replicates of intervals and tests. ``default/digits`` holds
    #: those of one data set.
    draws: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 1, "paper": 1}

    def __init__(self, dataset: Dataset, preset: str = "default", primary_only: bool = False, draw: int = 0):
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r}: one of {', '.join(PRESETS)} is needed")
        self.dataset = dataset
        self.preset = preset
        self.primary_only = primary_only
        self.draw = draw

    @classmethod
    def primary_of(cls, dataset: str) -> tuple[str, ...]:
        """Return the primary metrics on a data set, by its name."""
        return cls.primary_on.get(dataset, cls.primary)

    @classmethod
    def settings_of(cls, dataset: str) -> Mapping[str, Any]:
        """Return the configuration that the task fixes on a data set, by its name."""
        return cls.settings_on.get(dataset, cls.settings)

    @property
    def n_draws(self) -> int:
        """How many draws the preset runs; 1 for real data."""
        of_preset = self.draws[self.preset]
        return self.draws.get(f"{self.preset}/{self.dataset.name}", of_preset) if self.dataset.simulated else 1

    @property
    def references_here(self) -> tuple[Reference, ...]:
        """The references that exist on the data set: of those of one name, the first that does."""
        here = {"", self.dataset.name, "simulated" if self.dataset.simulated else "real"}
        by_name: dict[str, Reference] = {}
        for reference in self.references:
            if reference.on in here:
                by_name.setdefault(reference.name, reference)
        return tuple(by_name.values())

    @cached_property
    def data(self) -> AnnData:
        """The data set, read once and checked.

        Its expression is that of the data set, not copied. Where names of cells repeat, as they may in a file, they
        are replaced by positions, so that a name stands for one cell.
        """
        from anndata import AnnData

        read = self.dataset.load(self.preset, self.draw)
        obs = read.obs if read.obs_names.is_unique else read.obs.set_axis(np.arange(read.n_obs).astype(str), axis=0)
        data = AnnData(
            read.X, obs=obs, var=read.var, uns=dict(read.uns), obsm=dict(read.obsm), layers=dict(read.layers)
        )
        self.check(data)
        return data

    def notes(self) -> list[str]:
        """Return sentences that a run prints about the data: cells left out, and labels that look misspelt."""
        from tasks.datasets.checks import notes_of_labels

        copies = copies_of(self.data)
        n_copies = int((copies != np.arange(len(copies))).sum())
        copied = (
            f"{n_copies} of {len(copies)} cells are exact copies of another cell; copies of a cell are never on both "
            "sides of a split"
        )
        return [*([copied] if n_copies else []), *notes_of_labels(self.data, self.fields)]

    @cached_property
    def fields(self) -> Fields:
        """Which columns of the data mean what."""
        return Fields.of(self.data)

    @cached_property
    def environments(self) -> np.ndarray:
        """Each cell's environment, (n_cells,)."""
        return labels(self.data, "environment")

    @cached_property
    def contents(self) -> np.ndarray:
        """Each cell's content, (n_cells,)."""
        return labels(self.data, "content")

    def check(self, data: AnnData) -> None:
        """Raise DataError, naming data set and column, when the task cannot be run on ``data``."""
        from tasks.datasets.checks import check_expression, check_fields, listed

        check_expression(data, self.dataset.name)
        fields = Fields.of(data)
        check_fields(data, fields, self.dataset.name)
        if self.needs_control and not fields.control:
            raise DataError(
                f"{self.dataset.name}: the control is not named; with --data, add control=… to --columns: one of "
                f"{listed(sorted(set(data.obs[fields.environment].astype(str))))}"
            )

    @abstractmethod
    def units(self) -> list[str]:
        """Return the units that are held out one at a time; raises DataError when there is none."""

    def handed(self, cells: np.ndarray) -> AnnData:
        """Return what a method may see of cells, given by a mask or by indices."""
        from tasks.splits import handed

        return handed(self.data, cells)

    @abstractmethod
    def training_data(self, unit: str, seed: int) -> AnnData:
        """Return all that a method may see when ``unit`` is held out."""

    def scores(self, **arrays: Any) -> dict[str, float]:
        """Return the value of each of the task's metrics whose arguments are all there; see :func:`scored`.

        Raises
        ------
        TypeError
            No metric of the task has a parameter of the name of an array, so that the name is misspelt.
        """
        primary = self.primary_of(self.dataset.name)
        everything = (*primary, *self.secondary)
        known = {parameter for metric in everything for parameter in _function(metric)[1]}
        if unknown := sorted(set(arrays) - known):
            raise TypeError(
                f"{self.name}: no metric of the task takes {', '.join(unknown)}; their parameters are "
                f"{', '.join(sorted(known))}"
            )
        return scored(primary if self.primary_only else everything, **arrays)

    @abstractmethod
    def evaluate(self, fit: Fit, unit: str, seed: int) -> dict[str, float]:
        """Fit with ``unit`` held out and return the value of each metric; NaN where one is undefined."""

    @abstractmethod
    def reference_fit(self, reference: str, unit: str, seed: int) -> Fit:
        """Return the ``fit`` of a reference that the task builds itself; it may look at the held-out truth."""

    def prepared(self, unit: str, seed: int) -> Task:
        """Return the task that evaluates a split: itself, or itself on the genes that are chosen there.

        Where the data set has ``n_genes``, this task is on all genes, perhaps sparse, and good for units, splits and
        training cells alone. Genes are chosen on ``training_data(unit, seed)`` and nothing else, also where a fit is
        handed more (``reembedding`` makes one with the unit); every method, reference, metric and inner unit of the
        split uses these genes.
        """
        if not self.dataset.n_genes:
            return self
        selected = Selected(self.dataset, self.genes(unit, seed))
        return type(self)(selected, self.preset, self.primary_only, self.draw)

    def genes(self, unit: str, seed: int) -> np.ndarray:
        """Return the indices of the genes that are chosen when ``unit`` is held out."""
        classes = [sys.modules[cls.__module__] for cls in type(self).__mro__]
        sources = [Path(name) for module in classes if (name := getattr(module, "__file__", None))]
        key = (self.name, self.dataset.digest(self.preset), str(self.draw), unit, str(seed))
        return chosen_genes(lambda: self.training_data(unit, seed), self.dataset.n_genes, key, sources)

    def inner(self, unit: str) -> Task:
        """Return the same task without ``unit``, so that baselines and configurations are chosen without seeing it."""
        raise DataError(f"{self.name} cannot be nested: it has no inner units")


class Drawn(Task):
    """A task whose unit is a whole draw of a simulator, or a random split of real cells."""

    #: How many splits of real cells a preset runs.
    splits: ClassVar[Mapping[str, int]] = {"smoke": 1, "default": 5, "paper": 10}

    def units(self) -> list[str]:
        """Return the draw, or the splits of a real data set, by their numbers."""
        if self.dataset.simulated:
            return [f"draw{self.draw}"]
        return [f"split{i}" for i in range(self.splits[self.preset])]


class Known:
    """A fitted method whose codes are known beforehand, by the names of cells."""

    def __init__(self, data: AnnData, codes: np.ndarray):
        self.names, self.codes = data.obs_names, codes

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        return self.codes[self.names.get_indexer(data.obs_names)]
