"""Training of the renderer of `headpose`."""
