"""Keyframes of a head motion: its turning points (Yi et al., Sec. 3.3.2).

The paper takes "the frames with largest head orientation in one axis in a short period of time". Here an axis turns where the
angle has gone back from an extremum by more than its noise and a share of its spread: a trembling prediction makes no keyframes,
and a calm prediction makes some. Of keyframes too close to each other the larger turn stays. Long gaps are filled with frames.

Backgrounds for predicted head motion: which footage frame stands behind each output frame (Yi et al., Sec. 3.3.2).

As in the paper, keyframes of the predicted motion get the footage frames that fit their pose, and between two of them the footage
index is interpolated, so the footage plays on, forwards or backwards. The paper matches each keyframe by itself. Here
dynamic programming chooses all keyframes together, so that between neighbours the footage plays at a natural speed:

    cost = sum_k |(predicted_k - footage_j(k)) / spread|^2          pose: angles, position, scale, in the footage's own spread
         + sum_k REPEAT_COST * ||j(k) - j(k-1)| - (t(k) - t(k-1))|  frames that are shown twice or left out
         + sum of reversals REVERSAL_COST + SPEED_COST * speed_j    turning round where the head moves is a jerk

with |j(k) - j(k-1)| <= MAX_SPEED (t(k) - t(k-1)) and all j in one span: usable frames that follow each other in one shot. So
there is no jump, since a span can be played forwards and backwards for any time. Only spans about as long as the longest
are used, so that a speech of a minute is not made of two seconds.

The optimum is exact, over all footage frames. Its work is 2.5 F T operations on whole arrays, since the widths of the search
windows add up to 2 * MAX_SPEED * T; memory is 2 K F bytes of decisions, K <= T / 8 keyframes: 100 MB at the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float64, Int64
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.runs import runs

MIN_DISTANCE: Final = 8
"""Smallest number of frames between keyframes. The first and the last frame are always keyframes."""
MAX_DISTANCE: Final = 50
"""Largest number of frames between keyframes."""
NOISE_FACTOR: Final = 4.0
SPREAD_SHARE: Final = 0.3
_SMOOTHING_FRAMES: Final = 1.5
_NOISE_OF_MEDIAN: Final = 1.4826 / np.sqrt(6.0)
"""Standard deviation of white noise divided by the median absolute second difference."""
Int8 = npt.NDArray[np.int8]
MAX_FRAMES: Final = 20_000
"""Largest number of footage frames, and of output frames, of one request: 13 minutes at 25/1."""
MIN_SPAN: Final = 25
"""Smallest number of usable frames in a row, in one shot: a second."""
MAX_SPEED: Final = 1.25
"""Largest number of footage frames per output frame."""
REPEAT_COST: Final = 0.25
REVERSAL_COST: Final = 0.1
SPEED_COST: Final = 3.0
"""Cost of a reversal per unit of the head's speed at the reversal, spreads per frame."""
MAX_SPANS: Final = 16
"""Largest number of spans that are searched. The longest spans are searched."""
_LENGTH_SHARE: Final = 0.5
# A head in the target direction a little beside the target position is a good background. A head in another direction is not.
_WEIGHT: Final = np.array([1.0, 1.0, 1.0, 0.15, 0.15, 0.15])
_SMALLEST_SPREAD: Final = np.array([*np.radians([1.0, 1.0, 1.0]), 2.0, 2.0, 0.01])
"""Smallest spread, radians, crop pixels and share of the scale: smaller spreads are the tracker's noise."""
_GAP: Final = int(MAX_SPEED * MAX_DISTANCE)


def keyframes_of(angles: Float64) -> Int64:
    """Return keyframes of a motion, increasing, int64 [K]; the first and the last frame are always among them.

    Args:
        angles: float64 [T, 3], pitch, yaw, roll, radians.
    """
    count = len(angles)
    if count <= 2:
        return np.arange(count, dtype=np.int64)
    smooth = cv2.GaussianBlur(angles, (1, 0), sigmaX=1e-6, sigmaY=_SMOOTHING_FRAMES, borderType=cv2.BORDER_REPLICATE)
    size = np.zeros(count)
    for axis, line in zip(angles.T, smooth.T, strict=True):
        spread = float(line.std())
        if spread > 0.0:
            noise = _NOISE_OF_MEDIAN * float(np.median(np.abs(np.diff(axis, 2))))
            for frame, turn in turning_points(line, max(NOISE_FACTOR * noise, SPREAD_SHARE * spread)):
                size[frame] = max(size[frame], turn / spread)
    return _filled(_spaced(size))


