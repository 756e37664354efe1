"""Training of `headpose`. Serving never imports this package."""
