"""What a self-re-enactment is given, and the ways to draw a clip that a renderer lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.render.backends.base import Backend
from services.render.backends.registry import ModelFile
from services.render.pairs import BASE, Pair
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.train.held_out import Clip
from services.render.train.shown import Faces, Shown
from services.render.types import PersonalizeProgress

PERSONALISED: Final = "personalised"
"""Title of the row that shows a renderer as served to its actor."""


Rows = Mapping[str, Callable[[], Shown]]
"""Ways to draw a clip by title. Each is drawn when called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reenactment:
    """Clip to re-enact, and the tools.

    Attributes:
        clip: the clip.
        frames: number of frames to draw, consecutive; 0: all frames.
        weights: folder of weights and exported models.
        backend: runtime with the models loaded.
        files: exported models by name.
        threads: threads of a personalisation.
        folder: folder for contact sheets.
    """

    clip: Clip
    frames: int
    weights: Path
    backend: Backend
    files: Mapping[str, ModelFile]
    threads: int
    folder: Path

    def draw(self, model: str, film: Float32, pairs: Sequence[Pair]) -> Faces:
        """Return the faces of pairs by an exported model, computed one at a time.

        Args:
            model: name of the model.
            film: float32 [S], the part of an actor's state that the network takes.
            pairs: the pairs.
        """
        faces = []
        for pair in pairs:
            made = self.backend.infer(model, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: film[None]})[OUTPUT_RESIDUAL][0]
            faces.append(np.clip(np.rint(pair.picture[..., BASE] + made), 0, 255).astype(np.uint8))
        return faces

    def last_state(self, reports: Iterable[PersonalizeProgress]) -> Float32:
        """Run a personalisation, print its time and losses, and return the actor's state."""
        started = time.monotonic()
        done = list(reports)
        losses = ", ".join(f"{report.loss:.2f}" for report in done)
        seconds = time.monotonic() - started
        print(f"{self.clip.row.name}: personalised in {seconds:.0f} s; error in grey levels {losses}", flush=True)
        return done[-1].state
