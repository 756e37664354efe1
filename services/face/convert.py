"""Messages of dubstage.face.v1 to and from the stage's own types, with validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb
from services.common.errors import InvalidRequestError
from services.common.face.crops import (
    MAX_FRAME_PX,
    MAX_HEAD_PX,
    MAX_SCALE,
    MIN_SCALE,
    POSE_NUMBERS,
    face_shape_problem,
    poses_of_numbers,
)
from services.common.face.hands import MAX_HANDS, NUM_HAND_LANDMARKS
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.face.morphable_models import DEFAULT_MODEL
from services.common.store.artefacts import ArtefactRef
from services.common.wire.convert import (
    from_image,
    from_tensor,
    pose_from_proto,
    pose_to_proto,
    ref_from_proto,
    ref_to_proto,
    timeline_from_proto,
)
from services.common.wire.stream_state import StateColumn
from services.common.wire.stream_state import state_from_proto as wire_state_from_proto
from services.common.wire.stream_state import state_to_proto as wire_state_to_proto
from services.face.embedding import EMBEDDING_SIZE
from services.face.fitting.streaming import StreamSizes
from services.face.identities import NUM_SHAPE_POINTS
from services.face.quality import LOWER, UPPER, has_eyes
from services.face.shots import COLOUR_CLASSES, RECENT_CHANGES, SMALL_PICTURE
from services.face.tracking import TrackerState
from services.face.types import MAX_FACES, FaceCoefficients, FrameFaces, Reason, TrackedFace, TrackOptions

_PREFIX: Final = "FRAME_REASON_"
MAX_SIDE: Final = 16_384
"""Largest side of a picture, pixels."""
MAX_PEOPLE: Final = 4096
"""Most people of a stream whose state is answered."""
_LEAST_SIDE: Final = 1e-3
_LAYOUT: Final = 2
"""Number of the layout of tracker states. A change of what the tracker keeps between frames increments it."""
_MOST_INDEX: Final = 1 << 53
_MOST_COLOUR: Final = 1e4
_MOST_COEFFICIENT: Final = 1e4
_NUM_VIEW: Final = 4


@dataclass(frozen=True, slots=True)
class NumberedPicture:
    """Picture, uint8 RGB [H, W, 3] (read-only), and its absolute frame index."""

    frame_index: int
    picture: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Fit of a stream.

    Attributes:
        model: name of the model; empty where the identity names the model.
        identity: the person; None: fitted on the stream.
        colours: whether the colours of every frame are fitted too.
    """

    model: str
    identity: ArtefactRef | None
    colours: bool = False


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """Fit of a person. Attributes: model: its name; three_stage: whether stages 1 and 2 of the three-stage fit are used."""

    model: str
    three_stage: bool


@dataclass(frozen=True, slots=True)
class IdentityFrame:
    """A picture, uint8 RGB [H, W, 3] (read-only), and one face in it."""

    picture: npt.NDArray[np.uint8]
    face: TrackedFace


