"""Training of `ugc`. Serving never imports this package."""
