"""Training, training sets and measurements of the networks that dubstage serves. Serving never imports this package."""
