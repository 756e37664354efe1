"""Media files: contents, frames and sound of footage, and videos that keep every frame time."""
