"""Wanted mouths, as several RPCs of the stage take them."""
