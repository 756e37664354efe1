"""Morphable models by name: the default one, and the user's own in a folder."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Final

from services.common.errors import ModelNotFound
from services.common.geometry.default_model import default_model
from services.common.geometry.loaders import load_model
from services.common.geometry.morphable_model import MorphableModel

DEFAULT_MODEL: Final = "mediapipe_468"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LANDMARKS: Final = ".landmarks"


class MorphableModels:
    """Models by name, each read once; safe for several threads.

    A user's model is a file or folder of one folder: its name is the file's, with or without its ending. Landmarks that a format
    does not hold lie beside it as NAME.landmarks.ENDING.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` holds the user's models; None: there is the default one alone."""
        self._folder = folder
        self._loaded: dict[str, MorphableModel] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The names that can be asked for."""
        own = [] if self._folder is None or not self._folder.is_dir() else sorted(self._folder.iterdir())
        return [DEFAULT_MODEL, *(path.stem for path in own if not path.stem.endswith(_LANDMARKS) and not path.name.startswith("."))]

    def get(self, name: str) -> MorphableModel:
        """A model.

        Raises:
            ModelNotFound: none has this name; the message lists those that are there.
            InvalidRequest: its file is damaged.
        """
        if name == DEFAULT_MODEL:
            return default_model()
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> MorphableModel:
        path = self._path(name)
        if path is None:
            raise ModelNotFound(
                f"there is no morphable model {name[:80]!r} here, only {', '.join(self.names())}; files of further ones belong "
                "into the folder that DUBSTAGE_MORPHABLE_MODELS names",
                resource=name[:80],
            )
        beside = sorted(path.parent.glob(f"{path.stem}{_LANDMARKS}.*"))
        return load_model(path, beside[0] if beside else None)

    def _path(self, name: str) -> Path | None:
        # A name, never a path: nothing outside the folder can be asked for.
        if self._folder is None or not _NAME.fullmatch(name) or not self._folder.is_dir():
            return None
        found = [path for path in sorted(self._folder.iterdir()) if name in {path.name, path.stem}]
        return next((path for path in found if not path.stem.endswith(_LANDMARKS)), None)
