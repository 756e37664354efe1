"""What `everybody` draws from true landmarks: `python -m services.render.train.everybody_reenact --data SET --clip NAME USE ...`.

For each clip an actor is made from the first 60 % and frames of the rest are drawn. Prints mouth PSNR, SSIM, sharpness and flicker
of a still mouth (the bank's medoid), of the first key picture, of `ugc` with its own personalisation, and of `everybody`: prior,
personalised, with teeth proxy and with deflicker. Writes contact sheets and strips of consecutive frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.render.adapt.everybody import personalize_everybody
from services.render.adapt.pairs import Pair
from services.render.adapt.personalize import PersonalizeModels, personalize
from services.render.backends.base import Backend
from services.render.backends.registry import WEIGHTS_FOLDER, ModelFile
from services.render.deflicker import deflickered, warped_by_flow
from services.render.features import match_colour
from services.render.key_pictures import unpacked
from services.render.models import load_models, make_backend
from services.render.render import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.teeth_proxy import collect_teeth, with_teeth
from services.render.train.everybody_held_out import read_windows
from services.render.train.held_out import HeldOut, blended, read_held_out
from services.render.train.metrics import frame_quality, mean_quality, mouth_slices
from services.render.train.run_folder import RunFolder
from services.render.types import Float32, UInt8

Faces = list[UInt8]


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one way to draw a clip.

    Attributes:
        psnr_db: in the mouth box.
        ssim: likewise.
        sharpness_ratio: likewise, 1 = as sharp as the footage.
        flicker_ratio: change from frame to frame in the quarter of the steps where the footage changes least, over the footage's.
    """

    psnr_db: float
    ssim: float
    sharpness_ratio: float
    flicker_ratio: float

    def __str__(self) -> str:
        """As a table's cells."""
        return f"{self.psnr_db:.2f} dB  {self.ssim:.4f}  sharp {self.sharpness_ratio:.2f}  flicker {self.flicker_ratio:.2f}"


