"""An epoch of sVAE+ against the same model written in scvi-tools' idiom, as the published one is."""

import itertools
import logging

import pytest
import torch
import torch.nn.functional as F

from methods.sparse_shift_vae import SVAEPlus
from tasks.simulate.sparse_shift import SPARSE_SHIFT_PUBLISHED
from tests.benchmarks.data import in_steps
from tests.benchmarks.scvi_network import HIDDEN, N_LATENT, OURS, THEIRS, ScviNetwork, negative_elbo, start_as_ours

EPOCHS = 4


class OurSVAEPlus(ScviNetwork, SVAEPlus):
    pass


@pytest.fixture(scope="module")
def simulation():
    """The published simulation, 25,000 cells × 100 genes, 100 perturbations."""
    data = SPARSE_SHIFT_PUBLISHED.load("paper")
    assert data.shape == (25000, 100)
    return data


def scvi_model(data, sparsity):
    """An untrained sVAE+ on scvi-tools' base classes, networks, distributions and loaders."""
    from scvi import REGISTRY_KEYS
    from scvi.data import AnnDataManager
    from scvi.data.fields import CategoricalObsField, LayerField
    from scvi.distributions import NegativeBinomial
    from scvi.model.base import BaseModelClass, UnsupervisedTrainingMixin
    from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
    from scvi.nn import DecoderSCVI, Encoder
    from torch.distributions import Beta, Normal, kl_divergence

    class Module(BaseModuleClass):
        def __init__(self, n_cells, n_genes, n_environments):
            super().__init__()
            shape = {"n_layers": len(HIDDEN), "n_hidden": HIDDEN[0], "use_batch_norm": True}
            self.n_cells = n_cells
            self.encoder = Encoder(n_genes, N_LATENT, dropout_rate=0.1, return_dist=True, **shape)
            self.decoder = DecoderSCVI(N_LATENT, n_genes, **shape)
            self.px_r = torch.nn.Parameter(torch.randn(n_genes))
            self.shift = torch.nn.Parameter(torch.randn(n_environments, N_LATENT))
            self.logit = torch.nn.Parameter(torch.full((n_environments, N_LATENT), 5.0))

        def _get_inference_input(self, tensors):
            return {"x": tensors[REGISTRY_KEYS.X_KEY]}

        def _get_generative_input(self, tensors, inference_outputs):
            environment = tensors[REGISTRY_KEYS.LABELS_KEY]
            return {"z": inference_outputs["z"], "library": inference_outputs["library"], "environment": environment}

        @auto_move_data
        def inference(self, x):
            qz, z = self.encoder(torch.log1p(x))
            return {"qz": qz, "z": z, "library": torch.log(x.sum(1, keepdim=True))}

        @auto_move_data
        def generative(self, z, library, environment):
            share, _, rate, _ = self.decoder("gene", z, library)
            logit = self.logit[environment.squeeze(-1)]
            if self.training:
                mask = F.gumbel_softmax(torch.stack([logit, torch.zeros_like(logit)], -1), tau=1.0, hard=True)[..., 0]
            else:
                mask = (logit > 0).float()
            shift = mask * self.shift[environment.squeeze(-1)]
            px = NegativeBinomial(mu=rate, theta=self.px_r.exp(), scale=share)
            return {"px": px, "pz": Normal(shift, torch.ones_like(shift))}

        def loss(self, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
            kl = kl_divergence(inference_outputs["qz"], generative_outputs["pz"]).sum(-1)
            reconstruction = -generative_outputs["px"].log_prob(tensors[REGISTRY_KEYS.X_KEY]).sum(-1)
            prior = Beta(1.0, sparsity).log_prob(self.logit.sigmoid()).sum() / self.n_cells
            loss = (reconstruction + kl_weight * kl).mean() - prior
            return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=kl)

    class Model(UnsupervisedTrainingMixin, BaseModelClass):
        def __init__(self, adata):
            super().__init__(adata)
            stats = self.summary_stats
            self.module = Module(stats.n_cells, stats.n_vars, stats.n_labels)
            self._model_summary_string = "sVAE+"
            self.init_params_ = self._get_init_params(locals())

        @classmethod
        def setup_anndata(cls, adata, layer, labels_key):
            columns = CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key)
            manager = AnnDataManager(
                fields=[LayerField(REGISTRY_KEYS.X_KEY, layer), columns],
                setup_method_args=cls._get_setup_method_args(**locals()),
            )
            manager.register_fields(adata)
            cls.register_manager(manager)

    Model.setup_anndata(data, "counts", "perturbation")
    return Model(data)


def elbo_of(model, data):
    """Their reconstruction and KL, a mean over cells."""
    losses = []
    for tensors in model._make_data_loader(adata=data, batch_size=1000):
        _, _, loss = model.module(tensors)
        losses.append(next(iter(loss.reconstruction_loss.values())) + next(iter(loss.kl_local.values())))
    return float(torch.cat(losses).mean())


def test_svae_plus_epoch(line, simulation):
    line.describe("sVAE+ epoch, published simulation, 25,000 × 100, minibatch 128, against scvi-tools", faster=5)
    line.needs("scvi", "scvi")
    import scvi

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    published = {"shift_learning_rate": 1e-3, "shift_start": 1.0, "sparsity": 0.4}
    config = OurSVAEPlus.configure(
        likelihood="negative-binomial", steps=in_steps(EPOCHS, 25_000), warmup=0.0, **published, **OURS
    )
    untrained = OurSVAEPlus(config)
    untrained.prepare(simulation)
    cells = simulation.copy()
    seeds = itertools.count(), itertools.count()

    def ours():
        return OurSVAEPlus(config).fit(simulation, next(seeds[0]))

    def theirs():
        scvi.settings.seed = next(seeds[1])
        model = scvi_model(cells, config.sparsity * 250)
        start_as_ours(model.module, untrained)
        model.train(max_epochs=EPOCHS, **THEIRS)
        return model

    fits, models = line.alternate(ours, theirs, steps=EPOCHS, unit="epoch")
    with torch.no_grad():
        line.require_same_loss(
            [negative_elbo(fit, simulation) for fit in fits], [elbo_of(model, cells) for model in models]
        )
    line.judge()
