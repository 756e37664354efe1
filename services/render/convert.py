"""Messages of dubstage.render.v1 to and from the stage's own types, validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dubstage.client import to_image
from dubstage.render.v1 import render_pb2 as pb
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.crops import MAX_BOX_PX
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.store.artefacts import ArtefactRef
from services.common.wire.convert import from_image, from_tensor, ref_from_proto, ref_to_proto, renderer_to_proto
from services.render.backends.model_files import ModelFile
from services.render.renderer import Renderer
from services.render.streams import RenderModels
from services.render.types import ModelInfo, PersonalizeProgress, RenderedFrame, RenderFrame

_LARGEST_FEATURE: Final = 1e4
"""Largest magnitude of a speech feature or a neural feature."""


def model_from_proto(name: str, models: RenderModels, field: str) -> ModelFile:
    """Return the loaded model of a name.

    Raises:
        InvalidRequestError: the name is empty; the message lists the names.
        ModelNotFoundError: there is no model of this name, or the backend cannot read the model. The message lists the names, and
            has the reason and the remedy.
    """
    names = ", ".join(sorted(models.files))
    if not name:
        raise InvalidRequestError(f"{field} is empty: one of {names}", field=field)
    if name in models.unavailable:
        raise ModelNotFoundError(
            f"model {name!r} cannot be used here: {models.unavailable[name]}; there are {names}", resource=name
        )
    if name not in models.files:
        raise ModelNotFoundError(f"no model {name[:80]!r}: there are {names}", resource=name[:80])
    return models.files[name]


def config_from_proto(request: pb.RenderRequest) -> pb.RenderConfig:
    """Return the config of a stream's first message.

    Raises:
        InvalidRequestError: the first message holds no config.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    return request.config


def actor_from_proto(config: pb.RenderConfig) -> ArtefactRef | None:
    """Return the reference of the actor's artefact; None: the config names no actor.

    Raises:
        InvalidRequestError: the reference is malformed.
    """
    return ref_from_proto(config.actor, "config.actor") if config.HasField("actor") else None


def reference_from_proto(config: pb.RenderConfig, model: ModelFile, renderer: Renderer) -> UInt8 | None:
    """Return the reference picture, uint8 [H, W, 3], read-only; None: the renderer takes none, or the config holds none.

    Raises:
        InvalidRequestError: the picture has another form.
    """
    if "reference" not in renderer.spec.inputs or not config.HasField("reference"):
        return None
    return from_image(config.reference, "config.reference", channels=3, size=(model.box_size, model.box_size))


def frame_from_proto(request: pb.RenderRequest, previous: int | None, model: ModelFile, renderer: Renderer) -> RenderFrame:
    """Return a frame, checked; its arrays are read-only. Optional inputs that the renderer does not take are not read.

    Args:
        previous: index of the frame before, or None.
        model: the exported network; gives the sizes.
        renderer: the model's renderer; says which optional inputs there are.

    Raises:
        InvalidRequestError: the message holds no frame, the frame is out of order, or a picture or tensor has another form.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config come frames only", field="frame")
    frame = request.frame
    if previous is not None and frame.frame_index <= previous:
        raise InvalidRequestError(
            f"frame.frame_index {frame.frame_index} does not come after {previous}", field="frame.frame_index"
        )
    side = model.box_size

    def is_given(name: str) -> bool:
        return name in renderer.spec.inputs and frame.HasField(name)  # type: ignore[arg-type]  # inputs are names of fields

    def features(name: str, any_shape: tuple[int | None, ...]) -> Float32 | None:
        if not is_given(name):
            return None
        shape = model.input_shape(name) or any_shape
        return from_tensor(getattr(frame, name), f"frame.{name}", dtype="float32", shape=shape, limit=_LARGEST_FEATURE)

    return RenderFrame(
        frame_index=frame.frame_index,
        background=from_image(frame.background, "frame.background", channels=3, size=(side, side)),
        texture=from_image(frame.texture, "frame.texture", channels=3, size=(side, side)) if is_given("texture") else None,
        mask=from_image(frame.mask, "frame.mask", channels=1, size=(side, side)),
        box_landmarks=from_tensor(
            frame.box_landmarks, "frame.box_landmarks", dtype="float32", shape=(NUM_MOUTH_AREA, 2), limit=MAX_BOX_PX
        ),
        context_only=frame.context_only,
        speech_features=features("speech_features", (None, None)),
        neural_features=features("neural_features", (side, side, None)),
    )


def rendered_to_proto(frame: RenderedFrame) -> pb.RenderResponse:
    """Return the message of a picture."""
    return pb.RenderResponse(frame_index=frame.frame_index, box=to_image(frame.box))


def bank_from_proto(request: pb.PersonalizeRequest) -> ArtefactRef:
    """Return the reference of the bank that a personalisation learns from.

    Raises:
        InvalidRequestError: the request names no bank, or the reference is malformed.
    """
    if not request.HasField("bank"):
        raise InvalidRequestError("bank is missing", field="bank")
    return ref_from_proto(request.bank, "bank")


def identity_from_proto(request: pb.PersonalizeRequest, renderer: Renderer) -> ArtefactRef | None:
    """Return the reference of the person's identity; None: the renderer needs no identity.

    Raises:
        InvalidRequestError: the renderer needs an identity and the request names none, or the reference is malformed.
    """
    if not renderer.spec.needs_identity:
        return None
    if not request.HasField("identity"):
        raise InvalidRequestError(f"identity is missing: model {request.model!r} draws the person's face", field="identity")
    return ref_from_proto(request.identity, "identity")


def progress_to_proto(progress: PersonalizeProgress) -> pb.PersonalizeResponse:
    """Return a progress message."""
    return pb.PersonalizeResponse(step=progress.step, num_steps=progress.num_steps, loss=progress.loss)


def result_to_proto(progress: PersonalizeProgress, actor: ArtefactRef) -> pb.PersonalizeResponse:
    """Return the last message of a personalisation, which names the actor's artefact."""
    response = progress_to_proto(progress)
    response.actor.CopyFrom(ref_to_proto(actor))
    return response


def models_to_proto(
    models: list[ModelInfo], unavailable: Mapping[str, str], device: str, personalize_device: str
) -> pb.ListModelsResponse:
    """Return the answer of ListModels.

    Args:
        models: loaded models.
        unavailable: names of the models that the backend cannot read, each with the reason and the remedy.
        device: device of the backend.
        personalize_device: device that personalisations may run on.
    """
    listed = pb.ListModelsResponse(
        device=device,
        personalize_device=personalize_device,
        unavailable=[pb.UnavailableModel(name=name, reason=reason) for name, reason in sorted(unavailable.items())],
        models=[renderer_to_proto(model.spec) for model in models],
    )
    for message, model in zip(listed.models, models, strict=True):
        message.sha256, message.backend, message.precision = model.sha256, model.backend, str(model.precision)
        message.num_threads, message.box_multiple = model.num_threads, model.box_multiple
    return listed
