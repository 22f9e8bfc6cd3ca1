"""Any model class of scvi-tools, by its address: ``--methods scvi.model:LinearSCVI``."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.base import column, control, require_trained
from methods.errors import CannotFit, ConfigError
from methods.scvi import MIN_CELLS, seeded_everywhere
from methods.wrapping.base import (
    ACCEPTED,
    N_LATENT,
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

#: A prediction is the mean over this many draws from the posterior of a cell's code.
DRAWS = 25
#: Label of cells whose label the model is not told.
UNLABELLED = "unlabelled"
#: Arguments of ``setup_anndata`` for counts, environments and labels; a class may require no others.
KNOWN = ("layer", "batch_key", "labels_key", "unlabeled_category")
#: Parameters of ``train`` for the machine, which are no settings.
_MACHINE = frozenset({"accelerator", "devices", "device"})
#: Parameters of ``get_normalized_expression`` that a prediction needs.
_PREDICTS = frozenset({"transform_batch", "library_size", "n_samples", "return_mean", "return_numpy"})


class ScviModel(Wrapped):
    """A model class of scvi-tools; its settings are those of the constructor and of ``train``.

    ``setup_anndata`` gets the counts as ``layer`` and the environment as ``batch_key``. It gets the content label as
    ``labels_key`` if it requires one or takes an ``unlabeled_category``. Cells of an untrained environment are embedded
    as cells of a trained one, the control if that was trained.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"max_epochs": 5}}
    uses_gpu = True

    def fit(self, data: AnnData, seed: int) -> Self:
        """Set up the data, and train with the schedule of the class."""
        if data.n_obs < MIN_CELLS:
            raise CannotFit(f"{self.name} needs at least {MIN_CELLS} cells, got {data.n_obs}")
        self.environments = sorted(set(column(data, "environment").tolist()))
        self.labels = sorted(set(column(data, "content").tolist()))
        self.stand_in = control(data) if control(data) in self.environments else self.environments[0]
        settings = asdict(self.config)
        of_train = {key: settings.pop(key) for key in _of_train(self.wraps)}
        keys = self.setup()
        with seeded_everywhere(seed):
            cells = self.cells(data)
            self.wraps.setup_anndata(cells, **keys)
            self.model = self.wraps(cells, **settings)
            self.model.train(**of_train, **self.quiet())
        self.note(f"setup_anndata was told {', '.join(f'{key}={value}' for key, value in keys.items())}")
        if "batch_key" in keys:
            self.note(f"cells of environments that it was not trained on are embedded as of {self.stand_in!r}")
        self.history = {key: [float(v) for v in curve.iloc[:, 0]] for key, curve in (self.model.history or {}).items()}
        return self

    def setup(self) -> dict[str, str]:
        """Return the arguments of ``setup_anndata``."""
        takes = parameters(self.wraps.setup_anndata)
        labelled = "unlabeled_category" in takes or "labels_key" in required(self.wraps.setup_anndata)
        keys = {"layer": "counts", "batch_key": "environment"}
        if labelled:
            keys |= {"labels_key": "content", "unlabeled_category": UNLABELLED}
        return {key: value for key, value in keys.items() if key in takes}

    def quiet(self) -> dict[str, bool]:
        """Return the arguments of ``train`` that switch off progress bar and summary, if it takes them."""
        passes_on = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.wraps.train).parameters.values())
        return {"enable_progress_bar": False, "enable_model_summary": False} if passes_on else {}

    def cells(self, data: AnnData) -> AnnData:
        """Return counts, environments and labels for scvi-tools; raise CannotFit where there are no counts."""
        from anndata import AnnData as Cells

        if "counts" not in data.layers:
            raise CannotFit(f"{self.name} needs counts, and these data have none")
        counts = data.layers["counts"]
        counts = np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts, dtype=np.float32)
        environments, labels = column(data, "environment"), column(data, "content")
        obs = {
            "environment": np.where(np.isin(environments, self.environments), environments, self.stand_in),
            "content": np.where(np.isin(labels, self.labels), labels, UNLABELLED),
        }
        cells = Cells(counts, obs={key: values.astype(object) for key, values in obs.items()})
        cells.layers["counts"] = counts
        cells.obs_names = [f"cell{i}" for i in range(data.n_obs)]
        cells.var_names = list(data.var_names)
        return cells

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        with seeded_everywhere(0):
            return np.asarray(self.model.get_latent_representation(self.cells(data)))


