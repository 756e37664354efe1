"""Training pairs of the temporal warp: a target sequence, and a sequence retrieved from the same speaker.

As in the paper (Sec. III-C) both sequences are real footage of one speaker. Here the retrieved sequence is searched, not drawn,
so that the errors are the same as in serving. The target sequence is disturbed like the output of a motion predictor.

A bank is made from clips, or parts of clips, of one speaker of the training set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np

from research.training.trainset import CACHE_BYTES, BoundedCache, ClipRow, TrainSet, by_speaker
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ANCHORS, ActorGeometry, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, to_head_space
from services.common.face.mouth_bank import WINDOW, MouthBank, make_bank, target_points, window_costs

BANK_FRAMES: Final = 375
"""Most frames of a bank: as many as five clips of three seconds. An actor's bank in serving has 300."""
_GAP: Final = 1000
"""Distance of the first frames of two parts in a bank. Larger than a part, so no window crosses from one part into another."""
_NAMES: Final = ("landmarks", "scale", "rotation", "translation", "mouth_landmarks", "usable")
CHAIN: Final = 13
"""Frames of a sequence: 5 of past and 8 that are answered."""
_MIN_DISTANCE: Final = 40
_BEST: Final = 10
_TRIES: Final = 50
"""Banks that are tried for one pair before the footage counts as unusable."""
_POOL: Final = 1 << 31
"""Stands in the seeds of pools for the step. No training has as many steps."""
_FRAME_BYTES: Final = 6_400
"""Memory of one frame of a bank without textures, with all that the search adds."""


@dataclass(frozen=True, slots=True)
class ClipPart:
    """Frames `begin` to `end` - 1 of a clip."""

    row: ClipRow
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class BankPlan:
    """Parts of one speaker's clips that make one bank.

    Attributes:
        parts: the parts, at least one.
    """

    parts: tuple[ClipPart, ...]

    @property
    def rows(self) -> tuple[ClipRow, ...]:
        """Rows of the clips."""
        return tuple(part.row for part in self.parts)

    @property
    def weight(self) -> float:
        """How often the bank is drawn, relative to the speaker's other banks: the mean weight of its clips."""
        return sum(row.weight for row in self.rows) / len(self.parts)


def plan_banks(rows: Iterable[ClipRow], *, least_frames: int) -> dict[str, list[BankPlan]]:
    """Return the banks of each speaker. Speakers without a bank are left out.

    Short clips of a speaker share a bank, and long clips are divided, so that every bank has at most BANK_FRAMES frames.

    Args:
        rows: clips with a face. Clips of weight 0 are left out.
        least_frames: least number of usable frames of a bank.
    """
    plans: dict[str, list[BankPlan]] = {}
    for speaker, clips in by_speaker(row for row in rows if row.weight > 0).items():
        banks: list[list[ClipPart]] = [[]]
        for part in (part for row in clips for part in _parts(row)):
            if sum(each.end - each.begin for each in banks[-1]) + part.end - part.begin > BANK_FRAMES:
                banks.append([])
            banks[-1].append(part)
        usable = [BankPlan(tuple(parts)) for parts in banks if sum(map(_usable, parts)) >= least_frames]
        if usable:
            plans[speaker] = usable
    return plans


