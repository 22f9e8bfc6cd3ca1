"""The method that is checked, and the cells that it is checked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from methods import METHODS, CannotFit
from methods.errors import ConfigError

if TYPE_CHECKING:
    from anndata import AnnData

TARGET = "stimulated"
#: Gradient steps of a pass over the cells.
STEPS_OF_EPOCH = 8
#: Values that make a fit fast, for every configuration that has the key and accepts the value.
FAST = {
    "n_latent": 4,
    "hidden": (32,),
    "steps": 3 * STEPS_OF_EPOCH,
    "max_epochs": 3,
    "n_neighbors": 5,
    "n_components_pca": 10,
}


class CheckFailed(Exception):
    """A check found a fault; the message is one sentence: what was seen, and what to do."""


class NotApplicable(Exception):
    """A check asks what the method does not claim to do; the message says what."""


class Missing(Exception):
    """The method needs a package that is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Cells:
    """Simulated cells of four types, control and stimulated, with the stimulated ones of one type held out.

    Attributes
    ----------
    whole
        All of them, with the truth.
    data
        The training data of a fit.
    queries
        Control cells of the held-out type, from which predictions start.
    held_out
        The stimulated ones of that type, which no fit sees.
    """

    whole: AnnData
    data: AnnData
    queries: AnnData
    held_out: AnnData

    def with_other_truth(self) -> AnnData:
        """Return all cells; the held-out ones have the expression of other genes."""
        from tasks.splits import handed

        changed = handed(self.whole, np.arange(self.whole.n_obs))
        rows = changed.obs_names.isin(self.held_out.obs_names)
        changed.X[rows] = changed.X[rows][:, ::-1]
        changed.layers["counts"][rows] = changed.layers["counts"][rows][:, ::-1]
        return changed


@cache
def cells() -> Cells:
    """Return the cells; nobody may change them."""
    from dataclasses import replace

    from tasks.simulate.ifn import IFN
    from tasks.splits import handed

    parameters = {"n_types": 4, "n_cells": 40, "n_genes": 60, "n_donors": 3, "n_truth": 200}
    whole = replace(IFN, parameters=parameters, sizes={}).make()
    of_type = (whole.obs["cell_type"] == "type1").to_numpy()
    stimulated = (whole.obs["condition"] == TARGET).to_numpy()
    return Cells(
        whole,
        handed(whole, ~(of_type & stimulated)),
        handed(whole, of_type & ~stimulated),
        handed(whole, of_type & stimulated),
    )


class Subject:
    """A registered method under a configuration that makes it fast.

    Parameters
    ----------
    name
        The registered name.
    changes
        The user's changes of its configuration.
    plugins
        Files that must be imported to know it.
    """

    def __init__(self, name: str, changes: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()):
        self.name, self.changes, self.plugins = name, dict(changes or {}), tuple(plugins)
        self.cls: Any = METHODS[name]
        self.config = self.cls.configure("smoke", **self.changes)
        for key, value in FAST.items():
            if key in self.keys and key not in self.changes:
                self.config = self._changed(key, value) or self.config

    @property
    def keys(self) -> set[str]:
        """Keys of the configuration."""
        return {field.name for field in fields(self.cls.Config)}

    def trained_for(self, epochs: int) -> dict[str, int]:
        """Return the change that makes a fit so many passes over the cells long; {} where no key does."""
        lengths = {"steps": STEPS_OF_EPOCH * epochs, "max_epochs": epochs}
        return {key: value for key, value in lengths.items() if key in self.keys}

    @property
    def data(self) -> AnnData:
        """A copy of the cells that a fit is handed."""
        return cells().data.copy()

    @property
    def queries(self) -> AnnData:
        """A copy of the control cells of the held-out type."""
        return cells().queries.copy()

    def can(self, *abilities: str) -> None:
        """Raise NotApplicable unless the method has all of these abilities."""
        lacking = [ability for ability in abilities if not hasattr(self.cls, ability)]
        if lacking:
            raise NotApplicable(f"it has no {' and no '.join(lacking)}")

    def fit(self, data: AnnData | None = None, seed: int = 0, **changes: Any) -> Any:
        """Return the method fitted to ``data``, else to the training cells.

        Raises
        ------
        Missing
            A package is not installed.
        """
        config = self.cls.configure(**{**asdict(self.config), **changes})
        method = self.cls(config)
        try:
            method.fit(self.data if data is None else data, seed)
        except ImportError as error:
            raise Missing(f"{error}") from error
        except CannotFit as error:
            if isinstance(error.__cause__, ImportError):
                raise Missing(f"{error}") from error
            raise
        return method

    @cached_property
    def fitted(self) -> Any:
        """One fit, shared; no check may change it."""
        return self.fit()

    @cached_property
    def found(self) -> dict[str, np.ndarray]:
        """The outputs of that fit, taken before anything else was fitted."""
        return outputs(self.fitted)

    def _changed(self, key: str, value: Any) -> Any:
        """Return the configuration with one value changed, or None where the method does not take it."""
        try:
            return self.cls.configure(**{**asdict(self.config), key: value})
        except ConfigError:
            return None


def outputs(method: Any) -> dict[str, np.ndarray]:
    """Return everything that a fitted method says of the control cells, and the codes of the held-out ones."""
    out: dict[str, Any] = {}
    if hasattr(method, "embed"):
        out["embed"] = method.embed(cells().queries.copy())
        out["embed of unseen cells"] = method.embed(cells().held_out.copy())
    if hasattr(method, "predict"):
        out["predict"] = method.predict(cells().queries.copy(), TARGET)
    if hasattr(method, "embed") and hasattr(method, "decode"):
        out["decode"] = method.decode(out["embed"].copy())
    if hasattr(method, "embed_blocks"):
        out |= {f"embed_blocks {key}": z for key, z in method.embed_blocks(cells().queries.copy()).items()}
    if hasattr(method, "log_likelihood"):
        out["log_likelihood"] = method.log_likelihood(cells().queries.copy(), 4)
    if hasattr(method, "intervention_targets"):
        out["intervention_targets"] = method.intervention_targets()
    return {key: np.array(value) for key, value in out.items()}


def differences(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> str:
    """Return in words how two outputs or states differ, "" where they are bit-identical."""
    if first.keys() != second.keys():
        return f"there are {', '.join(sorted(second)) or 'none'} in place of {', '.join(sorted(first)) or 'none'}"
    words = []
    for key, value in first.items():
        before, after = np.asarray(value), np.asarray(second[key])
        if before.shape != after.shape:
            words.append(f"{key} has the shape {after.shape} in place of {before.shape}")
        elif before.dtype.kind in "fc" and not np.array_equal(before, after, equal_nan=True):
            words.append(f"{key} differs by up to {np.nanmax(np.abs(before - after), initial=0):.2g}")
        elif before.dtype.kind not in "fc" and not np.array_equal(before, after):
            words.append(f"{key} differs")
    return ", ".join(words)
