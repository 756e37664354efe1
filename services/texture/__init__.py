"""The texture stage: a bank of a person's own mouth textures, retrieved and warped to wanted landmarks."""
