"""Backups: everything that an installation knows of its actors in one file, and an installation made from that file."""
