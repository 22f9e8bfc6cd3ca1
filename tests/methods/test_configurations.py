"""What each method refuses as a configuration, whatever the data."""

import pytest

from methods import METHODS
from methods.errors import ConfigError

#: A value of each key outside its range, by the method whose ``Config`` states the range.
WRONG = {
    "fastica": {"max_iter": 0, "tolerance": 0.0},
    "umap": {"n_neighbors": 1, "min_dist": -0.1, "n_components_pca": 0},
    "ridge-shift": {"strengths": (0.1, -1.0)},
    "vae": {
        "n_latent": 0,
        "hidden": (8, 0),
        "activation": "tanh",
        "norm": "instance",
        "dropout": 1.0,
        "likelihood": "poisson",
        "learning_rate": 0.0,
        "minibatch": 0,
        "steps": 0,
        "validation": 1.0,
    },
    "annealed-vae": {"gamma": -1.0, "capacity": -1.0, "rise": -1},
    "beta-tcvae": {"beta": -1.0},
    "factor-vae": {
        "gamma": -1.0,
        "discriminator": (8, 0),
        "discriminator_learning_rate": 0.0,
        "discriminator_steps": 0,
    },
    "dip-vae-i": {"off_diagonal": -1.0, "diagonal": -1.0},
    "dip-vae-ii": {"off_diagonal": -1.0, "diagonal": -1.0},
    "dhsic-vae": {"dhsic": -1.0},
    "dhsic-vae-nuisance": {"n_private": 0},
    "gamma-vae": {
        "parameter_effects": -1.0,
        "extrinsic": -1.0,
        "metric_scale": -1.0,
        "eta": -0.1,
        "warmup": -0.1,
        "jitter": 0.0,
    },
    "basis-vae": {"n_basis": 0, "concentration": 0.0, "likelihood": "negative-binomial"},
    "mmd-cvae": {"mmd": -1.0},
    "trvae": {"mmd": -1.0, "kl": -1.0, "reconstruction": -1.0, "likelihood": "negative-binomial"},
    "lord": {
        "n_class": 0,
        "decay": -1.0,
        "match": -1.0,
        "latent_learning_rate": 0.0,
        "encoder_learning_rate": 0.0,
        "passes": 0,
    },
    "multigroup-vi": {"n_private": 0, "wasserstein": -1.0, "warmup": 1.0},
    "ivae": {"warmup": -0.1, "shift_learning_rate": 0.0},
    "svae": {"sparsity": -0.1, "shift_start": 0.0},
    "svae-plus": {"sparsity": -0.1},
    "scvi": {"hidden": (32, 16), "dropout": 1.0, "learning_rate": 0.0, "minibatch": 0, "max_epochs": 0, "patience": 0},
    "contrastive-vi": {"n_salient": 0, "wasserstein": -1.0},
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, values in WRONG.items() for key in values])
def test_a_value_out_of_range_is_refused_by_name(name, key):
    with pytest.raises(ConfigError, match=rf"^{name}\.{key}="):
        METHODS[name].configure(**{key: WRONG[name][key]})
