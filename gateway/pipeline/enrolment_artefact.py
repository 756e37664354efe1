"""An enrolled actor as arrays and metadata, for the journal and the actor store."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any, Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.pipeline.enrol import EnrolledActor
from services.common.array_types import Array
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.head_pose_vectors import POSE_SIZE
from services.common.face.landmarks import JAW, NUM_MOUTH_AREA
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.mouth_curves import SpeakingMotion

_SHAPES: Final = {
    "mean_mouth": (NUM_MOUTH_AREA, 3),
    "closed_mouth": (NUM_MOUTH_AREA, 3),
    "jaw_envelope": (len(JAW), 3),
    "anchors": (len(ANCHORS), 3),
}
"""Shapes of the arrays of the geometry, float32."""


def actor_arrays(actor: EnrolledActor) -> tuple[dict[str, Array], dict[str, str]]:
    """Return arrays and metadata from which `actor_from_arrays` makes an equal actor."""
    arrays = {field.name: getattr(actor.geometry, field.name) for field in fields(ActorGeometry)} | {"pose": actor.pose}
    metadata = {
        "style": _ref_text(actor.style),
        "bank": _ref_text(actor.bank),
        "renderer": _ref_text(actor.renderer) if actor.renderer is not None else "",
        "identity": _ref_text(actor.identity) if actor.identity is not None else "",
        "renderer_trained": "yes" if actor.renderer_trained else "",
        "num_frames": str(actor.num_frames),
        "lag_frames": "" if actor.lag_frames is None else str(actor.lag_frames),
        "lag_confidence": repr(actor.lag_confidence),
        "sync_distance": repr(actor.sync_distance),
        "lag_doubt": actor.lag_doubt,
        "speaking": "" if actor.speaking is None else json.dumps(asdict(actor.speaking)),
    }
    return arrays, metadata


def actor_from_arrays(stored: NamedArrays) -> EnrolledActor:
    """Return the actor that arrays and metadata of `actor_arrays` describe.

    Raises:
        ValueError: the arrays and the metadata are not those of an actor.
    """
    try:
        return _actor(stored)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not an enrolled actor: {error!r}") from error


def actor_refs(actor: EnrolledActor) -> dict[str, common_pb2.ArtefactRef]:
    """Return every artefact of the actor, by kind."""
    refs = {"style": actor.style, "bank": actor.bank, "renderer": actor.renderer, "identity": actor.identity}
    return {kind: ref for kind, ref in refs.items() if ref is not None}


def _actor(stored: NamedArrays) -> EnrolledActor:
    metadata = stored.metadata
    return EnrolledActor(
        style=_ref(metadata["style"]),
        bank=_ref(metadata["bank"]),
        renderer=_ref(metadata["renderer"]) if metadata["renderer"] else None,
        geometry=ActorGeometry(**{name: _array(stored, name, np.float32, shape) for name, shape in _SHAPES.items()}),
        num_frames=int(metadata["num_frames"]),
        pose=_array(stored, "pose", np.float64, (POSE_SIZE,)),
        renderer_trained=bool(metadata["renderer_trained"]),
        identity=_ref(metadata["identity"]) if metadata["identity"] else None,
        lag_frames=int(metadata["lag_frames"]) if metadata["lag_frames"] else None,
        lag_confidence=float(metadata["lag_confidence"]),
        sync_distance=float(metadata["sync_distance"]),
        # Enrolments of earlier versions applied every lag.
        lag_doubt=metadata.get("lag_doubt", ""),
        # Enrolments of earlier versions did not measure the person's motion.
        speaking=SpeakingMotion(**json.loads(metadata["speaking"])) if metadata.get("speaking") else None,
    )


def _array(stored: NamedArrays, name: str, dtype: type[np.floating[Any]], shape: tuple[int, ...]) -> Array:
    array = stored.arrays[name]
    if array.dtype != dtype or array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite {np.dtype(dtype)} {list(shape)}, not {array.dtype} {list(array.shape)}")
    return array


def _ref_text(ref: common_pb2.ArtefactRef) -> str:
    return json.dumps([ref.uri, ref.sha256, ref.size_bytes])


def _ref(text: str) -> common_pb2.ArtefactRef:
    uri, sha256, size_bytes = json.loads(text)
    return common_pb2.ArtefactRef(uri=uri, sha256=sha256, size_bytes=size_bytes)
