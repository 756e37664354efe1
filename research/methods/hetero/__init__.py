"""Training of the networks of hetero."""
