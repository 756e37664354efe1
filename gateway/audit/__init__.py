"""The audit log: who did what with whose face, in one chain of entries that all gateways of a database append to."""
