"""Runtimes that compute the exported networks, behind one interface."""
