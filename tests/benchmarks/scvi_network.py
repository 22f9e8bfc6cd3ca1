"""What a comparison with scvi-tools needs: our network made theirs, and their fit's settings made ours."""

import torch
from torch import nn

from methods.nn.training import Schedule

#: Of both.
N_LATENT, HIDDEN, MINIBATCH = 10, (128, 128), 128
OURS = {
    "n_latent": N_LATENT,
    "hidden": HIDDEN,
    "minibatch": MINIBATCH,
    "activation": "relu",
    "dropout": 0.1,
    "learning_rate": 1e-3,
    "validation": 0.0,
}
#: Adam as ours, the KL in full from the start, and nothing logged, drawn or saved.
THEIRS = {
    "train_size": 1.0,
    "batch_size": MINIBATCH,
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
    "plan_kwargs": {"lr": 1e-3, "eps": 1e-8, "weight_decay": 0.0, "n_epochs_kl_warmup": None},
}


class Constant(Schedule):
    """A schedule whose rate is the same at each step."""

    def rate(self, progress):
        return 1.0


class ScviNetwork:
    """Our method with scvi-tools' network and rate: its batch norm, a constant rate, no dropout in the decoder."""

    def schedule(self):
        return Constant(**vars(super().schedule()))

    def build(self, n_genes):
        network = super().build(n_genes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eps, module.momentum = 1e-3, 0.01
        for module in network["decoder"].modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return network


def negative_elbo(method, data):
    """Reconstruction and KL of a fit of ours, a mean over cells, with one draw of the posterior."""
    with torch.no_grad():
        terms = method.loss_terms(method.network, method.tensors(data), 1.0)
    return float(terms["reconstruction"] + terms["kl"])


def start_as_ours(module, method):
    """Let their untrained decoder start where ours does: at the genes' shares and the moments' dispersions."""
    observation = method.network["observation"]
    with torch.no_grad():
        module.decoder.px_scale_decoder[0].bias.add_(observation.offset)
        module.px_r.copy_(observation.likelihood.log_theta)
