"""The report of a batch: one page, one table and one JSON document with the same facts of every shot."""
