"""Split of a clip into an enrolment part and a test part, and the foreign speeches of the wrong-audio control."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np

from gateway.evaluation.types import Fold, FrameRange, Speech
from services.common.array_types import Float32
from services.common.errors import InvalidRequest

SHORT_CLIP_S: Final = 17
"""Clips under this length, seconds, have two folds, because ten seconds of enrolment would leave too little to test on."""
ENROL_SHARE: Final = Fraction(3, 5)
ENROL_S: Final = 10
TEST_SHARE: Final = Fraction(1, 5)
"""Share of a clip, at its end, that is tested on if the seconds of enrolment are given."""
MIN_FRAMES: Final = 10
"""Fewest frames of each part."""
MIN_WRONG_SPEECHES: Final = 10
NEAREST_SHIFT: Final = 11_200
"""Smallest circular shift, samples: 0.7 s, because a lag is searched within 0.6 s of the true alignment."""


def folds_of(
    num_frames: int, frame_rate: Fraction, enrol_seconds: float | None = None, *, only: int | None = None
) -> tuple[Fold, ...]:
    """Return the splits of a clip.

    A clip under 17 s has two folds, so that each frame is tested once: enrol on the first 60 % and test on the last 40 %, and the
    reverse. A longer clip has one fold: enrol on the first 10 s and test on the rest.

    With `enrol_seconds` there is one fold: test on the last fifth, and enrol on the seconds before the test part. So all lengths of
    enrolment are tested on the same frames, and none lies further from the test part than another.

    Args:
        num_frames: frames of the clip.
        frame_rate: frames per second.
        enrol_seconds: seconds of the enrolment part; None: as above.
        only: number of the only split to return, from 0; None: all.

    Raises:
        InvalidRequest: the clip is too short to be split, or has no split of the number `only`.
    """
    if enrol_seconds is not None:
        cut = num_frames - int(num_frames * TEST_SHARE)
        wanted = round(enrol_seconds * frame_rate)
        if wanted > cut:
            raise InvalidRequest(
                f"{enrol_seconds:g} s of enrolment are more than the {float(cut / frame_rate):.1f} s of the clip before its last "
                "fifth, which is tested on",
                field="enrol_seconds",
            )
        folds: tuple[Fold, ...] = (Fold(enrol=FrameRange(cut - wanted, cut), test=FrameRange(cut, num_frames)),)
    elif num_frames < SHORT_CLIP_S * frame_rate:
        cut = int(num_frames * ENROL_SHARE)
        first, last = FrameRange(0, cut), FrameRange(cut, num_frames)
        folds = (Fold(enrol=first, test=last), Fold(enrol=last, test=first))
    else:
        cut = int(ENROL_S * frame_rate)
        folds = (Fold(enrol=FrameRange(0, cut), test=FrameRange(cut, num_frames)),)
    if min(len(part) for fold in folds for part in (fold.enrol, fold.test)) < MIN_FRAMES:
        raise InvalidRequest(
            f"{num_frames} frames are too few to evaluate on: each part of a clip needs {MIN_FRAMES}", field="CLIP"
        )
    if only is None:
        return folds
    if not 0 <= only < len(folds):
        raise InvalidRequest(f"fold {only}: this clip has {len(folds)}, numbered from 0", field="only_fold")
    return (folds[only],)


def wrong_speeches(own: Float32, others: Sequence[Speech] = (), count: int = MIN_WRONG_SPEECHES) -> tuple[Speech, ...]:
    """Return speeches that do not belong to the clip, each as long as the clip's own speech.

    The others come first, looped or cut to length. Circular shifts of the clip's own speech, spread evenly over its length, fill up
    to `count`.

    Args:
        own: float32 [N], 16 kHz mono.
        others: foreign speeches, 16 kHz mono, any length above 0.
        count: number of speeches, at least 10.

    Raises:
        InvalidRequest: fewer than 10 are asked for, or one speech is empty.
    """
    if count < MIN_WRONG_SPEECHES:
        raise InvalidRequest(f"the wrong-audio control is a mean over at least {MIN_WRONG_SPEECHES}", field="count")
    if not len(own) or any(not len(other.samples) for other in others):
        raise InvalidRequest("a speech has no samples", field="speech")
    chosen = [Speech(other.name, np.resize(other.samples, len(own)).astype(np.float32)) for other in others[:count]]
    missing = count - len(chosen)
    nearest = min(NEAREST_SHIFT, len(own) // 3)
    for shift in np.linspace(nearest, len(own) - nearest, missing).astype(int).tolist():
        chosen.append(Speech(f"shifted by {shift / 16_000:.2f} s", np.roll(own, shift)))
    return tuple(chosen)
