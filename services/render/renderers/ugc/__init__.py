"""Renderer of the method `ugc`."""
