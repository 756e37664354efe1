"""Trainings, training sets and measurements of dubstage's networks. The product never imports this package."""

import services  # noqa: F401  # sets the variables that numeric libraries read when they are loaded
