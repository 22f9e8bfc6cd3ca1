"""The registry of methods: a name for each, imported when it is first asked for.

A method of your own is registered in one of three ways: ``--methods my_file.py:MyMethod``, the
:func:`register_method` decorator in a file named by ``--plugin``, or a line in the mapping below.
"""

from methods.base import CannotFit, Method
from metrics.registry import Registry

__all__ = ["METHODS", "CannotFit", "Method", "register_method"]

METHODS = Registry(
    "method",
    {
        # simple baselines for prediction
        "no-change": "methods.controls:NoChange",
        "mean-shift": "methods.controls:MeanShift",
        "additive-shift": "methods.controls:AdditiveShift",
        "nearest-type-shift": "methods.controls:NearestTypeShift",
        "ridge-shift": "methods.controls:RidgeShift",
        # linear and neighbour embeddings
        "random-projection": "methods.random_projection:RandomProjection",
        "pca": "methods.pca:PCA",
        "fastica": "methods.fastica:FastICA",
        "umap": "methods.umap:UMAP",
        # variational autoencoders
        "vae": "methods.vae:VAE",
        "beta-vae": "methods.beta_vae:BetaVAE",
    },
)


def register_method(cls: type[Method]) -> type[Method]:
    """Register a method class under its ``name``; a name that is taken raises ValueError."""
    METHODS.register(cls.name, cls)
    return cls
