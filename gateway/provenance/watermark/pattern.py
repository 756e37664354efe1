"""Pattern of the watermark: a grid of smooth bumps in the render box, the chips of keys, and signs that the picture decides.

The mark is a picture of the render box that changes with the video's time t:

    mark(y, x, t) = AMPLITUDE * sum over i, j, k of  sign[k, i, j] * bump(y / DY - i) * bump(x / DX - j) * bump(t / CHIP_S - k)

bump(u) = cos^2(pi u / 2) for |u| < 1. Neighbouring bumps add up to 1, so that equal signs make a flat field, and the mark is never
above AMPLITUDE. In every frame, the mark is multiplied by a strength of 0.5 to 1 (embedding.py). A triple (k, i, j) is a *chip*.
The signs repeat after PERIOD chips of time. A key decides which bit of the word each chip carries, and with which sign.

In versions 1 and 2, this key is a secret of the installation. In version 3, it is PUBLIC_KEY, so that anybody can read the word.
There, CONFIRMING chips of every step carry no bit. Their signs follow from the installation's secret and the word: without the
secret, nobody can write them, and nobody can give another word to a video that has them.

A mark must not be found when somebody copies it to another picture. So the sign of every chip is multiplied by the signs of FACTORS
numbers. Each number is the product of the picture around the jaw with a smooth secret pattern: dubbing does not change this part of
the picture, and re-encoding changes few of the signs. The picture is the mean of the last moments, so that the tracker's noise
matters little. Source: Fridrich and Goljan 2000, "Robust hash functions for digital watermarking", for signs of products with
smooth secret patterns.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import cv2
import numpy as np

from gateway.provenance.watermark.payload import WORD_BITS
from services.common.array_types import Array, Float32, Float64, Int64, UInt8
from services.common.face.crops import BOX_SIZE

ROWS: Final = 8
COLUMNS: Final = 12
TOP, BOTTOM, LEFT, RIGHT = 28.0, 124.0, 12.0, 148.0
"""Rectangle of the grid, box pixels: the lower face."""
PERIOD: Final = 64
"""Chips of time after which the signs repeat: 12.8 s."""
CHIP_S: Final = 0.2
"""Seconds from one chip to the next. Slower chips are hidden by the motion of the face, faster ones could be seen to flicker."""
AMPLITUDE: Final = 3.2
"""Largest change of a luma sample at full strength, of 255."""
_DY: Final = (BOTTOM - TOP) / ROWS
_DX: Final = (RIGHT - LEFT) / COLUMNS
CELLS: Final = ROWS * COLUMNS
_CHIPS: Final = PERIOD * CELLS
PUBLIC_KEY: Final = hashlib.sha256(b"dubstage public watermark 3").digest()
"""Key of the marks that anybody can read. The key of every installation: it is no secret."""
CONFIRMING: Final = 16
"""Chips of a step of a public mark that only the installation can write."""
_GROUP: Final = 4
"""Steps in which the chips of all bits of a public mark are equally many."""
FACTORS: Final = 3
"""Signs that the sign of a chip is multiplied by. With more of them, two people agree less, and so does a video with its copies."""
_PATTERNS: Final = 256
_SIDE: Final = 20
"""Pixels of the picture that is multiplied with the patterns."""
PIXELS: Final = _SIDE * _SIDE
_SMOOTH: Final = 1.5
"""Deviation of the Gaussian that smooths the patterns, pixels: 12 pixels of the render box."""
_LOCAL: Final = 5.0
"""Deviation of the Gaussian whose mean is subtracted from the patterns, pixels: light that changes slowly over the face is left
out."""
_LENGTH: Final = 4096.0
"""Root of the sum of the squares of a pattern."""
_MEMORY_S: Final = 0.5
"""Time constant of the mean of the last moments, seconds."""
_SURE: Final = 0.2
"""Numbers above this part of their deviation count as sure. The sign of a smaller number may be another one after re-encoding."""


def bump(positions: Array) -> Float64:
    """Return cos^2(pi u / 2) of positions u, and 0 where |u| >= 1."""
    return np.where(np.abs(positions) < 1.0, np.cos(0.5 * np.pi * positions) ** 2, 0.0)


def bumps(side: int) -> tuple[Float64, Float64]:
    """Return the bumps of rows, float64 [side, ROWS], and of columns, float64 [side, COLUMNS], in a render box of `side` pixels."""
    pixel = (np.arange(side) + 0.5) * (BOX_SIZE / side) - 0.5
    down = (pixel[:, None] - TOP) / _DY - 0.5 - np.arange(ROWS)
    across = (pixel[:, None] - LEFT) / _DX - 0.5 - np.arange(COLUMNS)
    return bump(down), bump(across)


@dataclass(frozen=True, slots=True, eq=False)
class Spreading:
    """Chips of a key. Somebody without the key sees no difference from noise.

    Attributes:
        bit: int64 [PERIOD, CELLS], bit of the word that a chip carries; -1: the chip carries none. Every bit has three chips in two
            chips of time with a secret key, and five chips in four with PUBLIC_KEY.
        sign: float64 [PERIOD, CELLS], 1 or -1: the chip's sign where the bit is 1.
    """

    bit: Int64 = field(repr=False)
    sign: Float64 = field(repr=False)

    @classmethod
    def of_key(cls, key: bytes) -> Spreading:
        """Return the chips of a secret key of 32 bytes."""
        order = noise(key, b"bits", 8 * _CHIPS).view("<u8").reshape(-1, 3 * WORD_BITS)
        # Three chips of every bit, in the order of random numbers.
        bits = np.argsort(order, axis=1, kind="stable") % WORD_BITS
        return cls(bits.reshape(PERIOD, CELLS).astype(np.int64), _signs(key, b"signs"))

    def chips(self, word: UInt8) -> Float64:
        """Return the chips of a word, float64 [PERIOD, CELLS], 1 or -1; 0 where a chip carries no bit.

        Args:
            word: uint8 [64] of 0 and 1.
        """
        return np.where(self.bit < 0, 0.0, self.sign * (2.0 * word - 1.0)[self.bit])


@cache
def public_spreading() -> Spreading:
    """Return the chips that anybody can read."""
    order = noise(PUBLIC_KEY, b"shares", 8 * _CHIPS).view("<u8").reshape(PERIOD, CELLS)
    readable = np.argsort(np.argsort(order, axis=1, kind="stable"), axis=1, kind="stable") >= CONFIRMING
    count = _GROUP * (CELLS - CONFIRMING)
    draws = noise(PUBLIC_KEY, b"bits", 8 * PERIOD // _GROUP * count).view("<u8").reshape(-1, count)
    bit = np.full((PERIOD, CELLS), -1, np.int64)
    bit[readable] = (np.argsort(draws, axis=1, kind="stable") % WORD_BITS).ravel()
    return Spreading(bit, _signs(PUBLIC_KEY, b"signs"))


def confirming_chips(key: bytes, word: UInt8) -> Float64:
    """Return the chips of a public mark that only the installation can write, float64 [PERIOD, CELLS], 1 or -1; 0: other chips.

    Args:
        key: secret of the installation, 32 bytes.
        word: uint8 [64] of 0 and 1.
    """
    return np.where(public_spreading().bit < 0, _signs(key, b"confirmation" + word.tobytes()), 0.0)


def _signs(key: bytes, purpose: bytes) -> Float64:
    """Return random signs that follow from a key, float64 [PERIOD, CELLS], 1 or -1."""
    ones = np.unpackbits(noise(key, purpose, _CHIPS // 8)).astype(np.float64)
    return np.asarray(2.0 * ones.reshape(PERIOD, CELLS) - 1.0, np.float64)


def noise(key: bytes, purpose: bytes, count: int) -> UInt8:
    """Return random numbers that follow from a key, uint8 [count]."""
    return np.frombuffer(hashlib.shake_256(key + purpose).digest(count), np.uint8)


def _around_the_jaw() -> Float64:
    """Return the weight of every pixel, float64 [20, 20]: 0 in an ellipse of 100 x 110 box pixels at mouth and chin, 1 outside."""
    pixel = (np.arange(_SIDE) + 0.5) * (BOX_SIZE / _SIDE) - 0.5
    radius = ((pixel[:, None] - 85.0) / 55.0) ** 2 + ((pixel[None, :] - 80.0) / 50.0) ** 2
    return np.asarray(cv2.GaussianBlur((radius > 1.0).astype(np.float64), (0, 0), 0.7), np.float64)


_WEIGHT: Final = _around_the_jaw()


def reduced(luma: UInt8) -> UInt8:
    """Return a render box as the picture that is multiplied with the patterns, uint8 [PIXELS].

    Args:
        luma: uint8 [160, 160].
    """
    return np.asarray(cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8).reshape(PIXELS)


class RecentMean:
    """Mean of the pictures of the last moments, frame by frame in the order of the video."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._mean: Float64 | None = None

    def with_frame(self, seconds: float, picture: UInt8) -> UInt8:
        """Return the mean up to the next frame, uint8 [PIXELS]: whole numbers, so that processors that round differently agree.

        Args:
            seconds: time of the frame since the first frame of the video.
            picture: from `reduced`.
        """
        share = 1.0 - math.exp(-max(0.0, seconds - self._seconds) / _MEMORY_S)
        self._seconds = seconds
        self._mean = picture.astype(np.float64) if self._mean is None else self._mean + share * (picture - self._mean)
        return np.rint(self._mean).astype(np.uint8)


