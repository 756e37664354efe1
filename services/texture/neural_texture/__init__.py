"""Features of a person's neural texture at the pixels of the render box."""
