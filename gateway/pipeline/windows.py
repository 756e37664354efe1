"""Second pass: rendered mouths of one window of frames, a pure function of artefacts and an absolute frame range."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.client import render as render_client
from dubstage.client import rpcs
from dubstage.render.v1alpha1 import render_pb2
from gateway.compositing.blend import blend_box
from gateway.pipeline.details import details_of
from gateway.pipeline.rendered_window import RenderedWindow
from gateway.pipeline.stretch import Stretch
from gateway.pipeline.textures import Texture, textures_of
from gateway.pipeline.window_config import WindowConfig
from gateway.stages.attempts import all_replies
from gateway.stages.interface import Stages
from services.common.array_types import Float32, UInt8
from services.common.errors import ContractBroken
from services.common.face.crops import BOX_SIZE
from services.common.wire.arrays import from_image

WINDOW_FRAMES: Final = 32
"""Frames per window. A job that dies loses at most the windows in work."""
BOX: Final = (BOX_SIZE, BOX_SIZE)
"""Width and height of a render box, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ground:
    """What the mouth of one frame is rendered and blended onto.

    Attributes:
        picture: uint8 [160, 160, 3], RGB: the footage's own box, with the jaw at the place of the wanted jaw.
        mask: uint8 [160, 160], lower-face mask.
        landmarks: float32 [59, 2], wanted mouth-area landmarks, box pixels.
    """

    picture: UInt8
    mask: UInt8
    landmarks: Float32


async def render_window(stages: Stages, config: WindowConfig, stretch: Stretch) -> RenderedWindow:
    """Render the wanted frames of a stretch of consecutive frames.

    Args:
        stages: the stages.
        config: what to render with.
        stretch: the frames.

    Raises:
        DubstageError: from the stages.
    """
    textures = await textures_of(stages, config, stretch)
    grounds = await asyncio.to_thread(_grounds, config, stretch, textures)
    places = np.nonzero(stretch.wanted)[0].tolist()
    wanted = [textures[place] for place in places]
    if config.renderer is not None:
        rendered = await _rendered(stages, config, stretch, textures, grounds)
    else:
        pictures = [from_image(texture.picture, "warped", channels=3, size=BOX) for texture in wanted if texture.picture]
        rendered = [(picture, grounds[place].mask) for place, picture in zip(places, pictures, strict=True)]
    blended = await asyncio.to_thread(
        lambda: [blend_box(box, grounds[place].picture, mask) for place, (box, mask) in zip(places, rendered, strict=True)]
    )
    count = len(wanted)
    return RenderedWindow(
        frame=np.array(stretch.frames(stretch.wanted), np.int64),
        box=np.stack(blended) if count else np.empty((0, *BOX, 3), np.uint8),
        mask=np.stack([mask for _, mask in rendered]) if count else np.empty((0, *BOX), np.uint8),
        fitting_error=np.array([texture.fitting_error for texture in wanted], np.float32),
        bending_energy=np.array([texture.bending_energy for texture in wanted], np.float32),
        landmarks=np.stack([texture.landmarks for texture in wanted]) if count else np.empty((0, 59, 2), np.float32),
        filmed=np.stack([stretch.filmed(place) for place in places]) if count else np.empty((0, 59, 2), np.float32),
        detail=await asyncio.to_thread(details_of, config, wanted, blended),
    )


def _grounds(config: WindowConfig, stretch: Stretch, textures: Mapping[int, Texture]) -> dict[int, _Ground]:
    """Return the grounds of the wanted frames and of all context frames that the renderer sees, by their places in the stretch."""
    begin = int(np.argmax(stretch.wanted)) if stretch.wanted.any() else len(stretch)
    grounds: dict[int, _Ground] = {}
    for place in range(max(0, begin - config.renderer_before), len(stretch)):
        texture = textures.get(place)
        landmarks = stretch.landmarks(place) if texture is None else texture.landmarks
        mask = config.mask_of(stretch.records[place])
        grounds[place] = _Ground(stretch.background(place, landmarks, mask), mask, landmarks)
    return grounds


async def _rendered(
    stages: Stages, config: WindowConfig, stretch: Stretch, textures: Mapping[int, Texture], grounds: Mapping[int, _Ground]
) -> list[tuple[UInt8, UInt8]]:
    """Return box (uint8 [160, 160, 3]) and mask (uint8 [160, 160]) of every wanted frame.

    Raises:
        ContractBroken: the render stage answered other frames.
        DubstageError: from the stage.
    """
    assert config.renderer is not None
    made = render_client.render.requests(model=config.renderer.name, actor=config.state, reference=config.reference)

    async def requests() -> AsyncIterator[render_pb2.RenderRequest]:
        yield made.config
        # One message at a time: features of a neural texture take 1.6 MB per frame.
        for place, ground in grounds.items():
            yield made.item(await asyncio.to_thread(_conditions, stretch, place, ground, textures.get(place)))

    replies = await all_replies(lambda: stages.stream(rpcs.render.RENDER, requests()))
    answered, expected = [reply.frame_index for reply in replies], stretch.frames(stretch.wanted)
    if answered != expected:
        raise ContractBroken(f"the render stage answered frames {answered}, not {expected}")
    return [
        (from_image(reply.box, "box", channels=3, size=BOX), from_image(reply.mask, "mask", channels=1, size=BOX))
        for reply in replies
    ]


def _conditions(stretch: Stretch, place: int, ground: _Ground, texture: Texture | None) -> render_client.Conditions:
    return render_client.Conditions(
        frame_index=stretch.frame(place),
        background=ground.picture,
        texture=texture.picture if texture is not None else None,
        mask=ground.mask,
        box_landmarks=ground.landmarks,
        neural_features=texture.features if texture is not None else None,
        speech_features=stretch.speech[place] if stretch.speech is not None else None,
        context_only=not stretch.wanted[place],
    )