def options_from_proto(request: pb.TrackRequest) -> TrackOptions:
    """Return the options of a stream's first message.

    Raises:
        InvalidRequestError: the first message is not a config, or a value is out of range.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    if config.HasField("timeline"):
        # Tracking needs no timeline. A wrong timeline is refused all the same.
        timeline_from_proto(config.timeline, "config.timeline")
    default = TrackOptions()
    return TrackOptions(
        max_faces=config.max_faces or default.max_faces,
        half_width=config.smoothing_half_width if config.HasField("smoothing_half_width") else default.half_width,
        embed_every=config.embed_every,
    )


def fitting_from_proto(request: pb.TrackRequest) -> FitConfig | None:
    """Return the fit of a stream's first message; None: no fit.

    Raises:
        InvalidRequestError: the reference of the identity is malformed, or colours are to be fitted without an identity.
    """
    config = request.config
    if config.fit_colours and not config.HasField("identity"):
        raise InvalidRequestError(
            "config.fit_colours needs config.identity: FitIdentity finds the person's albedo", field="config.fit_colours"
        )
    identity = None
    if config.HasField("identity"):
        identity = ref_from_proto(config.identity, "config.identity")
    return (
        None if not config.morphable_model and identity is None else FitConfig(config.morphable_model, identity, config.fit_colours)
    )


def state_columns(half_width: int, fitted: StreamSizes | None) -> dict[str, StateColumn]:
    """Return what the arrays of a tracker's state must be. P people, L looks, V verdicts, A followed faces, F frames, R readings.

    Args:
        half_width: of the smoothing window.
        fitted: sizes of the fit's arrays; None: no model is fitted.
    """
    readings = 2 * half_width * MAX_FACES
    index, face = partial(StateColumn, np.int64, high=_MOST_INDEX), partial(StateColumn, np.int64, high=MAX_PEOPLE, most=MAX_FACES)
    head, colour = (
        partial(StateColumn, low=-MAX_HEAD_PX, high=MAX_HEAD_PX),
        partial(StateColumn, low=-_MOST_COLOUR, high=_MOST_COLOUR),
    )
    position = partial(StateColumn, low=-MAX_FRAME_PX, high=MAX_FRAME_PX)
    pose = partial(position, np.float64)
    number = partial(StateColumn, low=-_MOST_COEFFICIENT, high=_MOST_COEFFICIENT)
    columns = {
        "stream": index((4,)),
        "shots.picture": StateColumn(np.uint8, SMALL_PICTURE, high=255),
        "shots.colours": StateColumn(np.float32, COLOUR_CLASSES, high=1.0),
        "shots.changes": StateColumn(np.float64, ("C",), high=255.0, most=RECENT_CHANGES),
        "people.shape": head(np.float64, ("P", NUM_SHAPE_POINTS, 2), most=MAX_PEOPLE),
        "people.readings": index(("P",)),
        "people.place": position(np.float64, ("P", 2)),
        "people.scale": StateColumn(np.float64, ("P",), low=MIN_SCALE, high=MAX_SCALE),
        "people.shot": index(("P",)),
        "people.read": index(("P",)),
        "looks.face": face(("L",), most=MAX_PEOPLE),
        "looks.lower": colour(np.float64, ("L", len(LOWER), 3)),
        "looks.seen": StateColumn(np.bool_, ("L", len(LOWER))),
        "looks.upper": colour(np.float64, ("L", len(UPPER), 3)),
        "looks.variance": StateColumn(np.float64, ("L", len(LOWER), 3), high=_MOST_COLOUR**2),
        "looks.yaw": StateColumn(np.float64, ("L",), low=-180.0, high=180.0),
        "looks.readings": index(("L",), low=1),
        "verdicts.face": face(("V",)),
        "verdicts.reason": index(("V",)),
        "verdicts.covered": StateColumn(np.bool_, ("V",)),
        "active.face": face(("A",)),
        "active.region": position(np.float64, ("A", 4)),
        "frames.cut": StateColumn(np.bool_, ("F",), most=2 * half_width),
        "readings.frame": index(("R",), most=readings),
        "readings.face": face(("R",), most=readings),
        "readings.pose": pose(("R", POSE_NUMBERS)),
        "readings.landmarks": head(np.float32, ("R", NUM_LANDMARKS, 3)),
        "readings.view": StateColumn(np.float64, ("R", _NUM_VIEW), high=1.001),
        "readings.lips": StateColumn(np.bool_, ("R",)),
        "embeddings.reading": index(("E",), most=readings),
        "embeddings.vector": StateColumn(np.float32, ("E", EMBEDDING_SIZE), low=-10.0, high=10.0),
        "hands.reading": index(("H",), most=readings * MAX_HANDS),
        "hands.points": position(np.float32, ("H", NUM_HAND_LANDMARKS, 2)),
    }
    if fitted is not None and not fitted.has_identity:
        columns["fitted.face"] = face(("I",), most=MAX_PEOPLE)
        columns["fitted.identity"] = number(np.float32, ("I", fitted.identity))
    if fitted is not None and fitted.colours:
        columns["fits.face"], columns["fits.frame"] = face(("K",), most=MAX_PEOPLE), index(("K",))
        columns["fits.expression"] = number(np.float32, ("K", fitted.expression))
        columns["fits.pose"] = pose(("K", POSE_NUMBERS))
        columns["fits.error"] = StateColumn(np.float32, ("K",), high=MAX_HEAD_PX)
        columns["fits.light"] = number(np.float64, ("K", 9, 3))
        columns["last.face"], columns["last.frame"] = face(("M",), most=MAX_PEOPLE), index(("M",))
        columns["last.light"] = number(np.float64, ("M", 9, 3))
        columns["last.correction"] = number(np.float64, ("M", fitted.expression))
        columns["last.shift"] = number(np.float64, ("M", 6))
    return columns


def state_from_proto(request: pb.TrackRequest, options: TrackOptions, fitted: StreamSizes | None) -> TrackerState | None:
    """Return the state that a stream's first message goes on from; None: a new stream begins.

    Args:
        options: options of the same message.
        fitted: sizes of the fit's arrays; None: no model is fitted.

    Raises:
        InvalidRequestError: the state is none of a stream with these options.
    """
    if not request.config.HasField("resume"):
        return None
    field = "config.resume"
    arrays = wire_state_from_proto(request.config.resume, _LAYOUT, state_columns(options.half_width, fitted), field)
    next_frame, shot, width, height = arrays["stream"].tolist()

    def refuse(name: str, problem: str) -> NoReturn:
        raise InvalidRequestError(f"{field}.{name}: {problem}", field=f"{field}.{name}")

    count, num_people, num_frames = len(arrays["readings.face"]), len(arrays["people.scale"]), len(arrays["frames.cut"])
    if not 1 <= width <= MAX_SIDE or not 1 <= height <= MAX_SIDE:
        refuse("stream", f"{width} x {height} pixels; a side has 1 to {MAX_SIDE}")
    if not options.half_width <= num_frames <= next_frame + options.half_width:
        refuse("frames.cut", f"{num_frames} frames before frame {next_frame} are not those of a window")
    for name, limit in (
        ("looks.face", num_people),
        ("verdicts.face", num_people),
        ("active.face", num_people),
        ("readings.face", num_people),
        ("readings.frame", num_frames),
        ("embeddings.reading", count),
        ("hands.reading", count),
        ("verdicts.reason", len(Reason)),
        ("people.shot", shot + 1),
    ):
        if (arrays[name] >= limit).any():
            refuse(name, f"{arrays[name].max()} where numbers below {limit} are possible")
    readings = arrays["readings.frame"] * (MAX_PEOPLE + 1) + arrays["readings.face"]
    for name, values in (
        ("looks.face", arrays["looks.face"]),
        ("verdicts.face", arrays["verdicts.face"]),
        ("active.face", arrays["active.face"]),
        ("readings.face", readings),
        ("embeddings.reading", arrays["embeddings.reading"]),
    ):
        if (np.diff(values) <= 0).any():
            refuse(name, "the numbers do not ascend")
    hands = arrays["hands.reading"]
    if (np.diff(hands) < 0).any() or (np.bincount(hands, minlength=1) > MAX_HANDS).any():
        refuse("hands.reading", f"the numbers do not ascend, or a face has more than {MAX_HANDS} hands")
    if (arrays["active.region"][:, 2] < _LEAST_SIDE).any():
        refuse("active.region", f"the side of a region is shorter than {_LEAST_SIDE:g} pixels")
    for name in ("readings.pose", *(["fits.pose"] if "fits.pose" in arrays else [])):
        for pose in poses_of_numbers(arrays[name]):
            pose_from_proto(pose_to_proto(pose), f"{field}.{name}")
    for landmarks in arrays["readings.landmarks"]:
        if problem := face_shape_problem(landmarks) or ("" if has_eyes(landmarks) else "an eye has no width"):
            refuse("readings.landmarks", f"these points are no face: {problem}")
    return TrackerState(next_frame, (width, height), arrays)


def state_to_proto(state: TrackerState) -> common_pb2.StreamState | None:
    """Return a state as a message; None: it is too large."""
    return wire_state_to_proto(state.arrays, _LAYOUT) if len(state.arrays["people.scale"]) <= MAX_PEOPLE else None


def check_resumed(state: TrackerState, first: NumberedPicture) -> None:
    """Raise InvalidRequestError unless a picture is the first one after a state, and as large as the pictures before."""
    height, width = first.picture.shape[:2]
    if first.frame_index != state.next_frame:
        raise InvalidRequestError(
            f"frame.frame_index: frame {state.next_frame} must follow the state in config.resume, got {first.frame_index}",
            field="frame.frame_index",
        )
    if (width, height) != state.size:
        raise InvalidRequestError(
            f"frame.image: {width} x {height} pixels, and the state in config.resume is of pictures of {state.size[0]} x "
            f"{state.size[1]}",
            field="frame.image",
        )


def picture_from_proto(request: pb.TrackRequest, before: NumberedPicture | None) -> NumberedPicture:
    """Return one frame.

    Args:
        before: the frame before it.

    Raises:
        InvalidRequestError: the message has no frame, the index is negative or leaves a gap, the picture has another size than the
            frame before, or the picture is not RGB8.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config every message must hold a frame", field="frame")
    index = request.frame.frame_index
    if before is None:
        if index < 0:
            raise InvalidRequestError(f"frame.frame_index: must not be negative, got {index}", field="frame.frame_index")
        _check_size(request.frame.image, "frame.image")
        return NumberedPicture(index, from_image(request.frame.image, "frame.image", channels=3))
    if index != before.frame_index + 1:
        raise InvalidRequestError(
            f"frame.frame_index: frame {before.frame_index + 1} must follow, got {index}", field="frame.frame_index"
        )
    height, width = before.picture.shape[:2]
    return NumberedPicture(index, from_image(request.frame.image, "frame.image", channels=3, size=(width, height)))


