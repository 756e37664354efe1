"""Training of the networks of everyone."""
