"""StarGAN, a translator between environments that is trained against a critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.base import column, key, require_trained, searched
from methods.errors import CannotFit
from methods.neural import NeuralMethod, environment_numbers, in_blocks, seeded

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn

#: Momenta of Adam; Choi et al. 2018.
BETAS = (0.5, 0.999)
#: Added to a squared norm, whose root has no slope at zero.
TINY = 1e-12


class StarGAN(NeuralMethod):
    """StarGAN (Choi et al. 2018): one translator G(x, c) for all environments c, and a critic D that judges it.

    D has two heads, on real or made (Wasserstein, with a gradient penalty) and on the environment. On a minibatch of
    real cells x of environments c and random targets c′,

        D minimises  E[D(G(x, c′))] − E[D(x)] + λ_gp·E[(‖∇D(x̂)‖ − 1)²] + λ_c·E[−log D(c | x)],
        G minimises  −E[D(G(x, c′))] + λ_c·E[−log D(c′ | G(x, c′))] + λ_r·E‖x − G(G(x, c′), c)‖₁,

    where x̂ lies at a random place between a real and a made cell. D takes five steps for each of G. ``predict`` is G.
    There is no code, and so no ``embed``: it is what LORD is measured against.

    Ours differs: multilayer perceptrons on scaled expression in place of convolutions on images, so that ‖·‖₁ is, as
    theirs, the mean over outputs; G adds to its input, as most genes keep their value; fewer steps, of larger
    minibatches, at a higher rate. There is no validation: no loss of an adversarial pair says which weights are best,
    and the last ones are kept.
    """

    name = "stargan"
    composes = False
    tags = frozenset({"prediction", "adversarial"})
    paper = "Choi et al. 2018, CVPR, arXiv 1711.09020: StarGAN"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 100},
        "paper": {"steps": 200_000, "minibatch": 16, "learning_rate": 1e-4},
    }

    @dataclass(frozen=True)
    class Config:
        """Networks, weights of the losses and training."""

        hidden: tuple[int, ...] = key((128, 128), above=0)  # the suite's networks
        gradient_penalty: float = key(10.0, least=0)  # λ_gp; Choi et al. 2018
        environment: float = searched(1.0, 0.1, 10.0, log=True, least=0)  # λ_c; Choi et al. 2018
        cycle: float = searched(10.0, 1.0, 100.0, log=True, least=0)  # λ_r; Choi et al. 2018
        critic_steps: int = key(5, above=0)  # Choi et al. 2018
        # of both networks; constant, then falling linearly to 0 over the second half; Choi et al. 2018
        learning_rate: float = searched(3e-4, 1e-5, 3e-3, log=True, above=0)  # ours, decision 0030; theirs is 1e-4
        minibatch: int = key(64, above=1)  # ours; Choi et al. 2018 have 16 images
        steps: int = key(10_000, above=0)  # of the critic; ours, Choi et al. 2018 have 200,000

    @classmethod
    def check(cls, config: Any) -> None:
        """Allow all: the suite's rules for batch norm do not apply."""

    def fit(self, data: AnnData, seed: int) -> Self:
        """Train critic and translator in turn."""
        import torch

        self.environments = sorted(set(column(data, "environment").tolist()))
        if len(self.environments) < 2:
            raise CannotFit(f"{self.name} translates between environments; there is one, {self.environments[0]!r}")
        if not (np.asarray(data.X) - np.asarray(data.X[:1])).any():
            raise CannotFit(f"{self.name} needs cells that differ; all of the {data.n_obs} are alike")
        self.n_genes, self.likelihood = data.n_vars, "gaussian"
        with seeded(seed):
            self.place(data)
            x = self.network["observation"].network_input(self.network["observation"].tensors(data))
            self._train(x, environment_numbers(data, self.where), np.random.default_rng(seed))
        if not all(torch.isfinite(weight).all() for weight in self.network.parameters()):
            raise CannotFit(f"{self.name} diverged: a weight is not finite; lower learning_rate")
        self.network.eval()
        return self

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return the observation, the translator, and the critic's body and heads."""
        from torch import nn

        from methods.nn.networks import hidden_layers
        from methods.nn.observation import observation

        n, hidden = len(self.environments), self.config.hidden
        return nn.ModuleDict(
            {
                "observation": observation("gaussian", n_genes),
                "translator": nn.Sequential(
                    hidden_layers((n_genes + n, *hidden), "leaky_relu", "layer", 0.0), nn.Linear(hidden[-1], n_genes)
                ),
                "critic": hidden_layers((n_genes, *hidden), "leaky_relu", "none", 0.0),
                "source": nn.Linear(hidden[-1], 1),
                "class": nn.Linear(hidden[-1], n),
            }
        )

    def translated(self, x: Tensor, environment: Tensor) -> Tensor:
        """Return scaled cells (n_cells, n_genes) in environments, by their numbers (n_cells,)."""
        import torch
        import torch.nn.functional as F

        one_hot = F.one_hot(environment, len(self.environments)).to(x.dtype)
        return x + self.network["translator"](torch.cat([x, one_hot], 1))

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the cells translated to a trained environment, (n_cells, n_genes)."""
        import torch

        require_trained(self.name, target_environment, self.environments)
        observed, number = self.network["observation"], self.environments.index(target_environment)
        found = []
        with torch.no_grad():
            for part in in_blocks(data):
                x = observed.network_input(observed.tensors(part))
                there = torch.full((len(x),), number, device=self.where)
                found.append(observed.expression(self.translated(x, there)).cpu().numpy())
        return np.concatenate(found)

    def _train(self, x: Tensor, environment: Tensor, rng: np.random.Generator) -> None:
        """Take the steps; the training curves are means over hundredths of them."""
        import torch
        from torch.optim import Adam

        config, network = self.config, self.network
        of_critic = [*network["critic"].parameters(), *network["source"].parameters(), *network["class"].parameters()]
        critic = Adam(of_critic, config.learning_rate, betas=BETAS)
        translator = Adam(network["translator"].parameters(), config.learning_rate, betas=BETAS)
        sums: dict[str, list[float]] = {}
        for step in range(1, config.steps + 1):
            rate = config.learning_rate * min(1.0, 2 * (1 - (step - 1) / config.steps))
            cells = rng.choice(len(x), min(config.minibatch, len(x)), replace=False)
            real, own = x[cells], environment[cells]
            target = torch.randint(len(self.environments), (len(real),)).to(x.device)
            terms = self._critic_terms(real, own, target)
            _descend(terms, critic, rate)
            if step % config.critic_steps == 0:
                of_translator = self._translator_terms(real, own, target)
                _descend(of_translator, translator, rate)
                terms |= of_translator
            for term, value in terms.items():
                sums.setdefault(term, []).append(float(value.detach()))
            if step % max(1, config.steps // 100) == 0:
                for term, values in sums.items():
                    self.history.setdefault(term, []).append(float(np.mean(values)))
                sums.clear()

    def _critic_terms(self, real: Tensor, own: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the critic's losses, means over cells."""
        import torch
        import torch.nn.functional as F

        network = self.network
        made = self.translated(real, target).detach()
        hidden = network["critic"](real)
        place = torch.rand(len(real), 1, device=real.device)
        between = (place * real + (1 - place) * made).requires_grad_()
        (gradient,) = torch.autograd.grad(
            network["source"](network["critic"](between)).sum(), between, create_graph=True
        )
        norm = (gradient.square().sum(1) + TINY).sqrt()
        return {
            "critic": network["source"](network["critic"](made)).mean() - network["source"](hidden).mean(),
            "gradient_penalty": self.config.gradient_penalty * (norm - 1).square().mean(),
            "critic_class": self.config.environment * F.cross_entropy(network["class"](hidden), own),
        }

    def _translator_terms(self, real: Tensor, own: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the translator's losses, means over cells."""
        import torch.nn.functional as F

        network = self.network
        made = self.translated(real, target)
        hidden = network["critic"](made)
        back = self.translated(made, own)
        return {
            "translator": -network["source"](hidden).mean(),
            "translator_class": self.config.environment * F.cross_entropy(network["class"](hidden), target),
            "cycle": self.config.cycle * (real - back).abs().mean(),
        }


def _descend(terms: Mapping[str, Tensor], optimiser: Any, rate: float) -> None:
    """Take a step of this rate down the sum of the terms; gradients of other weights wait for their own clearing."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    sum(terms.values()).backward()  # type: ignore[union-attr]
    optimiser.step()
