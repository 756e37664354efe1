"""Which bank frame shows the inside of the mouth, as a path of least cost through a person's bank (after Viterbi 1967).

Teeth, tongue and shadow between the lips come from one bank frame at a time. A blend of frames shows teeth through a tongue, and
the best frame of each moment jumps from one inside to another. A path costs for each frame

    c_t(j)                               how badly bank frame j fits target mouth t: services.common.face.mouth_bank.window_costs
    s_t(j)                               how badly the speech of bank frame j fits target mouth t: SpokenInsides
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

from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, NUM_LIPS, mouth_opening
from services.common.face.mouth_bank import WINDOW, MouthBank, opening_scale, share_between, window_costs
from services.texture.types import TargetFrame, check_order

MOST_HELD: Final = 250
"""Frames after which a path is decided, even if the lips are never shut: 10 s."""
_REPEAT: Final = np.float32(0.1)
_SKIP: Final = np.float32(0.05)
_CUT: Final = np.float32(1.5)
_APPEARANCE: Final = np.float32(0.06)
_APPEARANCE_HELD: Final = np.float32(0.03)
"""Cost of a grey level between two insides for a path, and for a stream: without look-ahead, a stream would hold a wrong inside."""
_VISIBLE_PX: Final = (1.0, 4.0)
"""Openings up to which nothing of the inside shows, and from which on all of the inside counts, head-space pixels."""
_LEFT: Final = 32
"""Bank frames from which a path may leave its run at a time: the best ones."""
_ALONG: Final = np.linspace(0.1, 0.9, 16)
_ACROSS: Final = np.linspace(0.05, 0.95, 8)
"""Samples of an inside between the corners of the mouth, and from the upper lip to the lower lip."""
_ROWS_AT_ONCE: Final = 256
_BY_SPEECH: Final = np.float32(0.06)
"""Cost of a grey level between the insides that go with two spoken mouths, head-space pixels."""
_BY_OPENING: Final = np.float32(0.2)
"""Cost of a step on `opening_scale`, beside that of window_costs, where speech counts."""
_SHOWN_SHARE: Final = 0.2
"""Least visible share of an inside that is learned from."""
_FEWEST_SHOWN: Final = 30
_SPOKEN_COMPONENTS: Final = 16
_INSIDE_COMPONENTS: Final = 24
_PARTS: Final = 6
"""Parts of the bank, each of which is left out of a regression in turn."""
_RIDGES: Final = np.geomspace(1e-4, 1.0, 9)
"""Strengths of the regression, from which cross-validation takes one. The spoken mouths have a mean square of 1 in all."""

Rows = npt.NDArray[np.intp]


class InsideSource(NamedTuple):
    """Bank frame that shows the inside of a target mouth: index of the target frame, and index of the bank frame in the footage."""

    frame_index: int
    bank_frame_index: int


class SpokenInsides:
    """Insides of a person's mouth by what is said, for the W windows of a bank.

    Tracked lips do not tell whether teeth show between them, and the speech does. The motion predictor gives a mouth for the
    footage's own speech at each bank frame, as for the new speech at each target frame. Ridge regression maps these spoken mouths
    to insides. The cost of window j for target mouth t is

        s_t(j) = _BY_SPEECH |g(t) - g_j(j)| + _BY_OPENING |o(t) - o(j)|

    where g is the regression, g_j the regression without the sixth of the bank that holds j, and o the `opening_scale` of tracked
    mouths. Two answers of the regression are compared. An answer is duller than a picture, so a comparison with pictures would
    choose dull pictures.

    Args:
        bank: the person's mouths, with spoken mouths.
        insides: float32 [F, 8, 16, 3], from `inside_samples`.
    """

    def __init__(self, bank: MouthBank, insides: Float32) -> None:
        assert bank.spoken_mouth is not None, "the bank has no spoken mouths"
        rows = bank.window_rows[:, -1]
        self._openings = bank.window_openings
        spoken = bank.spoken_mouth[rows].reshape(len(rows), -1).astype(np.float64)
        shown = np.flatnonzero(share_between(mouth_opening(bank.mouth[rows]), _VISIBLE_PX) >= _SHOWN_SHARE)
        self.usable: Final = len(shown) >= _FEWEST_SHOWN
        """Whether the bank shows enough insides to learn from. If not, speech costs nothing."""
        if not self.usable:
            return
        self._mean, self._spread = spoken[shown].mean(axis=0), spoken[shown].std(axis=0) + 1e-6
        standard = (spoken - self._mean) / self._spread
        _, sizes, axes = np.linalg.svd(standard[shown], full_matrices=False)
        self._axes = axes[:_SPOKEN_COMPONENTS].T / np.sqrt((sizes**2).sum() + 1e-12)
        pictures = insides[rows[shown]].reshape(len(shown), -1).astype(np.float64)
        pictures -= pictures.mean(axis=0)
        components = np.linalg.svd(pictures, full_matrices=False)[2][:_INSIDE_COMPONENTS]
        # Distances of these numbers are roots of mean squares over the samples, grey levels.
        looks = pictures @ components.T / np.sqrt(pictures.shape[1])
        inputs = standard @ self._axes
        given = inputs[shown]
        left_out = [left_out_answers(given, looks, ridge) for ridge in _RIDGES]
        best = int(np.argmin([((looks - answers) ** 2).sum() for answers in left_out]))
        self._weights = np.linalg.solve(given.T @ given + _RIDGES[best] * np.eye(given.shape[1]), given.T @ looks)
        self._answers = inputs @ self._weights
        self._answers[shown] = left_out[best]

    def costs(self, mouth: Float32) -> Float32:
        """Return the costs of the windows for a target mouth, float32 [W], head-space pixels.

        Args:
            mouth: float32 [59, 3], head space.
        """
        if not self.usable:
            return np.zeros(len(self._openings), np.float32)
        inputs = (mouth.reshape(-1) - self._mean) / self._spread @ self._axes
        # A matrix product may differ in its last bits between processors. A tenth of a grey level does not.
        away = np.round(np.linalg.norm(self._answers - inputs @ self._weights, axis=1), 1)
        opening = np.abs(self._openings - opening_scale(mouth))
        return np.asarray(_BY_SPEECH * away.astype(np.float32) + _BY_OPENING * opening, np.float32)


def left_out_answers(given: Float64, wanted: Float64, ridge: float) -> Float64:
    """Return what ridge regressions answer for each sixth of the rows, learned from the other rows: float64 [N, K].

    Args:
        given: float64 [N, C], rows in the order of time.
        wanted: float64 [N, K].
        ridge: strength of the regressions.
    """
    inverse = np.linalg.inv(given.T @ given + ridge * np.eye(given.shape[1]))
    errors = wanted - given @ inverse @ given.T @ wanted
    # The error of a part that is left out follows from the part's error in the whole regression (Cook and Weisberg 1982).
    for part in np.array_split(np.arange(len(given)), _PARTS):
        hat = given[part] @ inverse @ given[part].T
        errors[part] = np.linalg.solve(np.eye(len(part)) - hat, errors[part])
    return np.asarray(wanted - errors, np.float64)


class InsideCosts:
    """Costs of a bank's windows, W of them, and of the changes between windows; a window stands for its last frame.

    Streams may share the costs of a bank.

    Args:
        bank: the person's mouths.
    """

    def __init__(self, bank: MouthBank) -> None:
        self.bank = bank
        self.rows: Final[Rows] = bank.window_rows[:, -1]
        self.footage: Final = bank.frame_index[self.rows]

    def prepare(self) -> None:
        """Compute now what the first frame of a stream would wait for: some 30 ms for a bank of ten seconds."""
        mouth = self.bank.mouth[0]
        window_costs(self.bank, np.repeat(mouth[None], WINDOW, axis=0))
        self.by_speech(mouth)
        _ = self.apart, self.runs, self.bank.control_points, self.bank.dark

    def window_before(self, frames: int) -> Rows:
        """Return the window so many footage frames before each window: int [W], -1 where there is none."""
        index = np.searchsorted(self.footage, self.footage - frames)
        return np.where(self.footage[index] == self.footage - frames, index, -1)

    @cached_property
    def runs(self) -> tuple[tuple[Rows, np.float32], ...]:
        """Windows before each window by which a run of footage goes on, int [W] and -1 where there is none, with their costs."""
        return (
            (self.window_before(1), np.float32(0.0)),
            (self.window_before(2), _SKIP),
            (np.arange(len(self.rows)), _REPEAT),
        )

    @cached_property
    def _insides(self) -> Float32:
        return inside_samples(self.bank)

    @cached_property
    def _spoken(self) -> SpokenInsides | None:
        return SpokenInsides(self.bank, self._insides) if self.bank.spoken_mouth is not None else None

    def by_speech(self, mouth: Float32) -> Float32 | np.float32:
        """Return the costs of the windows for a target mouth by what is said, float32 [W]; 0: the bank has no spoken mouths."""
        return self._spoken.costs(mouth) if self._spoken is not None else np.float32(0.0)

    def cuts(self, windows: Rows | int, appearance: np.float32 = _APPEARANCE) -> Float32:
        """Return the costs of leaving N windows for any window, float32 [N, W]; of one window: [W].

        Args:
            windows: int [N], or one window.
            appearance: cost of a grey level between two insides.
        """
        return np.asarray(_CUT + appearance * self.apart[windows], np.float32)

    @cached_property
    def apart(self) -> Float32:
        """Differences between the insides of the windows, float32 [W, W], grey levels."""
        insides = self._insides[self.rows].reshape(len(self.rows), -1)
        square = (insides**2).mean(axis=1)
        distances = np.empty((len(insides), len(insides)), np.float32)
        for begin in range(0, len(insides), _ROWS_AT_ONCE):
            some = slice(begin, begin + _ROWS_AT_ONCE)
            product = insides[some] @ insides.T / np.float32(insides.shape[1])
            distances[some] = np.sqrt(np.maximum(square[some, None] + square - np.float32(2.0) * product, 0.0))
        # A matrix product may differ in its last bits between processors. A tenth of a grey level does not.
        return np.asarray(np.round(distances, 1), np.float32)


def inside_samples(bank: MouthBank) -> Float32:
    """Return the insides of a bank's mouths, all in one shape: float32 [F, 8, 16, 3], RGB, 0 to 255."""
    half = len(LIPS_INNER) // 2
    insides = np.empty((bank.num_frames, len(_ACROSS), len(_ALONG), 3), np.float32)
    positions = np.linspace(0.0, 1.0, half + 1)
    for picture, landmarks, samples in zip(bank.boxes, bank.box_landmarks, insides, strict=True):
        inner = landmarks[len(LIPS_OUTER) : NUM_LIPS]
        upper, lower = inner[: half + 1], np.concatenate([inner[half:], inner[:1]])[::-1]
        above, below = (
            np.stack([np.interp(_ALONG, positions, lip[:, axis]) for axis in (0, 1)], axis=-1) for lip in (upper, lower)
        )
        points = (above + _ACROSS[:, None, None] * (below - above)).astype(np.float32)
        # OpenCV 5.0 reads an empty second map in a linear remap.
        samples[:] = cv2.remap(picture, points[..., 0], points[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return insides


def visible_share(mouth: Float32) -> np.float32:
    """Return the share of the inside of a mouth that shows, 0 to 1.

    Args:
        mouth: float32 [59, 3], head space.
    """
    return np.float32(share_between(float(mouth_opening(mouth)), _VISIBLE_PX))


class InsidePath:
    """Path of one shot.

    Args:
        costs: costs of the person's bank.
    """

    def __init__(self, costs: InsideCosts) -> None:
        self._costs = costs
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
        costs = window_costs(self._costs.bank, np.stack(self._past), frame.pose.rotation) + self._costs.by_speech(frame.mouth)
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
        (windows,) = np.nonzero(self._costs.footage == bank_frame_index)
        if not len(windows):
            raise InvalidRequestError(
                f"frame.inside_frame_index: the bank answers no frame {bank_frame_index}: give the answer for this frame",
                field="frame.inside_frame_index",
            )
        return int(windows[0])

    def _step(self, least: Float32, visible: np.float32) -> tuple[Float32, Rows]:
        """Return the least cost to reach each window, float32 [W], and the window before each window, int [W]."""
        sources = np.argsort(least, kind="stable")[:_LEFT]
        left = least[sources, None] + visible * self._costs.cuts(sources)
        index = left.argmin(axis=0)
        best, before = left[index, np.arange(len(least))], sources[index]
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
        costs: costs of the person's bank.
    """

    def __init__(self, costs: InsideCosts) -> None:
        self._costs = costs
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
        costs = costs + self._costs.by_speech(mouth)
        total, window = costs, self._window
        visible = visible_share(mouth)
        if window is not None and visible > 0.0:
            change = self._costs.cuts(window, _APPEARANCE_HELD)
            for windows, cost in self._costs.runs:
                change[windows == window] = np.minimum(change[windows == window], cost)
            total = costs + visible * change
        self._window = int(np.argmin(total))
        return int(self._costs.rows[self._window])
