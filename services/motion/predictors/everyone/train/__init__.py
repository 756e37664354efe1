"""Training of the network of `everyone`."""
