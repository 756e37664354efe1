"""Artefacts and arrays in blob stores."""
