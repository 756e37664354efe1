"""Requests for dubs: from the messages and texts that people write to a checked request, and the claim that a video makes."""
