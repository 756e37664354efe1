"""What prior and personalisation gain: `python -m services.render.train.reenact --data FOLDER --clip NAME USE ...`.

For each clip a bank and an actor are made from the first 60 %, and frames of the rest are drawn from the truth's landmarks. Prints
mouth PSNR, SSIM and sharpness of the texture alone, of the prior and of the personalised renderer; writes contact sheets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.render.adapt.pairs import Pair
from services.render.adapt.personalize import PersonalizeModels, PersonalizeRecipe, personalize
from services.render.backends.base import Backend
from services.render.backends.registry import WEIGHTS_FOLDER, ModelFile
from services.render.models import load_models, make_backend
from services.render.render import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, default_state
from services.render.train.held_out import HeldOut, blended, measure, read_held_out, textures
from services.render.train.run_folder import RunFolder
from services.render.types import Float32, Precision


def draw(backend: Backend, model: ModelFile, state: Float32, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
    """Faces of pairs by a loaded model, one at a time: float32 [N, 160, 160, 3], grey levels."""
    faces = []
    for pair in pairs:
        made = backend.infer(model.name, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: state[None]})
        faces.append(pair.picture[..., 3:6] + made[OUTPUT_RESIDUAL][0])
    return np.stack(faces).astype(np.float32)


def compare(clip: HeldOut, backend: Backend, model: ModelFile, state: Float32, folder: RunFolder) -> None:
    """Print the figures of one clip and write its contact sheet: texture, prior, personalised, truth."""
    states = {"prior": default_state(model), "personalised": state}
    print(f"{clip.name}: texture alone {measure(clip, textures)}")
    for name, chosen in states.items():
        print(f"{clip.name}: {name} {measure(clip, partial(draw, backend, model, chosen))}", flush=True)
    shown = clip.pairs[:: max(1, len(clip.pairs) // 6)][:6]
    drawn = [textures(shown), *(draw(backend, model, chosen, shown) for chosen in states.values())]
    columns = [[*(blended(pair, faces[place]) for faces in drawn), pair.target] for place, pair in enumerate(shown)]
    folder.draw_grid(f"reenact_{Path(clip.name).stem}", columns)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--clip", nargs=2, action="append", required=True, metavar=("NAME", "USE"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER)
    parser.add_argument("--out", type=Path, default=Path("build/reenact"))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--steps", type=int, default=PersonalizeRecipe().num_steps)
    parser.add_argument("--learning-rate", type=float, default=PersonalizeRecipe().learning_rate)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    backend = make_backend(device="cpu", backend="openvino", precision=Precision.FLOAT32, num_threads=given.threads)
    models = load_models(given.weights, backend)
    recipe = PersonalizeRecipe(num_steps=given.steps, learning_rate=given.learning_rate)
    folder = RunFolder(given.out)
    for name, use in given.clip:
        clip = read_held_out(given.data, name, use=use, num_frames=given.frames)
        started = time.monotonic()
        reports = list(personalize(clip.bank, PersonalizeModels(given.weights), num_threads=given.threads, recipe=recipe))
        losses = ", ".join(f"{report.loss:.2f}" for report in reports)
        print(f"{name}: personalised in {time.monotonic() - started:.1f} s; error in grey levels {losses}")
        compare(clip, backend, models.files["ugc"], reports[-1].state, folder)


if __name__ == "__main__":
    main()
