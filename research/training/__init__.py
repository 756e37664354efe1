"""Shared code of trainings: configurations, devices, the loop, run folders, training sets."""
