"""The contract of a method, and functions that methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.errors import CannotFit, ConfigError

if TYPE_CHECKING:
    from anndata import AnnData

#: What a method may be able to do besides ``fit``; it has an ability if it has the function.
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
#: Types of a configuration's value where the default does not fix the type.
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Search:
    """Where tuning looks for the value of a configuration key.

    Attributes
    ----------
    low, high
        Limits of a number, both allowed; tuning draws whole numbers where the default is a whole number.
    log
        Whether values are searched on a logarithmic scale, as rates and weights are.
    choices
        The values to choose from, in place of limits.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Range:
    """The values that a configuration key may have; each element of a tuple must be in it."""

    least: float | None = None
    above: float | None = None
    below: float | None = None
    among: tuple[Any, ...] = ()

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return all(element in self for element in value)
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (not self.among or value in self.among)
        )

    def __str__(self) -> str:
        limits = {"{:g} or above": self.least, "above {:g}": self.above, "below {:g}": self.below}
        words = [text.format(limit) for text, limit in limits.items() if limit is not None]
        return f"must be {' and '.join(words)}" if words else f"must be one of {self.among}"


def key(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    among: tuple[Any, ...] = (),
    search: Search | None = None,
) -> Any:
    """Return the default of a ``Config`` key with the :class:`Range` that :meth:`Method.configure` allows.

    A subclass of the ``Config`` that states another default keeps the range, unless it states a range as well.
    """
    about: dict[str, Any] = {"search": search} if search else {}
    if (least, above, below, among) != (None, None, None, ()):
        about["range"] = Range(least, above, below, among)
    return field(default=default, metadata=about)


def searched(
    default: Any,
    low: float = 0.0,
    high: float = 0.0,
    *,
    log: bool = False,
    choices: tuple[Any, ...] = (),
    **allowed: Any,
) -> Any:
    """Return the default of a key that ``bench tune`` may change, with its :class:`Search`.

    ``allowed`` is the range, as :func:`key` takes it.
    """
    return key(default, search=Search(low, high, log, choices), **allowed)


