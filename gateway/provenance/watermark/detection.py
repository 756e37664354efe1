"""Search for watermarks in a face: the time of the video, the bits, how sure they are, and where the mark is.

1. Responses. A face moves, and its light changes: most of its energy is at low frequencies in time, and in few patterns of the grid
(exposure, turning of the head, the mouth). So the luma under the bumps is taken on a regular time grid, its slow part is
subtracted, and the rest is whitened over the cells and in time, with the covariances that it has itself. The response is the
correlation with the course of one chip in time: a matched filter in coloured noise, which weights every cell by its reliability.

2. Search for the time of the video: all shifts between the chips of a key and the responses of a face. The picture decides about
the signs too (pattern.py), so each step is compared with the chips of each time.

3. Probability that a video without the watermark looks as if it had one, which decides what counts as found.

4. Confirmation of a public mark (version 3) with the secret of the installation: whether the chips that only the installation can
write are those of the word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from gateway.provenance.watermark.pattern import (
    CELLS,
    CHIP_S,
    COLUMNS,
    PERIOD,
    ROWS,
    ContentSigns,
    Spreading,
    bump,
    bumps,
    confirming_chips,
    public_content,
    public_spreading,
)
from gateway.provenance.watermark.payload import PUBLIC, SECRET, WORD_BITS, Payload, decoded
from services.common.array_types import Array, Float32, Float64, Int64, UInt8
from services.common.face.crops import BOX_SIZE

STEPS_PER_CHIP: Final = 5
"""Steps of the time grid per chip: 25 steps per second."""
STEP_S: Final = CHIP_S / STEPS_PER_CHIP
BLOCK: Final = 250
"""Most steps of a block, whose covariances are measured together."""
LEAST_BLOCK: Final = 25
_SIDE: Final = 40
"""Pixels of the render box in which the luma is projected onto the grid."""
_SLOW_S: Final = 0.6
"""Deviation of the Gaussian in time that takes the slow part, seconds."""
_CELL_FLOOR: Final = 0.05
"""Added to the variances of the cells, of their mean: the covariance is measured on few steps."""
_TIME_FLOOR: Final = 0.1
_MEMORY_S: Final = 3.0
"""Time after which the correlation in time is taken as 0, seconds."""
_DOWN, _ACROSS = bumps(_SIDE)
SHIFTS: Final = PERIOD * STEPS_PER_CHIP
"""Number of shifts that are tried: the steps of one period of the signs."""
_BLOCK: Final = 4096
"""Steps that are compared together, so that long videos take little memory."""
FALSE_ALARM_LOG10: Final = -6.0
"""A mark is found if a video without the mark shows as much with a probability below 10^-6."""
CONFIRMED_LOG10: Final = -4.0
"""A public mark is confirmed if the chips of the secret fit by chance with a probability below 10^-4: by 3.7 standard deviations.

