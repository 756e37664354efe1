"""Tenants of one installation: the places that belong to each, and what each may use."""
