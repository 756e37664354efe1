"""Messages of dubstage.render.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from typing import Final

import numpy as np

from dubstage.render.v1alpha1 import render_pb2 as pb
from services.common.array_cache import ArrayCache
from services.common.arrays import from_image, from_tensor, to_gray_image, to_rgb_image, to_tensor
from services.common.artefact_messages import ref_from_proto, ref_to_proto
from services.common.artefacts import MAX_ARRAYS_BYTES, ArtefactStore
from services.common.crops import BOX_SIZE, MAX_BOX_PX
from services.common.errors import InvalidRequest, ModelNotFound
from services.common.face_identity import identity_from_arrays, model_of_identity
from services.common.identity_drawing import IdentityDrawing
from services.common.landmarks import NUM_MOUTH_AREA
from services.common.morphable_models import MorphableModels
from services.common.mouth_bank import MouthBank, bank_from_arrays
from services.render.backends.registry import ModelFile
from services.render.render import default_state
from services.render.types import Float32, ModelInfo, PersonalizeProgress, RenderedFrame, RenderFrame

ACTOR_FORMAT: Final = "dubstage.render_actor/1"
"""Metadata `format` of an actor's artefact."""
_STATE: Final = "actor_state"
_SIZE: Final = (BOX_SIZE, BOX_SIZE)
_LARGEST_STATE: Final = 1e4
"""Magnitude of a number of an actor's state; those of real actors stay below 10."""
MAX_STEPS: Final = 100_000
"""Steps of a personalisation: a day on two cores; a model's own number is 120."""


def model_from_proto(name: str, models: dict[str, ModelFile], field: str) -> ModelFile:
    """The model of a name.

    Raises:
        InvalidRequest: no name.
        ModelNotFound: there is no such model.
    """
    if not name:
        raise InvalidRequest(f"{field} is empty: one of {', '.join(sorted(models))}", field=field)
    if name not in models:
        raise ModelNotFound(f"no model {name[:80]!r}: there are {', '.join(sorted(models))}", resource=name[:80])
    return models[name]


def config_from_proto(request: pb.RenderRequest) -> pb.RenderConfig:
    """The config of a stream's first message.

    Raises:
        InvalidRequest: the first message is something else.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    return request.config


def state_from_proto(config: pb.RenderConfig, model: ModelFile, cache: ArrayCache) -> Float32:
    """The actor's state, float32 [S]; the prior's own where the config names no actor.

    Raises:
        InvalidRequest: the artefact holds something else, or was made for another prior.
        ArtefactNotFound, ArtefactCorrupt: from the store.
    """
    if not config.HasField("actor"):
        return default_state(model)
    named = cache.get_arrays(ref_from_proto(config.actor, "config.actor"))
    form = named.metadata.get("format")
    if form != ACTOR_FORMAT:
        raise InvalidRequest(f"config.actor: not a renderer's actor: format {form!r}", field="config.actor")
    if named.metadata.get("prior_sha256") != model.prior_sha256:
        raise InvalidRequest(
            f"config.actor was personalised with another version of model {model.name!r}: personalise it again",
            field="config.actor",
        )
    state = named[_STATE]
    if state.shape != (model.state_size,) or state.dtype != "float32":
        raise InvalidRequest(
            f"config.actor: expected float32 [{model.state_size}], got {state.dtype} {list(state.shape)}",
            field="config.actor",
        )
    if not (np.abs(state) <= _LARGEST_STATE).all():  # written so that NaN fails
        raise InvalidRequest(
            f"config.actor is damaged: its state holds numbers beyond {_LARGEST_STATE:g} or none: personalise it again",
            field="config.actor",
        )
    return state


def frame_from_proto(request: pb.RenderRequest, previous: int | None) -> RenderFrame:
    """A frame, checked; its pictures are read-only.

    Args:
        request: the message.
        previous: index of the frame before, or None.

    Raises:
        InvalidRequest: not a frame, out of order, or a picture or tensor of another form.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config come frames only", field="frame")
    frame = request.frame
    if previous is not None and frame.frame_index <= previous:
        raise InvalidRequest(f"frame.frame_index {frame.frame_index} does not come after {previous}", field="frame.frame_index")
    return RenderFrame(
        frame_index=frame.frame_index,
        background=from_image(frame.background, "frame.background", channels=3, size=_SIZE),
        texture=from_image(frame.texture, "frame.texture", channels=3, size=_SIZE) if frame.HasField("texture") else None,
        mask=from_image(frame.mask, "frame.mask", channels=1, size=_SIZE),
        box_landmarks=from_tensor(
            frame.box_landmarks, "frame.box_landmarks", dtype="float32", shape=(NUM_MOUTH_AREA, 2), limit=MAX_BOX_PX
        ),
        context_only=frame.context_only,
    )


