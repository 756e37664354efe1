"""Messages that several stages read: one codec and one validation per message."""
