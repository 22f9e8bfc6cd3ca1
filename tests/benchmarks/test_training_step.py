"""A training step against the matrix products that it cannot do without."""

import torch

from methods.nn.training import train
from methods.vaes import VAE
from tests.benchmarks.data import expression

MINIBATCH, STEPS = 512, 20


def matrix_products(network, steps):
    """Return a function that multiplies ``steps`` times what a step does: forward, and twice that backward."""
    shapes = [layer.weight.shape for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    layers = [
        (torch.randn(MINIBATCH, fan_in), torch.randn(fan_out, fan_in), torch.randn(MINIBATCH, fan_out))
        for fan_out, fan_in in shapes
    ]

    def multiply():
        for _ in range(steps):
            for x, weight, gradient in layers:
                x @ weight.T
                gradient @ weight
                gradient.T @ x

    return multiply


def test_gaussian_vae_step(line):
    line.describe("Gaussian VAE step, 2,000 genes, 2×128, minibatch 512, against its matrix products", at_most=1.5)
    data = expression(MINIBATCH * STEPS, 2000)
    method = VAE(VAE.configure(minibatch=MINIBATCH, steps=STEPS, validation=0.0))
    method.prepare(data)
    tensors = method.tensors(data)

    def ours():
        train(method, method.network, tensors, method.schedule(), 0, method.name)

    line.alternate(ours, matrix_products(method.network, STEPS), steps=STEPS, unit="step", rounds=9)
    line.judge()
