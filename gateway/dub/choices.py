"""Choices that a user has for an enrolment, and for the length and the mouth of a dub, with their limits.

The help of the command line shows these choices, and imports nothing that dubs for them.

| fit    | the video is as long as     | its frames                                                              |
|--------|-----------------------------|-------------------------------------------------------------------------|
| cut    | the footage                 | the footage's frames; longer speech is cut, silence follows shorter     |
| pad    | the longer of the two       | the footage's frames, then the last one again and again                 |
| loop   | the speech                  | the footage's frames, and again from the first one                      |
| bounce | the speech                  | the footage's frames forwards, then backwards, and so on                |
| slow   | the speech                  | the footage's frames, all slowed or sped up by one factor               |
| retime | the speech                  | the footage's frames, slowed only in pauses (SelectFrames)              |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Fit = Literal["cut", "pad", "loop", "bounce", "retime", "slow"]
FITS: Final[tuple[Fit, ...]] = get_args(Fit)
Expression = Literal["keep", "neutral"]
"""Use of the footage's slow expression (slow_expression.py): the dub keeps the expression, or shows only the predicted mouths."""
EXPRESSIONS: Final[tuple[Expression, ...]] = get_args(Expression)
PREVIEW_S: Final = 4
"""Length of a preview, seconds."""
MOST_LINES: Final = 200
"""Most lines of a scene."""
MOST_BOXES: Final = 10_000
"""Most boxes of one line's face."""

EXPECTED_TIME: Final = "seconds (12.48) or a timecode from the first frame (00:00:12:12, 00:00:12.480)"
"""Expected form of a time in a video, for messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolOptions:
    """Parts of an enrolment that are done.

    Attributes:
        personalize_renderer: train the renderer's state on the person.
        renderer_steps: optimisation steps of that training; 0: the renderer's own number.
        personalize_motion: adapt the motion networks to the person, if the footage has sound.
        seed: random seed of the training of the renderer.
    """

    personalize_renderer: bool = True
    renderer_steps: int = 0
    personalize_motion: bool = True
    seed: int = 0

    @property
    def trains(self) -> bool:
        """Whether any network is adapted to the person."""
        return self.personalize_renderer or self.personalize_motion
