"""Any scikit-learn transformer, by its address: ``--methods sklearn.decomposition:NMF``."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from methods.errors import CannotFit, ConfigError
from methods.latent_arithmetic import LatentArithmetic
from methods.wrapping.base import (
    ACCEPTED,
    NoMethod,
    Wrapped,
    method_class,
    parameters,
    plain_defaults,
    required,
    version,
)

if TYPE_CHECKING:
    from anndata import AnnData


class SklearnTransformer(Wrapped):
    """An estimator with ``fit`` and ``transform``, which read X unchanged; its settings are those of the constructor.

    ``random_state`` is the seed. ``n_components``, if it has this setting, is the size of the code.
    """

    code_size = "n_components"

    @classmethod
    def configure(cls, preset: str = "default", dataset: str = "", **changes: Any) -> Any:
        """Return the configuration; scikit-learn has checked it if the estimator has such a check."""
        config = super().configure(preset, dataset, **changes)
        check = getattr(cls.wraps(**asdict(config)), "_validate_params", None)
        if check is not None:
            try:
                check()
            except (TypeError, ValueError) as error:
                wrong = [key for key in changes if f"'{key}'" in str(error)]
                about = f"{cls.name}.{wrong[0]}={changes[wrong[0]]!r}" if wrong else cls.name
                raise ConfigError(f"{about}: {error}") from error
        return config

    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit the estimator, and note its warnings, also the warning that it did not converge."""
        settings = asdict(self.config)
        if "random_state" in parameters(self.wraps):
            settings["random_state"] = seed
        self.estimator = self.wraps(**settings)
        x = np.array(data.X)
        tags = _tags(self.estimator)
        if tags is not None and tags.input_tags.positive_only and x.min() < 0:
            raise CannotFit(f"{self.name} needs X of 0 or above; in these data it goes down to {x.min():.4g}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)  # the base of scikit-learn's warnings
            self.estimator.fit(x)
        for warning in caught:
            if warning.category.__name__ == "ConvergenceWarning":
                self.unconverged = str(warning.message)
            else:
                self.note(f"{warning.category.__name__}: {warning.message}")
        return self

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        return _dense(self.estimator.transform(np.array(data.X)))


class InvertibleTransformer(SklearnTransformer, LatentArithmetic):
    """A transformer with ``inverse_transform``, which decodes; it predicts by latent arithmetic, by mean shifts."""

    unfitted = frozenset()

    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit the estimator and remember the mean codes."""
        super().fit(data, seed)
        self.remember_latents(data)
        return self

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the expression (n_cells, n_genes) of ``codes`` (n_cells, n_latent)."""
        from sklearn.exceptions import NotFittedError

        try:
            return _dense(self.estimator.inverse_transform(codes))
        except NotFittedError as error:  # the inverse is a setting, as in KernelPCA
            raise CannotFit(f"{self.name} cannot decode with these settings: {error}") from error


def is_estimator(cls: type) -> bool:
    """Return whether a class is an estimator in the sense of scikit-learn."""
    return callable(getattr(cls, "fit", None)) and any(
        callable(getattr(cls, name, None)) for name in ("transform", "fit_transform", "predict")
    )


def wrapped(address: str, cls: type) -> type[SklearnTransformer]:
    """Return the method that wraps an estimator.

    Raises
    ------
    NoMethod
        It cannot transform new cells, or needs arguments that a method does not have.
    """
    name = cls.__name__
    if not callable(getattr(cls, "transform", None)):
        raise NoMethod(f"{name} has no transform, so that it cannot embed a cell that it was not fitted to; {ACCEPTED}")
    lacking = required(cls)
    if lacking:
        raise NoMethod(f"{name} needs {', '.join(lacking)}, which have no default; {ACCEPTED}")
    others = required(cls.fit)[1:]  # type: ignore[attr-defined] # the first is X
    tags = _tags(cls())
    if not others and tags is not None and tags.target_tags.required:
        others = ["y"]
    if others:
        raise NoMethod(f"{name}.fit needs {', '.join(others)} besides X, which a method is not handed; {ACCEPTED}")
    package = f"{cls.__module__.partition('.')[0]} {version(cls)}".strip()
    invertible = callable(getattr(cls, "inverse_transform", None))
    base = InvertibleTransformer if invertible else SklearnTransformer
    defaults = plain_defaults(cls, but={"random_state"})
    if "n_components" in parameters(cls):
        defaults["n_components"] = parameters(cls)["n_components"].default
    return method_class(base, address, cls, package, defaults, invertible)


def _tags(estimator: Any) -> Any:
    """Return the tags of an estimator; None if it has none, since it does not derive from scikit-learn's base."""
    tags = getattr(estimator, "__sklearn_tags__", None)
    return None if tags is None else tags()


def _dense(values: Any) -> np.ndarray:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)
