"""Renderers' networks, loaded."""

from __future__ import annotations

from pathlib import Path

from services.render.backends.base import Backend
from services.render.streams import RenderModels


def load_models(folder: Path, backend: Backend) -> RenderModels:
    """Load all models of a folder and draw one black frame with each. A model that the backend cannot read is left out.

    Raises:
        ModelNotFoundError: a file is missing, a model has the name of no renderer, or the backend can read none of the models.
        ArtefactCorruptError: a file is damaged.
        BackendUnavailableError: the backend's server does not answer.
    """
    models = RenderModels(folder, backend)
    models.load_all()
    return models
