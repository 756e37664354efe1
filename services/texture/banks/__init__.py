"""Messages of mouth banks."""
