"""The render stage: the final picture of the mouth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dubstage.client import rpcs
from dubstage.client.arrays import Artefact, Picture, Pixels, Tensor, as_artefact, as_image, as_tensor, from_image
from dubstage.client.calls import Requests, download_call, stream_call, unary_call
from dubstage.client.motion import Step
from dubstage.render.v1 import render_pb2 as pb


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Inputs that one frame is rendered from. The render box has S = 160 * Model.box_multiple pixels a side.

    `Model.inputs` of `list_models` names the optional inputs that a renderer needs.

    Attributes:
        frame_index: number of the frame. Frames come in order.
        background: the footage's own render box, uint8 RGB [S, S, 3]; the stage masks the box before the network sees it.
        mask: lower-face mask, uint8 [S, S], 255: to be replaced.
        texture: warped texture or drawn face, uint8 RGB [S, S, 3].
        box_landmarks: target mouth-area landmarks, float32 [59, 2] in box pixels.
        neural_features: features sampled from the person's neural texture, 0 to 1, float32 [S, S, 16].
        speech_features: posteriorgram rows of the speech, 100 rows per second, from 40 ms before the frame, float32 [20, 40].
        context_only: the frame is context of other frames and gets no answer.
    """

    frame_index: int
    background: Picture
    mask: Picture
    texture: Picture | None = None
    box_landmarks: Tensor | None = None
    neural_features: Tensor | None = None
    speech_features: Tensor | None = None
    context_only: bool = False


@dataclass(frozen=True, slots=True)
class RenderedBox:
    """One rendered frame.

    Attributes:
        frame_index: number of the frame.
        box: uint8 RGB [S, S, 3]: the new lower face where the mask is above 0, the background elsewhere.
    """

    frame_index: int
    box: Pixels


def _box(reply: pb.RenderResponse) -> tuple[RenderedBox]:
    return (RenderedBox(reply.frame_index, from_image(reply.box)),)


def _step(reply: pb.PersonalizeResponse) -> tuple[Step]:
    return (Step(reply.step, reply.num_steps, reply.loss, reply.actor if reply.HasField("actor") else None),)


def _models(reply: pb.ListModelsResponse) -> Sequence[pb.Model]:
    return reply.models


@stream_call(rpcs.render.RENDER, _box)
def render(
    *, model: str, actor: Artefact | None = None, reference: Picture | None = None
) -> Requests[Conditions | pb.RenderFrame, pb.RenderRequest]:
    """Yield a RenderedBox for each frame that is not context only. Items are Conditions, in the order of their frames.

    Args:
        model: name of the renderer, from `list_models`.
        actor: state of the person, from `personalize`; None: the renderer's prior.
        reference: the picture whose appearance the whole stream takes, uint8 RGB [S, S, 3], for renderers that list it as an input.
    """

    def item(frame: Conditions | pb.RenderFrame) -> pb.RenderRequest:
        return pb.RenderRequest(frame=_frame(frame) if isinstance(frame, Conditions) else frame)

    config = pb.RenderConfig(model=model, actor=as_artefact(actor), reference=None if reference is None else as_image(reference))
    return Requests(pb.RenderRequest(config=config), item)


def _frame(frame: Conditions) -> pb.RenderFrame:
    return pb.RenderFrame(
        frame_index=frame.frame_index,
        background=as_image(frame.background),
        texture=None if frame.texture is None else as_image(frame.texture),
        mask=as_image(frame.mask),
        box_landmarks=None if frame.box_landmarks is None else as_tensor(frame.box_landmarks, "<f4"),
        neural_features=None if frame.neural_features is None else as_tensor(frame.neural_features, "<f4"),
        speech_features=None if frame.speech_features is None else as_tensor(frame.speech_features, "<f4"),
        context_only=frame.context_only,
    )


@download_call(rpcs.render.PERSONALIZE, _step)
def personalize(
    *,
    model: str,
    bank: Artefact,
    num_steps: int = 0,
    seed: int = 0,
    identity: Artefact | None = None,
    skip_training: bool = False,
) -> pb.PersonalizeRequest:
    """Yield the Steps of adapting a renderer to one person; the last step has the person's state.

    Args:
        model: name of the renderer, from `list_models`.
        bank: from `texture.build_bank`.
        num_steps: optimisation steps; 0: the renderer's own number.
        seed: random seed.
        identity: from `face.fit_identity`, for renderers with `Model.needs_identity`.
        skip_training: make only what the bank gives at once, without optimisation: quicker, less like the person.
    """
    return pb.PersonalizeRequest(
        model=model,
        bank=as_artefact(bank),
        num_steps=num_steps,
        seed=seed,
        identity=as_artefact(identity),
        skip_training=skip_training,
    )


@unary_call(rpcs.render.LIST_MODELS, _models)
def list_models() -> pb.ListModelsRequest:
    """Return the renderers that are loaded, with their needs, backend and digest."""
    return pb.ListModelsRequest()
