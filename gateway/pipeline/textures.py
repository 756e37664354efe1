"""What the texture stage makes for the frames of a stretch: warped mouths, drawn faces, or features of the neural texture."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.methods import TextureInput
from gateway.pipeline.stretch import Stretch
from gateway.pipeline.window_config import WindowConfig, textured_frames
from gateway.stages.attempts import all_replies
from gateway.stages.interface import Stages
from services.common.array_types import Float32
from services.common.errors import ContractBroken


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """What the texture stage made for one frame.

    Attributes:
        landmarks: float32 [59, 2], wanted mouth-area landmarks, box pixels.
        picture: Image message, uint8 [160, 160, 3]: the warped mouth or the drawn face; None: the renderer takes no picture.
        features: Tensor message, float32 [160, 160, C]: features of the neural texture; None: the renderer takes none.
        fitting_error: of the warp, box pixels; 0 where no spline was used.
        bending_energy: of the warp; 0 where no spline was used.
        detail: Image message, uint8 [160 S, 160 S]: fine detail of the mouth at S pixels per box pixel; None: not asked for.
    """

    landmarks: Float32
    picture: common_pb2.Image | None = None
    features: common_pb2.Tensor | None = None
    fitting_error: float = 0.0
    bending_energy: float = 0.0
    detail: common_pb2.Image | None = None


async def textures_of(stages: Stages, config: WindowConfig, stretch: Stretch) -> dict[int, Texture]:
    """Return what the texture stage makes for a stretch, by the place of the frame in the stretch.

    The wanted frames have a texture, and the context frames that the renderer sees. If the renderer takes nothing of the texture
    stage, the stage is not asked, and the wanted frames have landmarks only.

    Raises:
        ContractBroken: the stage answered other frames.
        DubstageError: from the stage.
    """
    textured = textured_frames(config, stretch.wanted)
    places = np.nonzero(textured)[0].tolist()
    match config.texture:
        case TextureInput.NONE:
            places = np.nonzero(stretch.wanted)[0].tolist()
            made = [Texture(stretch.landmarks(place)) for place in places]
        case TextureInput.NEURAL:
            made = await _sampled(stages, config, stretch, places)
        case TextureInput.DRAWN:
            made = await _warped(stages, config, stretch, places, config.mode)
        case TextureInput.WARPED:
            made = await _warped(stages, config, stretch, places, config.mode, config.detail_scale)
    textures = dict(zip(places, made, strict=True))
    if config.detail_scale and config.texture is not TextureInput.WARPED:
        await _add_detail(stages, config, stretch, textures)
    return textures


async def _add_detail(stages: Stages, config: WindowConfig, stretch: Stretch, textures: dict[int, Texture]) -> None:
    """Add the detail of the bank to the textures of the wanted frames, for renderers that take no warped texture."""
    places = np.nonzero(stretch.wanted)[0].tolist()
    mode = texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK
    warped = await _warped(stages, config, stretch, places, mode, config.detail_scale)
    for place, texture in zip(places, warped, strict=True):
        textures[place] = replace(textures[place], detail=texture.detail)


async def _warped(
    stages: Stages,
    config: WindowConfig,
    stretch: Stretch,
    places: Sequence[int],
    mode: texture_pb2.WarpMode.ValueType,
    detail_scale: int = 0,
) -> list[Texture]:
    # Context after the last picture is the renderer's alone.
    seen, answered = range(places[-1] + 1 if places else 0), set(places)

    async def requests() -> AsyncIterator[texture_pb2.RetrieveWarpRequest]:
        made = texture_client.retrieve_warp.requests(
            bank=config.bank, mode=mode, identity=config.identity, detail_scale=detail_scale
        )
        yield made.config
        for place in seen:
            yield made.item(stretch.target(place, context_only=place not in answered))

    replies = await all_replies(lambda: stages.stream(rpcs.texture.RETRIEVE_WARP, requests()))
    _check([reply.frame_index for reply in replies], stretch, places)
    return [
        Texture(
            landmarks=_landmarks(reply),
            picture=reply.warped,
            fitting_error=reply.fitting_error,
            bending_energy=reply.bending_energy,
            detail=reply.detail if detail_scale else None,
        )
        for reply in replies
    ]


async def _sampled(stages: Stages, config: WindowConfig, stretch: Stretch, places: Sequence[int]) -> list[Texture]:
    assert config.state is not None, "a renderer that takes a neural texture needs an actor"
    texture = config.state

    async def requests() -> AsyncIterator[texture_pb2.SampleNeuralTextureRequest]:
        made = texture_client.sample_neural_texture.requests(texture=texture, identity=config.identity)
        yield made.config
        for place in places:
            yield made.item(stretch.target(place, context_only=False))

    replies = await all_replies(lambda: stages.stream(rpcs.texture.SAMPLE_NEURAL_TEXTURE, requests()))
    _check([reply.frame_index for reply in replies], stretch, places)
    return [Texture(stretch.landmarks(place), None, reply.features) for place, reply in zip(places, replies, strict=True)]


def _check(answered: list[int], stretch: Stretch, places: Sequence[int]) -> None:
    expected = [stretch.frame(place) for place in places]
    if answered != expected:
        raise ContractBroken(f"the texture stage answered frames {answered}, not {expected}")


def _landmarks(reply: texture_pb2.RetrieveWarpResponse) -> Float32:
    return np.frombuffer(reply.box_landmarks.data, "<f4").reshape(-1, 2)
