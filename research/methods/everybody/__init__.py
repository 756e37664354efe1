"""Training of the networks of everybody."""
