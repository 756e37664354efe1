"""The motion predictor `ugc`: a second and a half of speech and a style in, landmark coefficients out."""
