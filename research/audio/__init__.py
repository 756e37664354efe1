"""Trainings, exports and measurements of the networks of the audio stage."""
