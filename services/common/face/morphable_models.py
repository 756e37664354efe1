"""Morphable models by name: the default model, and the user's own models in a folder."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Final

from services.common.errors import ModelNotFoundError
from services.common.face.loaders import load_model
from services.common.geometry.morphable_model import MorphableModel, default_model

DEFAULT_MODEL: Final = "mediapipe_468"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LANDMARKS: Final = ".landmarks"
_TEXTURE: Final = ".texture"


class MorphableModels:
    """Models by name, each read once. Safe for several threads.

    A user's model is a file or a folder in one folder. The name of the model is the name of the file, with or without the ending.
    Landmarks and a texture that a format does not hold lie beside the file as NAME.landmarks.ENDING and NAME.texture.ENDING.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` holds the user's models; None: there is only the default model."""
        self._folder = folder
        self._loaded: dict[str, MorphableModel] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Return the names of all models."""
        own = [] if self._folder is None or not self._folder.is_dir() else sorted(self._folder.iterdir())
        return [
            DEFAULT_MODEL,
            *(path.stem for path in own if not path.stem.endswith((_LANDMARKS, _TEXTURE)) and not path.name.startswith(".")),
        ]

    def get(self, name: str) -> MorphableModel:
        """Return a model.

        Raises:
            ModelNotFoundError: no model has this name. The message lists the names of all models.
            InvalidRequestError: the model's file is damaged.
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
            raise ModelNotFoundError(
                f"there is no morphable model {name[:80]!r} here, only {', '.join(self.names())}; put files of further "
                "models into the folder of DUBSTAGE_MORPHABLE_MODELS",
                resource=name[:80],
            )
        landmarks, texture = (next(iter(sorted(path.parent.glob(f"{path.stem}{kind}.*"))), None) for kind in (_LANDMARKS, _TEXTURE))
        return load_model(path, landmarks, texture)

    def _path(self, name: str) -> Path | None:
        # This is a name, never a path: files outside the folder cannot be named.
        if self._folder is None or not _NAME.fullmatch(name) or not self._folder.is_dir():
            return None
        paths = [path for path in sorted(self._folder.iterdir()) if name in {path.name, path.stem}]
        return next((path for path in paths if not path.stem.endswith((_LANDMARKS, _TEXTURE))), None)
