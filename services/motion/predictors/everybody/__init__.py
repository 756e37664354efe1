"""The motion predictor `everybody`: a second of ID-removed speech in, expression coefficients out."""
