"""Training of the renderer of `everyone`."""
