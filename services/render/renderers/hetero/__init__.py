"""Renderer of `hetero`: the landmark translator."""
