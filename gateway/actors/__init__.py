"""People who are enrolled: what was learned of them, their consent, and how all of it is erased."""
