"""Networks of the audio stage."""
