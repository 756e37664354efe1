"""Footage in and out: what a file holds, its frames and sound, and a film with every frame time kept."""
