"""Second pass: rendered mouths of one window of frames, a pure function of artefacts and an absolute frame range."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.compositing.blend import laplacian_blend
from gateway.compositing.colour_match import match_colour
from gateway.methods import RENDERERS, Method
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.messages import pose_message
from gateway.pipeline.records import pose_of
from gateway.stages.attempts import all_replies
from gateway.stages.interface import Stages
from services.common.actor_geometry import ActorGeometry, lower_face_mask
from services.common.arrays import from_image, to_gray_image, to_rgb_image, to_tensor
from services.common.crops import BOX_SIZE, head_to_box
from services.common.errors import ContractBroken

Pixels = npt.NDArray[np.uint8]

WINDOW_FRAMES: Final = 32
"""Frames a window: what is lost at most when a job dies."""
TEXTURE_CONTEXT_FRAMES: Final = 5
"""Frames before a window that the texture stage sees, so that a window's first frames are retrieved like any other."""
_BOX: Final = (BOX_SIZE, BOX_SIZE)


@dataclass(frozen=True, slots=True)
class RenderedWindow:
    """Mouths of the rendered frames of a window.

    Attributes:
        frame: int64 [N], absolute indices.
        box: uint8 [N, 160, 160, 3], the finished render box: colour-matched and blended.
        mask: uint8 [N, 160, 160], where it is used.
        fitting_error, bending_energy: float32 [N], of the warp.
        landmarks: float32 [N, 59, 2], wanted mouth-area landmarks, box pixels.
    """

    frame: npt.NDArray[np.int64]
    box: Pixels
    mask: Pixels
    fitting_error: npt.NDArray[np.float32]
    bending_energy: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """How windows are rendered.

    Attributes:
        bank: of the actor.
        renderer: per-actor state; None: the prior.
        model: renderer's name; empty: the warped texture itself is the picture (an ablation).
        mode: of the warp, or of the drawing where the renderer wants the drawn face.
        identity: of the person; None where nothing is drawn.
    """

    bank: common_pb2.ArtefactRef
    renderer: common_pb2.ArtefactRef | None
    model: str
    mode: texture_pb2.WarpMode.ValueType
    identity: common_pb2.ArtefactRef | None = None

    @property
    def context_frames(self) -> int:
        """Frames before a window that texture and render stage see."""
        return max(TEXTURE_CONTEXT_FRAMES, RENDERERS[self.model].context_frames) if self.model else TEXTURE_CONTEXT_FRAMES


def window_config(method: Method, actor: EnrolledActor, warp: texture_pb2.WarpMode.ValueType) -> WindowConfig:
    """How an actor's windows are rendered by a method.

    A renderer that refines the drawn face gets the low-frequency albedo once it was tuned to the person, and the detailed one
    before (headpose, Sec. 3.3.1).
    """
    config = WindowConfig(bank=actor.bank, renderer=actor.renderer, model=method.renderer, mode=warp)
    if not method.needs_identity:
        return config
    mode = texture_pb2.WARP_MODE_LOW_FREQUENCY_ALBEDO if actor.renderer_trained else texture_pb2.WARP_MODE_DETAILED_ALBEDO
    return replace(config, mode=mode, identity=actor.identity)


async def render_window(
    stages: Stages,
    config: WindowConfig,
    geometry: ActorGeometry,
    records: npt.NDArray[Any],
    mouths: npt.NDArray[np.float32],
    wanted: npt.NDArray[np.bool_],
) -> RenderedWindow:
    """Render the frames of a window.

    Args:
        stages: the stages.
        config: what to render with.
        geometry: of the actor.
        records: FACE_RECORDs [N] of the target in consecutive order: the context frames, then the window's.
        mouths: float32 [N, 59, 3], the wanted mouths in head space.
        wanted: bool [N]: render it; False: context only.
    """
    pictured = _pictured(config, wanted)
    pictures = await _warp(stages, config, records, mouths, pictured)
    warped = [reply for reply, wants in zip(pictures, wanted[pictured], strict=True) if wants]
    backgrounds = [np.ascontiguousarray(record["pixels"]) for record in records[wanted]]
    if config.model:
        rendered = await _render(stages, config, geometry, records, mouths, wanted, pictures)
    else:
        masks = await asyncio.to_thread(lambda: [_mask(geometry, record) for record in records[wanted]])
        rendered = [
            (from_image(reply.warped, "warped", channels=3, size=_BOX), mask) for reply, mask in zip(warped, masks, strict=True)
        ]
    blended = await asyncio.to_thread(
        lambda: [blend_box(box, background, mask) for (box, mask), background in zip(rendered, backgrounds, strict=True)]
    )
    count = len(warped)
    return RenderedWindow(
        frame=np.array([reply.frame_index for reply in warped], np.int64),
        box=np.stack(blended) if count else np.empty((0, *_BOX, 3), np.uint8),
        mask=np.stack([mask for _, mask in rendered]) if count else np.empty((0, *_BOX), np.uint8),
        fitting_error=np.array([reply.fitting_error for reply in warped], np.float32),
        bending_energy=np.array([reply.bending_energy for reply in warped], np.float32),
        landmarks=np.stack([_landmarks(reply) for reply in warped]) if count else np.empty((0, 59, 2), np.float32),
    )


