"""Personalisation: the one place where this server trains."""
