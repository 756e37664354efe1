"""Morphable models, ready to be fitted."""

from __future__ import annotations

import threading

from services.common.morphable_models import MorphableModels
from services.face.fitting.model_landmarks import ModelLandmarks, model_landmarks


class FittableModels:
    """What fitting needs of models by their names, made once each; safe for several threads."""

    def __init__(self, models: MorphableModels) -> None:
        self._models = models
        self._made: dict[str, ModelLandmarks] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> ModelLandmarks:
        """A model, ready to be fitted.

        Raises:
            ModelNotFound: none has this name.
            InvalidRequest: its file is damaged, or too few of its landmarks are known in the tracker's mesh.
        """
        model = self._models.get(name)
        with self._lock:
            if name not in self._made:
                self._made[name] = model_landmarks(model, name)
            return self._made[name]