class Method(ABC):
    """A method: a configuration, a ``fit``, and any of the abilities below.

    A subclass sets ``name``, ``tags`` and ``paper``. It may nest a frozen dataclass ``Config``, in which each
    default has its source in a comment, :func:`key` states a range and :func:`searched` what tuning may change. It may
    have ``presets`` that replace defaults for ``smoke`` or ``paper``.

    A method has an ability if it has the function:

    - ``embed(data) -> (n_cells, n_latent)`` codes; it does not change the fitted method;
    - ``decode(codes) -> (n_cells, n_genes)`` expected expression on the scale of ``data.X``;
    - ``predict(data, target_environment) -> (n_cells, n_genes)`` the same cells in another environment;
    - ``adapt(data) -> method``: a copy that also knows the environments of ``data``, learned from those few cells. The
      encoder and the decoder stay as they are, and so does the method itself;
    - ``intervention_targets() -> (n_perturbations, n_latent)`` in [0, 1], the trained perturbations sorted, then
      those that ``adapt`` added;
    - ``log_likelihood(data, n_samples) -> (n_cells,)``;
    - ``embed_blocks(data) -> {"shared": codes, "private": codes}``;
    - ``derivative_gram(codes) -> (n_cells, k, k)``: inner products of the decoder's first and second derivatives.

    Fits are stored on disk as :meth:`state` returns them, and jobs that need the same fit share it.
    """

    name: ClassVar[str]
    tags: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: The key of the configuration that is the size of the code; tasks fix it as ``n_latent``.
    code_size: ClassVar[str] = "n_latent"
    #: Keys of the configuration that ``fit`` does not read: what differs in them alone shares its fit.
    unfitted: ClassVar[frozenset[str]] = frozenset()
    #: Whether a fit uses a GPU where there is one.
    uses_gpu: ClassVar[bool] = False
    #: Whether fits that differ in seed and data can be stacked, by ``fit_stacked(methods, datasets, seeds)``.
    #: Subclasses do not inherit it, because their loss may not be written for it.
    stackable: ClassVar[bool] = False
    #: Whether ``embed`` lays out the given cells together, so that a code depends on the other cells (UMAP).
    embeds_together: ClassVar[bool] = False
    #: Whether ``predict`` accepts an environment that was not trained; any other method raises CannotFit.
    predicts_untrained: ClassVar[bool] = False
    #: Whether ``predict`` accepts "A+B" where A and B alone were trained. If not, tasks of combinations do not fit it.
    composes: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Config:
        """Nothing to configure."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.stackable = bool(vars(cls).get("stackable", False))

    def __init__(self, config: Any = None):
        self.config: Any = self.Config() if config is None else config
        #: Training curves: the name of a loss term to its value at each epoch.
        self.history: dict[str, list[float]] = {}
        #: Why an iterative fit ended without converging, empty if it converged.
        self.unconverged: str = ""
        #: Remarks on the fit, such as why it stopped.
        self.log: list[str] = []

    def note(self, remark: str) -> None:
        """Add a remark to the log, once."""
        if remark not in self.log:
            self.log.append(remark)

    @classmethod  # noqa: B027 - doing nothing is a valid choice
    def preload(cls) -> None:
        """Import or compile what every fit needs, once for all jobs.

        Jobs are forked from the process that calls this, so it must not ask PyTorch for a GPU.
        """

    @classmethod  # noqa: B027 - most methods need nothing
    def provide(cls, say: Callable[[str], None]) -> None:
        """Get what fits need and this machine lacks; a run calls it once, before it plans. ``say`` shows progress."""

    @abstractmethod
    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit to ``data`` (``X`` as C-contiguous float32, columns named in ``uns["fields"]``); return self."""

    def state(self) -> dict[str, Any] | None:
        """Return the fitted method as arrays and a string, or None where it cannot be stored.

        It holds all attributes (:func:`methods.state.state_of`). A subclass overrides this and :meth:`restore` for an
        attribute of another kind, and may return arrays of numbers, numbers, strings and lists of them.
        """
        from methods.state import state_of

        return state_of(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        from methods.state import restore

        restore(self, state)

    @classmethod
    def abilities(cls) -> frozenset[str]:
        """Return which of :data:`ABILITIES` the method has."""
        return frozenset(ability for ability in ABILITIES if hasattr(cls, ability))

    @classmethod
    def search_space(cls) -> dict[str, Search]:
        """Return the keys of the configuration that can be tuned, and where."""
        return {key.name: key.metadata["search"] for key in fields(cls.Config) if "search" in key.metadata}

    @classmethod
    def depends(cls) -> str:
        """Return what results depend on besides source and configuration, such as the version of a package."""
        return ""

    @classmethod
    def configure(cls, preset: str = "default", dataset: str = "", **changes: Any) -> Any:
        """Return the configuration of a preset with some values changed.

        ``presets["paper/kang"]`` holds what ``paper`` changes on the data set kang alone.

        Raises
        ------
        ConfigError
            The preset or a key is unknown, or a value has a wrong type or is out of range.
        """
        if preset not in PRESETS:
            raise ConfigError(f"preset {preset!r}: one of {', '.join(PRESETS)} is needed")
        values = {**cls.presets.get(preset, {}), **cls.presets.get(f"{preset}/{dataset}", {}), **changes}
        known = {key.name: key for key in fields(cls.Config)}
        unknown = [key for key in values if key not in known]
        if unknown:
            raise ConfigError(f"{cls.name} has no config key {unknown[0]!r}; it has {', '.join(known) or 'none'}")
        values = {key: cls._of_its_type(known[key], value) for key, value in values.items()}
        try:
            config = cls.Config(**values)
            require(
                getattr(config, cls.code_size, 1) > 0,
                cls.code_size,
                getattr(config, cls.code_size, 1),
                "must be above 0",
            )
            for key, allowed in _ranges(cls.Config).items():
                require(getattr(config, key) in allowed, key, getattr(config, key), str(allowed))
            cls.check(config)
        except ConfigError as error:
            raise ConfigError(f"{cls.name}.{error}") from error
        return config

    @classmethod  # noqa: B027 - most methods have no such rule
    def check(cls, config: Any) -> None:
        """Refuse values that do not go together, by :func:`require`; ranges of single keys are checked before."""

    @classmethod
    def _of_its_type(cls, key: Field, value: Any) -> Any:
        """Return a value of a configuration as the type of its default, or raise ConfigError."""
        default = getattr(cls.Config(), key.name)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        fits = type(value) in (PLAIN if takes_any(key) else (type(default),))
        if fits and isinstance(value, tuple) and default:
            fits = all(type(element) is type(default[0]) for element in value) and len(value) > 0
        if not fits:
            needed = "number, word, true, false or none" if takes_any(key) else type(default).__name__
            raise ConfigError(f"{cls.name}.{key.name}={value!r}: a {needed} is needed, as in {default!r}")
        return value


def _ranges(config_class: Any) -> dict[str, Range]:
    """Return the range of each key, from the nearest class that states it."""
    ranges: dict[str, Range] = {}
    for base in reversed(config_class.__mro__[:-1]):
        stated = getattr(base, "__dataclass_fields__", {})
        ranges |= {name: key.metadata["range"] for name, key in stated.items() if "range" in key.metadata}
    return ranges


def require(holds: bool, key: str, value: Any, rule: str) -> None:
    """Raise ConfigError with ``key``, ``value`` and ``rule`` unless ``holds``; for :meth:`Method.check`."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: {rule}")


def takes_any(key: Field) -> bool:
    """Return whether a key of a ``Config`` takes any of :data:`PLAIN`, whatever its default.

    These are settings of another library: a setting may be none, a word or a number, and the library checks it.
    """
    return bool(key.metadata.get("takes_any"))


def column(data: AnnData, field: str) -> np.ndarray:
    """Return the labels of a field ("environment", "content" or "replicate") as strings, (n_cells,).

    Where the data set has no column for the field, all cells have the empty label.
    """
    name = data.uns["fields"][field]
    return data.obs[name].to_numpy(dtype=str) if name else np.full(data.n_obs, "")


def control(data: AnnData) -> str:
    """Return the name of the control environment."""
    return str(data.uns["fields"]["control"])


def require_trained(name: str, environment: str, trained: Collection[str]) -> None:
    """Raise CannotFit, in the name of a method, unless ``environment`` is among the trained ones."""
    if environment not in trained:
        raise CannotFit(
            f"{name} was not trained on environment {environment!r}; trained environments: {', '.join(trained)}"
        )


def parts_of(environment: str, trained: Collection[str]) -> list[str]:
    """Return the environments whose shifts add up to ``environment``: itself, or A and B for "A+B".

    An environment is composed if it was not trained and all its parts were. A trained label that contains "+" is a name
    like any other. All methods that add shifts, of codes or of expression, use this rule.
    """
    parts = environment.split("+")
    return parts if environment not in trained and set(parts) <= set(trained) else [environment]
