"""Self-re-enactment: what a renderer draws from the true landmarks of a clip that no network was trained on.

    python -m research.render.reenact --model NAME --data SET --clip NAME ...

An actor is made from the first 60 % of each clip, and frames of the rest are drawn. The command prints mouth PSNR, SSIM,
sharpness and flicker of each way to draw that the renderer lists, and writes contact sheets. `--beside NAME` adds another
renderer with its own personalisation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from research.render.held_out import DrawnClip, blended, clip_metrics, clips_named, draw_sheet, spread_indices
from research.render.models import load_models
from research.render.training import PERSONALISED, Reenactment, model_names, training_named
from research.training.command import command_line
from services.common.array_types import UInt8
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.streams import make_backend


def compare(task: Reenactment, model: str, beside: Sequence[str]) -> None:
    """Print the table of one clip and write a contact sheet.

    The sheet has one column per frame, with the ways to draw below each other and the footage at the bottom.
    """
    columns: list[list[UInt8]] = []
    for title, shown in _drawn(task, model, beside):
        print(f"{task.clip.row.name}: {title:24s} {clip_metrics(shown)}", flush=True)
        indices = spread_indices(shown.clip)
        columns = columns or [[shown.clip.pairs[at].target] for at in indices]
        for column, at in zip(columns, indices, strict=True):
            column.insert(-1, blended(shown.clip.pairs[at], shown.faces[at].astype(np.float32)))
    draw_sheet(task.folder / f"{model}_{task.clip.row.name}.png", columns)


def _drawn(task: Reenactment, model: str, beside: Sequence[str]) -> Iterator[tuple[str, DrawnClip]]:
    for title, row in training_named(model).reenact(task).items():
        yield title, row()
    for other in beside:
        yield other, training_named(other).reenact(task)[PERSONALISED]()


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=model_names(), required=True, help="renderer to measure")
    parser.add_argument(
        "--beside",
        choices=model_names(),
        action="append",
        default=[],
        help="another renderer to measure beside it; may be repeated",
    )
    parser.add_argument("--data", type=Path, required=True, help="training set, made by dubstage trainset")
    parser.add_argument("--clip", action="append", required=True, metavar="NAME", help="name of a clip; may be repeated")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder of weights. Default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("build/reenact"), help="folder of the contact sheets. Default: %(default)s"
    )
    parser.add_argument("--frames", type=int, default=120, help="consecutive frames of each clip; 0: all. Default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="threads of the computation. Default: %(default)s")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=given.threads)
    files = load_models(given.weights, backend).files
    for clip in clips_named(given.data, given.clip):
        task = Reenactment(
            clip=clip,
            frames=given.frames,
            weights=given.weights,
            backend=backend,
            files=files,
            threads=given.threads,
            folder=given.out,
        )
        compare(task, given.model, given.beside)
    return 0


if __name__ == "__main__":
    sys.exit(main())
