"""What the trainings of several predictors share, and the training of the sync network. Serving never imports this package."""