def frames_to_proto(frames: Sequence[FrameFaces], *, resumed: bool = False) -> pb.TrackResponse:
    """Return the reply with these frames. `resumed`: whether the stream goes on from a state."""
    return pb.TrackResponse(
        resumed=resumed,
        frames=[
            pb.FrameFaces(
                frame_index=frame.frame_index, shot_cut=frame.shot_cut, faces=[face_to_proto(face) for face in frame.faces]
            )
            for frame in frames
        ],
    )


def face_to_proto(face: TrackedFace) -> pb.FaceTrack:
    """Return one face as a message."""
    message = pb.FaceTrack(
        face_id=face.face_id,
        box=face.box,
        landmarks=to_tensor(face.landmarks),
        pose=pose_to_proto(face.pose),
        mouth_landmarks=to_tensor(face.mouth_landmarks),
        confidence=face.confidence,
        mouth_visibility=face.mouth_visibility,
        blink=face.blink,
        reason=common_pb2.FrameReason.Value(_PREFIX + face.reason),
        covered_share=face.covered_share,
    )
    if face.coefficients is not None:
        message.coefficients.CopyFrom(coefficients_to_proto(face.coefficients))
        message.landmark_error = face.coefficients.landmark_error
    if face.embedding is not None:
        message.embedding.network = face.embedding.network
        message.embedding.vector.CopyFrom(to_tensor(face.embedding.vector))
    if face.hands is not None:
        message.hands.CopyFrom(to_tensor(face.hands))
    return message


