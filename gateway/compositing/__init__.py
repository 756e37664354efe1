"""Puts a rendered mouth back into the footage's own samples."""
