"""Motion predictors: one folder per method, and the registry."""
