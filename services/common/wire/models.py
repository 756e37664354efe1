"""Rows of the table of methods as the messages that ListModels answers. The gateway compares these messages with its own rows."""

from __future__ import annotations

from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from services.common.methods import PredictorSpec, RendererSpec


def predictor_to_proto(row: PredictorSpec, *, version: str = "") -> motion_pb2.Model:
    """Return the message of a predictor.

    Args:
        row: the predictor's row.
        version: digest of the predictor's networks.
    """
    return motion_pb2.Model(
        name=row.name, version=version, features=row.features, frames_ahead=row.frames_ahead, moves_head=row.moves_head
    )


def renderer_to_proto(row: RendererSpec) -> render_pb2.Model:
    """Return the message of a renderer, without the fields that say which network computes it, and how."""
    return render_pb2.Model(
        name=row.name,
        frames_before=row.frames_before,
        frames_after=row.frames_after,
        inputs=row.inputs,
        texture=render_pb2.TextureInput.Value(f"TEXTURE_INPUT_{row.picture.name}"),
        needs_actor=row.needs_actor,
        needs_identity=row.needs_identity,
    )
