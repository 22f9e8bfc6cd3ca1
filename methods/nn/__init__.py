"""Networks, likelihoods, penalties and the training loop of the neural methods."""

#: Names of activations, norms and likelihoods; they are here so that configurations are checked without PyTorch.
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
