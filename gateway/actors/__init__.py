"""Enrolled people: what was learned of them, their consent, and erasure."""
