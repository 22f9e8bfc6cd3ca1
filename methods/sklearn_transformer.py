"""Any scikit-learn transformer, by its address: ``--methods sklearn.decomposition:NMF``."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from methods.base import CannotFit, ConfigError
from methods.latent_arithmetic import LatentArithmetic
from methods.wrapped import ACCEPTED, NoMethod, Wrapped, configuration, parameters, plain_defaults, required, version

if TYPE_CHECKING:
    from anndata import AnnData

#: Number of components where neither the user nor the task says one: the suite's common code size.
N_COMPONENTS = 10


class SklearnTransformer(Wrapped):
    """An estimator with ``fit`` and ``transform``, which read X as it is; its settings are the constructor's.

    ``random_state`` is the seed. ``n_components``, where there is one, is the size of the code.
    """

    code_size = "n_components"

    @classmethod
    def configure(cls, preset: str = "default", dataset: str = "", **changes: Any) -> Any:
        """Return the configuration, which scikit-learn has checked where the estimator can."""
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
        """Fit the estimator; what it warns of is noted, also that it has not converged."""
        settings = asdict(self.config)
        if "random_state" in parameters(self.wraps):
            settings["random_state"] = seed
        self.estimator = self.wraps(**settings)
        x = np.array(data.X)
        tags = _tags(self.estimator)
        if tags is not None and tags.input_tags.positive_only and x.min() < 0:
            raise CannotFit(f"{self.name} needs X of 0 or above; in these data it goes down to {x.min():.4g}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)  # of which scikit-learn's are
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
    """One that also has ``inverse_transform``, which decodes; it predicts by latent arithmetic."""

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
        except NotFittedError as error:  # an inverse that has to be asked for, as KernelPCA's
            raise CannotFit(f"{self.name} cannot decode with these settings: {error}") from error


def is_estimator(cls: type) -> bool:
    """Return whether a class is of the kind that scikit-learn calls an estimator."""
    return callable(getattr(cls, "fit", None)) and any(
        callable(getattr(cls, name, None)) for name in ("transform", "fit_transform", "predict")
    )


def wrapped(address: str, cls: type) -> type[SklearnTransformer]:
    """Return the method that an estimator makes.

    Raises
    ------
    NoMethod
        It cannot transform cells that it was not fitted to, or needs what a method is not handed.
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
    defaults = plain_defaults(cls, but={"random_state"})
    package = f"{cls.__module__.partition('.')[0]} {version(cls)}".strip()
    sources = dict.fromkeys(defaults, package)
    if "n_components" in parameters(cls):
        sources["n_components"] = f"the suite's common code size; {package}: {parameters(cls)['n_components'].default}"
        defaults["n_components"] = N_COMPONENTS
    invertible = callable(getattr(cls, "inverse_transform", None))
    bases = (InvertibleTransformer,) if invertible else (SklearnTransformer,)
    return type(
        name,
        bases,
        {
            "__module__": __name__,
            "__doc__": f"{(inspect.getdoc(cls) or name).splitlines()[0]}\n\n{address} of {package}, wrapped.",
            "name": address,
            "wraps": cls,
            "tags": frozenset({"embedding", "wrapped"} | ({"prediction"} if invertible else set())),
            "reference": package,
            "Config": configuration(defaults, sources, "n_components"),
        },
    )


def _tags(estimator: Any) -> Any:
    """Return what an estimator says of itself; None where it is of another kind than scikit-learn's own."""
    tags = getattr(estimator, "__sklearn_tags__", None)
    return None if tags is None else tags()


def _dense(values: Any) -> np.ndarray:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)
