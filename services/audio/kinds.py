"""The kinds of features that the stage computes, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.audio.identity_removal.kind import IDENTITY_REMOVED
from services.audio.kind import Kind
from services.audio.posteriorgram import POSTERIORGRAM
from services.audio.spectral import MEL, MFCC
from services.audio.speech_encoder.kind import SPEECH_STATES, SPEECH_STATES_LIVE
from services.audio.voice import SPEECH_PROBABILITY

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (MEL, MFCC, POSTERIORGRAM, SPEECH_PROBABILITY, IDENTITY_REMOVED, SPEECH_STATES, SPEECH_STATES_LIVE)
    }
)
"""Kinds by name."""
ALL_KINDS: Final = frozenset(KINDS)
