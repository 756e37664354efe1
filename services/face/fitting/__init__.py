"""Fitting a morphable face model to tracked faces: landmarks first, then colours; per clip, per frame of a stream, per person."""
