"""The texture stage: what the mouth looks like, from the person's own footage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dubstage.client import rpcs
from dubstage.client.arrays import (
    Artefact,
    Float32,
    Picture,
    Pixels,
    Tensor,
    as_artefact,
    as_image,
    as_tensor,
    from_image,
    from_tensor,
    number_of,
)
from dubstage.client.calls import Requests, stream_call, unary_call, upload_call
from dubstage.client.motion import Motion
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.texture.v1 import texture_pb2 as pb

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BankFrame:
    """One frame of a person's footage for the bank.

    Attributes:
        frame_index: number of the frame in the footage plus the number of cuts before: consecutive numbers make windows.
        box: the render box of the face crop, uint8 RGB [160, 160, 3].
        landmarks: of the face, float32 [478, 3] in frame pixels.
        speech: posteriorgram rows of the footage's own speech around the frame, float32 [20, 40]; all frames have it, or none.
        expression: expression coefficients on the model of the person's identity, float32 [E]; all frames have it, or none.
        native: luma of the render box at 2, 3 or 4 times its size, uint8 [320, 320] to [640, 640]; all frames have it, or none.
        spoken_mouth: mouth that the motion predictor gives for the footage's own speech at the time of the frame, float32 [59, 3]
            in head space; all frames have it, or none.
    """

    frame_index: int
    box: Picture
    landmarks: Tensor
    pose: common_pb2.HeadPose
    speech: Tensor | None = None
    expression: Tensor | None = None
    native: Picture | None = None
    spoken_mouth: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Bank:
    """The mouth-texture bank of one person.

    Attributes:
        artefact: in the stages' artefact store, for `retrieve_warp` and `render.personalize`.
        mean_mouth: mean mouth-area landmarks, float32 [59, 3] in head space.
        closed_mouth: the shut mouth, float32 [59, 3].
        jaw_envelope: the jaw line at its lowest, float32 [19, 3].
        anchors: mean of nose base and cheeks, float32 [15, 3].
    """

    artefact: common_pb2.ArtefactRef
    num_frames: int
    mean_mouth: Float32
    closed_mouth: Float32
    jaw_envelope: Float32
    anchors: Float32


@dataclass(frozen=True, slots=True)
class Target:
    """A target mouth in a background frame.

    Attributes:
        frame_index: number of the output frame. The first frame of a stream may have any number.
        motion: the target mouth, from `motion.predict_motion` or `motion.motion_frame`.
        pose: of the head in the background frame.
        context_only: the frame is context of other frames and gets no answer.
        inside_frame_index: footage number of the bank frame that shows the inside of the mouth, from `select_insides`; None: the
            stage chooses the frame by the frames before.
    """

    frame_index: int
    motion: Motion | motion_pb2.MotionFrame
    pose: common_pb2.HeadPose
    context_only: bool = False
    inside_frame_index: int | None = None


@dataclass(frozen=True, slots=True)
class WarpedMouth:
    """A texture of the bank, warped to a target mouth.

    Attributes:
        frame_index: number of the output frame.
        picture: uint8 RGB [160, 160, 3].
        box_landmarks: the target landmarks, float32 [59, 2] in box pixels.
        bank_frame_index: number of the retrieved frame in the footage.
        distance: mean L1 distance of retrieved and target landmarks, head-space pixels.
        fitting_error: of the spline, box pixels; 0 if there is no spline.
        bending_energy: of the spline; 0 if there is no spline.
        inside_frame_index: number of the footage frame that shows the inside of the mouth; -1 if a face was drawn.
        detail: that frame's luma without its coarse part, plus 128, uint8 [160 S, 160 S], S = detail_scale; None: not asked for.
    """

    frame_index: int
    picture: Pixels
    box_landmarks: Float32
    bank_frame_index: int
    distance: float
    fitting_error: float
    bending_energy: float
    inside_frame_index: int
    detail: Pixels | None = None


@dataclass(frozen=True, slots=True)
class InsideSource:
    """The bank frame that shows the inside of one target mouth.

    Attributes:
        frame_index: number of the output frame.
        bank_frame_index: number of the bank frame in the footage.
    """

    frame_index: int
    bank_frame_index: int


@dataclass(frozen=True, slots=True)
class Backgrounds:
    """Footage frames behind the frames of a video whose head moves.

    Attributes:
        frame_indices: footage frame of each output frame, int64 [T].
        keyframes: output frames that are keyframes, int64 [K], increasing.
    """

    frame_indices: Int64
    keyframes: Int64


@dataclass(frozen=True, slots=True)
class PortraitFrame:
    """A target pose of a portrait.

    Attributes:
        frame_index: number of the output frame.
        pose: the target pose, in the portrait's pixels.
        blink: closure of the eyes, 0 as in the portrait to 1 shut.
    """

    frame_index: int
    pose: common_pb2.HeadPose
    blink: float = 0.0


@dataclass(frozen=True, slots=True)
class TurnedPortrait:
    """A portrait whose head was turned.

    Attributes:
        frame_index: number of the output frame.
        picture: uint8 RGB [H, W, 3], as large as the portrait. The mouth is the portrait's.
        landmarks: in the picture, float32 [478, 3].
    """

    frame_index: int
    picture: Pixels
    landmarks: Float32


@dataclass(frozen=True, slots=True)
class SampledTexture:
    """A neural texture, sampled for one frame.

    Attributes:
        frame_index: number of the frame.
        features: float32 [H, W, 16] in 0..1; 0 where there is no face.
    """

    frame_index: int
    features: Float32


def _bank(reply: pb.BuildBankResponse) -> Bank:
    shape = reply.geometry
    return Bank(
        artefact=reply.bank,
        num_frames=reply.num_frames,
        mean_mouth=from_tensor(shape.mean_mouth),
        closed_mouth=from_tensor(shape.closed_mouth),
        jaw_envelope=from_tensor(shape.jaw_envelope),
        anchors=from_tensor(shape.anchors),
    )


def _warped(reply: pb.RetrieveWarpResponse) -> tuple[WarpedMouth]:
    return (
        WarpedMouth(
            frame_index=reply.frame_index,
            picture=from_image(reply.warped),
            box_landmarks=from_tensor(reply.box_landmarks),
            bank_frame_index=reply.bank_frame_index,
            distance=reply.distance,
            fitting_error=reply.fitting_error,
            bending_energy=reply.bending_energy,
            inside_frame_index=reply.inside_frame_index,
            detail=from_image(reply.detail) if reply.HasField("detail") else None,
        ),
    )


def _inside(reply: pb.SelectInsidesResponse) -> tuple[InsideSource]:
    return (InsideSource(reply.frame_index, reply.bank_frame_index),)


def _turned(reply: pb.RotatePortraitResponse) -> tuple[TurnedPortrait]:
    return (TurnedPortrait(reply.frame_index, from_image(reply.picture), from_tensor(reply.landmarks)),)


def _sampled(reply: pb.SampleNeuralTextureResponse) -> tuple[SampledTexture]:
    return (SampledTexture(reply.frame_index, from_tensor(reply.features)),)


def _chosen(reply: pb.SelectFramesResponse) -> Int64:
    return np.array(reply.frame_indices, np.int64)


def _matched(reply: pb.MatchBackgroundsResponse) -> Backgrounds:
    return Backgrounds(np.array(reply.frame_indices, np.int64), np.array(reply.keyframes, np.int64))


def _target(target: Target) -> pb.TargetFrame:
    return pb.TargetFrame(
        frame_index=target.frame_index,
        motion=target.motion.message if isinstance(target.motion, Motion) else target.motion,
        pose=target.pose,
        context_only=target.context_only,
        inside_frame_index=target.inside_frame_index,
    )


@upload_call(rpcs.texture.BUILD_BANK, _bank)
def build_bank(*, max_frames: int = 0) -> Requests[BankFrame, pb.BuildBankRequest]:
    """Return the Bank of one person. Items are BankFrames.

    Args:
        max_frames: largest number of frames in the bank, the most different mouths first; 0: 300.
    """

    def item(frame: BankFrame) -> pb.BuildBankRequest:
        message = pb.BankFrame(
            frame_index=frame.frame_index,
            box=as_image(frame.box),
            landmarks=as_tensor(frame.landmarks, "<f4"),
            pose=frame.pose,
            speech=None if frame.speech is None else as_tensor(frame.speech, "<f4"),
            expression=None if frame.expression is None else as_tensor(frame.expression, "<f4"),
            native=None if frame.native is None else as_image(frame.native),
            spoken_mouth=None if frame.spoken_mouth is None else as_tensor(frame.spoken_mouth, "<f4"),
        )
        return pb.BuildBankRequest(frame=message)

    return Requests(pb.BuildBankRequest(config=pb.BuildBankConfig(max_frames=max_frames)), item)


@stream_call(rpcs.texture.RETRIEVE_WARP, _warped)
def retrieve_warp(
    *,
    bank: Artefact | None = None,
    mode: str | int = "temporal_warp_network",
    identity: Artefact | None = None,
    detail_scale: int = 0,
) -> Requests[Target, pb.RetrieveWarpRequest]:
    """Yield a WarpedMouth for each frame that is not context only. Items are Targets, in the order of their frames.

    Args:
        bank: from `build_bank`; the albedo modes need none.
        mode: name of a WarpMode without its prefix, in lower case, or its number.
        identity: from `face.fit_identity`, for the albedo modes.
        detail_scale: pixels of `detail` per box pixel, 1 to 4; 0: no detail.
    """

    def item(target: Target) -> pb.RetrieveWarpRequest:
        return pb.RetrieveWarpRequest(frame=_target(target))

    config = pb.RetrieveWarpConfig(
        bank=as_artefact(bank),
        mode=number_of(pb.WarpMode, "WARP_MODE_", mode),
        identity=as_artefact(identity),
        detail_scale=detail_scale,
    )
    return Requests(pb.RetrieveWarpRequest(config=config), item)


@stream_call(rpcs.texture.SELECT_INSIDES, _inside)
def select_insides(*, bank: Artefact) -> Requests[Target, pb.SelectInsidesRequest]:
    """Yield an InsideSource for each frame. Items are Targets, in the order of their frames. Answers come up to 250 frames late.

    Args:
        bank: from `build_bank`.
    """

    def item(target: Target) -> pb.SelectInsidesRequest:
        return pb.SelectInsidesRequest(frame=_target(target))

    return Requests(pb.SelectInsidesRequest(config=pb.SelectInsidesConfig(bank=as_artefact(bank))), item)


@unary_call(rpcs.texture.SELECT_FRAMES, _chosen)
def select_frames(*, head_motion: Tensor, blink: Tensor, silent: Tensor) -> pb.SelectFramesRequest:
    """Return the footage frame of each output frame, int64 [T], never decreasing: the footage retimed to new speech.

    Args:
        head_motion: normalised head motion of each footage frame, float32 [F], 0 to 1.
        blink: footage frames whose eyes are shut, bool [F].
        silent: output frames whose speech is silent, bool [T].
    """
    return pb.SelectFramesRequest(
        head_motion=as_tensor(head_motion, "<f4"), blink=as_tensor(blink, "?"), silent=as_tensor(silent, "?")
    )


@unary_call(rpcs.texture.MATCH_BACKGROUNDS, _matched)
def match_backgrounds(
    *, footage_poses: Tensor, usable: Tensor, predicted_poses: Tensor, shot_cuts: Sequence[int] = ()
) -> pb.MatchBackgroundsRequest:
    """Return the Backgrounds of predicted head motion.

    Args:
        footage_poses: head-pose vectors of the footage, float64 [F, 6] (docs/coordinates.md).
        usable: footage frames that may be a background, bool [F].
        predicted_poses: the target head poses, float64 [T, 6].
        shot_cuts: footage frames that begin a shot; no path crosses a cut.
    """
    return pb.MatchBackgroundsRequest(
        footage_poses=as_tensor(footage_poses, "<f8"),
        usable=as_tensor(usable, "?"),
        shot_cuts=shot_cuts,
        predicted_poses=as_tensor(predicted_poses, "<f8"),
    )


@stream_call(rpcs.texture.ROTATE_PORTRAIT, _turned)
def rotate_portrait(
    *, portrait: Picture, landmarks: Tensor, pose: common_pb2.HeadPose, identity: Artefact
) -> Requests[PortraitFrame, pb.RotatePortraitRequest]:
    """Yield a TurnedPortrait for each item. Items are PortraitFrames in order.

    Args:
        portrait: an upright picture, uint8 RGB [H, W, 3].
        landmarks: landmarks of the face, float32 [478, 3] in pixels of the portrait.
        identity: from `face.fit_identity` on this picture.
    """

    def item(frame: PortraitFrame) -> pb.RotatePortraitRequest:
        return pb.RotatePortraitRequest(frame=pb.PortraitFrame(frame_index=frame.frame_index, pose=frame.pose, blink=frame.blink))

    config = pb.RotatePortraitConfig(
        portrait=as_image(portrait), landmarks=as_tensor(landmarks, "<f4"), pose=pose, identity=as_artefact(identity)
    )
    return Requests(pb.RotatePortraitRequest(config=config), item)


@stream_call(rpcs.texture.SAMPLE_NEURAL_TEXTURE, _sampled)
def sample_neural_texture(
    *, texture: Artefact, identity: Artefact | None = None
) -> Requests[Target | tuple[int, Tensor], pb.SampleNeuralTextureRequest]:
    """Yield a SampledTexture for each frame that is not context only. Items are frames in order, each a Target or a UV map.

    A UV map is a pair: frame index, and float32 [H, W, 2] in 0 to 1, -1 where there is no face.

    Args:
        texture: the person's artefact from `render.personalize`, of a model that learns neural textures.
        identity: from `face.fit_identity`, for Targets.
    """

    def item(frame: Target | tuple[int, Tensor]) -> pb.SampleNeuralTextureRequest:
        if isinstance(frame, Target):
            return pb.SampleNeuralTextureRequest(target=_target(frame))
        frame_index, uv = frame
        return pb.SampleNeuralTextureRequest(uv=pb.UvMap(frame_index=frame_index, uv=as_tensor(uv, "<f4")))

    config = pb.SampleNeuralTextureConfig(texture=as_artefact(texture), identity=as_artefact(identity))
    return Requests(pb.SampleNeuralTextureRequest(config=config), item)
