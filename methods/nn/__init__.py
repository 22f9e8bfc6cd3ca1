"""What the variational autoencoders share: networks, likelihoods, penalties and the one training loop."""

#: Names of activations, norms and likelihoods, here so that a configuration is checked without importing PyTorch.
ACTIVATIONS = ("relu", "leaky_relu", "softplus", "elu", "silu")
NORMS = ("none", "layer", "batch")
LIKELIHOODS = (
    "gaussian",
    "gene-gaussian",
    "squared-error",
    "negative-binomial",
    "zero-inflated-negative-binomial",
    "bernoulli",
)