def figures(clip: HeldOut, faces: Sequence[npt.NDArray[np.floating] | UInt8]) -> Row:
    """Figures of drawn faces, one a pair of the clip, in consecutive order."""
    shown = [blended(pair, np.asarray(face, np.float32)) for pair, face in zip(clip.pairs, faces, strict=True)]
    quality = mean_quality(
        [frame_quality(got, pair.target, points) for got, pair, points in zip(shown, clip.pairs, clip.landmarks, strict=True)]
    )
    # Change of the made and the filmed picture in the quietest quarter of the steps: there movement hides no flicker.
    steps = []
    for place in range(1, len(shown)):
        part = mouth_slices(clip.landmarks[place])
        pairs = ((shown[place], shown[place - 1]), (clip.pairs[place].target, clip.pairs[place - 1].target))
        steps.append([float(np.abs(new[part].astype(float) - old[part]).mean()) for new, old in pairs])
    changes = np.array(sorted(steps, key=lambda step: step[1])[: max(1, len(steps) // 4)])
    return Row(quality.psnr_db, quality.ssim, quality.sharpness_ratio, float(changes[:, 0].mean() / changes[:, 1].mean()))


def draw(backend: Backend, model: ModelFile, film: Float32, pairs: Sequence[Pair]) -> Faces:
    """Faces of pairs by a loaded model, one at a time: uint8 [160, 160, 3] each."""
    faces = []
    for pair in pairs:
        made = backend.infer(model.name, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: film[None]})[OUTPUT_RESIDUAL][0]
        faces.append(np.clip(np.rint(pair.picture[..., 3:6] + made), 0, 255).astype(np.uint8))
    return faces


def deflicker_clip(clip: HeldOut, faces: Faces) -> Faces:
    """Eq. 7 over a clip, on differences from the first key picture, which follows the light of the footage."""
    made: Faces = []
    before: Float32 = np.zeros((1, 1, 3), np.float32)
    for place, (pair, face) in enumerate(zip(clip.pairs, faces, strict=True)):
        first = pair.picture[..., 3:6].astype(np.float32)
        difference = face - first
        if place:
            moved = float(np.linalg.norm((clip.landmarks[place] - clip.landmarks[place - 1])[:40].mean(axis=0)))
            difference = deflickered(difference, warped_by_flow(before, faces[place - 1], face), moved)
        before = difference.astype(np.float32)
        made.append(np.clip(np.rint(first + difference), 0, 255).astype(np.uint8))
    return made


def compare(data: Path, name: str, use: str, weights: Path, folder: RunFolder, backend: Backend, threads: int, frames: int) -> None:
    """Print the table of one clip and write its pictures."""
    files = load_models(weights, backend).files
    plain, models = read_windows(data, name, use=use, num_frames=2), PersonalizeModels(weights)
    started = time.monotonic()
    reports = list(personalize_everybody(plain.bank, models, num_threads=threads))
    print(f"{name}: personalised in {time.monotonic() - started:.0f} s; {', '.join(f'{report.loss:.2f}' for report in reports)}")
    film, keys = unpacked(reports[-1].state)
    clip = _first(read_windows(data, name, use=use, num_frames=0, keys=keys), frames)
    state = list(personalize(plain.bank, models, num_threads=threads))[-1].state
    other = _first(read_held_out(data, name, use=use, num_frames=0), frames)
    drawn: dict[str, Faces] = {
        "still mouth": [match_colour(clip.bank.boxes[clip.bank.medoid], pair.target, pair.picture[..., 6]) for pair in clip.pairs],
        "first key picture": [pair.picture[..., 3:6] for pair in clip.pairs],
        "prior": draw(backend, files["everybody"], np.zeros_like(film), clip.pairs),
        "personalised": draw(backend, files["everybody"], film, clip.pairs),
        "ugc": draw(backend, files["ugc"], state, other.pairs),
    }
    teeth = collect_teeth(clip.bank.boxes, clip.bank.box_landmarks)
    drawn["teeth proxy"] = [
        with_teeth(face, points, teeth) for face, points in zip(drawn["personalised"], clip.landmarks, strict=True)
    ]
    drawn["deflicker"] = deflicker_clip(clip, drawn["personalised"])
    for title, faces in drawn.items():
        print(f"{name}: {title:18s} {figures(other if title == 'ugc' else clip, faces)}", flush=True)
    shown = ("still mouth", "first key picture", "prior", "personalised", "teeth proxy", "ugc")
    _sheet(
        folder,
        f"everybody_{name}",
        clip,
        [drawn[title] for title in shown],
        range(0, len(clip.pairs), max(1, len(clip.pairs) // 8)),
    )
    begin = len(clip.pairs) // 2
    _sheet(folder, f"everybody_{name}_run", clip, [drawn["personalised"], drawn["deflicker"]], range(begin, begin + 10))


def _first(clip: HeldOut, count: int) -> HeldOut:
    end = count or len(clip.pairs)
    return HeldOut(clip.name, clip.bank, clip.pairs[:end], clip.landmarks[:end])


def _sheet(folder: RunFolder, name: str, clip: HeldOut, rows: Sequence[Faces], places: range) -> None:
    pairs: Callable[[int], Pair] = clip.pairs.__getitem__
    columns = [
        [*(blended(pairs(at), faces[at].astype(np.float32)) for faces in rows), pairs(at).target]
        for at in places
        if at < len(clip.pairs)
    ]
    folder.draw_grid(name, columns)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--clip", nargs=2, action="append", required=True, metavar=("NAME", "USE"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER)
    parser.add_argument("--out", type=Path, default=Path("build/reenact"))
    parser.add_argument("--frames", type=int, default=120, help="consecutive frames of each clip; 0: all")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=given.threads)
    for name, use in given.clip:
        compare(given.data, name, use, given.weights, RunFolder(given.out), backend, given.threads, given.frames)


if __name__ == "__main__":
    main()
