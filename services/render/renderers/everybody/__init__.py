"""Renderer of the method `everybody`."""