def face_from_proto(message: pb.FaceTrack, field: str = "face") -> TrackedFace:
    """Return one face.

    Args:
        field: field of the request that holds the face.

    Raises:
        InvalidRequestError: a shape is wrong, a number is not finite, or the reason is no reason of a face.
    """
    if len(message.box) != 4 or not all(abs(number) <= 4.0 * MAX_FRAME_PX for number in message.box):
        raise InvalidRequestError(f"{field}.box: needs 4 finite numbers, got {list(message.box)[:8]}", field=f"{field}.box")
    for name in ("confidence", "mouth_visibility", "blink", "landmark_error"):
        if not math.isfinite(getattr(message, name)):
            raise InvalidRequestError(f"{field}.{name}: is not a finite number", field=f"{field}.{name}")
    number = message.reason
    name = common_pb2.FrameReason.Name(number) if number in common_pb2.FrameReason.values() else str(number)
    if name.removeprefix(_PREFIX) not in Reason.__members__:
        raise InvalidRequestError(f"{field}.reason: a face has no reason {name}", field=f"{field}.reason")
    left, top, width, height = message.box
    return TrackedFace(
        face_id=message.face_id,
        box=(left, top, width, height),
        landmarks=from_tensor(
            message.landmarks, f"{field}.landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3), limit=MAX_FRAME_PX
        ),
        pose=pose_from_proto(message.pose, f"{field}.pose"),
        mouth_landmarks=from_tensor(
            message.mouth_landmarks, f"{field}.mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3), limit=MAX_HEAD_PX
        ),
        confidence=message.confidence,
        mouth_visibility=message.mouth_visibility,
        blink=message.blink,
        reason=Reason(name.removeprefix(_PREFIX)),
        coefficients=_face_coefficients(message, f"{field}.coefficients"),
    )


