"""Media files: contents, frames and sound of footage, and films that keep every frame time."""
