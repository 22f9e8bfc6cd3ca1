"""An epoch of trVAE against the same model written the usual way."""

import itertools

import torch
from torch.utils.data import DataLoader, TensorDataset

from methods.cvae import TrVAE
from methods.nn.penalties import TRVAE_WIDTHS
from tests.benchmarks.data import expression, in_steps
from tests.benchmarks.scvi_network import Constant

N_CELLS, EPOCHS = 6000, 10


def usual_mmd(x, y):
    """Return the discrepancy of two samples: three matrices of distances, and each a kernel for every width."""
    widths = torch.tensor(TRVAE_WIDTHS).reshape(-1, 1, 1)

    def kernel(a, b):
        distance = (a.unsqueeze(1) - b.unsqueeze(0)).pow(2).sum(-1)
        return torch.exp(-distance / (2 * widths)).mean(0).mean()

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


class ConstantTrVAE(TrVAE):
    stackable = True

    def schedule(self):
        return Constant(**vars(super().schedule()))


def usual_fit(method, data, seed):
    """Train ``method``'s network as is usual, and return the method."""
    torch.manual_seed(seed)
    method.prepare(data)
    network, config = method.network, method.config
    tensors = method.tensors(data)
    loader = DataLoader(TensorDataset(tensors["x"], tensors["environment"]), config.minibatch, shuffle=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    unit = network["observation"].scaler.std ** 2
    network.train()
    for _ in range(EPOCHS):
        for x, environment in loader:
            mean, log_variance = network["encoder"](torch.cat([x, environment], 1))
            z = torch.distributions.Normal(mean, torch.exp(log_variance / 2)).rsample()
            first = network["decoder"].first(torch.cat([z, environment], 1))
            output = network["decoder"].rest(first)
            reconstruction = config.reconstruction * unit * 0.5 * ((x - output) ** 2).sum(1).mean()
            kl = config.kl * 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean(1).mean()
            groups = [first[environment[:, i] == 1] for i in range(environment.shape[1])]
            pairs = [usual_mmd(a, b) for a, b in itertools.combinations(groups, 2) if len(a) and len(b)]
            loss = reconstruction + kl + config.mmd * sum(pairs) / max(1, len(pairs))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    return method


def test_trvae_epoch(line):
    line.describe("trVAE epoch, 6,000 × 2,000, against DataLoader and unfused Adam", faster=3)
    data = expression(N_CELLS, 2000)
    config = ConstantTrVAE.configure(steps=in_steps(EPOCHS, N_CELLS), learning_rate=1e-3, validation=0.0)
    seeds = itertools.count(), itertools.count()

    def loss(method):
        with torch.no_grad():
            return float(sum(method.loss_terms(method.network, method.tensors(data), 1.0).values()))

    fits, usual_fits = line.alternate(
        lambda: ConstantTrVAE(config).fit(data, next(seeds[0])),
        lambda: usual_fit(ConstantTrVAE(config), data, next(seeds[1])),
        steps=EPOCHS,
        unit="epoch",
    )
    line.require_same_loss([loss(fit) for fit in fits], [loss(fit) for fit in usual_fits])
    line.judge()
