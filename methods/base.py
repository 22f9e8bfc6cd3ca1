"""The contract of a method, and the little that methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

#: What a method may be able to do besides ``fit``; having the attribute is having the ability.
ABILITIES = (
    "embed",
    "decode",
    "predict",
    "adapt",
    "intervention_targets",
    "log_likelihood",
    "embed_blocks",
    "derivative_gram",
)

PRESETS = ("smoke", "default", "paper")
#: What a configuration's value may be where its default does not say.
PLAIN = (bool, int, float, str, type(None))


class CannotFit(Exception):
    """A method meets data that it is not made for; the cell is skipped with this as the reason."""


class Apart(Exception):
    """Fits that were to be made in one pass must each be made alone."""


class ConfigError(ValueError):
    """A configuration that no data could make right; the message names the key and the allowed values."""


@dataclass(frozen=True)
class Search:
    """Where the value of a configuration key is looked for when a method is tuned.

    Attributes
    ----------
    low, high
        Limits of a number, both allowed; whole numbers where the default is one.
    log
        Whether a tenfold larger value is one step, as for rates and weights.
    choices
        Instead of limits: the values to choose from.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()


def searched(
    default: Any, low: float = 0.0, high: float = 0.0, *, log: bool = False, choices: tuple[Any, ...] = ()
) -> Any:
    """Return a default of a ``Config`` that ``bench tune`` may change, with its :class:`Search`."""
    return field(default=default, metadata={"search": Search(low, high, log, choices)})


class Method(ABC):
    """A method: a configuration, a ``fit``, and any of the abilities below.

    A subclass sets ``name``, ``tags`` and ``reference``, may nest a frozen dataclass ``Config`` (each
    default with its source in a comment, those that tuning may change as :func:`searched`) and ``presets`` that
    replace defaults for ``smoke`` or ``paper``.

    Abilities, each present only where the method has it:

    - ``embed(data) -> (n_cells, n_latent)`` codes, without changing the fitted state;
    - ``decode(codes) -> (n_cells, n_genes)`` expected expression on the scale of ``data.X``;
    - ``predict(data, target_environment) -> (n_cells, n_genes)`` the same cells in another environment;
    - ``adapt(data) -> method``: a copy that also knows the environments of ``data``, from those few cells;
      whatever is not of these environments alone (encoder, decoder) stays as it is, and so does this method;
    - ``intervention_targets() -> (n_perturbations, n_latent)`` in [0, 1], the trained perturbations sorted, then
      those that ``adapt`` added;
    - ``log_likelihood(data, n_samples) -> (n_cells,)``;
    - ``embed_blocks(data) -> {"shared": codes, "private": codes}``;
    - ``derivative_gram(codes) -> (n_cells, k, k)``: inner products of the decoder's first and second derivatives.

    A method that can hand over its fitted state as ``state()`` and take it back with ``restore(state)``
    (arrays, numbers, strings and lists of them) is cached on disk between cells; any other is fitted anew.
    """

    name: ClassVar[str]
    tags: ClassVar[frozenset[str]] = frozenset()
    reference: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: The key of the configuration that is the size of the code, which tasks fix as ``n_latent``.
    code_size: ClassVar[str] = "n_latent"
    #: Whether a fit takes a GPU where there is one.
    uses_gpu: ClassVar[bool] = False
    #: Whether seeds can be fitted in one pass, by ``fit_together(methods, datasets, seeds)``. A class says so for
    #: itself: what a subclass of it does in its loss may not be made for it.
    replicas: ClassVar[bool] = False
    #: Whether ``embed`` lays out the cells that it is given together, so that a code depends on the others (UMAP).
    embeds_together: ClassVar[bool] = False
    #: Whether ``predict`` also answers for an environment never trained, which any other method refuses by CannotFit.
    predicts_untrained: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """Nothing to configure."""

    def __init__(self, config: Any = None):
        self.config: Any = self.Config() if config is None else config
        #: Training curves: the name of a loss term to its value at each epoch.
        self.history: dict[str, list[float]] = {}
        #: Set by an iterative method whose fit ended without converging, with the reason.
        self.unconverged: str = ""
        #: Remarks on the fit, as why it stopped.
        self.log: list[str] = []

    def note(self, remark: str) -> None:
        """Add a remark to the log, once."""
        if remark not in self.log:
            self.log.append(remark)

    @classmethod  # noqa: B027 - doing nothing is a fine thing to do
    def preload(cls) -> None:
        """Import or compile, once for all cells, what every fit needs; called where nothing else runs.

        Cells are forked from the process that calls this, so it must not ask PyTorch for a GPU.
        """

    @abstractmethod
    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit to ``data`` (``X`` as C-contiguous float32, columns named in ``uns["fields"]``); return self."""

    @classmethod
    def abilities(cls) -> frozenset[str]:
        """Return what this method can do, of :data:`ABILITIES`."""
        return frozenset(ability for ability in ABILITIES if hasattr(cls, ability))

    @classmethod
    def fits_together(cls) -> bool:
        """Return whether this very class has ``replicas``."""
        return bool(vars(cls).get("replicas", False))

    @classmethod
    def search_space(cls) -> dict[str, Search]:
        """Return the keys of the configuration that can be tuned, and where."""
        return {key.name: key.metadata["search"] for key in fields(cls.Config) if "search" in key.metadata}

    @classmethod
    def depends(cls) -> str:
        """Return what results depend on besides the source and the configuration, such as a package's version."""
        return ""

    @classmethod
    def configure(cls, preset: str = "default", dataset: str = "", **changes: Any) -> Any:
        """Return the configuration of a preset with some values changed.

        ``presets["paper/kang"]`` is what ``paper`` changes further on the data set kang.

        Raises
        ------
        ConfigError
            An unknown preset or key, or a value of the wrong type or out of range.
        """
        if preset not in PRESETS:
            raise ConfigError(f"preset {preset!r}: one of {', '.join(PRESETS)} is needed")
        values = {**cls.presets.get(preset, {}), **cls.presets.get(f"{preset}/{dataset}", {}), **changes}
        known = {key.name: key for key in fields(cls.Config)}
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"{cls.name} has no config key {key!r}; it has {', '.join(known) or 'none'}")
            default = getattr(cls.Config(), key)
            if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if isinstance(default, tuple) and isinstance(value, list):
                value = tuple(value)
            same = type(value) in (PLAIN if takes_any(known[key]) else (type(default),))
            if same and isinstance(value, tuple) and default:
                same = all(type(element) is type(default[0]) for element in value) and len(value) > 0
            if not same:
                needed = "number, word, true, false or none" if takes_any(known[key]) else type(default).__name__
                raise ConfigError(f"{cls.name}.{key}={value!r}: a {needed} is needed, as in {default!r}")
            values[key] = value
        try:
            size = values.get(cls.code_size, 1)
            require(size > 0, cls.code_size, size, "must be above 0")
            return cls.Config(**values)
        except ConfigError as error:
            raise ConfigError(f"{cls.name}.{error}") from error


