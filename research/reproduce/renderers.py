"""Pictures of a renderer for the true landmarks of held-out clips, in all ways that the renderer's training lists."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from statistics import fmean
from typing import Final

from research.render.held_out import Clip, clip_metrics
from research.render.models import load_models
from research.render.training import Reenactment, training_named
from research.reproduce.claims import Numbers
from research.reproduce.run import Material, Measured, selection_note
from research.training.trainset import ClipRow
from services.common.errors import InvalidRequestError
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.streams import make_backend

_FRAMES: Final = 120
_QUICK_FRAMES: Final = 24
_MOST_CLIPS: Final = 12
_LEAST_FRAMES: Final = 60


def held_out_clips(material: Material) -> list[Clip]:
    """Return held-out clips that show a face long enough, at most twelve, at most one a speaker, longest first; quick: one.

    Raises:
        InvalidRequestError: there is no such clip.
    """
    longest: dict[str, ClipRow] = {}
    for row in sorted(material.data.rows, key=lambda row: (-row.usable_frames, row.name)):
        if row.split != "train" and row.has_face and row.usable_frames >= _LEAST_FRAMES:
            longest.setdefault(row.speaker, row)
    if not longest:
        raise InvalidRequestError(
            f"{material.data.folder} has no clip outside the split `train` that shows a face in {_LEAST_FRAMES} frames",
            field="data",
        )
    rows = list(longest.values())[: 1 if material.quick else _MOST_CLIPS]
    return [Clip(material.data, row) for row in rows]


def reenacted(material: Material, model: str, titles: Mapping[str, str]) -> Measured:
    """Draw held-out clips with their true landmarks, and return the mean metrics.

    Args:
        model: name of the renderer.
        titles: rows of the claim by the titles of the renderer's ways to draw (TRAINING.reenact).

    Returns:
        `psnr_db`, `ssim`, `sharpness_ratio` and `flicker_ratio` of each row, means over clips.

    Raises:
        InvalidRequestError: the set has no held-out clip with pixels, or lacks the person's identity that the renderer needs.
    """
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    files = load_models(WEIGHTS_FOLDER, backend).files
    clips = held_out_clips(material)
    by_row: dict[str, list[dict[str, float]]] = {row: [] for row in titles.values()}
    for clip in material.each(clips):
        task = Reenactment(
            clip=clip,
            frames=_QUICK_FRAMES if material.quick else _FRAMES,
            weights=WEIGHTS_FOLDER,
            backend=backend,
            files=files,
            threads=1,
            folder=material.scratch,
        )
        # A personalisation prints its losses. The output of this command is the name of the page.
        with redirect_stdout(sys.stderr):
            ways = training_named(model).reenact(task)
            for title, row in titles.items():
                by_row[row].append(asdict(clip_metrics(ways[title]())))
    return drawn_from_landmarks(means_of(by_row), clips)


def means_of(by_row: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the means over clips of the metrics of each row."""
    return {row: {name: fmean(each[name] for each in metrics) for name in metrics[0]} for row, metrics in by_row.items()}


def drawn_from_landmarks(numbers: Numbers, clips: list[Clip]) -> Measured:
    """Return numbers of mouths that were drawn with the true landmarks of clips."""
    names = ", ".join(clip.row.name for clip in clips)
    on = f"mouths of {len(clips)} clips ({names}) with the true landmarks"
    return Measured(numbers, on + selection_note(clip.row.split for clip in clips))
