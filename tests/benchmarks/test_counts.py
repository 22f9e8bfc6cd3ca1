"""Training on sparse counts against scvi-tools."""

import logging

from methods.neural import seeded
from methods.nn.training import train
from methods.vaes import VAE
from tests.benchmarks.conftest import ROUNDS
from tests.benchmarks.data import dense, in_steps, sparse_counts
from tests.benchmarks.scvi_network import (
    HIDDEN,
    MINIBATCH,
    N_LATENT,
    OURS,
    THEIRS,
    ScviNetwork,
    negative_elbo,
    start_as_ours,
)

N_CELLS, EPOCHS = 6000, 5


class CountVAE(ScviNetwork, VAE):
    pass


def test_negative_binomial_step(line):
    line.describe("NB step, 6,000 × 2,000, 90 % zeros, minibatch 128, against scvi-tools SCVI", faster=5)
    line.needs("scvi", "scvi")
    import scvi

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = sparse_counts(N_CELLS, 2000)
    assert 0.89 < 1 - data.layers["counts"].nnz / (N_CELLS * 2000) < 0.91
    handed = dense(data)
    scvi.model.SCVI.setup_anndata(data, layer="counts")
    config = CountVAE.configure(likelihood="negative-binomial", steps=in_steps(EPOCHS, N_CELLS), **OURS)

    def prepared(seed):
        method = CountVAE(config)
        with seeded(seed):
            method.prepare(handed)
        return method, method.tensors(handed), seed

    def prepared_theirs(seed):
        scvi.settings.seed = seed
        shape = {"n_hidden": HIDDEN[0], "n_layers": len(HIDDEN), "n_latent": N_LATENT}
        model = scvi.model.SCVI(data, gene_likelihood="nb", **shape)
        start_as_ours(model.module, untrained)
        return model

    seeds = range(1 + ROUNDS)
    of_ours = iter([prepared(seed) for seed in seeds])
    untrained = prepared(0)[0]
    of_theirs = iter([prepared_theirs(seed) for seed in seeds])

    def ours():
        method, tensors, seed = next(of_ours)
        train(method, method.network, tensors, method.schedule(), seed, method.name)
        return method

    def theirs():
        model = next(of_theirs)
        model.train(max_epochs=EPOCHS, **THEIRS)
        return model

    steps = EPOCHS * -(-N_CELLS // MINIBATCH)
    fits, models = line.alternate(ours, theirs, steps=steps, unit="step")
    line.require_same_loss([negative_elbo(fit, handed) for fit in fits], [-float(model.get_elbo()) for model in models])
    line.judge()
