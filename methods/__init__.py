"""The registry of methods: a name for each, imported when it is first asked for.

A method of your own is registered in one of three ways: ``--methods my_file.py:MyMethod``, the
:func:`register_method` decorator in a file named by ``--plugin``, or a line in the mapping below.
"""

from methods.base import Method
from methods.errors import CannotFit
from metrics.registry import Registry

__all__ = ["METHODS", "CannotFit", "Method", "register_method"]

METHODS = Registry(
    "method",
    {
        # simple baselines for prediction
        "no-change": "methods.baselines:NoChange",
        "mean-shift": "methods.baselines:MeanShift",
        "additive-shift": "methods.baselines:AdditiveShift",
        "scaled-additive-shift": "methods.baselines:ScaledAdditiveShift",
        "nearest-type-shift": "methods.baselines:NearestTypeShift",
        "ridge-shift": "methods.baselines:RidgeShift",
        # linear and neighbour embeddings
        "random-projection": "methods.linear:RandomProjection",
        "pca": "methods.linear:PCA",
        "fastica": "methods.linear:FastICA",
        "umap": "methods.umap:UMAP",
        # variational autoencoders
        "vae": "methods.vaes:VAE",
        "beta-vae": "methods.vaes:BetaVAE",
        "annealed-vae": "methods.vaes:AnnealedVAE",
        "beta-tcvae": "methods.vaes:BetaTCVAE",
        "factor-vae": "methods.factor_vae:FactorVAE",
        "dip-vae-i": "methods.vaes:DIPVAE",
        "dip-vae-ii": "methods.vaes:DIPVAE2",
        "gamma-vae": "methods.gamma_vae:GammaVAE",
        "basis-vae": "methods.basis_vae:BasisVAE",
        "dhsic-vae": "methods.vaes:DHSICVAE",
        "dhsic-vae-nuisance": "methods.vaes:DHSICNuisanceVAE",
        # conditional on the environment
        "cvae": "methods.cvae:CVAE",
        "mmd-cvae": "methods.cvae:MMDCVAE",
        "trvae": "methods.cvae:TrVAE",
        "lord": "methods.lord:LORD",
        "stargan": "methods.stargan:StarGAN",
        "multigroup-vi": "methods.multigroup_vi:MultiGroupVI",
        # shifts of the prior
        "ivae": "methods.sparse_shift_vae:IVAE",
        "svae": "methods.sparse_shift_vae:SVAE",
        "svae-plus": "methods.sparse_shift_vae:SVAEPlus",
        # from scvi-tools, an optional extra
        "scvi": "methods.scvi:SCVI",
        "contrastive-vi": "methods.scvi:ContrastiveVI",
    },
)


def register_method(cls: type[Method]) -> type[Method]:
    """Register a method class under its ``name``; one that is taken, or cannot be asked for, raises ValueError."""
    name = str(cls.name)
    if name != cls.name or not name or not name.isprintable() or name != name.strip() or set(name) & set(",@="):
        raise ValueError(f"method name {cls.name!r}: printable, without ',', '@', '=' or blanks around it, is needed")
    METHODS.register(name, cls)
    return cls
