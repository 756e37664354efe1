"""Tenants of one installation: the locations that belong to each, and what each may use."""
