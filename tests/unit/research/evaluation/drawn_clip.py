"""A drawn talking face whose every number is known, with a tracker that reads the mouth from the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np

from research.evaluation.types import EvaluatedSpeech, FramedMotion, FrameRange, HeadMotion, Rendered, Variant
from services.common.face.crops import head_template
from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LIP_CORNERS
from services.common.wire.mouth_curves import Trigger

REST = head_template() + np.array([128.0, 160.0, 0.0], np.float32)
DARK = 20


def draw(openings: np.ndarray, grain: int = 12) -> np.ndarray:
    """uint8 [T, 256, 256, 3]: grained skin with a dark bar of the given height (pixels) at the mouth, and a chin in its shade."""
    crops = np.empty((len(openings), 256, 256, 3), np.uint8)
    skin = np.random.default_rng(3).integers(150 - grain, 150 + grain + 1, (256, 256, 1)).astype(np.uint8)
    for crop, opening in zip(crops, openings, strict=True):
        crop[:] = skin
        cv2.rectangle(crop, (110, 150), (146, 150 + round(float(opening))), (DARK,) * 3, -1)
        cv2.rectangle(crop, (100, 215), (156, 235), (170 - round(4.0 * float(opening)),) * 3, -1)
    return crops


def read_mouths(crops: np.ndarray) -> np.ndarray:
    """float32 [T, 478, 3]: the mean head with its inner lips on the ends of the dark bar, narrower when open; NaN without a bar."""
    meshes = np.full((len(crops), 478, 3), np.nan, np.float32)
    heights = (crops[:, :, 128, 0] < 60).sum(axis=1) - 1
    for mesh, height in zip(meshes, heights, strict=True):
        if height >= 0:
            mesh[:468], mesh[468:] = REST, 0.0
            mesh[list(INNER_UPPER_MIDDLE), 1] = 150.0
            mesh[list(INNER_LOWER_MIDDLE), 1] = 150.0 + height
            mesh[LIP_CORNERS[0], 0] += height / 4.0
            mesh[list(INNER_LOWER_MIDDLE), 0] = mesh[list(INNER_UPPER_MIDDLE), 0]
    return meshes


def contrast(crops: np.ndarray) -> np.ndarray:
    """Return the variance of each picture, which stands for the energy of its fine detail: float64 [T]."""
    return np.asarray(crops.reshape(len(crops), -1).var(axis=1, dtype=np.float64))


@dataclass(frozen=True)
class Actor:
    lag_frames: int
    num_bytes: int = 3 << 20
    lag_doubt: str = ""


@dataclass
class DrawnClip:
    """The mouth follows the loudness of the speech; `full` draws `gain` times that, other variants know less.

    Mouths that are drawn from speech come `frames_late` frames after it. `lag_frames`: lag that is measured everywhere.
    """

    gain: float = 1.0
    lost: tuple[int, ...] = ()
    passed: tuple[int, ...] = ()
    clip: str = "drawn.mp4"
    num_frames: int = 125
    frame_rate: Fraction = Fraction(25)
    moves_head: bool = False
    late: int = 0
    frames_late: int = 0
    lag_frames: int | None = None
    asked: list[tuple[FrameRange, str]] = field(default_factory=list)

    @property
    def frame_seconds(self) -> np.ndarray:
        return np.arange(self.num_frames) / float(self.frame_rate)

    @property
    def speech(self) -> np.ndarray:
        loudness = 0.5 + 0.5 * np.sin(np.arange(self.num_frames) * 0.9) * np.cos(np.arange(self.num_frames) * 0.23)
        return np.repeat(loudness, 640).astype(np.float32)

    def openings(self, speech: np.ndarray) -> np.ndarray:
        return speech[320::640] * 16.0

    def truth(self, frames: FrameRange) -> Rendered:
        crops = draw(self.openings(self.speech)[frames.start : frames.stop])
        return Rendered(crops, ("",) * len(frames), native_energy=contrast(crops))

    def enrol(self, frames: FrameRange) -> Actor:
        if self.lag_frames is not None:
            return Actor(self.lag_frames)
        return Actor(lag_frames=1) if frames.start == 0 else Actor(lag_frames=-1, lag_doubt="made up")

    def predict(self, actor: Actor) -> None:
        """The motion is the loudness."""

    def render(self, actor: Actor, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None) -> Rendered:
        self.asked.append((frames, variant))
        whole = self.openings(self.speech if speech is None else speech.samples) * self.gain
        if variant == "mean_mouth":
            whole = np.full_like(whole, whole.mean())
        whole = np.roll(whole, self.frames_late - (actor.lag_frames if variant == "full_aligned" else 0))
        commanded = whole[frames.start : frames.stop]
        crops = draw(commanded)
        reasons = ["OCCLUDED_MOUTH" if n in self.passed else "" for n in range(frames.start, frames.stop)]
        for n in self.lost:
            if frames.start <= n < frames.stop:
                crops[n - frames.start] = 150
        return Rendered(
            crops, tuple(reasons), commanded.astype(np.float32), contrast(crops), diagnostics={"fitting_error": float(len(frames))}
        )

    def native_mouths(
        self, actor: Actor, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Parts of the crops about the mouth."""
        crops = self.truth(frames).crops, self.render(actor, frames, variant, speech).crops
        before, after = (each[:, 130:190, 88:168] for each in crops)
        return before, after

    def phone_times(self) -> dict[Trigger, np.ndarray]:
        """The mouth of `truth` is widest at its vowels. A frame is shown for 40 ms, and its mouth is the loudness of its middle."""
        loud = self.openings(self.speech)
        (top,) = np.nonzero((loud[1:-1] > loud[:-2]) & (loud[1:-1] > loud[2:]))
        (low,) = np.nonzero((loud[1:-1] < loud[:-2]) & (loud[1:-1] < loud[2:]))
        return {"vowel": (top + 1) / 25.0, "closure": (low + 1) / 25.0}

    def framed_motion(self, actor: Actor, frames: FrameRange) -> FramedMotion:
        """The mouth stays half open for `late` frames after the voice."""
        own = np.array([0.0, 16.0] * 20, np.float32)
        spoken = np.zeros(100, np.bool_)
        spoken[30:70] = True
        opening = np.where(spoken, 16.0, 0.0).astype(np.float32)
        opening[70 : 70 + self.late] = 8.0
        return FramedMotion(opening, spoken, own)

    def poses(self) -> np.ndarray:
        """A head that turns by 10 degrees to either side every 50 frames; the tracker lost frame 60."""
        poses = np.tile([0.0, 0.0, 0.0, 128.0, 160.0, 1.0], (self.num_frames, 1))
        poses[:, 1] = np.radians(10.0) * np.sin(np.arange(self.num_frames) * 2.0 * np.pi / 50.0)
        poses[60] = np.nan
        return poses

    def head_motion(self, actor: Actor, frames: FrameRange) -> HeadMotion | None:
        if not self.moves_head:
            return None
        poses = self.poses()
        real = poses[frames.start : frames.stop]
        output = np.where(np.isfinite(real), real, real[0])
        known = np.delete(poses, np.r_[frames.start : frames.stop, 60], axis=0)
        return HeadMotion(real, 0.5 * output, output, known, np.arange(frames.start, frames.stop))
