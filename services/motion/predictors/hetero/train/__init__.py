"""Training of `hetero`. Serving never imports this package."""
