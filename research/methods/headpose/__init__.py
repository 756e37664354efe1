"""Training of the networks of headpose."""