class PredictingModel(ScviModel):
    """A model that returns the expression of a cell in another batch; ``predict`` brings it to the scale of X.

    A prediction is log1p of the expected expression. It is above the expectation of X, which is a logarithm (Jensen),
    by little where counts are large.
    """

    def fit(self, data: AnnData, seed: int) -> Self:
        """Train on data with an X to whose scale predictions can be brought."""
        from methods.nn.observation import observation

        # raises CannotFit unless X is made of the counts
        observation("negative-binomial", data.n_vars).calibrate(data)
        super().fit(data, seed)
        self.note("predictions are log1p of the normalised expression, times the sum of expm1(X) of each cell")
        return self

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) of ``data``'s cells in ``target_environment``."""
        require_trained(self.name, target_environment, self.environments)
        with seeded_everywhere(0):
            share = self.model.get_normalized_expression(
                self.cells(data),
                transform_batch=[target_environment],
                library_size=1,
                n_samples=DRAWS,
                return_mean=True,
                return_numpy=True,
            )
        total = np.expm1(np.asarray(data.X, dtype=np.float64)).sum(axis=1, keepdims=True)
        return np.log1p(np.asarray(share, dtype=np.float64) * total).astype(np.float32)


class AbsentModel(PredictingModel):
    """A stand-in for a model class while scvi-tools is not installed."""

    tags = frozenset({"embedding", "prediction", "wrapped"})
    uses_gpu = False
    reason: ClassVar[str]

    @dataclass(frozen=True)
    class Config:
        """Settings that most model classes have."""

        n_latent: int = N_LATENT  # the suite's common code size
        max_epochs: int = 400  # scvi-tools, of up to 20,000 cells

    @classmethod
    def depends(cls) -> str:
        """Return the address and why the class is missing, so that jobs run once it is installed."""
        return f"{cls.name} {cls.reason}"

    @classmethod
    def configure(cls, preset: str = "default", dataset: str = "", **changes: Any) -> Any:
        """Return the configuration; the settings of the class itself are unknown."""
        try:
            return super().configure(preset, dataset, **changes)
        except ConfigError as error:
            raise ConfigError(f"{error}; more are known where scvi-tools is installed ({cls.reason})") from error

    def fit(self, data: AnnData, seed: int) -> Self:
        """Refuse, and say how to install it."""
        raise CannotFit(self.reason)


def is_model(cls: type) -> bool:
    """Return whether a class is a model in the sense of scvi-tools."""
    return all(callable(getattr(cls, name, None)) for name in ("setup_anndata", "train"))


def wrapped(address: str, cls: Any) -> type[ScviModel]:
    """Return the method that wraps a model class.

    Raises
    ------
    NoMethod
        It has no codes, or needs data that this suite does not have.
    """
    name = cls.__name__
    embedding = getattr(cls, "get_latent_representation", None)
    if embedding is None:
        raise NoMethod(f"{name} has no get_latent_representation, so that it cannot embed; {ACCEPTED}")
    needs = {
        "setup_anndata": required(cls.setup_anndata, {"adata", *KNOWN}),
        "the constructor": required(cls, {"adata"}),
        "train": required(cls.train),
    }
    for where, lacking in needs.items():
        if lacking:
            raise NoMethod(f"{name}: {where} needs {', '.join(lacking)}, which a method is not handed; {ACCEPTED}")
    package = f"scvi-tools {version(cls)}"
    defaults = {**_of_train(cls), **_plain(cls)}
    predicts = "batch_key" in parameters(cls.setup_anndata) and hasattr(cls, "get_normalized_expression")
    predicts = predicts and set(parameters(cls.get_normalized_expression)) >= _PREDICTS
    base = PredictingModel if predicts else ScviModel
    presets = base.presets if "max_epochs" in defaults else {}
    return method_class(base, address, cls, package, defaults, predicts, presets=presets)


def absent(address: str, reason: str) -> type[ScviModel]:
    """Return the stand-in for a model class where scvi-tools is not installed; its jobs are skipped."""
    about = f"Not known here.\n\n{reason}"
    made = {"__module__": __name__, "__doc__": about, "name": address, "reason": reason}
    return type(address.partition(":")[2], (AbsentModel,), made)


def _of_train(cls: Any) -> dict[str, Any]:
    """Return the settings of ``train`` whose names the constructor does not have."""
    return _plain(cls.train, {*_MACHINE, *parameters(cls)})


def _plain(function: Any, but: Collection[str] = ()) -> dict[str, Any]:
    """Return the plain defaults; None is a plain default if the annotation has plain types only (not a dictionary)."""
    types = {"int", "float", "str", "bool", "None"}
    kept = {}
    for name, default in plain_defaults(function, but).items():
        words = [word.strip() for word in str(parameters(function)[name].annotation).split("|")]
        if default is not None or all(word in types or word.startswith("Literal[") for word in words):
            kept[name] = default
    return kept
