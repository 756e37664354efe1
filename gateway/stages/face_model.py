"""Check of the face model that the settings name: the face stage must have the model and be able to fit it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.face.v1alpha1 import face_pb2
from gateway.stages.interface import Stages
from services.common.errors import InvalidRequest, ModelNotFound

VARIABLE: Final = "DUBSTAGE_FACE_MODEL"


async def check_face_model(stages: Stages) -> None:
    """Ask the face stage to load the face model, by a stream that ends before its first frame. An empty name needs no check.

    Raises:
        ModelNotFound: the face stage has no such model; the message lists the models that there are.
        InvalidRequest: the model's file is damaged, or the tracker knows too few of the model's landmarks.
        DubstageError: from the face stage.
    """
    if not stages.face_model:
        return

    async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
        yield face_client.track.requests(morphable_model=stages.face_model).config

    replies: Any = stages.stream(rpcs.face.TRACK, requests())
    try:
        async with aclosing(replies):
            async for _ in replies:
                pass
    except ModelNotFound as problem:
        raise ModelNotFound(f"{VARIABLE}: {problem.message}", resource=stages.face_model) from None
    except InvalidRequest as problem:
        raise InvalidRequest(f"{VARIABLE}: {problem.message}", field=VARIABLE) from None
