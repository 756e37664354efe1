"""Renderer of the method `headpose`."""
