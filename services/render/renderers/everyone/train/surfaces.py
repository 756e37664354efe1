"""Surfaces of the people of a training set, from the identities that the set holds."""

from __future__ import annotations

from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.neural_texture import NeuralSurface
from services.render.train.identities import read_drawing
from services.training.trainset.reader import TrainSet


def surface_of(drawing: IdentityDrawing) -> NeuralSurface:
    """Return the surface that holds a person's neural texture."""
    return NeuralSurface(drawing.identity, drawing.mesh.model)


def read_surface(data: TrainSet, speaker: str) -> NeuralSurface:
    """Return the surface of a person of a training set. Errors: see services.render.train.identities.read_drawing."""
    return surface_of(read_drawing(data, speaker))