def turning_points(line: Float64, threshold: float) -> list[tuple[int, float]]:
    """Return extrema of a line float64 [T] that the line leaves by more than `threshold`, with their sizes.

    The size of an extremum is the smaller of the ways that the line came and went.

    Returns:
        (frame, size) pairs, frames increasing. Minima and maxima take turns. The ends of the line are no extrema.
    """
    points: list[tuple[int, float]] = []
    values = line.tolist()
    low = high = last = 0
    rising = 0
    for frame, value in enumerate(values):
        if value > values[high]:
            high = frame
        if value < values[low]:
            low = frame
        if rising >= 0 and values[high] - value > threshold:
            if rising or high:
                points.append((high, values[high] - values[last]))
            last, low, rising = high, frame, -1
        elif rising <= 0 and value - values[low] > threshold:
            if rising or low:
                points.append((low, values[last] - values[low]))
            last, high, rising = low, frame, 1
    ends = [values[frame] for frame, _ in points[1:]] + values[-1:]
    return [(frame, min(abs(came), abs(values[frame] - end))) for (frame, came), end in zip(points, ends, strict=False)]


def _spaced(size: Float64) -> Int64:
    """Return both ends and the frames of `size` above 0, larger sizes first, no two frames nearer than MIN_DISTANCE."""
    count = len(size)
    free = np.ones(count, bool)
    free[:MIN_DISTANCE] = free[count - MIN_DISTANCE :] = False
    kept = [0, count - 1]
    for frame in np.argsort(-size, kind="stable")[: np.count_nonzero(size)]:
        if free[frame]:
            kept.append(int(frame))
            free[max(frame - MIN_DISTANCE + 1, 0) : frame + MIN_DISTANCE] = False
    return np.array(sorted(kept), np.int64)