The chips of a genuine mark that is just found fit by about 4.6 standard deviations.
"""
READ_BITS: Final = 60
"""Bits that are right before error correction in a public mark that was read. Of random words, 0.3 % are as near to a code word."""
READ_LOG10: Final = -10.0
"""A public mark with more wrong bits was read if the probability is below 10^-10: then the decoder errs in about 1 of 40 marks."""
_SPAN_STEPS: Final = 50
"""Steps of the window in which spans are looked for: 2 s."""
_SPAN_SIGMA: Final = 4.0


def log10_tail(total: float, terms: int) -> float:
    """Return the decimal logarithm of the probability that the sum of squares of `terms` normal numbers is `total` or more.

    The numbers have a mean of 0 and a variance of 1. This is the tail of the chi-squared distribution with an even number of
    degrees of freedom. Source: Abramowitz and Stegun 1964, 26.4.21.

    Args:
        total: sum of squares, above 0.
        terms: number of squares, even.
    """
    half = 0.5 * total
    logs = [index * math.log(half) - math.lgamma(index + 1) for index in range(terms // 2)]
    highest = max(logs)
    summed = highest + math.log(sum(math.exp(value - highest) for value in logs))
    return min(0.0, (summed - half) / math.log(10.0))


def _lower_face() -> Float64:
    """Return where the masks of dubs lie, float64 [40, 40], 0 to 1: the upper edge is straight, the lower edge half an ellipse."""
    pixel = (np.arange(_SIDE) + 0.5) * (BOX_SIZE / _SIDE) - 0.5
    down, across = pixel[:, None], pixel[None, :]
    radius = np.sqrt(((across - 79.5) / 76.0) ** 2 + (np.maximum(down - 44.0, 0.0) / 78.0) ** 2)
    return np.asarray(np.clip((1.0 - radius) * 10.0, 0.0, 1.0) * np.clip((down - 26.0) / 6.0, 0.0, 1.0), np.float64)


_WEIGHT: Final = _lower_face()
_TEMPLATES: Final = np.einsum("yx,yi,xj->yxij", _WEIGHT, _DOWN, _ACROSS).reshape(_SIDE * _SIDE, CELLS)
_GRAM: Final = _TEMPLATES.T @ _TEMPLATES


def projected(luma: UInt8 | Float32) -> Float32:
    """Return the luma of a render box under the bumps of the grid, float32 [CELLS].

    Args:
        luma: [160, 160], 0 to 255.
    """
    small = cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(_DOWN.T @ (small * _WEIGHT) @ _ACROSS, np.float32).reshape(ROWS * COLUMNS)


def responses(seconds: Float64, luma: Float32) -> tuple[int, Float64]:
    """Return the first step of the time grid, and the responses to chips at every step, float64 [steps, CELLS].

    The sign of a response says the sign of the chip, its size how sure that is. The mean of a chip's response has the chip's sign.

    Args:
        seconds: float64 [N], times of frames, increasing, without gaps; STEP_S * LEAST_BLOCK or longer.
        luma: float32 [N, CELLS], from `projected`.
    """
    first, last = int(np.ceil(seconds[0] / STEP_S - 1e-6)), int(np.floor(seconds[-1] / STEP_S + 1e-6))
    grid = np.arange(first, last + 1) * STEP_S
    later = np.clip(np.searchsorted(seconds, grid), 1, len(seconds) - 1)
    part = np.clip((grid - seconds[later - 1]) / (seconds[later] - seconds[later - 1]), 0.0, 1.0)[:, None]
    values = luma[later - 1] * (1.0 - part) + luma[later] * part
    count = max(1, round(len(grid) / BLOCK))
    edges = np.linspace(0, len(grid), count + 1).astype(int)
    return first, np.concatenate([_of_block(values[begin:end]) for begin, end in zip(edges[:-1], edges[1:], strict=True)])


def _of_block(values: Array) -> Float64:
    steps = len(values)
    fast = _without_slow(steps)
    moving = fast @ values
    whitened = moving @ np.linalg.solve(_floored(moving.T @ moving / steps, _CELL_FLOOR), _GRAM)
    level = np.sqrt((whitened**2).mean(0)) + 1e-9
    # A frame that stands out by far, such as at a cut that the tracker did not see, must not outweigh all others.
    whitened = np.clip(whitened, -4.0 * level, 4.0 * level)
    index = np.arange(steps)
    correlation = np.array([(whitened[lag:] / level * (whitened[: steps - lag] / level)).sum() for lag in index]) / (steps * CELLS)
    correlation *= np.clip(1.0 - index * STEP_S / _MEMORY_S, 0.0, 1.0)
    over_time = _floored(correlation[np.abs(index[:, None] - index)], _TIME_FLOOR)
    courses = fast @ bump((index[:, None] - index) / STEPS_PER_CHIP)
    return np.asarray(np.linalg.solve(over_time, courses).T @ whitened, np.float64)


def _without_slow(steps: int) -> Float64:
    """Return the matrix, float64 [steps, steps], that subtracts the weighted mean of the neighbourhood in time."""
    index = np.arange(steps)
    near = np.exp(-0.5 * ((index[:, None] - index) * STEP_S / _SLOW_S) ** 2)
    return np.asarray(np.eye(steps) - near / near.sum(1, keepdims=True), np.float64)


def _floored(covariance: Float64, floor: float) -> Float64:
    """Return a covariance with a part of its mean variance added to every variance."""
    mean = float(np.trace(covariance)) / len(covariance)
    return np.asarray(covariance + (floor * mean + 1e-9) * np.eye(len(covariance)), np.float64)


def seen_spans(seconds: Float64, starts: Sequence[int]) -> list[slice]:
    """Return the parts of a face's frames in which the face is seen without a gap.

    Args:
        seconds: float64 [N], times of the frames, increasing.
        starts: indices of frames that begin a shot.
    """
    gaps = np.flatnonzero(np.diff(seconds) > 5.0 * STEP_S) + 1
    edges = sorted({0, len(seconds), *gaps.tolist(), *starts})
    return [
        slice(begin, end)
        for begin, end in zip(edges[:-1], edges[1:], strict=True)
        if seconds[end - 1] - seconds[begin] >= LEAST_BLOCK * STEP_S
    ]


@dataclass(frozen=True, slots=True)
class ResponseSpan:
    """Responses of a face that is seen without a gap.

    Attributes:
        first: step of the time grid of the first row.
        responses: float64 [steps, CELLS], from gateway.provenance.watermark.detection.responses.
        pictures: uint8 [steps, PIXELS], from gateway.provenance.watermark.pattern.at_first_frames.
    """

    first: int
    responses: Float64 = field(repr=False)
    pictures: UInt8 = field(repr=False)


@dataclass(frozen=True, slots=True)
class ShiftedBits:
    """The bits at one shift of the time grid.

    Attributes:
        shift: step of the time grid at which the chips begin.
        bits: float64 [64], the bits of the word in standard deviations; above 0: 1.
        total: sum of the squares of the bits.
    """

    shift: int
    bits: Float64 = field(repr=False)
    total: float


class ContentSearch:
    """Search for the chips of one key."""

    def __init__(self, spreading: Spreading, content: ContentSigns) -> None:
        self._content = content
        self._carries = (spreading.bit[:, :, None] == np.arange(WORD_BITS)).astype(np.float64)
        self._signed = self._carries * spreading.sign[:, :, None]

    def best_shift(self, parts: Sequence[ResponseSpan]) -> ShiftedBits:
        """Return the shift with the largest sum of squared bits.

        Under a wrong key, the signs of all chips are random. Every bit is a sum of numbers with random signs, divided by the root
        of the sum of their squares, so the variance of the bit is 1, whatever the video shows. A response counts as much as the
        signs of the picture are sure. These do not depend on the signs of the chips.

        Args:
            parts: responses of a face, one part or more.
        """
        sums, energy = np.zeros((SHIFTS, WORD_BITS)), np.zeros((SHIFTS, WORD_BITS))
        for part in parts:
            soft = self._content.soft(part.pictures)
            for begin in range(0, len(soft), _BLOCK):
                block = slice(begin, begin + _BLOCK)
                steps = part.first + begin + np.arange(len(soft[block]))
                for turn in range(PERIOD):
                    weights = self._content.weights(soft[block], np.full(len(steps), turn))
                    weighted = part.responses[block] * weights
                    shifts = (steps - turn * STEPS_PER_CHIP) % SHIFTS
                    np.add.at(sums, shifts, weighted @ self._signed[turn])
                    np.add.at(energy, shifts, weighted**2 @ self._carries[turn])
        bits = sums / np.sqrt(np.maximum(energy, 1e-30))
        totals = (bits**2).sum(1)
        shift = int(np.argmax(totals))
        return ShiftedBits(shift, bits[shift], float(totals[shift]))

    def compared(self, part: ResponseSpan, shift: int) -> Float64:
        """Return what is compared with the chips of a word at a shift, float64 [steps, CELLS]."""
        soft = self._content.soft(part.pictures)
        return part.responses * self._content.weights(soft, chip_steps(part, shift))


def chip_steps(part: ResponseSpan, shift: int) -> Int64:
    """Return the number of the step of chips that each row of a part is compared with, int64 [steps], 0 to PERIOD - 1."""
    steps = part.first + np.arange(len(part.responses))
    return np.asarray((steps - shift) // STEPS_PER_CHIP % PERIOD, np.int64)


@dataclass(frozen=True, slots=True)
class Finding:
    """The watermark of a face, or the best that looks like one.

    Attributes:
        log10_chance: decimal logarithm of the probability that a face without the mark shows as much.
        soft: float64 [64], the bits of the word in standard deviations; above 0: 1.
        payload: what the mark says after error correction.
        version: version of the watermark, PUBLIC or SECRET; 0: it was not read right. A mark was read right if the payload names
            the key, a public mark also if READ_BITS bits or more agree or log10_chance is below READ_LOG10.
        own: whether the payload names the key. False without a key.
        agreeing: how many of the 64 bits were read right before error correction, if the payload is right.
        spans: [begin, end) in seconds of the video, where the mark is.
        log10_forged: of a public mark that names the key, decimal logarithm of the probability that somebody without the key writes
            chips that fit the key as well; 0 for all other marks.
    """

    log10_chance: float
    soft: Float64 = field(repr=False)
    payload: Payload
    version: int
    own: bool
    agreeing: int
    spans: tuple[tuple[float, float], ...]
    log10_forged: float = 0.0

    @property
    def found(self) -> bool:
        """Whether the face has the mark."""
        return self.log10_chance < FALSE_ALARM_LOG10

    @property
    def right(self) -> bool:
        """Whether the payload was read right."""
        return self.version > 0

    @property
    def confirmed(self) -> bool:
        """Whether the installation of the key wrote the mark, or somebody copied the mark to a picture that looks the same."""
        return self.own and (self.version != PUBLIC or self.log10_forged < CONFIRMED_LOG10)


class Detector:
    """Looks for public marks in faces, and for all marks of one key.

    Args:
        key: secret of the installation, 32 bytes; None: only public marks are looked for, of all installations.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self._spreadings = {PUBLIC: public_spreading()}
        self._searches = {PUBLIC: ContentSearch(public_spreading(), public_content())}
        if key is not None:
            secret = Spreading.of_key(key)
            self._content = ContentSigns.of_key(key)
            self._spreadings[SECRET] = secret
            self._searches[SECRET] = ContentSearch(secret, self._content)

    def find(self, parts: Sequence[ResponseSpan], *, trials: int = 1) -> Finding | None:
        """Return the likeliest mark in one face; None: there are no parts.

        The time at which the video was cut is unknown, so every shift of the time grid is tried, in all parts together and, because
        somebody may have cut parts out, in each part alone.

        Args:
            parts: responses of the face.
            trials: number of faces that are looked at.
        """
        if not parts:
            return None
        choices = [list(parts), *([part] for part in parts if len(parts) > 1)]
        candidates = [
            (search.best_shift(choice), version, choice) for version, search in self._searches.items() for choice in choices
        ]
        best, version, choice = max(candidates, key=lambda each: each[0].total)
        chance = log10_tail(best.total, WORD_BITS) + np.log10(SHIFTS * len(candidates) * trials)
        message, word = decoded(best.bits)
        payload = Payload.of_message(message)
        agreeing = int(((best.bits > 0) == (word > 0)).sum())
        own = self._key is not None and payload.version(self._key) == version
        read = own or (version == PUBLIC and (agreeing >= READ_BITS or chance < READ_LOG10))
        return Finding(
            log10_chance=min(0.0, float(chance)),
            soft=best.bits,
            payload=payload,
            version=version if read else 0,
            own=own,
            agreeing=agreeing,
            spans=_spans(parts, self._searches[version], best.shift, self._spreadings[version].chips(word)),
            log10_forged=self._log10_forged(choice, best.shift, word) if own and version == PUBLIC else 0.0,
        )

    def _log10_forged(self, parts: Sequence[ResponseSpan], shift: int, word: UInt8) -> float:
        """Return the decimal logarithm of the probability that chips which somebody without the key wrote fit the key as well."""
        assert self._key is not None
        chips = confirming_chips(self._key, word)
        agreed, energy = 0.0, 1e-30
        for part in parts:
            steps = part.first + np.arange(len(part.responses))
            middle = (steps - shift) % STEPS_PER_CHIP == 0
            weights = self._content.weights(self._content.soft(part.pictures), chip_steps(part, shift))
            products = (part.responses * weights * chips[chip_steps(part, shift)])[middle]
            agreed, energy = agreed + float(products.sum()), energy + float((products**2).sum())
        sigma = agreed / math.sqrt(energy)
        # The tail of the normal distribution; beyond 37 deviations it is 0 in floating point.
        return math.log10(0.5 * math.erfc(min(sigma, 37.0) / math.sqrt(2.0)))


