"""Training of the Audio ID-Removing Network."""
