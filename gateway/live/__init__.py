"""Speech in, dubbed frames out, while it is spoken."""
