"""The VAE, the β-VAE and the parts that they are made of."""

import dataclasses

import numpy as np
import pytest
import torch

from methods import METHODS, CannotFit
from methods.errors import ConfigError
from methods.nn import ACTIVATIONS
from methods.nn.networks import Decoder, GaussianEncoder, Scaler, hidden_layers
from methods.vaes import VAE, BetaVAE

SMALL = {"n_latent": 3, "hidden": (32,)}


def fit_vae(data, seed=0, cls=VAE, **changes):
    return cls(cls.configure(**{**SMALL, "steps": 40, **changes})).fit(data, seed)


# --- networks


def test_scaler_centres_genes_keeps_their_proportions_and_undoes_itself():
    torch.manual_seed(0)
    x = torch.randn(50, 4) * torch.tensor([1.0, 3.0, 0.1, 0.0]) + torch.tensor([0.0, 5.0, -2.0, 8.3])
    scaler = Scaler(4)
    scaler.set_moments(x.mean(0), x.var(0, correction=0))
    z = scaler(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0).mean(), torch.ones(()), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0)[1] / z.std(0)[0], x.std(0)[1] / x.std(0)[0])
    torch.testing.assert_close(scaler.inverse(z), x, atol=1e-5, rtol=1e-5)
    assert not list(scaler.parameters())


def test_scaler_leaves_constant_expression_as_it_is():
    scaler = Scaler(2)
    scaler.set_moments(torch.full((2,), 3.0), torch.zeros(2))
    assert scaler.std == 1.0


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_networks_have_the_stated_shapes(activation, norm):
    encoder = GaussianEncoder(6, (8, 7), 3, activation, norm, 0.1)
    decoder = Decoder(3, (7, 8), 6, activation, norm, 0.1)
    mean, log_variance = encoder(torch.randn(5, 6))
    assert mean.shape == log_variance.shape == (5, 3)
    assert decoder(mean).shape == (5, 6)


def test_hidden_layers_have_no_bias_before_batch_norm_and_no_dropout_at_zero():
    batch = hidden_layers((4, 8), "relu", "batch", 0.5)
    assert [type(layer).__name__ for layer in batch] == ["Linear", "BatchNorm", "ReLU", "Dropout"]
    assert batch[0].bias is None
    plain = hidden_layers((4, 8), "softplus", "none", 0.0)
    assert [type(layer).__name__ for layer in plain] == ["Linear", "Softplus"]
    assert plain[0].bias is not None


def test_posterior_variance_is_bounded():
    encoder = GaussianEncoder(2, (4,), 3, "relu", "none", 0.0)
    with torch.no_grad():
        encoder.log_variance.bias.fill_(1e4)
    assert encoder(torch.zeros(1, 2))[1].max() == 10.0


# --- the method


def test_training_lowers_the_loss_and_reconstructs_better_than_the_mean(structured):
    vae = fit_vae(structured, steps=640, dropout=0.0, learning_rate=5e-3)
    totals = np.add(vae.history["reconstruction"], vae.history["kl"])
    assert len(totals) > 20
    assert totals[-1] < totals[0] - 5
    x = np.asarray(structured.X)
    explained = 1 - np.square(vae.decode(vae.embed(structured)) - x).sum() / np.square(x - x.mean(axis=0)).sum()
    assert explained > 0.85  # measured .976, about what is not noise


def test_prediction_moves_cells_toward_the_target(structured):
    vae = fit_vae(structured, steps=640, dropout=0.0, learning_rate=5e-3)
    control = (structured.obs["condition"] == "control").to_numpy()
    x = np.asarray(structured.X)
    predicted = vae.predict(structured[control].copy(), "stimulated").mean(axis=0)
    before, after = x[control].mean(axis=0), x[~control].mean(axis=0)
    # measured .03 of the way left
    assert np.linalg.norm(predicted - after) < 0.2 * np.linalg.norm(before - after)


def test_history_has_every_loss_term_and_the_validation_loss(structured):
    vae = fit_vae(structured, steps=32)
    assert set(vae.history) == {"reconstruction", "kl", "validation"}
    assert {len(curve) for curve in vae.history.values()} == {4}
    assert vae.log[-1] == "training stopped: the end of its steps"


