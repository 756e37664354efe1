"""A made-up face over time as the search sees it: a real face that moves, grows brighter and darker, and is noisy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gateway.provenance.watermark.detection import STEP_S, STEPS_PER_CHIP, ResponseSpan, projected, responses
from gateway.provenance.watermark.embedding import FrameMark, Mark, MarkedFace
from gateway.provenance.watermark.pattern import (
    AMPLITUDE,
    CHIP_S,
    COLUMNS,
    PERIOD,
    ROWS,
    RecentMean,
    at_first_frames,
    bump,
    public_content,
    public_spreading,
    reduced,
)
from gateway.provenance.watermark.payload import Payload
from services.common.array_types import Float32, Float64, UInt8

Marking = Callable[[float, UInt8], FrameMark]
"""Returns the mark of the next frame: of its time, seconds, and its render box, uint8 RGB."""


@dataclass(frozen=True)
class SeenFace:
    """Frames of a face: times, seconds; projected luma, float32 [N, CELLS]; means of the last pictures, uint8 [N, PIXELS]."""

    seconds: Float64
    luma: Float32
    pictures: UInt8

    def parts(self, spans: Sequence[slice] = (slice(None),), *, begin: float = 0.0) -> list[ResponseSpan]:
        """Responses of spans of the face in a video that begins at this time."""
        found = []
        for span in spans:
            first, answers = responses(self.seconds[span] - begin, self.luma[span])
            grid = (first + np.arange(len(answers))) * STEP_S
            found.append(ResponseSpan(first, answers, at_first_frames(self.seconds - begin, self.pictures, grid)))
        return found


def marked_by(mark: Mark) -> Marking:
    """The mark as a dub adds it to a small face."""
    face = MarkedFace(mark)
    return lambda seconds, pixels: face.of_frame(seconds, pixels, 1.0)


def with_signs(signs: Float64) -> Marking:
    """Marks whose chips have these signs at full strength, float64 [steps, CELLS], whatever the picture shows."""

    def marking(seconds: float, pixels: UInt8) -> FrameMark:
        del pixels
        place = seconds / CHIP_S - np.arange(len(signs))
        return FrameMark((AMPLITUDE * bump(place) @ signs).astype(np.float32).reshape(ROWS, COLUMNS))

    return marking


class ForgedMark(Mark):
    """A public mark by somebody without the key.

    Args:
        payload: what the mark says.
        guess: returns signs for the chips of a step that only the installation can write, float64 [CELLS].
    """

    def __init__(self, payload: Payload, guess: Callable[[int], Float64]) -> None:
        self.payload = payload
        self._chips = public_spreading().chips(payload.word)
        self._guess = guess

    def signs(self, picture: UInt8, step: int) -> Float64:
        """Return the signs of the chips of one step, as `Mark.signs`."""
        chips = self._chips[step % PERIOD]
        return np.where(chips == 0.0, self._guess(step), chips * public_content().of_chips(picture, step))


def copied(face: SeenFace) -> Marking:
    """Marks whose signs were read from a marked face, without the key: what somebody does who copies the mark."""
    (part,) = face.parts()
    return with_signs(np.sign(part.responses[::STEPS_PER_CHIP]))


def seen_face(face: UInt8, seconds: Float64, marking: Marking | None = None, *, seed: int = 0) -> SeenFace:
    """Return the visible part of a face, uint8 RGB [240, 240, 3], at these times."""
    random = np.random.default_rng(seed)
    moments = RecentMean()
    luma, pictures = [], []
    for time in seconds:
        move = np.array([[0.7, 0.0, 2.0 * np.sin(1.7 * time)], [0.0, 0.7, 1.5 * np.cos(2.3 * time)]])
        light = 1.0 + 0.03 * np.sin(0.9 * time)
        box = (cv2.warpAffine(face, move, (160, 160)) * light).clip(0, 255).astype(np.uint8)
        bright = cv2.cvtColor(box, cv2.COLOR_RGB2GRAY).astype(np.float32)
        if marking is not None:
            bright += marking(float(time), box).luma(160)
        seen = np.rint(bright + random.normal(0.0, 3.0, bright.shape)).clip(0, 255).astype(np.uint8)
        luma.append(projected(seen))
        pictures.append(moments.with_frame(float(time), reduced(seen)))
    return SeenFace(np.asarray(seconds, np.float64), np.array(luma, np.float32), np.array(pictures, np.uint8))
