"""The stage's networks in ONNX Runtime, and the arrays that go with them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from services.common.head_pose_vectors import POSE_SIZE
from services.motion.basis import LandmarkBasis
from services.motion.expression_model import ExpressionModel
from services.motion.expression_window import NUM_POOLED_WINDOW
from services.motion.head_motion_model import HeadMotionModel
from services.motion.head_rhythm import NUM_SIGNALS
from services.motion.head_style import NUM_KNOTS
from services.motion.pooled_speech import NUM_POOLED
from services.motion.runtime import read_constants, run, session
from services.motion.style import Style, StyleCode
from services.motion.types import NUM_POINTS, Float32

WEIGHTS: Final = Path(__file__).parent / "weights"
MODEL_NAMES: Final = ("style_encoder", "motion", "sync_audio", "sync_mouth")


class MotionModels:
    """Networks and constants of the predictor `ugc` and of the sync detector. Calls from several threads are safe.

    Args:
        folder: where the exported models lie.
        threads: threads inside one inference.

    Raises:
        ModelNotFound: a file is missing.
    """

    def __init__(self, folder: Path = WEIGHTS, *, threads: int = 1) -> None:
        named = read_constants(folder / "motion_constants.safetensors")
        self._folder, self._threads = folder, threads
        self.version = named.metadata.get("version", "")
        self.basis = LandmarkBasis.named(named)
        self.sync_basis = LandmarkBasis.named(named, "sync_")
        self.mean_code: Float32 = named["mean_code"]
        self.mean_modulation: Float32 = named["mean_modulation"]
        self._style, self._motion, self._audio, self._mouth = (session(folder / f"{name}.onnx", threads) for name in MODEL_NAMES)

    @cached_property
    def num_coefficients(self) -> int:
        """K, coefficients of the landmark basis."""
        return len(self.basis.typical_spread)

    @cached_property
    def expression(self) -> ExpressionModel:
        """The predictor of `everybody`, read when it is first asked for."""
        return ExpressionModel(self._folder, threads=self._threads)

    @cached_property
    def head_motion(self) -> HeadMotionModel:
        """The predictor of `headpose`, read when it is first asked for."""
        return HeadMotionModel(self._folder, threads=self._threads)

    def optional_style_shapes(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Shape of each array that a style has only where it was personalised, or encoded for `headpose`.

        Args:
            names: the arrays that are there; networks of other methods are read only where one of these is theirs.
        """
        own: dict[str, tuple[int, ...]] = {"landmark_correction": (self.num_coefficients, NUM_POOLED)}
        if {*self.style_shapes, *own}.issuperset(names):
            return own
        return {
            **own,
            "expression_correction": (len(self.expression.basis.typical_spread), NUM_POOLED_WINDOW),
            "pose_reference": (POSE_SIZE,),
            "pose_quantiles": (POSE_SIZE, NUM_KNOTS),
            "pose_mixing": (POSE_SIZE, POSE_SIZE),
            "pose_steps": (POSE_SIZE,),
            "pose_weights": (POSE_SIZE, NUM_SIGNALS),
            "spoken_correction": (len(self.head_motion.basis.typical_spread), NUM_POOLED),
        }

    @property
    def style_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of a style that fits these networks."""
        return {
            "mean_mouth": (NUM_POINTS, 3),
            "rest_mouth": (NUM_POINTS, 3),
            "closed_mouth": (NUM_POINTS, 3),
            "spread": (self.num_coefficients,),
            "code": self.mean_code.shape,
            "modulation": self.mean_modulation.shape,
        }

    def neutral_style(self) -> Style:
        """A style of zeros with the mean speaker's modulation: for warm-up."""
        zeros = {name: np.zeros(shape, np.float32) for name, shape in self.style_shapes.items()}
        return Style(**{**zeros, "code": self.mean_code, "modulation": self.mean_modulation})

    def encode(self, coefficients: Float32) -> StyleCode:
        """Style encoder on coefficients in units of the typical spread, float32 [T, K]."""
        code, modulation = run(self._style, coefficients=coefficients[None])
        return StyleCode(code[0], modulation[0])

    def predict(self, content: Float32, modulation: Float32) -> Float32:
        """Motion of the frame WINDOW_PAST of one window: coefficients float32 [K] in units of the person's spread.

        One window a call, always: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            content: float32 [WINDOW, 4, 44], see features.content_rows.
            modulation: float32 [L, 2, C].
        """
        coefficients: Float32 = run(self._motion, content=content[None], modulation=modulation[None])[0][0]
        return coefficients

    def embed_audio(self, heard: Float32) -> Float32:
        """Sync embeddings of sound: float32 [T, 4, 25] -> unit rows [T, E]; edges see silence around."""
        embedded: Float32 = run(self._audio, heard=heard[None])[0][0]
        return embedded

    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Sync embeddings of mouths: float32 [T, K] in units of the clip's own spread -> unit rows [T, E]."""
        embedded: Float32 = run(self._mouth, coefficients=coefficients[None])[0][0]
        return embedded
