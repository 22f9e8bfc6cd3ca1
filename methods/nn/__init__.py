"""What the variational autoencoders share: networks, likelihoods, penalties and the one training loop."""
