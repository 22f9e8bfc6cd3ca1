"""What the variational autoencoders share: networks, likelihoods, penalties and the one training loop."""

#: Names of activations and norms, here so that a configuration is checked without importing PyTorch.
ACTIVATIONS = ("relu", "leaky_relu", "softplus", "elu")
NORMS = ("none", "layer", "batch")
