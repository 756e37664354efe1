"""Training of what the predictors of motion share: the expression space, the sync network, and the scores of a predictor."""