def read_bank(data: TrainSet, plan: BankPlan) -> MouthBank:
    """Return a bank without textures: training needs only points.

    Raises:
        InvalidRequestError: a file of the training set is missing or damaged, or the clips have no usable frame.
    """
    anchors: list[Float32] = []
    mouth, rotation, index = [], [], []
    for number, part in enumerate(plan.parts):
        arrays = data.arrays(part.row, "track", _NAMES)
        usable = part.begin + np.flatnonzero(arrays["usable"][part.begin : part.end])
        landmarks = arrays["landmarks"][usable][:, list(ANCHORS)]
        turns, shifts = arrays["rotation"][usable], arrays["translation"][usable]
        poses = map(HeadPose, arrays["scale"][usable].tolist(), turns, shifts)
        anchors.extend(to_head_space(points, pose) for points, pose in zip(landmarks, poses, strict=True))
        mouth.append(arrays["mouth_landmarks"][usable])
        rotation.append(turns)
        index.append(number * _GAP + usable - part.begin)
    if not anchors:
        names = ", ".join(row.name for row in plan.rows)
        raise InvalidRequestError(f"{data.folder}: {names}: no usable frame, which contradicts the manifest", field="data")
    all_mouth = np.concatenate(mouth)
    return make_bank(
        np.zeros((len(all_mouth), 0, BOX_SIZE, 3), np.uint8),
        all_mouth,
        np.concatenate(rotation),
        np.concatenate(index),
        measure_geometry(all_mouth, np.stack(anchors)),
    )


def _parts(row: ClipRow) -> list[ClipPart]:
    """Return the parts of a clip: one, or for a long clip as few as possible of nearly equal length."""
    if not row.usable_frames:
        return []
    count = math.ceil(row.frames / BANK_FRAMES)
    bounds = [round(bound) for bound in np.linspace(0, row.frames, count + 1)]
    return [ClipPart(row, begin, end) for begin, end in pairwise(bounds)]


def _usable(part: ClipPart) -> float:
    return part.row.usable_frames * (part.end - part.begin) / part.row.frames


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """Configuration of the drawing of pairs.

    Attributes:
        worse_share: share of pairs whose retrieved sequence is drawn from the ten best sequences. In all other pairs the best is
            taken.
        scale_spread: standard deviation of the factor by which the mouth's motion about the mean is multiplied.
        wobble_px: standard deviation of a slow error of the mouth's shape, head-space pixels.
        jitter_px: standard deviation of white jitter of each point, head-space pixels.
        pool_banks: banks that pairs are drawn from at one time. Reading a bank takes longer than searching the bank.
        pool_steps: steps after which other banks are drawn.
    """

    worse_share: float = 0.3
    scale_spread: float = 0.15
    wobble_px: float = 0.6
    jitter_px: float = 0.15
    pool_banks: int = 64
    pool_steps: int = 50


@dataclass(frozen=True, slots=True)
class Pairs:
    """Control points of N pairs of sequences.

    Attributes:
        target: float32 [N, 13, 86, 2], box pixels.
        source: float32 [N, 13, 86, 2], box pixels.
    """

    target: Float32
    source: Float32


class PairSource:
    """Pairs of the speakers of a training set. Banks are read when they are needed, and kept within bounded memory.

    Args:
        rows: clips with a face. A clip of weight 0 is never drawn.
        config: how pairs are drawn.
        seed: seed of all draws.
        max_bytes: most memory of the banks.

    Raises:
        InvalidRequestError: no speaker has footage that is long enough.
    """

    def __init__(
        self, data: TrainSet, rows: Sequence[ClipRow], config: PairConfig, seed: int, max_bytes: int = CACHE_BYTES
    ) -> None:
        self._config, self._seed = config, seed
        self._speakers = list(plan_banks(rows, least_frames=3 * CHAIN).values())
        self._folder, self._split = data.folder, rows[0].split
        if not self._speakers:
            raise self._too_short()
        weights = [np.array([plan.weight for plan in plans]) for plans in self._speakers]
        self._shares = [each / each.sum() for each in weights]
        self._banks: BoundedCache[BankPlan, MouthBank] = BoundedCache(
            partial(read_bank, data), lambda bank: bank.num_frames * _FRAME_BYTES, max_bytes
        )

    @property
    def clips(self) -> list[ClipRow]:
        """Rows of all clips that pairs may come from."""
        return list({row.name: row for plans in self._speakers for plan in plans for row in plan.rows}.values())

    def pairs(self, count: int, step: int, index: int) -> Pairs:
        """Return the pairs of a batch, always the same for the same seed, step and index. All speakers are equally likely.

        Args:
            count: number of pairs.
            step: step of the training, from 0. Steps of one pool draw from the same banks.
            index: number of the batch within the step.

        Raises:
            InvalidRequestError: the banks hold no two sequences of 13 usable frames in a row that do not overlap.
        """
        pool = self._pool(step // self._config.pool_steps)
        random = np.random.default_rng((self._seed, step, index))
        drawn: list[tuple[Float32, Float32]] = []
        for _ in range(count * _TRIES):
            plan = pool[int(random.integers(len(pool)))]
            pair = draw_pair(self._banks[plan], self._config, random)
            if pair is not None:
                drawn.append(pair)
            if len(drawn) == count:
                target, source = zip(*drawn, strict=True)
                return Pairs(np.stack(target), np.stack(source))
        raise self._too_short()

    def _pool(self, number: int) -> list[BankPlan]:
        random = np.random.default_rng((self._seed, _POOL, number))
        speakers = random.integers(len(self._speakers), size=self._config.pool_banks)
        return [self._speakers[at][int(random.choice(len(self._shares[at]), p=self._shares[at]))] for at in map(int, speakers)]

    def _too_short(self) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._folder}: no speaker of split {self._split!r} has two sequences of {CHAIN} usable frames in a row that do not "
            "overlap; add clips of two seconds or more that show the mouth well",
            field="data",
        )


