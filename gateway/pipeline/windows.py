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
from gateway.compositing.jaw import jaw_shift
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


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """The rendered mouth of one frame.

    Attributes:
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        detail: uint8 [160 S, 160 S], fine detail at S pixels per box pixel (box_with_detail); S = 0: no detail.
        shift: float32 [160, 160, 2], how the footage is moved under and around the box, box pixels (jaw_shift).
        strength: factor of mask and shift, 0 to 1.
    """

    box: UInt8
    mask: UInt8
    detail: UInt8
    shift: Float32
    strength: float = 1.0


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
        filmed: float32 [N, 59, 2], the footage's own mouth-area landmarks, box pixels.
        detail: uint8 [N, 160 S, 160 S], fine detail of the mouths at S pixels per box pixel (mouth_detail.py); S = 0: no detail.
    """

    frame: Int64
    box: UInt8
    mask: UInt8
    fitting_error: Float32
    bending_energy: Float32
    landmarks: Float32
    filmed: Float32
    detail: UInt8

    def mouth(self, place: int, strength: float = 1.0) -> Mouth:
        """Return the mouth of the frame at a place, to be composited with a factor of the mask."""
        return Mouth(self.box[place], self.mask[place], self.detail[place], self.shift(place), strength)

    def shift(self, place: int) -> Float32:
        """Return how the footage of the frame at a place is moved under and around the box, float32 [160, 160, 2], box pixels."""
        return jaw_shift(self.filmed[place], self.landmarks[place], self.mask[place])


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
        detail=_details(wanted, config.detail_scale * BOX_SIZE),
    )


def _details(textures: list[Texture], side: int) -> UInt8:
    if not side or not textures:
        return np.empty((len(textures), side, side), np.uint8)
    pictures = [texture.detail for texture in textures if texture.detail is not None]
    return np.stack([from_image(picture, "detail", channels=1, size=(side, side)) for picture in pictures])


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