def at_first_frames(seconds: Float64, means: UInt8, grid: Float64) -> UInt8:
    """Return the picture that decided the sign of a chip whose middle is at each time of a grid, uint8 [times, PIXELS].

    Args:
        seconds: float64 [N], times of frames, increasing.
        means: uint8 [N, PIXELS], of every frame, from `RecentMean`.
        grid: float64 [times], seconds.
    """
    first = np.searchsorted(seconds, grid - CHIP_S - 1e-6)
    return np.asarray(means[np.minimum(first, len(means) - 1)], np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class ContentSigns:
    """Signs of a key and a picture.

    Attributes:
        patterns: float64 [256, PIXELS], whole numbers, so that products with pictures are exact on every processor.
        picks: int64 [FACTORS, PERIOD, CELLS], patterns whose signs a chip is multiplied by.
    """

    patterns: Float64 = field(repr=False)
    picks: Int64 = field(repr=False)

    @classmethod
    def of_key(cls, key: bytes) -> ContentSigns:
        """Return the patterns of a key of 32 bytes, and which chip takes which."""
        random = noise(key, b"patterns", _PATTERNS * PIXELS).astype(np.float64).reshape(_PATTERNS, _SIDE, _SIDE) - 127.5
        patterns = np.empty_like(random)
        for pattern, values in zip(patterns, random, strict=True):
            smooth = cv2.GaussianBlur(values, (0, 0), _SMOOTH) * _WEIGHT
            smooth -= _WEIGHT * (smooth.sum() / _WEIGHT.sum())
            pattern[:] = smooth - cv2.GaussianBlur(smooth, (0, 0), _LOCAL)
        # Brightness alone decides nothing.
        patterns -= patterns.mean((1, 2), keepdims=True)
        patterns *= _LENGTH / np.sqrt((patterns**2).sum((1, 2), keepdims=True))
        picks = noise(key, b"picks", FACTORS * PERIOD * CELLS).astype(np.int64).reshape(FACTORS, PERIOD, CELLS)
        return cls(np.rint(patterns).reshape(_PATTERNS, PIXELS), picks)

    def of_chips(self, picture: UInt8, step: int) -> Float64:
        """Return the signs by which the chips of one step are multiplied, float64 [CELLS], 1 or -1.

        Args:
            picture: from `RecentMean`.
            step: number of the step.
        """
        above = np.where(self.patterns @ picture.astype(np.float64) > 0.0, 1.0, -1.0)
        return np.asarray(above[self.picks[:, step % PERIOD]].prod(0), np.float64)

    def soft(self, pictures: UInt8) -> Float32:
        """Return the sign of every pattern as far as it is sure, float32 [N, 256], -1 to 1.

        Args:
            pictures: uint8 [N, PIXELS].
        """
        numbers = pictures.astype(np.float64) @ self.patterns.T
        sure = _SURE * float(np.sqrt((numbers**2).mean())) + 1e-9
        return np.asarray(np.clip(numbers / sure, -1.0, 1.0), np.float32)

    def weights(self, soft: Float32, steps: Int64) -> Float32:
        """Return by how much responses are multiplied, float32 [N, CELLS], -1 to 1.

        Args:
            soft: float32 [N, 256], from `soft`.
            steps: int64 [N], number of the step whose chips each row is compared with.
        """
        return np.asarray(
            np.prod([np.take_along_axis(soft, pick[steps % PERIOD], axis=1) for pick in self.picks], axis=0), np.float32
        )


@cache
def public_content() -> ContentSigns:
    """Return the signs of PUBLIC_KEY and a picture."""
    return ContentSigns.of_key(PUBLIC_KEY)