def require(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ConfigError naming ``key`` and ``value`` unless ``holds``; for a ``Config``'s ``__post_init__``."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: {rule}")


def takes_any(key: Field) -> bool:
    """Return whether a field of a ``Config`` takes any of :data:`PLAIN`, whatever its default.

    Such are the settings of another library, which may be none or a word or a number, and which it checks itself.
    """
    return bool(key.metadata.get("takes_any"))


def column(data: AnnData, field: str) -> np.ndarray:
    """Return the labels that play ``field`` ("environment", "content", "replicate") as strings, (n_cells,).

    Where the data set has no such column all cells share the empty label.
    """
    name = data.uns["fields"][field]
    return data.obs[name].to_numpy(dtype=str) if name else np.full(data.n_obs, "")


def control(data: AnnData) -> str:
    """Return the name of the control environment."""
    return str(data.uns["fields"]["control"])


def parts_of(environment: str, trained: Collection[str]) -> list[str]:
    """Return the environments whose shifts add up to ``environment``: itself, or A and B of an "A+B".

    Only an environment that was not trained, and whose parts all were, is composed: where a label that holds a "+" was
    trained it is a name like any other. Whoever adds shifts, of codes or of expression, composes by this rule.
    """
    parts = environment.split("+")
    return parts if environment not in trained and set(parts) <= set(trained) else [environment]


#: Cells of a content label in an environment without which it enters no shift between environments: the mean of fewer
#: is mostly noise, and weighs as much as any other. The tasks' own mean shift has the same limit.
LEAST_CELLS = 20


class GroupMeans(dict[tuple[str, str], np.ndarray]):
    """Mean rows (n,) of groups of cells, by (environment, content), with the number of cells of each in ``sizes``."""

    def __init__(self, means: Mapping[tuple[str, str], np.ndarray], sizes: Mapping[tuple[str, str], int]):
        super().__init__(means)
        self.sizes = dict(sizes)

    def joined(self, other: GroupMeans) -> GroupMeans:
        """Return these means and the other ones, which count where both have a group."""
        return GroupMeans({**self, **other}, {**self.sizes, **other.sizes})

    def shared(self, source: str, target: str) -> list[str]:
        """Return the contents that make the shift between two environments.

        They are those with :data:`LEAST_CELLS` cells or more in both; where there is none (a new environment may be
        known from ten cells), all that both have.
        """
        both = [content for environment, content in self if environment == target and (source, content) in self]
        large = [c for c in both if min(self.sizes[source, c], self.sizes[target, c]) >= LEAST_CELLS]
        return large or both


def group_means(values: np.ndarray, environments: np.ndarray, contents: np.ndarray) -> GroupMeans:
    """Return the mean row of ``values`` (n_cells, n) for each (environment, content) present, in float64."""
    pairs = sorted(set(zip(environments.tolist(), contents.tolist(), strict=True)))
    cells = {pair: (environments == pair[0]) & (contents == pair[1]) for pair in pairs}
    means = {pair: values[mask].mean(axis=0, dtype=np.float64) for pair, mask in cells.items()}
    return GroupMeans(means, {pair: int(mask.sum()) for pair, mask in cells.items()})


def means_state(name: str, means: GroupMeans) -> dict[str, Any]:
    """Return what :func:`group_means` returned as part of a fitted state, under keys that start with ``name``."""
    return {
        f"{name}_pairs": [list(pair) for pair in means],
        f"{name}_means": np.stack(list(means.values())),
        f"{name}_sizes": [means.sizes[pair] for pair in means],
    }


def restored_means(name: str, state: Mapping[str, Any]) -> GroupMeans:
    """Take back what :func:`means_state` returned."""
    pairs = [(pair[0], pair[1]) for pair in state[f"{name}_pairs"]]
    sizes = [int(size) for size in state[f"{name}_sizes"]]
    return GroupMeans(dict(zip(pairs, state[f"{name}_means"], strict=True)), dict(zip(pairs, sizes, strict=True)))
