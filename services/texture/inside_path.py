"""Which bank frame shows the inside of the mouth, as a path of least cost through a person's bank (after Viterbi 1967).

Teeth, tongue and shadow between the lips come from one bank frame at a time. A blend of frames shows teeth through a tongue, and
the best frame of each moment jumps from one inside to another. A path costs for each frame

    c_t(j)                               how badly bank frame j fits target mouth t: services.common.face.mouth_bank.window_costs
    v_t * REPEAT                         if j is shown a second time
    v_t * SKIP                           if one frame of the footage is left out
    v_t * (CUT + APPEARANCE * d(i, j))   if the path leaves the run of footage: bank frame j follows i

and nothing where the footage goes on from one frame to the next. v_t is the share of the inside that shows, 0 for shut lips, so the
path changes its source where nobody sees the change. d(i, j) is the difference of two insides, each brought to one shape:
the root of the mean square over their samples, grey levels.

`InsidePath` knows the whole shot. It decides where the lips are shut: what follows there does not depend on what was before.
`HeldInside` knows the past only.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, NUM_LIPS, mouth_opening
from services.common.face.mouth_bank import WINDOW, MouthBank, share_between, window_costs
from services.texture.types import TargetFrame, check_order

MOST_HELD: Final = 250
"""Frames after which a path is decided, even if the lips are never shut: 10 s."""
_REPEAT: Final = np.float32(0.1)
_SKIP: Final = np.float32(0.05)
_CUT: Final = np.float32(1.0)
_APPEARANCE: Final = np.float32(0.03)
_VISIBLE_PX: Final = (1.0, 4.0)
"""Openings up to which nothing of the inside shows, and from which on all of the inside counts, head-space pixels."""
_LEFT: Final = 32
"""Bank frames from which a path may leave its run at a time: the best ones."""
_ALONG: Final = np.linspace(0.1, 0.9, 16)
_ACROSS: Final = np.linspace(0.05, 0.95, 8)
"""Samples of an inside between the corners of the mouth, and from the upper lip to the lower lip."""
_ROWS_AT_ONCE: Final = 256

Rows = npt.NDArray[np.intp]


class InsideSource(NamedTuple):
    """Bank frame that shows the inside of a target mouth: index of the target frame, and place of the bank frame in the footage."""

    frame_index: int
    bank_frame_index: int


class InsideCosts:
    """Costs of the changes between a bank's windows, W of them; a window stands for its last frame.

    Args:
        bank: the person's mouths.
    """

    def __init__(self, bank: MouthBank) -> None:
        self.bank = bank
        self.rows: Final[Rows] = bank.window_rows[:, -1]
        self.footage: Final = bank.frame_index[self.rows]

    def window_before(self, frames: int) -> Rows:
        """Return the window so many footage frames before each window: int [W], -1 where there is none."""
        place = np.searchsorted(self.footage, self.footage - frames)
        return np.where(self.footage[place] == self.footage - frames, place, -1)

    @cached_property
    def runs(self) -> tuple[tuple[Rows, np.float32], ...]:
        """Windows before each window by which a run of footage goes on, int [W] and -1 where there is none, with their costs."""
        return (
            (self.window_before(1), np.float32(0.0)),
            (self.window_before(2), _SKIP),
            (np.arange(len(self.rows)), _REPEAT),
        )

    @cached_property
    def cuts(self) -> Float32:
        """Costs of leaving a window for another one, float32 [W, W]."""
        insides = inside_samples(self.bank)[self.rows].reshape(len(self.rows), -1)
        square = (insides**2).mean(axis=1)
        found = np.empty((len(insides), len(insides)), np.float32)
        for begin in range(0, len(insides), _ROWS_AT_ONCE):
            some = slice(begin, begin + _ROWS_AT_ONCE)
            product = insides[some] @ insides.T / np.float32(insides.shape[1])
            found[some] = np.sqrt(np.maximum(square[some, None] + square - np.float32(2.0) * product, 0.0))
        # A matrix product may differ in its last bits between processors. A tenth of a grey level does not.
        return np.asarray(_CUT + _APPEARANCE * np.round(found, 1), np.float32)


def inside_samples(bank: MouthBank) -> Float32:
    """Return the insides of a bank's mouths, all in one shape: float32 [F, 8, 16, 3], RGB, 0 to 255."""
    half = len(LIPS_INNER) // 2
    found = np.empty((bank.num_frames, len(_ACROSS), len(_ALONG), 3), np.float32)
    places = np.linspace(0.0, 1.0, half + 1)
    for picture, landmarks, samples in zip(bank.boxes, bank.box_landmarks, found, strict=True):
        inner = landmarks[len(LIPS_OUTER) : NUM_LIPS]
        upper, lower = inner[: half + 1], np.concatenate([inner[half:], inner[:1]])[::-1]
        above, below = (np.stack([np.interp(_ALONG, places, lip[:, axis]) for axis in (0, 1)], axis=-1) for lip in (upper, lower))
        points = (above + _ACROSS[:, None, None] * (below - above)).astype(np.float32)
        # OpenCV 5.0 reads an empty second map in a linear remap.
        samples[:] = cv2.remap(picture, points[..., 0], points[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found


def visible_share(mouth: Float32) -> np.float32:
    """Return the share of the inside of a mouth that shows, 0 to 1.

    Args:
        mouth: float32 [59, 3], head space.
    """
    return np.float32(share_between(float(mouth_opening(mouth)), _VISIBLE_PX))


class InsidePath:
    """Path of one shot.

    Args:
        bank: the person's mouths.
    """

    def __init__(self, bank: MouthBank) -> None:
        self._costs = InsideCosts(bank)
        self._past: deque[Float32] = deque(maxlen=WINDOW)
        self._last_index: int | None = None
        # Least cost of a path to each window; indices of the open frames, with the window before each window.
        self._least: Float32 | None = None
        self._open: list[tuple[int, Rows | None]] = []

    def push(self, frame: TargetFrame) -> list[InsideSource]:
        """Take the next frame, and return the frames that are decided now, in order.

        A frame with `context_only` was decided before, and is not returned: the path goes on from its `inside_frame_index`.

        Raises:
            InvalidRequestError: the frame's index does not increase, or the bank does not have its `inside_frame_index`.
        """
        check_order(frame.frame_index, self._last_index)
        decided: list[InsideSource] = []
        if self._last_index is None or frame.frame_index != self._last_index + 1:
            decided += self.finish()
            self._past.extend([frame.mouth] * WINDOW)
        self._last_index = frame.frame_index
        self._past.append(frame.mouth)
        if frame.context_only:
            decided += self.finish()
            if frame.inside_frame_index is not None:
                self._least = self._ending_with(self._window_of(frame.inside_frame_index))
            return decided
        costs = window_costs(self._costs.bank, np.stack(self._past), frame.pose.rotation)
        visible = visible_share(frame.mouth)
        if self._least is None or visible == 0.0:
            decided += self.finish()
            self._least = costs
            self._open.append((frame.frame_index, None))
            return decided
        best, before = self._step(self._least, visible)
        self._least = best + costs
        self._least -= self._least.min()
        self._open.append((frame.frame_index, before))
        if len(self._open) > MOST_HELD:
            decided += self._decided()
        return decided

    def finish(self) -> list[InsideSource]:
        """Return the frames that are still open, in order."""
        decided = self._decided()
        self._least = None
        return decided

    def _ending_with(self, window: int) -> Float32:
        """Return the least costs of paths that all end with a window, float32 [W]."""
        least = np.full(len(self._costs.rows), np.inf, np.float32)
        least[window] = 0.0
        return least

    def _window_of(self, bank_frame_index: int) -> int:
        (found,) = np.nonzero(self._costs.footage == bank_frame_index)
        if not len(found):
            raise InvalidRequestError(
                f"frame.inside_frame_index: the bank answers no frame {bank_frame_index}: give the answer for this frame",
                field="frame.inside_frame_index",
            )
        return int(found[0])

    def _step(self, least: Float32, visible: np.float32) -> tuple[Float32, Rows]:
        """Return the least cost to reach each window, float32 [W], and the window before each window, int [W]."""
        sources = np.argsort(least, kind="stable")[:_LEFT]
        left = least[sources, None] + visible * self._costs.cuts[sources]
        place = left.argmin(axis=0)
        best, before = left[place, np.arange(len(least))], sources[place]
        for windows, cost in self._costs.runs:
            further = np.where(windows >= 0, least[windows] + visible * cost, np.float32(np.inf)).astype(np.float32)
            before = np.where(further < best, windows, before)
            best = np.minimum(further, best)
        return best, before

    def _decided(self) -> list[InsideSource]:
        """Decide the open frames. The path goes on from the last of them."""
        if self._least is None:
            return []
        window = int(np.argmin(self._least))
        self._least = self._ending_with(window)
        decided = []
        for frame_index, before in reversed(self._open):
            decided.append(InsideSource(frame_index, int(self._costs.footage[window])))
            window = window if before is None else int(before[window])
        self._open.clear()
        return decided[::-1]


class HeldInside:
    """Sources of a stream that knows the past only: a run of footage goes on until another frame fits better by the cost of a cut.

    Args:
        bank: the person's mouths.
    """

    def __init__(self, bank: MouthBank) -> None:
        self._costs = InsideCosts(bank)
        self._window: int | None = None

    def begin(self) -> None:
        """Forget the frame before: the next frame does not follow it."""
        self._window = None

    def next_row(self, mouth: Float32, costs: Float32) -> int:
        """Return the bank row for the next frame.

        Args:
            mouth: float32 [59, 3], target mouth, head space.
            costs: float32 [W], costs of the windows for this frame (window_costs).
        """
        total, window = costs, self._window
        visible = visible_share(mouth)
        if window is not None and visible > 0.0:
            change = self._costs.cuts[window].copy()
            for windows, cost in self._costs.runs:
                change[windows == window] = np.minimum(change[windows == window], cost)
            total = costs + visible * change
        self._window = int(np.argmin(total))
        return int(self._costs.rows[self._window])
