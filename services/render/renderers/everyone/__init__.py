"""Renderer of the method `everyone`."""
