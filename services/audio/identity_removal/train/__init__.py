"""Training of the identity removal network."""
