"""The motion predictor `everyone`: speech in, expression coefficients out, with a linear layer per person."""
