"""Network inputs to calibrate the int8 export with: `python -m services.render.train.calibration --data FOLDER --out FILE.npy`."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.render.train.everybody import EverybodyRecipe
from services.render.train.everybody_footage import WindowSource
from services.render.train.footage import PairSource, read_people
from services.render.train.headpose import HeadposeRecipe
from services.render.train.headpose_footage import DrawnSource, read_drawings
from services.render.train.refine import RefineRecipe


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--model", choices=("ugc", "everybody", "headpose"), default="ugc")
    parser.add_argument("--identities", type=Path, help="folder of services.face.train.identities, for headpose")
    parser.add_argument("--out", type=Path, default=Path("build/calibration.npy"))
    parser.add_argument("--pictures", type=int, default=64)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.model == "headpose" and given.identities is None:
        parser.error("--model headpose needs --identities")
    np.save(given.out, _pictures(given.data, given.model, given.pictures, given.identities))


def _pictures(data: Path, model: str, count: int, identities: Path | None) -> npt.NDArray[np.uint8]:
    recipes = {"everybody": EverybodyRecipe, "headpose": HeadposeRecipe}
    recipe = recipes.get(model, RefineRecipe)()
    people = read_people(data, use="train", max_clips=recipe.max_clips, sharp_marks=recipe.sharp_marks)
    if model == "everybody":
        return WindowSource(people, sharp_share=recipe.sharp_share, seed=recipe.seed).batch(0, count).pictures
    if identities is not None:
        drawings = {person.name: read_drawings(identities, person.name) for person in people}
        return DrawnSource(people, drawings, sharp_share=recipe.sharp_share, seed=recipe.seed).batch(0, count).pictures
    source = PairSource(people, sharp_share=recipe.sharp_share, seed=recipe.seed)
    return source.batch(0, num_sequence=0, num_single=count).pictures


if __name__ == "__main__":
    main()
