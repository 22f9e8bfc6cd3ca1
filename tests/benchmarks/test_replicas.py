"""Seeds fitted in one pass against one after another."""

import itertools

import pytest

from methods.vaes import VAE
from tests.benchmarks.data import expression, in_steps

N_CELLS, N_REPLICAS, EPOCHS = 1000, 5, 20


def test_five_seeds_of_a_small_model(line):
    line.describe("VAE, 50 genes, 2×32, minibatch 64, five seeds at once against one after another", faster=2.5)
    compare(line, n_genes=50, hidden=(32, 32), minibatch=64)
    line.judge()


@pytest.mark.parametrize("n_genes", [100, 500])
def test_five_seeds_of_the_default_model_cost_no_more(line, n_genes):
    line.describe(f"VAE, {n_genes} genes, 2×128, minibatch 128, five seeds at once against one after another", faster=1)
    compare(line, n_genes=n_genes, hidden=(128, 128), minibatch=128)
    line.judge()


def compare(line, n_genes, **settings):
    data = expression(N_CELLS, n_genes)
    config = VAE.configure(steps=in_steps(EPOCHS, 0.9 * N_CELLS, settings["minibatch"]), **settings)
    firsts = itertools.count(step=N_REPLICAS), itertools.count(step=N_REPLICAS)

    def seeds(which):
        first = next(firsts[which])
        return range(first, first + N_REPLICAS)

    def together():
        methods = [VAE(config) for _ in range(N_REPLICAS)]
        assert VAE.fit_stacked(methods, [data] * N_REPLICAS, seeds(0)) == [None] * N_REPLICAS
        return methods

    def one_by_one():
        return [VAE(config).fit(data, seed) for seed in seeds(1)]

    def losses(rounds):
        return [sum(method.history["validation"][-1] for method in methods) / N_REPLICAS for methods in rounds]

    ours, theirs = line.alternate(together, one_by_one, unit="five fits")
    line.require_same_loss(losses(ours), losses(theirs))