def frame_to_proto(frame: RenderFrame) -> pb.RenderRequest:
    """The message of a frame."""
    return pb.RenderRequest(
        frame=pb.RenderFrame(
            frame_index=frame.frame_index,
            background=to_rgb_image(frame.background),
            texture=None if frame.texture is None else to_rgb_image(frame.texture),
            mask=to_gray_image(frame.mask),
            box_landmarks=to_tensor(frame.box_landmarks),
            context_only=frame.context_only,
        )
    )


def rendered_to_proto(frame: RenderedFrame) -> pb.RenderResponse:
    """The message of a picture."""
    return pb.RenderResponse(frame_index=frame.frame_index, box=to_rgb_image(frame.box), mask=to_gray_image(frame.mask))


def rendered_from_proto(response: pb.RenderResponse) -> RenderedFrame:
    """The picture of a message.

    Raises:
        InvalidRequest: a picture of another form.
    """
    return RenderedFrame(
        response.frame_index,
        from_image(response.box, "box", channels=3, size=_SIZE),
        from_image(response.mask, "mask", channels=1, size=_SIZE),
    )


def bank_from_proto(request: pb.PersonalizeRequest, store: ArtefactStore) -> MouthBank:
    """The bank that a personalisation learns from.

    Raises:
        InvalidRequest: none is named, or the artefact holds something else.
        ArtefactNotFound, ArtefactCorrupt: from the store.
    """
    if not request.HasField("bank"):
        raise InvalidRequest("bank is missing", field="bank")
    return bank_from_arrays(store.get_arrays(ref_from_proto(request.bank, "bank"), max_bytes=MAX_ARRAYS_BYTES))


def drawing_from_proto(request: pb.PersonalizeRequest, store: ArtefactStore, models: MorphableModels) -> IdentityDrawing:
    """What draws the person of a personalisation.

    Raises:
        InvalidRequest: no identity is named, the artefact holds something else, or its model's faces cannot be drawn.
        ModelNotFound: its morphable model is not installed here.
        ArtefactNotFound, ArtefactCorrupt: from the store.
    """
    if not request.HasField("identity"):
        raise InvalidRequest(f"identity is missing: model {request.model!r} draws the person's face", field="identity")
    stored = store.get_arrays(ref_from_proto(request.identity, "identity"), max_bytes=MAX_ARRAYS_BYTES)
    model = models.get(model_of_identity(stored))
    return IdentityDrawing(identity_from_arrays(stored, model), model)


def num_steps_from_proto(request: pb.PersonalizeRequest) -> int:
    """Steps of a personalisation; 0: the model's own number.

    Raises:
        InvalidRequest: more than MAX_STEPS.
    """
    if request.num_steps > MAX_STEPS:
        raise InvalidRequest(f"num_steps: at most {MAX_STEPS} steps are taken, not {request.num_steps}", field="num_steps")
    return request.num_steps


def progress_to_proto(progress: PersonalizeProgress) -> pb.PersonalizeResponse:
    """A progress message."""
    return pb.PersonalizeResponse(step=progress.step, num_steps=progress.num_steps, loss=progress.loss)


def result_to_proto(progress: PersonalizeProgress, model: ModelFile, store: ArtefactStore) -> pb.PersonalizeResponse:
    """Store the state and say where it lies: the last message.

    Raises:
        StorageFull: from the store.
    """
    metadata = {"format": ACTOR_FORMAT, "model": model.name, "prior_sha256": model.prior_sha256}
    ref = store.put_arrays({_STATE: progress.state}, metadata)
    response = progress_to_proto(progress)
    response.actor.CopyFrom(ref_to_proto(ref))
    return response


def models_to_proto(models: list[ModelInfo]) -> pb.ListModelsResponse:
    """The answer of ListModels."""
    return pb.ListModelsResponse(
        models=[
            pb.Model(
                name=model.name,
                sha256=model.sha256,
                backend=model.backend,
                precision=str(model.precision),
                num_threads=model.num_threads,
            )
            for model in models
        ]
    )
