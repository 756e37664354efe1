"""Fit of the maps of `speech_map`, and their measurement with each speaker left out."""