def _pictured(config: WindowConfig, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Frames that need the texture stage's picture: the wanted ones, and those before them that the renderer sees drawn."""
    if not (config.model and RENDERERS[config.model].drawn_face and wanted.any()):
        return wanted
    pictured = wanted.copy()
    begin = int(np.argmax(wanted))
    pictured[max(0, begin - RENDERERS[config.model].context_frames) : begin] = True
    return pictured


def _mask(geometry: ActorGeometry, record: Any) -> Pixels:
    return lower_face_mask(geometry, pose_of(record))


def _landmarks(reply: texture_pb2.RetrieveWarpResponse) -> npt.NDArray[np.float32]:
    return np.frombuffer(reply.box_landmarks.data, "<f4").reshape(-1, 2)


def blend_box(rendered: Pixels, background: Pixels, mask: Pixels) -> Pixels:
    """Colour-match and blend one box; equal to the background where the mask is 0."""
    soft = mask.astype(np.float32) / 255.0
    inner = (mask == 255).astype(np.float32)
    matched = match_colour(rendered, background, inner, soft)
    blended = laplacian_blend(matched, background, soft)
    return np.asarray(np.clip(np.rint(blended), 0, 255), np.uint8)


async def _warp(
    stages: Stages,
    config: WindowConfig,
    records: npt.NDArray[Any],
    mouths: npt.NDArray[np.float32],
    wanted: npt.NDArray[np.bool_],
) -> list[texture_pb2.RetrieveWarpResponse]:
    async def requests() -> AsyncIterator[texture_pb2.RetrieveWarpRequest]:
        yield texture_pb2.RetrieveWarpRequest(
            config=texture_pb2.RetrieveWarpConfig(bank=config.bank, mode=config.mode, identity=config.identity)
        )
        for record, mouth, wants in zip(records, mouths, wanted, strict=True):
            frame = int(record["frame"])
            motion = motion_pb2.MotionFrame(frame_index=frame, mouth_landmarks=to_tensor(np.ascontiguousarray(mouth)))
            yield texture_pb2.RetrieveWarpRequest(
                frame=texture_pb2.TargetFrame(
                    frame_index=frame, motion=motion, pose=pose_message(pose_of(record)), context_only=not wants
                )
            )

    replies = await all_replies(lambda: stages.retrieve_warp(requests()))
    expected = records[wanted]["frame"].tolist()
    if [reply.frame_index for reply in replies] != expected:
        raise ContractBroken(f"the texture stage answered frames {[reply.frame_index for reply in replies]}, not {expected}")
    return replies


async def _render(
    stages: Stages,
    config: WindowConfig,
    geometry: ActorGeometry,
    records: npt.NDArray[Any],
    mouths: npt.NDArray[np.float32],
    wanted: npt.NDArray[np.bool_],
    warped: list[texture_pb2.RetrieveWarpResponse],
) -> list[tuple[Pixels, Pixels]]:
    wants = RENDERERS[config.model]
    warps = {reply.frame_index: reply for reply in warped}
    pictures = {frame: reply.warped for frame, reply in warps.items() if wants.warped_texture or wants.drawn_face}
    frames = records[wanted]["frame"].tolist()
    begin = int(np.argmax(wanted)) if wanted.any() else len(wanted)

    def frame_message(place: int) -> render_pb2.RenderFrame:
        record = records[place]
        warp = warps.get(int(record["frame"]))
        return render_pb2.RenderFrame(
            frame_index=int(record["frame"]),
            background=to_rgb_image(np.ascontiguousarray(record["pixels"])),
            texture=pictures.get(int(record["frame"])),
            mask=to_gray_image(_mask(geometry, record)),
            box_landmarks=to_tensor(head_to_box(mouths[place], pose_of(record))) if warp is None else warp.box_landmarks,
            context_only=not wanted[place],
        )

    seen = range(max(0, begin - wants.context_frames), len(records))
    messages = await asyncio.to_thread(lambda: [frame_message(place) for place in seen])

    async def requests() -> AsyncIterator[render_pb2.RenderRequest]:
        yield render_pb2.RenderRequest(config=render_pb2.RenderConfig(model=config.model, actor=config.renderer))
        for message in messages:
            yield render_pb2.RenderRequest(frame=message)

    replies = await all_replies(lambda: stages.render(requests()))
    if [reply.frame_index for reply in replies] != frames:
        raise ContractBroken("the render stage answered other frames than it was asked for")
    return [
        (from_image(reply.box, "box", channels=3, size=_BOX), from_image(reply.mask, "mask", channels=1, size=_BOX))
        for reply in replies
    ]
