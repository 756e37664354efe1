"""Personalisation: the one place where the stage learns while it serves."""
