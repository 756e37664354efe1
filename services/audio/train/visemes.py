"""Mouth shapes of phones, for the evaluation of the phone network."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.common.wire.phones import PHONES

BILABIALS: Final[tuple[str, ...]] = ("P", "B", "M")
"""Phones on which the lips touch. Viewers notice at once when the lips do not."""

VISEMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "silence": ("SIL",),
        "bilabial": BILABIALS,
        "labiodental": ("F", "V"),
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
"""Groups of phones that look alike on the lips. Every phone is in exactly one group."""

VISEME_OF_PHONE: Final[tuple[int, ...]] = tuple(
    next(group for group, members in enumerate(VISEMES.values()) if phone in members) for phone in PHONES
)
"""Index into `tuple(VISEMES)` for each class of `PHONES`."""
