"""The networks that serve: phonetic posteriorgram, ID-removal and the voice activity detector, on ONNX Runtime.

The first two give the same bits for a window whatever the number of windows run at once (a unit test holds that), so batches may
follow the chunks of the stream.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from services.audio.identity import IDENTITY_REMOVED_WIDTH, IDENTITY_WINDOW_ROWS, normal_silence
from services.audio.types import ROWS_PER_VIDEO_FRAME, FloatArray
from services.common.errors import ModelNotFound

WEIGHTS: Final = Path(__file__).with_name("weights")
VOICE_CHUNK_SAMPLES: Final = 512
"""Samples of one decision of the voice activity detector: 32 ms."""
VOICE_CONTEXT_SAMPLES: Final = 64
_VOICE_STATE: Final = (1, 1, 128)
_MAX_WINDOWS: Final = 64
"""Windows run at once: bounds memory, and more brings no speed."""


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise ModelNotFound(f"no model at {path}", resource=str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle worker threads must not spin: the other stages share the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class AudioModels:
    """Loaded networks; shared by all streams of a process, since ONNX Runtime sessions may be run concurrently."""

    def __init__(self, weights: Path = WEIGHTS, threads: int = 1) -> None:
        """Load `ppg.onnx`, `id_removal.onnx` and `silero_vad.onnx`.

        Args:
            weights: the folder with the files.
            threads: threads inside one run of a network; any number gives the same bits.

        Raises:
            ModelNotFound: a file is missing.
        """
        self._ppg = _session(weights / "ppg.onnx", threads)
        self._identity = _session(weights / "id_removal.onnx", threads)
        self._voice = _session(weights / "silero_vad.onnx", 1)

    def posteriorgram(self, windows: FloatArray) -> FloatArray:
        """Phone probabilities, [N, 58, 20] float32 normalised cepstra -> [N, 4, 40] float32, rows sum to 1."""
        parts = [
            self._ppg.run(["probabilities"], {"cepstra": windows[start : start + _MAX_WINDOWS]})[0]
            for start in range(0, len(windows), _MAX_WINDOWS)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 4, 40), np.float32)

    def identity_removed(self, windows: FloatArray) -> FloatArray:
        """Cepstra of the global speaker, [N, 64, 20] float32 normalised cepstra -> [N, 4, 20] float32."""
        parts = [
            self._identity.run(["removed"], {"cepstra": windows[start : start + _MAX_WINDOWS]})[0]
            for start in range(0, len(windows), _MAX_WINDOWS)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, ROWS_PER_VIDEO_FRAME, IDENTITY_REMOVED_WIDTH), np.float32)

    @cached_property
    def silence_removed(self) -> FloatArray:
        """What `identity_removed` answers of digital silence, [4, 20]."""
        return np.asarray(self.identity_removed(normal_silence(IDENTITY_WINDOW_ROWS)[None])[0])

    def new_voice_detector(self) -> VoiceDetector:
        """A detector for one stream; it keeps the network's recurrent state."""
        return VoiceDetector(self._voice)


class VoiceDetector:
    """Speech probability of consecutive chunks of 512 samples (Silero VAD 6.2.3, MIT licence, weights/silero_vad.LICENSE)."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._hidden = np.zeros(_VOICE_STATE, np.float32)
        self._cell = np.zeros(_VOICE_STATE, np.float32)
        self._context = np.zeros(VOICE_CONTEXT_SAMPLES, np.float32)

    def chunks(self, samples: FloatArray) -> FloatArray:
        """Probabilities of the next chunks, [n * 512] float32 at 16 kHz -> [n] float32 in [0, 1]."""
        found = []
        for chunk in samples.reshape(-1, VOICE_CHUNK_SAMPLES):
            if not chunk.any() and not self._context.any():
                # Digital silence is silence; the state stays, so that speech after it is met as if nothing had been.
                found.append(np.zeros(1, np.float32))
                continue
            window = np.concatenate([self._context, chunk])[None]
            probability, self._hidden, self._cell = self._session.run(
                ["speech_probs", "hn", "cn"], {"input": window, "h": self._hidden, "c": self._cell}
            )
            self._context = chunk[-VOICE_CONTEXT_SAMPLES:].copy()
            found.append(probability)
        return np.concatenate(found) if found else np.zeros(0, np.float32)
