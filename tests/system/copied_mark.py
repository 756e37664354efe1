"""Attacks on the watermark, without the key: the mark of a video is copied to genuine footage, or a public mark is forged there."""

from collections.abc import Callable
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from gateway.dub.analyse.face_records import face_records
from gateway.dub.analyse.footage import tracked_frames
from gateway.dub.state.records import pose_of
from gateway.media.probe import probe
from gateway.provenance.watermark.detection import STEPS_PER_CHIP, ResponseSpan
from gateway.provenance.watermark.embedding import MarkedFace
from gateway.provenance.watermark.pattern import AMPLITUDE, CHIP_S, COLUMNS, ROWS, bump, bumps
from gateway.provenance.watermark.payload import Payload
from gateway.stages.interface import Stages
from services.common.array_types import Float64, UInt8
from services.common.face.crops import BOX_SIZE, box_from_frame, invert
from tests.unit.provenance.watermark.faces import ForgedMark


async def copy_mark(stages: Stages, signs: Float64, footage: Path, target: Path) -> Path:
    """Write footage, as long as the marked video, with the marked video's chips, without loss.

    Args:
        signs: signs of the marked video, from `signs_of`.
    """
    return await _write(stages, footage, target, lambda seconds, _: _light(signs, seconds), longest_s=len(signs) * CHIP_S)


async def forge_mark(stages: Stages, signs: Float64, payload: str, footage: Path, target: Path) -> Path:
    """Write footage, as long as the marked video, with a public mark of the marked video's digits, without loss.

    The forger knows all but the key. The chips that only the installation can write are those of the marked video.

    Args:
        signs: signs of the marked video, from `signs_of`.
        payload: 9 hexadecimal digits.
    """
    face = MarkedFace(ForgedMark(Payload.of_message(int(payload, 16)), lambda step: signs[step % len(signs)]))
    return await _write(
        stages,
        footage,
        target,
        lambda seconds, pixels: face.of_frame(seconds, pixels, 1.0).luma(BOX_SIZE).astype(np.float64),
        longest_s=len(signs) * CHIP_S,
    )


async def _write(
    stages: Stages, footage: Path, target: Path, light_of: Callable[[float, UInt8], Float64], *, longest_s: float
) -> Path:
    """Write footage with light added to the render boxes of its faces: of the time, seconds, and the box, uint8 RGB."""
    info = probe(footage)
    times = [float(tick * info.video.time_base) for tick in (info.video.pts - info.video.pts[0]).tolist()]
    with av.open(str(target), "w") as output:
        stream = output.add_stream("ffv1", rate=Fraction(info.video.average_rate))
        stream.width, stream.height, stream.pix_fmt = info.video.width, info.video.height, "yuv420p"
        stream.codec_context.time_base = info.video.time_base
        async with aclosing(tracked_frames(stages, info, 1)) as frames:
            async for frame in frames:
                assert isinstance(frame.picture, np.ndarray), "only frames wider than 2560 pixels are not converted"
                picture = frame.picture.astype(np.float32)
                for row in face_records(frame.faces, frame.cut_box, frame.scale):
                    frame_from_box = invert(box_from_frame(pose_of(row)))
                    light = light_of(times[frame.index], row["pixels"])
                    picture += cv2.warpAffine(light, frame_from_box, picture.shape[1::-1])[..., None]
                if times[frame.index] > longest_s:
                    break
                again = av.VideoFrame.from_ndarray(np.rint(picture).clip(0, 255).astype(np.uint8), format="rgb24")
                again.pts = int(info.video.pts[frame.index] - info.video.pts[0])
                again.time_base = info.video.time_base
                output.mux(stream.encode(again.reformat(format="yuv420p")))
        output.mux(stream.encode())
    return target


def signs_of(faces: list[list[ResponseSpan]]) -> Float64:
    """Signs of the chips of the longest face, float64 [steps, CELLS]; 0 where the face is not seen.

    Args:
        faces: responses of the faces of the marked video, from `responses_of_faces`.
    """
    parts = max(faces, key=lambda parts: sum(len(part.responses) for part in parts))
    last = max(part.first + len(part.responses) for part in parts)
    signs = np.zeros((last // STEPS_PER_CHIP + 1, ROWS * COLUMNS))
    for part in parts:
        steps = part.first + np.arange(len(part.responses))
        middle = steps % STEPS_PER_CHIP == 0
        signs[steps[middle] // STEPS_PER_CHIP] = np.sign(part.responses[middle])
    return signs


def _light(signs: Float64, seconds: float) -> Float64:
    """Return the picture that is added to the luma of the render box, float64 [160, 160]."""
    down, across = bumps(BOX_SIZE)
    heights = AMPLITUDE * (bump(seconds / CHIP_S - np.arange(len(signs))) @ signs)
    return np.asarray(down @ heights.reshape(ROWS, COLUMNS) @ across.T, np.float64)
