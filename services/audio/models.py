"""The stage's loaded models, one for each kind of feature."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.audio.kind import FeatureModel
from services.audio.kinds import KINDS

WEIGHTS: Final = Path(__file__).with_name("weights")


class AudioModels:
    """Loaded models of all kinds. All streams of a process share them: ONNX Runtime sessions may be run concurrently.

    Args:
        weights: folder with `ppg.onnx`, `id_removal.onnx`, `speech_encoder.onnx` and `silero_vad.onnx`.
        threads: threads inside one run of a network. The number does not change a bit of the answers.

    Raises:
        ModelNotFound: a file is missing. The message names the file.
        ArtefactCorrupt: a file is damaged. The message names the file.
    """

    def __init__(self, weights: Path = WEIGHTS, threads: int = 1) -> None:
        self._models = {name: kind.load(weights, threads) for name, kind in KINDS.items()}

    def __getitem__(self, kind: str) -> FeatureModel:
        """Return the model of a kind."""
        return self._models[kind]
