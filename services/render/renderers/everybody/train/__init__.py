"""Training of the renderer of `everybody`."""
