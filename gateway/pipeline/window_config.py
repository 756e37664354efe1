"""What the windows of an actor are rendered with, and which frames around a window the stages see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.methods import Method, Renderer, TextureInput
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.records import pose_of
from services.common.array_types import Bool, UInt8
from services.common.face.actor_geometry import ActorGeometry, lower_face_mask

TEXTURE_CONTEXT_FRAMES: Final = 5
"""Frames before a window that the texture stage sees, so that it retrieves the first frames of a window like any other frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """What all windows of one actor are rendered with.

    Attributes:
        bank: texture bank of the actor.
        geometry: lower face of the actor.
        renderer: the renderer; None: the warped texture itself is the picture (an ablation).
        state: state of the actor for the renderer; None: the renderer's own. The neural texture of the actor is in it.
        mode: what the texture stage does: how it warps, or which albedo it draws.
        identity: identity of the actor on the morphable model; None: the texture stage needs none.
        reference: uint8 [160, 160, 3], RGB: render box whose appearance the film takes; None: the actor's own appearance.
        detail_scale: pixels of the mouth's fine detail per box pixel, 1 to 4; 0: no detail.
    """

    bank: common_pb2.ArtefactRef
    geometry: ActorGeometry
    renderer: Renderer | None
    state: common_pb2.ArtefactRef | None
    mode: texture_pb2.WarpMode.ValueType
    identity: common_pb2.ArtefactRef | None = None
    reference: UInt8 | None = None
    detail_scale: int = 0

    @property
    def texture(self) -> TextureInput:
        """What the texture stage is asked for. Without a renderer, the warped texture is the picture."""
        return self.renderer.texture if self.renderer is not None else TextureInput.WARPED

    def mask_of(self, record: Any) -> UInt8:
        """Return the lower-face mask of a face record, uint8 [160, 160]."""
        return lower_face_mask(self.geometry, pose_of(record))

    @property
    def renderer_before(self) -> int:
        """Frames before a wanted frame that the renderer sees."""
        return self.renderer.frames_before if self.renderer is not None else 0

    @property
    def frames_before(self) -> int:
        """Frames before a window that any stage sees."""
        retrieved = self.texture in {TextureInput.WARPED, TextureInput.DRAWN} or self.detail_scale > 0
        return max(TEXTURE_CONTEXT_FRAMES if retrieved else 0, self.renderer_before)

    @property
    def frames_after(self) -> int:
        """Frames after a window that any stage sees."""
        return self.renderer.frames_after if self.renderer is not None else 0


def window_config(
    method: Method,
    actor: EnrolledActor,
    warp: texture_pb2.WarpMode.ValueType,
    reference: UInt8 | None = None,
    *,
    detail_scale: int = 0,
) -> WindowConfig:
    """Return what the windows of an actor are rendered with.

    A renderer that takes the drawn face gets the low-frequency albedo if its state was trained on the person, otherwise the
    detailed albedo (Yi et al. 2020, Sec. 3.3.1).

    Args:
        method: method that the actor is enrolled for.
        actor: the actor.
        warp: how the texture stage warps, for renderers that take a warped texture.
        reference: uint8 [160, 160, 3], RGB: render box whose appearance the film takes; None: the actor's own appearance.
        detail_scale: pixels of the mouth's fine detail per box pixel, 1 to 4; 0: no detail.
    """
    texture = method.renderer.texture
    albedo = texture_pb2.WARP_MODE_LOW_FREQUENCY_ALBEDO if actor.renderer_trained else texture_pb2.WARP_MODE_DETAILED_ALBEDO
    return WindowConfig(
        bank=actor.bank,
        geometry=actor.geometry,
        renderer=method.renderer,
        state=actor.renderer,
        mode=albedo if texture is TextureInput.DRAWN else warp,
        identity=actor.identity if texture in {TextureInput.DRAWN, TextureInput.NEURAL} else None,
        reference=reference,
        detail_scale=detail_scale,
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


def textured_frames(config: WindowConfig, wanted: Bool) -> Bool:
    """Return the frames that the texture stage answers, bool [N].

    These are the wanted frames and the context frames that the renderer sees. None, if the renderer takes nothing of the texture
    stage.
    """
    if config.texture is TextureInput.NONE:
        return np.zeros_like(wanted)
    textured = wanted.copy()
    if wanted.any():
        (places,) = np.nonzero(wanted)
        textured[max(0, places[0] - config.renderer_before) : places[-1] + 1 + config.frames_after] = True
    return textured
