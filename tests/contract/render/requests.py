"""Requests of the render stage from its own types."""

from __future__ import annotations

from dubstage.client import to_image, to_tensor
from dubstage.render.v1 import render_pb2 as pb
from services.render.types import RenderFrame


def frame_to_proto(frame: RenderFrame) -> pb.RenderRequest:
    """The message of a frame."""
    return pb.RenderRequest(
        frame=pb.RenderFrame(
            frame_index=frame.frame_index,
            background=to_image(frame.background),
            texture=None if frame.texture is None else to_image(frame.texture),
            mask=to_image(frame.mask),
            box_landmarks=to_tensor(frame.box_landmarks),
            context_only=frame.context_only,
            speech_features=None if frame.speech_features is None else to_tensor(frame.speech_features),
            neural_features=None if frame.neural_features is None else to_tensor(frame.neural_features),
        )
    )
