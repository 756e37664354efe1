"""Second pass: render the mouths of one window of frames, a pure function of artefacts and an absolute frame range.

A window is a span of frames that is rendered at once. The stages also see frames around the wanted frames. The texture stage makes
warped mouths, drawn faces, or features of the neural texture for the span; the render stage makes mouths of these. Finished boxes
get the fine detail of the footage.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dubstage.client import motion as motion_client
from dubstage.client import render as render_client
from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.common.v1 import common_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.async_utilities import close
from gateway.compositing.blend import blend_box, without_cover
from gateway.compositing.cover import Cover
from gateway.compositing.detail import skin_under
from gateway.compositing.jaw import JawMove, move_jaw, warp_footage
from gateway.compositing.own_colours import with_own_colours
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.state.records import mouth_in_box, pose_of
from gateway.stages.calls import all_replies
from gateway.stages.interface import Stages
from services.common.array_types import Array, Bool, Float32, Int16, Int64, UInt8
from services.common.errors import ContractBrokenError
from services.common.face.actor_geometry import ActorGeometry, lower_face_mask
from services.common.face.crops import BOX_SIZE, head_to_box
from services.common.face.mouth_detail import with_fitting_edges, with_fitting_interior
from services.common.methods import Finish, Method, RendererSpec, TextureInput
from services.common.wire.convert import from_image, pose_to_proto

TEXTURE_CONTEXT_FRAMES: Final = 5
"""Frames before a window that the texture stage sees, so that it retrieves the first frames of a window like any other frame."""
FEWEST_COLOURED: Final = 25
"""Fewest frames of an enrolment whose bank gives mouths their colours. The bank of a still has one mouth: its teeth would shine
through shut lips."""
WINDOW_FRAMES: Final = 32
"""Frames per window. A job that dies loses at most the windows in work."""
SHIFT_STEPS: Final = 64
"""Steps per box pixel in which windows hold how the footage is moved."""
BOX: Final = (BOX_SIZE, BOX_SIZE)
"""Width and height of a render box, pixels."""
WARP: Final = texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK
"""How the texture stage warps for renderers that take a warped texture."""


@dataclass(frozen=True, slots=True, eq=False)
class RenderedMouth:
    """The rendered mouth of one frame.

    Attributes:
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1 (move_jaw).
        skin: uint8 [160, 160], the mask without lips, old and new (skin_under).
        detail: uint8 [160 S, 160 S], detail at S pixels per box pixel (box_with_detail); S = 0: no detail.
        shift: float32 [160, 160, 2], how the footage is moved under and around the box, box pixels (move_jaw).
        strength: factor of mask and shift, 0 to 1.
    """

    box: UInt8
    mask: UInt8
    skin: UInt8
    detail: UInt8
    shift: Float32
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class RenderedWindow:
    """Mouths of the rendered frames of a window.

    Attributes:
        frame: int64 [N], indices in the video.
        box: uint8 [N, 160, 160, 3], finished render boxes: colour-matched and blended, RGB.
        mask: uint8 [N, 160, 160], weight of the box; 255 = the box, 0 = the footage (move_jaw).
        shift: int16 [N, 160, 160, 2], how the footage is moved under and around the box (move_jaw), in 1 / SHIFT_STEPS box pixels.
        fitting_error: float32 [N], of the texture stage's warp; 0 where nothing was warped.
        bending_energy: float32 [N], of the texture stage's warp; 0 where nothing was warped.
        landmarks: float32 [N, 59, 2], target mouth-area landmarks, box pixels.
        filmed: float32 [N, 59, 2], the footage's own mouth-area landmarks, box pixels.
        detail: uint8 [N, 160 S, 160 S], detail of the mouths at S pixels per box pixel (mouth_detail.py); S = 0: no detail.
    """

    frame: Int64
    box: UInt8
    mask: UInt8
    shift: Int16
    fitting_error: Float32
    bending_energy: Float32
    landmarks: Float32
    filmed: Float32
    detail: UInt8

    def mouth(self, index: int, strength: float = 1.0) -> RenderedMouth:
        """Return the mouth at an index of the window, to be composited with a factor of mask and shift."""
        mask = self.mask[index]
        skin = skin_under(mask, self.filmed[index], self.landmarks[index])
        shift = self.shift[index].astype(np.float32) / np.float32(SHIFT_STEPS)
        return RenderedMouth(self.box[index], mask, skin, self.detail[index], shift, strength)


@dataclass(frozen=True, slots=True, eq=False)
class FrameSpan:
    """Consecutive frames of a video: context frames before, target frames, context frames after.

    Attributes:
        records: FACE_RECORDs [N] of the target, one per frame.
        mouths: float32 [N, 59, 3], the target mouths in head space.
        targets: bool [N]; False: the frame is context only.
        speech: float32 [N, 20, 40], speech features of the frames; None: the renderer takes none.
        insides: int64 [N], footage index of the bank frame that shows the inside of each mouth (select_insides); None: the texture
            stage chooses only by the frames of the span.
        movable: bool [N, 160, 160], pixels of the footage that may move and change (FaceColours.movable); None: the span is not
            rendered.
        covers: what covers the face in each of the N frames, which keeps its pixels (ShotLooks.covers); None: the face is free.
        first: frame of the records that is frame 0 of the video (FaceIndex.first).
    """

    records: Array
    mouths: Float32
    targets: Bool
    speech: Float32 | None = None
    insides: Int64 | None = None
    movable: Bool | None = None
    covers: Sequence[Cover | None] | None = None
    first: int = 0

    def __len__(self) -> int:
        """Return the number of frames, N."""
        return len(self.records)

    def frame(self, index: int) -> int:
        """Return the number in the video of the frame at an index of the span."""
        return int(self.records[index]["frame"]) - self.first

    def frames(self, chosen: Bool) -> list[int]:
        """Return the indices in the video of the chosen frames, bool [N]."""
        return [int(frame) - self.first for frame in self.records[chosen]["frame"]]

    def landmarks(self, index: int) -> Float32:
        """Return the target mouth-area landmarks of a frame, float32 [59, 2], box pixels."""
        return head_to_box(self.mouths[index], pose_of(self.records[index]))

    def filmed(self, index: int) -> Float32:
        """Return the footage's own mouth-area landmarks of a frame, float32 [59, 2], box pixels."""
        return mouth_in_box(self.records[index])

    def move(self, index: int, target: Float32, mask: UInt8) -> JawMove:
        """Return how the footage of a frame moves with the jaw.

        Args:
            index: of the frame in the span.
            target: float32 [59, 2], target mouth-area landmarks, box pixels.
            mask: uint8 [160, 160], lower-face mask.
        """
        assert self.movable is not None, "the span is rendered"
        moved = move_jaw(self.filmed(index), target, mask, self.movable[index])
        covered = self.covered(index)
        return moved if covered is None else moved.behind(covered)

    def covered(self, index: int) -> Bool | None:
        """Return the pixels of what covers the face in a frame, bool [160, 160]; None: the face is free."""
        cover = None if self.covers is None else self.covers[index]
        return None if cover is None else cover.pixels

    def background(self, index: int, move: JawMove) -> UInt8:
        """Return the footage's own box of a frame after the move, uint8 [160, 160, 3], RGB."""
        return warp_footage(np.ascontiguousarray(self.records[index]["pixels"]), move.shift)

    def target(self, index: int, *, context_only: bool) -> texture_client.Target:
        """Return what the texture stage is asked for a frame."""
        frame = self.frame(index)
        mouth = motion_client.motion_frame(frame, np.asarray(self.mouths[index]))
        return texture_client.Target(
            frame,
            mouth,
            pose_to_proto(pose_of(self.records[index])),
            context_only=context_only,
            inside_frame_index=None if self.insides is None else int(self.insides[index]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """Inputs and settings that all windows of one actor are rendered with.

    Attributes:
        bank: texture bank of the actor.
        geometry: lower face of the actor.
        renderer: the renderer.
        state: state of the actor for the renderer; None: the renderer's own. The neural texture of the actor is in it.
        mode: what the texture stage does: how it warps, or which albedo it draws.
        identity: identity of the actor on the morphable model; None: the texture stage needs none.
        reference: uint8 [160, 160, 3], RGB: render box whose appearance the video takes; None: the actor's own appearance.
        detail_scale: pixels of the mouth's fine detail per box pixel, 1 to 4; 0: no detail.
        as_drawn: mouths keep the colours and the inside that the renderer draws: an ablation, and for actors of fewer than
            FEWEST_COLOURED frames.
    """

    bank: common_pb2.ArtefactRef
    geometry: ActorGeometry
    renderer: RendererSpec
    state: common_pb2.ArtefactRef | None
    mode: texture_pb2.WarpMode.ValueType
    identity: common_pb2.ArtefactRef | None = None
    reference: UInt8 | None = None
    detail_scale: int = 0
    as_drawn: bool = False

    def mask_of(self, record: Any) -> UInt8:
        """Return the lower-face mask of a face record, uint8 [160, 160]."""
        return lower_face_mask(self.geometry, pose_of(record))

    @property
    def shows_bank(self) -> bool:
        """Whether the mouths show pictures of the bank."""
        return self.renderer.texture is TextureInput.WARPED or self.detail_scale > 0

    @property
    def gives_colours(self) -> bool:
        """Whether the bank gives the mouths their colours: not where somebody else's picture says what the mouths look like."""
        return self.renderer.colours_from_bank and self.detail_scale > 0 and self.reference is None and not self.as_drawn

    @property
    def gives_inside(self) -> bool:
        """Whether the bank's pictures are shown between the inner lips of mouths to which the bank gives their colours."""
        return self.gives_colours and self.renderer.inside_from_bank

    @property
    def frames_before(self) -> int:
        """Frames before a window that any stage sees."""
        retrieved = self.shows_bank or self.renderer.texture is TextureInput.DRAWN
        return max(TEXTURE_CONTEXT_FRAMES if retrieved else 0, self.renderer.frames_before)


def window_config(
    method: Method,
    actor: EnrolledActor,
    reference: UInt8 | None = None,
    *,
    detail_scale: int = 0,
    finish: Finish | None = None,
) -> WindowConfig:
    """Return what the windows of an actor are rendered with.

    A renderer that takes the drawn face gets the low-frequency albedo if its state was trained on the person, otherwise the
    detailed albedo (Yi et al. 2020, Sec. 3.3.1).

    Args:
        method: method that the actor is enrolled for.
        reference: uint8 [160, 160, 3], RGB: render box whose appearance the video takes; None: the actor's own appearance.
        detail_scale: pixels of the mouth's fine detail per box pixel, 1 to 4; 0: no detail. Finish.RENDERER gives no detail.
        finish: whose pixels the mouths show; None: the method decides.
    """
    texture = method.renderer.texture
    albedo = texture_pb2.WARP_MODE_LOW_FREQUENCY_ALBEDO if actor.renderer_trained else texture_pb2.WARP_MODE_DETAILED_ALBEDO
    return WindowConfig(
        bank=actor.bank,
        geometry=actor.geometry,
        renderer=method.renderer,
        state=actor.renderer,
        mode=albedo if texture is TextureInput.DRAWN else WARP,
        identity=actor.identity if texture in {TextureInput.DRAWN, TextureInput.NEURAL} else None,
        reference=reference,
        # Without detail of the bank, the bank gives neither colours nor insides.
        detail_scale=detail_scale if (finish or method.finish) is Finish.BANK else 0,
        as_drawn=actor.num_frames < FEWEST_COLOURED,
    )


def with_context(run: range, usable: Bool, config: WindowConfig, shot_cuts: Collection[int]) -> range:
    """Return a run of frames with the context frames that the stages see before and after the run.

    Args:
        run: the target frames, all of them usable and of one shot.
        usable: bool [T], frames of the video that can be rendered. Context never reaches across a frame that cannot.
        config: says how many context frames there are at most.
        shot_cuts: frames that begin a shot. Context never shows another shot.
    """
    first, stop = run.start, run.stop
    while first > max(0, run.start - config.frames_before) and usable[first - 1] and first not in shot_cuts:
        first -= 1
    while stop < min(len(usable), run.stop + config.renderer.frames_after) and usable[stop] and stop not in shot_cuts:
        stop += 1
    return range(first, stop)


def textured_frames(config: WindowConfig, targets: Bool) -> Bool:
    """Return the frames that the texture stage answers, bool [N].

    These are the target frames and the context frames that the renderer sees. None, if the renderer takes nothing of the texture
    stage.
    """
    if config.renderer.texture is TextureInput.NONE:
        return np.zeros_like(targets)
    textured = targets.copy()
    if targets.any():
        (indices,) = np.nonzero(targets)
        textured[max(0, indices[0] - config.renderer.frames_before) : indices[-1] + 1 + config.renderer.frames_after] = True
    return textured


@dataclass(frozen=True, slots=True, eq=False)
class FrameTexture:
    """Answer of the texture stage for one frame.

    Attributes:
        landmarks: float32 [59, 2], target mouth-area landmarks, box pixels.
        picture: Image message, uint8 [160, 160, 3]: the warped mouth or the drawn face; None: the renderer takes no picture.
        features: Tensor message, float32 [160, 160, C]: features of the neural texture; None: the renderer takes none.
        fitting_error: of the warp, box pixels; 0 where no spline was used.
        bending_energy: of the warp; 0 where no spline was used.
        detail: Image message, uint8 [160 S, 160 S]: fine detail of the mouth at S pixels per box pixel; None: not asked for.
        own: Image message, uint8 [160, 160, 3]: the warped mouth of the bank, for renderers that take none; None: not asked for.
    """

    landmarks: Float32
    picture: common_pb2.Image | None = None
    features: common_pb2.Tensor | None = None
    fitting_error: float = 0.0
    bending_energy: float = 0.0
    detail: common_pb2.Image | None = None
    own: common_pb2.Image | None = None


async def textures_of(stages: Stages, config: WindowConfig, span: FrameSpan) -> dict[int, FrameTexture]:
    """Return what the texture stage makes for a span, by the index of the frame in the span.

    The target frames have a texture, and the context frames that the renderer sees. If the renderer takes nothing of the texture
    stage, the stage is not asked, and the target frames have landmarks only.

    Raises:
        ContractBrokenError: the stage answered other frames.
        DubstageError: from the stage.
    """
    textured = textured_frames(config, span.targets)
    indices = np.nonzero(textured)[0].tolist()
    match config.renderer.texture:
        case TextureInput.NONE:
            indices = np.nonzero(span.targets)[0].tolist()
            frame_textures = [FrameTexture(span.landmarks(index)) for index in indices]
        case TextureInput.NEURAL:
            frame_textures = await _sampled(stages, config, span, indices)
        case TextureInput.DRAWN:
            frame_textures = await _warped(stages, config, span, indices, config.mode)
        case TextureInput.WARPED:
            frame_textures = await _warped(stages, config, span, indices, config.mode, config.detail_scale)
    textures = dict(zip(indices, frame_textures, strict=True))
    if config.detail_scale and config.renderer.texture is not TextureInput.WARPED:
        await _add_detail(stages, config, span, textures)
    return textures


async def _add_detail(stages: Stages, config: WindowConfig, span: FrameSpan, textures: dict[int, FrameTexture]) -> None:
    """Add mouths and detail of the bank to the textures of the target frames, for renderers that take no warped texture."""
    indices = np.nonzero(span.targets)[0].tolist()
    mode = texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK
    warped = await _warped(stages, config, span, indices, mode, config.detail_scale)
    for index, texture in zip(indices, warped, strict=True):
        textures[index] = replace(textures[index], detail=texture.detail, own=texture.picture)


async def _warped(
    stages: Stages,
    config: WindowConfig,
    span: FrameSpan,
    indices: Sequence[int],
    mode: texture_pb2.WarpMode.ValueType,
    detail_scale: int = 0,
) -> list[FrameTexture]:
    # Only the renderer needs the context after the last picture.
    context, answered = range(indices[-1] + 1 if indices else 0), set(indices)

    async def requests() -> AsyncIterator[texture_pb2.RetrieveWarpRequest]:
        call = texture_client.retrieve_warp.requests(
            bank=config.bank, mode=mode, identity=config.identity, detail_scale=detail_scale
        )
        yield call.config
        for index in context:
            yield call.item(span.target(index, context_only=index not in answered))

    replies = await all_replies(lambda: stages.stream(rpcs.texture.RETRIEVE_WARP, requests()))
    _check([reply.frame_index for reply in replies], span, indices)
    return [
        FrameTexture(
            landmarks=_landmarks(reply),
            picture=reply.warped,
            fitting_error=reply.fitting_error,
            bending_energy=reply.bending_energy,
            detail=reply.detail if detail_scale else None,
        )
        for reply in replies
    ]


async def _sampled(stages: Stages, config: WindowConfig, span: FrameSpan, indices: Sequence[int]) -> list[FrameTexture]:
    assert config.state is not None, "a renderer that takes a neural texture needs an actor"
    texture = config.state

    async def requests() -> AsyncIterator[texture_pb2.SampleNeuralTextureRequest]:
        call = texture_client.sample_neural_texture.requests(texture=texture, identity=config.identity)
        yield call.config
        for index in indices:
            yield call.item(span.target(index, context_only=False))

    replies = await all_replies(lambda: stages.stream(rpcs.texture.SAMPLE_NEURAL_TEXTURE, requests()))
    _check([reply.frame_index for reply in replies], span, indices)
    return [FrameTexture(span.landmarks(index), None, reply.features) for index, reply in zip(indices, replies, strict=True)]


def _check(answered: list[int], span: FrameSpan, indices: Sequence[int]) -> None:
    expected = [span.frame(index) for index in indices]
    if answered != expected:
        raise ContractBrokenError(f"the texture stage answered frames {answered}, not {expected}")


def _landmarks(reply: texture_pb2.RetrieveWarpResponse) -> Float32:
    return np.frombuffer(reply.box_landmarks.data, "<f4").reshape(-1, 2)


def details_of(config: WindowConfig, textures: Sequence[FrameTexture], boxes: Sequence[UInt8]) -> UInt8:
    """Return the fine detail of finished boxes, uint8 [N, 160 S, 160 S] at S pixels per box pixel (mouth_detail.py).

    Args:
        config: says the scale, and whether the renderer draws the inside of the mouth.
        textures: what the texture stage made, N of them.
        boxes: uint8 [160, 160, 3] each, RGB: the finished boxes of the same frames.

    Raises:
        InvalidRequestError: a picture of the texture stage has another size.
    """
    side = config.detail_scale * BOX_SIZE
    details = np.empty((len(textures), side, side), np.uint8)
    if not side:
        return details
    for row, texture, box in zip(details, textures, boxes, strict=True):
        assert texture.detail is not None, "the texture stage was asked for detail"
        row[:] = with_fitting_edges(from_image(texture.detail, "detail", channels=1, size=(side, side)), box)
        if config.renderer.texture is not TextureInput.WARPED and not config.gives_inside:
            row[:] = with_fitting_interior(row, box, texture.landmarks)
    return details


@dataclass(frozen=True, slots=True, eq=False)
class _BlendTarget:
    """Picture and mask that the mouth of one frame is rendered and blended onto.

    Attributes:
        picture: uint8 [160, 160, 3], RGB: the footage's own box, with the jaw at the position of the target jaw.
        mask: uint8 [160, 160], lower-face mask.
        move: how the footage moved, and where the mouth shows.
        landmarks: float32 [59, 2], target mouth-area landmarks, box pixels.
    """

    picture: UInt8
    mask: UInt8
    move: JawMove
    landmarks: Float32


async def render_window(
    stages: Stages, config: WindowConfig, span: FrameSpan, on_frame: Callable[[int], None] = lambda _: None
) -> RenderedWindow:
    """Render the target frames, at least one, of a span of consecutive frames.

    Args:
        on_frame: called with each frame that the render stage has answered; after a retry, again.

    Raises:
        DubstageError: from the stages.
    """
    textures = await textures_of(stages, config, span)
    blend_targets = await asyncio.to_thread(_blend_targets, config, span, textures)
    indices = np.nonzero(span.targets)[0].tolist()
    wanted = [textures[index] for index in indices]
    rendered = await _rendered(stages, config, span, textures, blend_targets, on_frame)
    if config.gives_colours:
        rendered = await asyncio.to_thread(_coloured, config, rendered, wanted)
    moves = [blend_targets[index].move for index in indices]
    masks = [np.minimum(blend_targets[index].mask, move.mask) for index, move in zip(indices, moves, strict=True)]
    boxes = [
        (box, without_cover(blend_targets[index].picture, box, span.covered(index)))
        for index, box in zip(indices, rendered, strict=True)
    ]
    blended = await asyncio.to_thread(
        lambda: [blend_box(box, picture, mask) for (box, picture), mask in zip(boxes, masks, strict=True)]
    )
    return RenderedWindow(
        frame=np.array(span.frames(span.targets), np.int64),
        box=np.stack(blended),
        mask=np.stack(masks),
        shift=np.stack([_stored(move.shift) for move in moves]),
        fitting_error=np.array([texture.fitting_error for texture in wanted], np.float32),
        bending_energy=np.array([texture.bending_energy for texture in wanted], np.float32),
        landmarks=np.stack([texture.landmarks for texture in wanted]),
        filmed=np.stack([span.filmed(index) for index in indices]),
        detail=await asyncio.to_thread(details_of, config, wanted, blended),
    )


def _coloured(config: WindowConfig, rendered: list[UInt8], textures: Sequence[FrameTexture]) -> list[UInt8]:
    """Return boxes of frames with the colours of the person's own frames."""
    coloured = []
    for box, texture in zip(rendered, textures, strict=True):
        assert texture.own is not None, "the texture stage was asked for the person's own frames"
        own = from_image(texture.own, "warped", channels=3, size=BOX)
        coloured.append(with_own_colours(box, own, texture.landmarks, inside=config.gives_inside))
    return coloured


def _stored(shift: Float32) -> Int16:
    """Return a shift, float32 box pixels, in 1 / SHIFT_STEPS box pixels."""
    return np.asarray(np.rint(shift * np.float32(SHIFT_STEPS)), np.int16)


def _blend_targets(config: WindowConfig, span: FrameSpan, textures: Mapping[int, FrameTexture]) -> dict[int, _BlendTarget]:
    """Return the blend targets of the target frames and of the context frames that the renderer sees, by index in the span."""
    begin = int(np.argmax(span.targets)) if span.targets.any() else len(span)
    blend_targets: dict[int, _BlendTarget] = {}
    for index in range(max(0, begin - config.renderer.frames_before), len(span)):
        texture = textures.get(index)
        landmarks = span.landmarks(index) if texture is None else texture.landmarks
        mask = config.mask_of(span.records[index])
        move = span.move(index, landmarks, mask)
        blend_targets[index] = _BlendTarget(span.background(index, move), mask, move, landmarks)
    return blend_targets


async def _rendered(
    stages: Stages,
    config: WindowConfig,
    span: FrameSpan,
    textures: Mapping[int, FrameTexture],
    blend_targets: Mapping[int, _BlendTarget],
    on_frame: Callable[[int], None],
) -> list[UInt8]:
    """Return the box of every target frame, uint8 [160, 160, 3].

    Raises:
        ContractBrokenError: the render stage answered other frames.
        DubstageError: from the stage.
    """
    call = render_client.render.requests(model=config.renderer.name, actor=config.state, reference=config.reference)

    async def requests() -> AsyncIterator[render_pb2.RenderRequest]:
        yield call.config
        # Messages are made one at a time: features of a neural texture take 1.6 MB per frame.
        for index, blend_target in blend_targets.items():
            yield call.item(await asyncio.to_thread(_conditions, span, index, blend_target, textures.get(index)))

    async def counted() -> AsyncIterator[render_pb2.RenderResponse]:
        replies = stages.stream(rpcs.render.RENDER, requests())
        try:
            async for reply in replies:
                on_frame(reply.frame_index)
                yield reply
        finally:
            await close(replies)

    replies = await all_replies(counted)
    answered, expected = [reply.frame_index for reply in replies], span.frames(span.targets)
    if answered != expected:
        raise ContractBrokenError(f"the render stage answered frames {answered}, not {expected}")
    return [from_image(reply.box, "box", channels=3, size=BOX) for reply in replies]


def _conditions(span: FrameSpan, index: int, blend_target: _BlendTarget, texture: FrameTexture | None) -> render_client.Conditions:
    return render_client.Conditions(
        frame_index=span.frame(index),
        background=blend_target.picture,
        texture=texture.picture if texture is not None else None,
        mask=blend_target.mask,
        box_landmarks=blend_target.landmarks,
        neural_features=texture.features if texture is not None else None,
        speech_features=span.speech[index] if span.speech is not None else None,
        context_only=not span.targets[index],
    )
