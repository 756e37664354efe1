"""Training of `everybody`. Serving never imports this package."""