def test_embed_is_the_posterior_mean_in_eval_mode(structured):
    vae = fit_vae(structured, dropout=0.5)
    assert not any(module.training for module in vae.network.modules())
    first = vae.embed(structured)
    np.testing.assert_array_equal(first, vae.embed(structured))
    with torch.no_grad():
        standardised = vae.network["observation"].scaler(torch.from_numpy(structured.X))
        body = vae.network["encoder"].body
        assert any(isinstance(layer, torch.nn.Dropout) for layer in body)
        mean = vae.network["encoder"].mean(body(standardised))
    np.testing.assert_array_equal(first, mean.numpy())


def test_expression_is_scaled_by_training_cells_and_decoded_on_the_scale_of_x(structured):
    scaled = structured.copy()
    factor = np.float32(40.0)
    scaled.X = structured.X * factor + 7
    plain, other = fit_vae(structured, steps=24), fit_vae(scaled, steps=24)
    # the same network in scaled units, up to rounding
    np.testing.assert_allclose(other.embed(scaled), plain.embed(structured), atol=1e-2)
    np.testing.assert_allclose(
        (other.decode(other.embed(scaled)) - 7) / factor, plain.decode(plain.embed(structured)), atol=0.1
    )


def test_fewer_than_twenty_cells_train_without_a_validation_split(structured):
    few = structured[:19].copy()
    vae = fit_vae(few)
    assert set(vae.history) == {"reconstruction", "kl"}
    assert vae.embed(few).shape == (19, 3)
    assert "validation" in fit_vae(structured[:20].copy()).history


def test_too_small_data_are_refused(structured):
    with pytest.raises(CannotFit, match="at least 2 cells, got 1"):
        fit_vae(structured[:1].copy())
    with pytest.raises(CannotFit, match="n_latent=3 is more than the 2 genes"):
        fit_vae(structured[:, :2].copy())
    with pytest.raises(ConfigError, match=r"n_latent=0"):
        fit_vae(structured, n_latent=0)


# --- β-VAE

NETWORK = {"hidden": (16,), "n_latent": 3, "activation": "relu", "dropout": 0.1, "steps": 48}


def test_beta_one_with_the_network_of_the_vae_is_the_vae_bit_for_bit(structured):
    defaults = {field.name: getattr(VAE.Config(), field.name) for field in dataclasses.fields(VAE.Config)}
    plain = VAE(VAE.configure(**{**defaults, **NETWORK})).fit(structured, 3)
    beta = BetaVAE(BetaVAE.configure(**{**defaults, **NETWORK}, beta=1.0)).fit(structured, 3)
    assert plain.history == beta.history
    first, second = plain.state(), beta.state()
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
    np.testing.assert_array_equal(plain.embed(structured), beta.embed(structured))
    np.testing.assert_array_equal(plain.predict(structured, "stimulated"), beta.predict(structured, "stimulated"))
    other = BetaVAE(BetaVAE.configure(**{**defaults, **NETWORK}, beta=1.01)).fit(structured, 3)
    assert not np.array_equal(other.embed(structured), plain.embed(structured))


def test_a_larger_beta_leaves_less_information_in_the_code(structured):
    spread = [
        fit_vae(structured, cls=BetaVAE, beta=beta, steps=320, dropout=0.0, learning_rate=5e-3, activation="relu")
        .embed(structured)
        .var()
        for beta in (0.1, 4.0, 400.0)
    ]
    # measured 2.07, .85, .0004
    assert spread[0] > spread[1] > spread[2]
    # a posterior equal to the prior: the code is constant
    assert spread[2] < 0.02 * spread[0]


def test_beta_zero_has_no_kl_term_in_the_loss(structured):
    assert set(fit_vae(structured, cls=BetaVAE, beta=0.0).history["kl"]) == {0.0}


@pytest.mark.parametrize("name", ["vae", "beta-vae"])
def test_the_order_of_loss_terms_and_their_names(name, structured):
    assert list(fit_vae(structured, cls=METHODS[name], steps=8).history)[:2] == ["reconstruction", "kl"]
