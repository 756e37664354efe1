"""Networks and constants that all predictors share, in ONNX Runtime, and a cache of each predictor's own model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import numpy as np

from services.common.array_types import Float32
from services.common.store.network_session import open_network
from services.motion.basis import LandmarkBasis
from services.motion.lag import LagModel
from services.motion.runtime import read_constants, run
from services.motion.style import Style, StyleCode
from services.motion.types import NUM_POINTS

WEIGHTS: Final = Path(__file__).parent / "weights"

OwnModel = TypeVar("OwnModel")


class MotionModels:
    """Landmark basis, style encoder, model of lags, sync network and mean speaker. Calls from several threads are safe.

    The first use of a network loads the network.

    Attributes:
        version: digest of the networks that were exported together with `motion_constants.safetensors`.
        basis: landmark basis of the style.
        lag: filters that the lag of a clip is measured with.
        mean_code: float32 [S], style code of the mean training speaker.
        mean_modulation: float32 [L, 2, C], modulation of the mean training speaker.
    """

    def __init__(self, folder: Path = WEIGHTS, *, threads: int = 1) -> None:
        """Read the constants, and check the files of the shared networks.

        Args:
            threads: threads inside one inference.

        Raises:
            ModelNotFoundError: a file is missing. The message names the file.
            ArtefactCorruptError: a file is damaged. The message names the file.
        """
        named = read_constants(folder / "motion_constants.safetensors")
        self._folder, self._threads = folder, threads
        self.version = named.metadata.get("version", "")
        self.basis = LandmarkBasis.named(named)
        self.lag = LagModel.read(folder)
        self.sync_basis = LandmarkBasis.named(named, "sync_")
        self.mean_code: Float32 = named["mean_code"]
        self.mean_modulation: Float32 = named["mean_modulation"]
        names = ("style_encoder", "sync_audio", "sync_mouth")
        self._style, self._audio, self._mouth = (open_network(folder / f"{name}.onnx", threads) for name in names)
        self._own: dict[Callable[[Path, int], Any], Any] = {}
        self._lock = threading.Lock()

    def own(self, load: Callable[[Path, int], OwnModel]) -> OwnModel:
        """Return a predictor's own model. The first call loads the model, later calls return the same object.

        Args:
            load: makes the model from the folder of the exported models and the number of threads inside one inference.

        Raises:
            ModelNotFoundError: a file of the model is missing.
        """
        with self._lock:
            if load not in self._own:
                self._own[load] = load(self._folder, self._threads)
            return cast("OwnModel", self._own[load])

    @cached_property
    def num_coefficients(self) -> int:
        """K, the number of coefficients of the landmark basis."""
        return len(self.basis.typical_spread)

    @property
    def style_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array that every style holds, by name."""
        return {
            "mean_mouth": (NUM_POINTS, 3),
            "rest_mouth": (NUM_POINTS, 3),
            "closed_mouth": (NUM_POINTS, 3),
            "spread": (self.num_coefficients,),
            "code": self.mean_code.shape,
            "modulation": self.mean_modulation.shape,
        }

    def neutral_style(self) -> Style:
        """Return a style of zeros with the mean speaker's code and modulation."""
        zeros = {name: np.zeros(shape, np.float32) for name, shape in self.style_shapes.items()}
        return Style(**{**zeros, "code": self.mean_code, "modulation": self.mean_modulation}, added={})

    def mean_speaker(self, style: Style) -> Style:
        """Return the person's own mouths with the spread, code and modulation of the mean training speaker (an ablation)."""
        return Style(
            style.mean_mouth,
            style.rest_mouth,
            style.closed_mouth,
            self.basis.typical_spread,
            self.mean_code,
            self.mean_modulation,
        )

    def encode(self, coefficients: Float32) -> StyleCode:
        """Run the style encoder on coefficients in units of the typical spread, float32 [T, K]."""
        code, modulation = run(self._style, coefficients=coefficients[None])
        return StyleCode(code[0], modulation[0])

    def load_sync(self) -> None:
        """Load the sync network now, which otherwise the first lag does.

        Raises:
            ArtefactCorruptError: ONNX Runtime cannot read a file.
        """
        self._audio.loaded()
        self._mouth.loaded()

    def embed_audio(self, rows: Float32) -> Float32:
        """Return sync embeddings of sound: float32 [T, 4, 25] -> unit rows [T, E]. Both ends see silence around them."""
        embedded: Float32 = run(self._audio, heard=rows[None])[0][0]
        return embedded

    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Return sync embeddings of mouths: float32 [T, K] in units of the clip's own spread -> unit rows [T, E]."""
        embedded: Float32 = run(self._mouth, coefficients=coefficients[None])[0][0]
        return embedded


class PredictorModel:
    """Base of a predictor's own networks, beside the networks that all predictors share. Calls from several threads are safe."""

    version: str
    """Digest of the networks."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the networks.

        Args:
            threads: threads inside one inference.

        Raises:
            ModelNotFoundError: a file is missing.
            ArtefactCorruptError: a file is damaged.
        """

    @classmethod
    def of(cls, models: MotionModels) -> Self:
        """Return the model that belongs to the shared networks; the first call loads the model."""
        return models.own(cls)

    @classmethod
    def version_of(cls, models: MotionModels) -> str:
        """Return the digest of the networks that belong to the shared networks."""
        return cls.of(models).version
