"""Training of the texture stage's network."""
