"""Requests of the face stage from the stage's own types, and answers back, for tests."""

import numpy as np
import numpy.typing as npt

from dubstage.client import to_image
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb
from services.common.wire.convert import ref_to_proto
from services.face.convert import FitConfig, face_from_proto
from services.face.types import FrameFaces, TrackOptions


def options_to_proto(
    options: TrackOptions, timeline: common_pb2.Timeline | None = None, fitting: FitConfig | None = None
) -> pb.TrackRequest:
    config = pb.TrackConfig(
        timeline=timeline, max_faces=options.max_faces, smoothing_half_width=options.half_width, embed_every=options.embed_every
    )
    if fitting is not None:
        config.morphable_model = fitting.model
        if fitting.identity is not None:
            config.identity.CopyFrom(ref_to_proto(fitting.identity))
        config.fit_colours = fitting.colours
    return pb.TrackRequest(config=config)


def picture_to_proto(frame_index: int, picture: npt.NDArray[np.uint8]) -> pb.TrackRequest:
    return pb.TrackRequest(frame=pb.FrameChunk(frame_index=frame_index, image=to_image(picture)))


def frames_from_proto(response: pb.TrackResponse) -> list[FrameFaces]:
    return [
        FrameFaces(frame.frame_index, frame.shot_cut, tuple(face_from_proto(face) for face in frame.faces))
        for frame in response.frames
    ]