def _spans(parts: Sequence[ResponseSpan], search: ContentSearch, shift: int, chips: Float64) -> tuple[tuple[float, float], ...]:
    """Return where the responses follow chips, float64 [PERIOD, CELLS], 1, -1 or 0; seconds [begin, end) in order."""
    spans: list[tuple[float, float]] = []
    for part in parts:
        steps = part.first + np.arange(len(part.responses))
        at_chip = (steps - shift) % STEPS_PER_CHIP == 0
        compared = search.compared(part, shift)
        products = compared * chips[chip_steps(part, shift)]
        agreed, energy = np.where(at_chip, products.sum(1), 0.0), np.where(at_chip, (products**2).sum(1), 0.0)
        window = np.ones(min(_SPAN_STEPS, len(steps)))
        sigma = np.convolve(agreed, window, "same") / np.sqrt(np.maximum(np.convolve(energy, window, "same"), 1e-30))
        inside = np.concatenate([[False], sigma > _SPAN_SIGMA, [False]])
        edges = np.flatnonzero(np.diff(inside.astype(np.int8)))
        begins, ends = edges[::2], edges[1::2]
        spans += [
            (float((part.first + begin) * STEP_S), float((part.first + end) * STEP_S))
            for begin, end in zip(begins, ends, strict=True)
        ]
    return tuple(sorted(spans))