def _filled(frames: Int64) -> Int64:
    """Return the same frames, and evenly spaced frames in gaps above MAX_DISTANCE."""
    pieces = [frames[:1]]
    for begin, end in zip(frames[:-1], frames[1:], strict=True):
        parts = -(-int(end - begin) // MAX_DISTANCE)
        pieces.append(begin + (np.arange(1, parts + 1) * int(end - begin)) // parts)
    return np.concatenate(pieces)


class Backgrounds(NamedTuple):
    """Footage frames that a dub is put on.

    Attributes:
        frame_indices: int64 [T], footage frame behind each output frame; neighbours differ by 2 at most.
        keyframes: int64 [K], output frames, increasing.
    """

    frame_indices: Int64
    keyframes: Int64


class Costs(NamedTuple):
    """Costs of paths. States are footage frames. Stretches are further apart than a path can go.

    Attributes:
        targets: float64 [K, D], the keyframes' poses, in weighted spreads.
        poses: float64 [S, D], poses of the states; infinite for states that are no frames.
        reversal: float64 [S], cost of turning round at each state.
        gaps: int64 [K - 1], output frames between the keyframes.
    """

    targets: Float64
    poses: Float64
    reversal: Float64
    gaps: Int64

    def pose(self, keyframe: int) -> Float64:
        """Return squared distance of each state's pose from a keyframe's, float64 [S]."""
        distance: Float64 = np.square(self.poses - self.targets[keyframe]).sum(axis=1)
        return distance


def match_backgrounds(
    footage: Float64,
    usable: Bool,
    shot_cuts: Int64,
    predicted: Float64,
    still_wanted: Callable[[], None] = lambda: None,
) -> Backgrounds:
    """Return footage frames behind a predicted motion.

    Args:
        footage: float64 [F, 6], head-pose vectors of the footage; finite where usable.
        usable: bool [F].
        shot_cuts: int64 [C], frames that begin a shot.
        predicted: float64 [T, 6], head-pose vectors, finite.
        still_wanted: called at every keyframe; raises to stop.

    Raises:
        InvalidRequestError: too many frames, lengths that do not fit, values that are not finite, a cut outside the footage.
        NoUsableFootageError: no span of MIN_SPAN usable frames.
    """
    _check(footage, usable, shot_cuts, predicted)
    if not len(predicted):
        return Backgrounds(np.zeros(0, np.int64), np.zeros(0, np.int64))
    chosen = _spans(usable, shot_cuts, len(predicted))
    keyframes = keyframes_of(predicted[:, :3])
    # The states are the spans one after another, with gaps that no step can cross.
    frames = np.concatenate([np.concatenate([np.arange(begin, end), np.full(_GAP, -1)]) for begin, end in chosen])
    costs = _costs(footage, frames, predicted[keyframes], np.diff(keyframes))
    path = frames[cheapest_path(costs, still_wanted)]
    return Backgrounds(_between(keyframes, path), keyframes)


def cheapest_path(costs: Costs, still_wanted: Callable[[], None] = lambda: None) -> Int64:
    """Return the states of least total cost, int64 [K]."""
    count, size = len(costs.targets), len(costs.poses)
    forwards = backwards = costs.pose(0)
    steps = np.zeros((count, 2, size), np.int8)
    turned = np.zeros((count, 2, (size + 7) // 8), np.uint8)
    for k in range(1, count):
        still_wanted()
        gap = int(costs.gaps[k - 1])
        on, back = forwards, backwards
        turns = np.stack([back + costs.reversal < on, on + costs.reversal < back])
        turned[k] = np.packbits(turns, axis=1)
        # Coming from state i, having turned round there or not.
        from_on, from_back = np.minimum(on, back + costs.reversal), np.minimum(back, on + costs.reversal)
        forwards, steps[k, 0] = _arrivals(from_on, gap)
        # Backwards is forwards along the mirrored line.
        mirrored, mirrored_steps = _arrivals(from_back[::-1], gap)
        backwards, steps[k, 1] = mirrored[::-1], -mirrored_steps[::-1]
        pose = costs.pose(k)
        forwards, backwards = forwards + pose, backwards + pose
    return _trace_back(steps, turned, forwards, backwards)


def _arrivals(values: Float64, gap: int) -> tuple[Float64, Int8]:
    """Return least cost [S] of arriving at each state from 0 to MAX_SPEED * gap states before, and that number of states, int8
    [S]."""
    best = values + REPEAT_COST * gap
    steps = np.zeros(len(values), np.int8)
    for step in range(1, min(int(MAX_SPEED * gap), len(values) - 1) + 1):
        candidate = values[:-step] + REPEAT_COST * abs(step - gap)
        better = candidate < best[step:]
        np.copyto(best[step:], candidate, where=better)
        np.copyto(steps[step:], np.int8(step), where=better)
    return best, steps


def _trace_back(steps: Int8, turned: npt.NDArray[np.uint8], forwards: Float64, backwards: Float64) -> Int64:
    count = len(steps)
    direction = int(backwards.min() < forwards.min())
    state = int(np.argmin(backwards if direction else forwards))
    path = np.empty(count, np.int64)
    for k in range(count - 1, -1, -1):
        path[k] = state
        if k:
            state -= int(steps[k, direction, state])
            direction ^= int(turned[k, direction, state >> 3] >> (7 - (state & 7)) & 1)
    return path


def _costs(footage: Float64, frames: Int64, target: Float64, gaps: Int64) -> Costs:
    real = frames >= 0
    poses = footage[frames[real]]
    middle = np.median(poses, axis=0)
    unit = _SMALLEST_SPREAD * np.array([1.0, 1.0, 1.0, middle[5], middle[5], middle[5]])
    weight = np.sqrt(_WEIGHT) / np.maximum(poses.std(axis=0), unit)
    placed = np.full((len(frames), poses.shape[1]), np.inf)
    placed[real] = (poses - middle) * weight
    speed = np.zeros(len(frames))
    for span in runs(real):
        part = slice(span.start, span.stop)
        speed[part] = np.linalg.norm(np.gradient(placed[part], axis=0), axis=1)
    return Costs((target - middle) * weight, placed, REVERSAL_COST + SPEED_COST * speed, gaps)


def _spans(usable: Bool, shot_cuts: Int64, needed: int) -> list[tuple[int, int]]:
    """Return begin and end of the searched spans, in their order."""
    borders = np.zeros(len(usable) + 1, bool)
    borders[[0, -1]] = True
    borders[shot_cuts] = True
    borders[1:-1] |= usable[1:] != usable[:-1]
    indices = np.flatnonzero(borders)
    spans = [(int(begin), int(end)) for begin, end in zip(indices[:-1], indices[1:], strict=True) if usable[begin]]
    longest = max((end - begin for begin, end in spans), default=0)
    if longest < MIN_SPAN:
        raise NoUsableFootageError(
            f"no {MIN_SPAN} frames of the footage in a row can be backgrounds: the longest usable stretch has {longest}",
            subject="footage",
        )
    least = max(MIN_SPAN, _LENGTH_SHARE * min(longest, needed))
    chosen = sorted((span for span in spans if span[1] - span[0] >= least), key=lambda span: span[0] - span[1])
    return sorted(chosen[:MAX_SPANS])


def _between(keyframes: Int64, path: Int64) -> Int64:
    """Return linear interpolation of the index, rounded to the nearest whole number, halves up: int64 [keyframes[-1] + 1]."""
    indices = [path[:1]]
    for k in range(1, len(path)):
        gap, way = int(keyframes[k] - keyframes[k - 1]), int(path[k] - path[k - 1])
        indices.append(path[k - 1] + (2 * np.arange(1, gap + 1) * way + gap) // (2 * gap))
    return np.concatenate(indices)


def _check(footage: Float64, usable: Bool, shot_cuts: Int64, predicted: Float64) -> None:
    for name, poses in (("footage_poses", footage), ("predicted_poses", predicted)):
        if len(poses) > MAX_FRAMES:
            raise InvalidRequestError(f"{name}: at most {MAX_FRAMES} frames are matched at once, got {len(poses)}", field=name)
    if usable.shape != footage.shape[:1]:
        raise InvalidRequestError(f"usable: {len(footage)} flags are needed, got {len(usable)}", field="usable")
    if len(shot_cuts) and not (shot_cuts.min() >= 0 and shot_cuts.max() <= len(footage)):
        raise InvalidRequestError(f"shot_cuts: a shot begins outside the footage's {len(footage)} frames", field="shot_cuts")
    for name, poses in (("footage_poses", footage[usable]), ("predicted_poses", predicted)):
        if not np.isfinite(poses).all():
            raise InvalidRequestError(f"{name}: values must be finite", field=name)
        if (poses[:, 5] <= 0.0).any():
            raise InvalidRequestError(f"{name}: scales must be positive", field=name)
