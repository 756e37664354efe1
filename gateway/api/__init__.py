"""The gateway's RPCs: actors, dubs as long-running operations, live streams."""