def coefficients_to_proto(coefficients: FaceCoefficients) -> common_pb2.MorphableModelCoefficients:
    """Return the coefficients of one face as a message."""
    message = common_pb2.MorphableModelCoefficients(
        model=coefficients.model,
        identity=to_tensor(coefficients.identity),
        expression=to_tensor(coefficients.expression),
        pose=pose_to_proto(coefficients.pose),
    )
    if coefficients.albedo is not None and coefficients.light is not None:
        message.albedo.CopyFrom(to_tensor(coefficients.albedo))
        message.light.CopyFrom(to_tensor(coefficients.light))
    return message


def identity_config_from_proto(request: pb.FitIdentityRequest) -> IdentityConfig:
    """Return the config of a FitIdentity stream, its first message.

    Raises:
        InvalidRequestError: the message is no config.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    return IdentityConfig(request.config.morphable_model or DEFAULT_MODEL, request.config.three_stage)


def identity_frame_from_proto(request: pb.FitIdentityRequest) -> IdentityFrame:
    """Return a later message of FitIdentity.

    Raises:
        InvalidRequestError: no frame, a picture that is not RGB8, or a face that breaks the contract.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config every message must hold a frame", field="frame")
    _check_size(request.frame.image, "frame.image")
    picture = from_image(request.frame.image, "frame.image", channels=3)
    face = face_from_proto(request.frame.face, "frame.face")
    if problem := face_shape_problem(face.landmarks):
        raise InvalidRequestError(f"frame.face.landmarks: these points are no face: {problem}", field="frame.face.landmarks")
    return IdentityFrame(picture, face)


def identity_to_proto(identity: FaceIdentity, num_expression: int, ref: ArtefactRef) -> pb.FitIdentityResponse:
    """Return the answer of FitIdentity."""
    return pb.FitIdentityResponse(
        coefficients=common_pb2.MorphableModelCoefficients(
            model=identity.model,
            identity=to_tensor(identity.identity),
            expression=to_tensor(np.zeros(num_expression, np.float32)),
            albedo=to_tensor(identity.albedo),
            light=to_tensor(identity.light),
        ),
        landmark_error=identity.landmark_error,
        photometric_error=identity.photometric_error,
        identity=ref_to_proto(ref),
        num_frames=identity.num_frames,
    )


def _check_size(image: common_pb2.Image, field: str) -> None:
    if max(image.width, image.height) > MAX_SIDE:
        raise InvalidRequestError(f"{field}: {image.width} x {image.height} pixels; a side has at most {MAX_SIDE}", field=field)


def _face_coefficients(message: pb.FaceTrack, field: str) -> FaceCoefficients | None:
    if not message.HasField("coefficients"):
        return None
    coefficients = message.coefficients
    lit = coefficients.HasField("light") and coefficients.HasField("albedo")
    return FaceCoefficients(
        model=coefficients.model,
        identity=from_tensor(coefficients.identity, f"{field}.identity", dtype=np.float32, shape=(None,)),
        expression=from_tensor(coefficients.expression, f"{field}.expression", dtype=np.float32, shape=(None,)),
        albedo=from_tensor(coefficients.albedo, f"{field}.albedo", dtype=np.float32, shape=(None,)) if lit else None,
        light=from_tensor(coefficients.light, f"{field}.light", dtype=np.float32, shape=(9, 3)) if lit else None,
        pose=pose_from_proto(coefficients.pose, f"{field}.pose"),
        landmark_error=message.landmark_error,
    )
