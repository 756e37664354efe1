"""Training sets from folders of clips."""
