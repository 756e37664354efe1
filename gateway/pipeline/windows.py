"""Second pass: rendered mouths of one window of frames, a pure function of artefacts and an absolute frame range."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dubstage.client import motion as motion_client
from dubstage.client import render as render_client
from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.common.v1alpha1 import common_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.compositing.blend import blend_box
from gateway.methods import Method, Renderer, TextureInput
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.records import pose_of
from gateway.stages.attempts import all_replies
from gateway.stages.interface import Stages
from services.common.array_types import Array, Bool, Float32, Int64, UInt8
from services.common.errors import ContractBroken
from services.common.face.actor_geometry import ActorGeometry, lower_face_mask
from services.common.face.crops import BOX_SIZE, head_to_box
from services.common.wire.arrays import from_image
from services.common.wire.pose_messages import pose_to_proto

WINDOW_FRAMES: Final = 32
"""Frames per window. A job that dies loses at most the windows in work."""
TEXTURE_CONTEXT_FRAMES: Final = 5
"""Frames before a window that the texture stage sees, so that it retrieves the first frames of a window like any other frame."""
BOX: Final = (BOX_SIZE, BOX_SIZE)
"""Width and height of a render box, pixels."""


@dataclass(frozen=True, slots=True)
class RenderedWindow:
    """Mouths of the rendered frames of a window.

    Attributes:
        frame: int64 [N], indices in the film.
        box: uint8 [N, 160, 160, 3], finished render boxes: colour-matched and blended, RGB.
        mask: uint8 [N, 160, 160], weight of the box; 255 = the box, 0 = the footage.
        fitting_error: float32 [N], of the texture stage's warp.
        bending_energy: float32 [N], of the texture stage's warp.
        landmarks: float32 [N, 59, 2], wanted mouth-area landmarks, box pixels.
    """

    frame: Int64
    box: UInt8
    mask: UInt8
    fitting_error: Float32
    bending_energy: Float32
    landmarks: Float32


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """What all windows of one actor are rendered with.

    Attributes:
        bank: texture bank of the actor.
        geometry: lower face of the actor.
        renderer: the renderer; None: the warped texture itself is the picture (an ablation).
        state: state of the actor for the renderer; None: the renderer's own.
        mode: what the texture stage does: how it warps, or which albedo it draws.
        identity: identity of the actor on the morphable model; None: the renderer takes no drawn face.
    """

    bank: common_pb2.ArtefactRef
    geometry: ActorGeometry
    renderer: Renderer | None
    state: common_pb2.ArtefactRef | None
    mode: texture_pb2.WarpMode.ValueType
    identity: common_pb2.ArtefactRef | None = None

    @property
    def renderer_before(self) -> int:
        """Frames before a wanted frame that the renderer sees."""
        return self.renderer.frames_before if self.renderer is not None else 0

    @property
    def frames_before(self) -> int:
        """Frames before a window that any stage sees."""
        return max(TEXTURE_CONTEXT_FRAMES, self.renderer_before)

    @property
    def frames_after(self) -> int:
        """Frames after a window that any stage sees."""
        return self.renderer.frames_after if self.renderer is not None else 0

    @property
    def textured(self) -> bool:
        """Whether the renderer takes a picture of the texture stage with every frame, context frames included."""
        return self.renderer is not None and self.renderer.texture is not TextureInput.NONE


def window_config(method: Method, actor: EnrolledActor, warp: texture_pb2.WarpMode.ValueType) -> WindowConfig:
    """Return what the windows of an actor are rendered with.

    A renderer that takes the drawn face gets the low-frequency albedo if its state was trained on the person, otherwise the
    detailed albedo (Yi et al. 2020, Sec. 3.3.1).
    """
    drawn = method.renderer.texture is TextureInput.DRAWN
    albedo = texture_pb2.WARP_MODE_LOW_FREQUENCY_ALBEDO if actor.renderer_trained else texture_pb2.WARP_MODE_DETAILED_ALBEDO
    return WindowConfig(
        bank=actor.bank,
        geometry=actor.geometry,
        renderer=method.renderer,
        state=actor.renderer,
        mode=albedo if drawn else warp,
        identity=actor.identity if drawn else None,
    )


def with_context(run: range, usable: Bool, config: WindowConfig) -> range:
    """Return a run of frames with the context frames that the stages see before and after the run.

    Args:
        run: the wanted frames, all of them usable.
        usable: bool [T], frames of the film that can be rendered. Context never reaches across a frame that cannot.
        config: says how many context frames there are at most.
    """
    first, stop = run.start, run.stop
    while first > max(0, run.start - config.frames_before) and usable[first - 1]:
        first -= 1
    while stop < min(len(usable), run.stop + config.frames_after) and usable[stop]:
        stop += 1
    return range(first, stop)


async def render_window(stages: Stages, config: WindowConfig, records: Array, mouths: Float32, wanted: Bool) -> RenderedWindow:
    """Render the wanted frames of a stretch of consecutive frames.

    Args:
        stages: the stages.
        config: what to render with.
        records: FACE_RECORDs [N] of the target, one per frame: context frames before, wanted frames, context frames after.
        mouths: float32 [N, 59, 3], the wanted mouths in head space.
        wanted: bool [N]; False: the frame is context only.

    Raises:
        DubstageError: from the stages.
    """
    window = _Window(stages, config, records, mouths, wanted)
    pictures = await window.textures()
    warps = [pictures[frame] for frame in window.frames]
    if config.renderer is not None:
        rendered = await window.render(config.renderer, pictures)
    else:
        masks = await asyncio.to_thread(lambda: [window.mask_of(record) for record in records[wanted]])
        rendered = [
            (from_image(warp.warped, "warped", channels=3, size=BOX), mask) for warp, mask in zip(warps, masks, strict=True)
        ]
    backgrounds = [np.ascontiguousarray(record["pixels"]) for record in records[wanted]]
    blended = await asyncio.to_thread(
        lambda: [blend_box(box, background, mask) for (box, mask), background in zip(rendered, backgrounds, strict=True)]
    )
    count = len(warps)
    return RenderedWindow(
        frame=np.array(window.frames, np.int64),
        box=np.stack(blended) if count else np.empty((0, *BOX, 3), np.uint8),
        mask=np.stack([mask for _, mask in rendered]) if count else np.empty((0, *BOX), np.uint8),
        fitting_error=np.array([warp.fitting_error for warp in warps], np.float32),
        bending_energy=np.array([warp.bending_energy for warp in warps], np.float32),
        landmarks=np.stack([_landmarks(warp) for warp in warps]) if count else np.empty((0, 59, 2), np.float32),
    )


def textured_frames(config: WindowConfig, wanted: Bool) -> Bool:
    """Return the frames whose picture the texture stage makes, bool [N].

    These are the wanted frames and, if the renderer takes a texture, the context frames that the renderer sees.
    """
    textured = wanted.copy()
    if config.textured and wanted.any():
        (places,) = np.nonzero(wanted)
        textured[max(0, places[0] - config.renderer_before) : places[-1] + 1 + config.frames_after] = True
    return textured


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of consecutive frames and what it is rendered with. Attributes: the arguments of `render_window`."""

    stages: Stages
    config: WindowConfig
    records: Array
    mouths: Float32
    wanted: Bool

    @property
    def frames(self) -> list[int]:
        """Indices of the wanted frames."""
        return [int(frame) for frame in self.records[self.wanted]["frame"]]

    def mask_of(self, record: Any) -> UInt8:
        """Return the lower-face mask of a face record, uint8 [160, 160]."""
        return lower_face_mask(self.config.geometry, pose_of(record))

    async def textures(self) -> dict[int, texture_pb2.RetrieveWarpResponse]:
        """Return the texture stage's answers by frame index: of the wanted frames, and of the context that the renderer sees.

        Raises:
            ContractBroken: the stage answered other frames.
            DubstageError: from the stage.
        """
        config, textured = self.config, textured_frames(self.config, self.wanted)
        # Context after the last picture is the renderer's alone.
        seen = int(np.nonzero(textured)[0][-1]) + 1 if textured.any() else 0

        async def requests() -> AsyncIterator[texture_pb2.RetrieveWarpRequest]:
            made = texture_client.retrieve_warp.requests(bank=config.bank, mode=config.mode, identity=config.identity)
            yield made.config
            for place in range(seen):
                record, frame = self.records[place], int(self.records[place]["frame"])
                mouth = motion_client.motion_frame(frame, self.mouths[place])
                pose = pose_to_proto(pose_of(record))
                yield made.item(texture_client.Target(frame, mouth, pose, context_only=not textured[place]))

        replies = await all_replies(lambda: self.stages.stream(rpcs.texture.RETRIEVE_WARP, requests()))
        expected = self.records[textured]["frame"].tolist()
        if [reply.frame_index for reply in replies] != expected:
            raise ContractBroken(f"the texture stage answered frames {[reply.frame_index for reply in replies]}, not {expected}")
        return {reply.frame_index: reply for reply in replies}

    async def render(self, renderer: Renderer, pictures: dict[int, texture_pb2.RetrieveWarpResponse]) -> list[tuple[UInt8, UInt8]]:
        """Return box (uint8 [160, 160, 3]) and mask (uint8 [160, 160]) of every wanted frame.

        Raises:
            ContractBroken: the render stage answered other frames.
            DubstageError: from the stage.
        """
        begin = int(np.argmax(self.wanted)) if self.wanted.any() else len(self.wanted)
        seen = range(max(0, begin - renderer.frames_before), len(self.records))
        made = render_client.render.requests(model=renderer.name, actor=self.config.state)
        messages = await asyncio.to_thread(lambda: [made.item(self._conditions(place, pictures)) for place in seen])

        async def requests() -> AsyncIterator[render_pb2.RenderRequest]:
            yield made.config
            for message in messages:
                yield message

        replies = await all_replies(lambda: self.stages.stream(rpcs.render.RENDER, requests()))
        answered = [reply.frame_index for reply in replies]
        if answered != self.frames:
            raise ContractBroken(f"the render stage answered frames {answered}, not {self.frames}")
        return [
            (from_image(reply.box, "box", channels=3, size=BOX), from_image(reply.mask, "mask", channels=1, size=BOX))
            for reply in replies
        ]

    def _conditions(self, place: int, pictures: dict[int, texture_pb2.RetrieveWarpResponse]) -> render_client.Conditions:
        record = self.records[place]
        picture = pictures.get(int(record["frame"]))
        landmarks = head_to_box(self.mouths[place], pose_of(record)) if picture is None else picture.box_landmarks
        return render_client.Conditions(
            frame_index=int(record["frame"]),
            background=record["pixels"],
            texture=picture.warped if picture is not None and self.config.textured else None,
            mask=self.mask_of(record),
            box_landmarks=landmarks,
            context_only=not self.wanted[place],
        )


def _landmarks(reply: texture_pb2.RetrieveWarpResponse) -> Float32:
    return np.frombuffer(reply.box_landmarks.data, "<f4").reshape(-1, 2)
