"""What the curvature terms cost."""

import pytest

from methods.gamma_vae import GammaVAE
from methods.nn.training import train
from tests.benchmarks.data import expression

MINIBATCH, STEPS = 256, 10


@pytest.mark.parametrize("n_latent", [2, 3])
@pytest.mark.parametrize(("n_genes", "at_most"), [(2000, 1.6), (20000, 1.3)])
def test_gamma_vae_step(line, n_genes, at_most, n_latent):
    line.describe(
        f"Γ-VAE step, {n_latent} latents, {n_genes:,} genes, minibatch 256, against the plain VAE's", at_most=at_most
    )
    data = expression(MINIBATCH * STEPS, n_genes)

    def fit(**weights):
        settings = {"n_latent": n_latent, "minibatch": MINIBATCH, "steps": STEPS, "validation": 0.0, **weights}
        method = GammaVAE(GammaVAE.configure(**settings))
        method.prepare(data)
        tensors = method.tensors(data)
        return lambda: train(method, method.network, tensors, method.schedule(), 0, method.name)

    plain = fit(parameter_effects=0.0, extrinsic=0.0, metric_scale=0.0)
    line.alternate(fit(), plain, steps=STEPS, unit="step", rounds=9)
    line.judge()