def draw_pair(bank: MouthBank, config: PairConfig, random: np.random.Generator) -> tuple[Float32, Float32] | None:
    """Return a target and a retrieved sequence of a bank, float32 [13, 86, 2] each, box pixels; None: the bank has no pair.

    The sequences are 40 frames apart, or less in a short bank. They never overlap.
    """
    index = bank.frame_index
    starts = np.flatnonzero(index[CHAIN - 1 :] - index[: 1 - CHAIN] == CHAIN - 1)
    if not len(starts):
        return None
    begin = int(random.choice(starts))
    rows = np.arange(begin, begin + CHAIN)
    mouth = _shaken(bank.mouth[rows], bank.geometry, config, random)
    costs = window_costs(bank, mouth[:WINDOW], bank.rotation[rows[WINDOW - 1]])
    first = bank.window_rows[:, 0]
    apart = min(_MIN_DISTANCE, max(CHAIN, (bank.num_frames - CHAIN) // 2))
    chains = np.isin(first, starts) & (np.abs(index[first] - index[begin]) >= apart)
    if not chains.any():
        return None
    order = np.argsort(np.where(chains, costs, np.inf), kind="stable")[: min(_BEST, int(chains.sum()))]
    best = int(random.choice(order)) if random.random() < config.worse_share else int(order[0])
    retrieved = np.arange(first[best], first[best] + CHAIN)
    poses = [HeadPose(1.0, bank.rotation[row], np.zeros(3)) for row in rows]
    target = np.stack([target_points(points, bank.geometry, pose) for points, pose in zip(mouth, poses, strict=True)])
    return target, bank.control_points[retrieved]


def _shaken(mouth: Float32, geometry: ActorGeometry, config: PairConfig, random: np.random.Generator) -> Float32:
    # These are errors of a predictor: too large or too small a motion, a slow error that neighbouring points share, and a little
    # jitter.
    factor = 1.0 + config.scale_spread * random.standard_normal()
    phase = random.uniform(0, 2 * np.pi, mouth.shape[2])
    speed = random.uniform(0.1, 0.5)
    slow = np.sin(speed * np.arange(len(mouth))[:, None] + phase)[:, None, :]
    shape = mouth.mean(axis=0) - geometry.mean_mouth + random.standard_normal((1, 1, 3)) * 0.3
    wobble = config.wobble_px * slow * (random.standard_normal((1, mouth.shape[1], 3)) * 0.3 + shape / 3.0)
    jitter = config.jitter_px * random.standard_normal(mouth.shape)
    return np.asarray(geometry.mean_mouth + factor * (mouth - geometry.mean_mouth) + wobble + jitter, np.float32)
