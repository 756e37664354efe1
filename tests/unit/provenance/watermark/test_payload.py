"""The error-correcting code of the watermark."""

from __future__ import annotations

import numpy as np

from gateway.provenance.watermark.payload import MESSAGE_BITS, WORD_BITS, decoded, encoded


def test_minimum_distance_twelve() -> None:
    """Words of single bits and of their sums differ in twelve bits or more."""
    words = np.array([encoded(1 << place) for place in range(MESSAGE_BITS)])
    sums = words[:, None] ^ words[None]
    weights = sums[~np.eye(MESSAGE_BITS, dtype=bool)].sum(1)
    assert words.sum(1).min() >= 12
    assert weights.min() >= 12


def test_code_is_linear_systematic() -> None:
    """The code is linear and the word begins with the message."""
    one, other = 0x123456789, 0xABCDEF012
    assert np.array_equal(encoded(one) ^ encoded(other), encoded(one ^ other))
    assert int("".join(map(str, encoded(one)[:MESSAGE_BITS])), 2) == one


def test_two_bit_errors_corrected() -> None:
    """Two wrong bits are corrected however sure they seem."""
    random = np.random.default_rng(1)
    for message in random.integers(0, 1 << MESSAGE_BITS, 20).tolist():
        soft = 2.0 * encoded(message) - 1.0
        soft[random.choice(WORD_BITS, 2, replace=False)] *= -1.0
        assert decoded(soft)[0] == message


def test_ten_weak_wrong_bits_are_corrected() -> None:
    random = np.random.default_rng(2)
    for message in random.integers(0, 1 << MESSAGE_BITS, 20).tolist():
        soft = (2.0 * encoded(message) - 1.0) * random.uniform(0.6, 1.0, WORD_BITS)
        soft[random.choice(WORD_BITS, 10, replace=False)] *= -0.2
        told, word = decoded(soft)
        assert told == message
        assert np.array_equal(word, encoded(message))
