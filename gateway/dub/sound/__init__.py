"""Sound of a dub: speech and its features, the sound of a scene, lengths, and times of lines."""
