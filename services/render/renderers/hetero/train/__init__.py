"""Training of the renderer of `hetero`."""
