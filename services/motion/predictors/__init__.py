"""Motion predictors: one folder each, and the registry, which finds the folders."""
