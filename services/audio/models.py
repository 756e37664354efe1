"""Kinds of features that the stage computes, and their loaded models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from services.audio.identity_removal import IDENTITY_REMOVED
from services.audio.posteriorgram import POSTERIORGRAM
from services.audio.spectral import MEL, MFCC
from services.audio.speech_encoder import SPEECH_STATES, SPEECH_STATES_LIVE
from services.audio.types import FeatureKind, FeatureModel
from services.audio.voice_activity import SPEECH_PROBABILITY

KINDS: Final[Mapping[str, FeatureKind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (MEL, MFCC, POSTERIORGRAM, SPEECH_PROBABILITY, IDENTITY_REMOVED, SPEECH_STATES, SPEECH_STATES_LIVE)
    }
)
"""Kinds by name."""
ALL_KINDS: Final = frozenset(KINDS)


WEIGHTS: Final = Path(__file__).with_name("weights")


class AudioModels:
    """Models of all kinds. All streams of a process share them: sessions of networks may be run concurrently.

    The first use of a network loads the network.

    Args:
        weights: folder with `ppg.onnx`, `id_removal.onnx`, `speech_encoder.onnx` and `silero_vad.onnx`.
        threads: threads inside one run of a network. The number does not change a bit of the answers.

    Raises:
        ModelNotFoundError: a file is missing. The message names the file.
        ArtefactCorruptError: a file is damaged. The message names the file.
    """

    def __init__(self, weights: Path = WEIGHTS, threads: int = 1) -> None:
        self._models = {name: kind.load(weights, threads) for name, kind in KINDS.items()}

    def __getitem__(self, kind: str) -> FeatureModel:
        """Return the model of a kind."""
        return self._models[kind]
