"""Learning of a person from footage: coefficients, texture, expression, identity, and whether consent fits the person."""
