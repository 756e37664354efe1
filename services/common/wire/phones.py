"""The phone set of the product: 39 ARPAbet phones (CMU dictionary, without stress) and silence.

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
"""Class i of a posteriorgram is `PHONES[i]`. Class 0 is silence, breath and every other sound that is no speech."""

NUM_PHONES: Final[int] = len(PHONES)
SILENCE: Final[int] = 0
PHONE_INDEX: Final[Mapping[str, int]] = MappingProxyType({phone: index for index, phone in enumerate(PHONES)})
