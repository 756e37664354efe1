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
from services.render.train.refine import RefineRecipe


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--model", choices=("ugc", "everybody"), default="ugc")
    parser.add_argument("--out", type=Path, default=Path("build/calibration.npy"))
    parser.add_argument("--pictures", type=int, default=64)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(given.out, _pictures(given.data, given.model, given.pictures))


def _pictures(data: Path, model: str, count: int) -> npt.NDArray[np.uint8]:
    recipe = EverybodyRecipe() if model == "everybody" else RefineRecipe()
    people = read_people(data, use="train", max_clips=recipe.max_clips, sharp_marks=recipe.sharp_marks)
    if model == "everybody":
        return WindowSource(people, sharp_share=recipe.sharp_share, seed=recipe.seed).batch(0, count).pictures
    source = PairSource(people, sharp_share=recipe.sharp_share, seed=recipe.seed)
    return source.batch(0, num_sequence=0, num_single=count).pictures


if __name__ == "__main__":
    main()
