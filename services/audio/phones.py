"""The phone set of the product: 39 ARPAbet phones (CMU dictionary, without stress) and silence, with their mouth shapes.

The order of `PHONES` is part of the contract: it is the class axis of every phonetic posteriorgram.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PHONES: Final[tuple[str, ...]] = (
    "SIL",
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY",
    "F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P",
    "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""Class i of a posteriorgram is `PHONES[i]`; class 0 is silence (also breath and every non-speech sound)."""

NUM_PHONES: Final[int] = len(PHONES)
SILENCE: Final[int] = 0
PHONE_INDEX: Final[Mapping[str, int]] = MappingProxyType({phone: index for index, phone in enumerate(PHONES)})

BILABIALS: Final[tuple[str, ...]] = ("P", "B", "M")
"""Phones on which the lips touch; viewers notice at once when they do not."""
LABIODENTALS: Final[tuple[str, ...]] = ("F", "V")
ROUNDED: Final[tuple[str, ...]] = ("AO", "AW", "CH", "ER", "JH", "OW", "OY", "R", "SH", "UH", "UW", "W", "ZH")

VISEMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "silence": ("SIL",),
        "bilabial": BILABIALS,
        "labiodental": LABIODENTALS,
        "dental": ("TH", "DH"),
        "alveolar": ("T", "D", "N", "S", "Z", "L"),
        "postalveolar": ("SH", "ZH", "CH", "JH"),
        "velar": ("K", "G", "NG", "HH"),
        "approximant": ("R", "ER"),
        "rounded": ("W", "UW", "UH", "OW", "OY"),
        "open_rounded": ("AO", "AW"),
        "open": ("AA", "AE", "AY", "AH"),
        "mid": ("EH", "EY"),
        "spread": ("IY", "IH", "Y"),
    }
)
"""Groups of phones that look alike on the lips; every phone is in exactly one group."""

VISEME_OF_PHONE: Final[tuple[int, ...]] = tuple(
    next(group for group, members in enumerate(VISEMES.values()) if phone in members) for phone in PHONES
)
"""Index into `tuple(VISEMES)` for each class of `PHONES`."""
