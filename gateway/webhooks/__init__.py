"""Webhooks: events of operations and batches that have ended, sent to the callers' HTTP servers."""
