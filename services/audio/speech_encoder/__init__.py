"""Speech encoder: states of the first blocks of Whisper, which learned from very many voices."""
