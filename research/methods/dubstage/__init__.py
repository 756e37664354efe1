"""Training of the networks of speech_map."""
