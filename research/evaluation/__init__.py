"""Self-re-enactment: personalise on one part of a clip, dub the rest with its own audio, compare with the truth."""
