"""Second pass: rendered mouths of one window of frames, a pure function of artefacts and an absolute frame range."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.client import render as render_client
from dubstage.client import rpcs
from dubstage.render.v1alpha1 import render_pb2
from gateway.compositing.blend import blend_box
from gateway.methods import Renderer
from gateway.pipeline.stretch import Stretch
from gateway.pipeline.textures import Texture, textures_of
from gateway.pipeline.window_config import WindowConfig
from gateway.stages.attempts import all_replies
from gateway.stages.interface import Stages
from services.common.array_types import Float32, Int64, UInt8
from services.common.errors import ContractBroken
from services.common.face.crops import BOX_SIZE
from services.common.wire.arrays import from_image

WINDOW_FRAMES: Final = 32
"""Frames per window. A job that dies loses at most the windows in work."""
BOX: Final = (BOX_SIZE, BOX_SIZE)
"""Width and height of a render box, pixels."""


@dataclass(frozen=True, slots=True)
class RenderedWindow:
    """Mouths of the rendered frames of a window.

    Attributes:
        frame: int64 [N], indices in the film.
        box: uint8 [N, 160, 160, 3], finished render boxes: colour-matched and blended, RGB.
        mask: uint8 [N, 160, 160], weight of the box; 255 = the box, 0 = the footage.
        fitting_error: float32 [N], of the texture stage's warp; 0 where nothing was warped.
        bending_energy: float32 [N], of the texture stage's warp; 0 where nothing was warped.
        landmarks: float32 [N, 59, 2], wanted mouth-area landmarks, box pixels.
    """

    frame: Int64
    box: UInt8
    mask: UInt8
    fitting_error: Float32
    bending_energy: Float32
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
    places = np.nonzero(stretch.wanted)[0].tolist()
    wanted = [textures[place] for place in places]
    records = [stretch.records[place] for place in places]
    if config.renderer is not None:
        rendered = await _rendered(stages, config, config.renderer, stretch, textures)
    else:
        masks = await asyncio.to_thread(lambda: [config.mask_of(record) for record in records])
        pictures = [from_image(texture.picture, "warped", channels=3, size=BOX) for texture in wanted if texture.picture]
        rendered = list(zip(pictures, masks, strict=True))
    backgrounds = [np.ascontiguousarray(record["pixels"]) for record in records]
    blended = await asyncio.to_thread(
        lambda: [blend_box(box, background, mask) for (box, mask), background in zip(rendered, backgrounds, strict=True)]
    )
    count = len(wanted)
    return RenderedWindow(
        frame=np.array(stretch.frames(stretch.wanted), np.int64),
        box=np.stack(blended) if count else np.empty((0, *BOX, 3), np.uint8),
        mask=np.stack([mask for _, mask in rendered]) if count else np.empty((0, *BOX), np.uint8),
        fitting_error=np.array([texture.fitting_error for texture in wanted], np.float32),
        bending_energy=np.array([texture.bending_energy for texture in wanted], np.float32),
        landmarks=np.stack([texture.landmarks for texture in wanted]) if count else np.empty((0, 59, 2), np.float32),
    )


async def _rendered(
    stages: Stages, config: WindowConfig, renderer: Renderer, stretch: Stretch, textures: dict[int, Texture]
) -> list[tuple[UInt8, UInt8]]:
    """Return box (uint8 [160, 160, 3]) and mask (uint8 [160, 160]) of every wanted frame.

    Raises:
        ContractBroken: the render stage answered other frames.
        DubstageError: from the stage.
    """
    begin = int(np.argmax(stretch.wanted)) if stretch.wanted.any() else len(stretch)
    made = render_client.render.requests(model=renderer.name, actor=config.state, reference=config.reference)

    async def requests() -> AsyncIterator[render_pb2.RenderRequest]:
        yield made.config
        # One message at a time: features of a neural texture take 1.6 MB per frame.
        for place in range(max(0, begin - renderer.frames_before), len(stretch)):
            yield made.item(await asyncio.to_thread(_conditions, config, stretch, place, textures.get(place)))

    replies = await all_replies(lambda: stages.stream(rpcs.render.RENDER, requests()))
    answered, expected = [reply.frame_index for reply in replies], stretch.frames(stretch.wanted)
    if answered != expected:
        raise ContractBroken(f"the render stage answered frames {answered}, not {expected}")
    return [
        (from_image(reply.box, "box", channels=3, size=BOX), from_image(reply.mask, "mask", channels=1, size=BOX))
        for reply in replies
    ]


def _conditions(config: WindowConfig, stretch: Stretch, place: int, texture: Texture | None) -> render_client.Conditions:
    record = stretch.records[place]
    return render_client.Conditions(
        frame_index=stretch.frame(place),
        background=record["pixels"],
        texture=texture.picture if texture is not None else None,
        mask=config.mask_of(record),
        box_landmarks=stretch.landmarks(place) if texture is None else texture.landmarks,
        neural_features=texture.features if texture is not None else None,
        speech_features=stretch.speech[place] if stretch.speech is not None else None,
        context_only=not stretch.wanted[place],
    )
