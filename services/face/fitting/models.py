"""Morphable models that are prepared for fitting."""

from __future__ import annotations

import threading

from services.common.face.morphable_models import MorphableModels
from services.face.fitting.model_landmarks import ModelLandmarks, model_landmarks


class FittableModels:
    """Models for fitting, by name. Each model is prepared once. Several threads may share the object."""

    def __init__(self, models: MorphableModels) -> None:
        self._models = models
        self._made: dict[str, ModelLandmarks] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> ModelLandmarks:
        """Return the named model, prepared for fitting.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: the model's file is damaged, or the tracker's mesh has too few of the model's landmarks.
        """
        model = self._models.get(name)
        with self._lock:
            if name not in self._made:
                self._made[name] = model_landmarks(model, name)
            return self._made[name]
