"""Training of the networks of ugc."""
