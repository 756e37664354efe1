"""Training of the renderer of `ugc`."""
