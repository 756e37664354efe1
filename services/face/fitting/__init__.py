"""Fits of a morphable face model to tracked faces, first to landmarks, then to colours: per clip, per frame, per person."""
