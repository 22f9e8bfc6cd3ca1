"""MyVae: a VAE with one penalty of its own. Change the penalty, its default, and what is said of both.

python -m bench check my_vae.py:MyVae
python -m bench run --methods my_vae.py:MyVae,vae,pca --tasks reembedding/pancancer-sim --preset smoke
"""

from dataclasses import dataclass

from methods.base import key
from methods.vaes import VAE


class MyVae(VAE):
    """A VAE whose codes are drawn to zero one by one.

    loss = VAE's + λ Σ_j |μ_j|, the posterior means μ summed over latents, averaged over cells. At λ = 0 it is the VAE.
    """

    # what its rows are called, and what --methods and --set say
    name = "my-vae"
    # what it can do, and any other word that it is to be found by
    tags = VAE.tags | {"disentanglement"}
    # the paper; here that of the penalty
    paper = "Tibshirani 1996, J. R. Stat. Soc. B 58:267, the lasso"

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with the weight of the penalty; each default says where it comes from."""

        sparsity: float = key(0.1, least=0)  # λ; ours, not tuned

    def penalties(self, forward):
        """Return the named terms that are added to the reconstruction; each of them is logged.

        ``forward`` has mean, log_variance and z of a minibatch's cells, each a tensor (n_cells, n_latent).
        """
        terms = super().penalties(forward)
        terms["sparsity"] = self.config.sparsity * forward.mean.abs().sum(-1).mean(-1)
        return terms
