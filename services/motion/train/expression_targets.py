"""Targets of the joint training: `python -m services.motion.train.expression_targets --trainset SET --out TARGETS.safetensors`.

The Audio ID-Removing Network is trained together with expression (Everybody's Talkin', Sec. 3.2.2), but belongs to the audio stage:
what that training needs of faces is this file. For clip i: `audio.i` float32 [N], `expression.i` float32 [T, E] in units of the
person's spread, `usable.i` bool [T]; and `shape` float32 [P, E], pixels that the P mouth coordinates move with a coefficient of one
typical spread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.geometry.default_model import default_model
from services.common.tensor_bytes import decode_arrays, encode_arrays
from services.motion.basis import LandmarkBasis
from services.motion.expression import expression_basis, expression_spread
from services.motion.models import MotionModels
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip, load_clips
from services.motion.types import Float32

SAMPLES_PER_FRAME = 640


def expression_targets(clip: TrainingClip, mouth: LandmarkBasis, expression: LandmarkBasis) -> Float32:
    """Expression of each frame from the clip's own rest mouth, in units of its own spread: float32 [T, E]."""
    measured = measure_mouth(clip.mouth_landmarks[clip.usable], mouth)
    spread = expression_spread(measured.spread, mouth, expression)
    return np.asarray(expression.project(clip.mouth_landmarks - measured.rest_mouth) / spread, dtype=np.float32)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainset", type=Path, required=True, help="training set: a folder with clips/ and features/")
    parser.add_argument("--lags", type=Path, help="JSON file of lags that the sync network found")
    parser.add_argument("--out", type=Path, required=True, help="file to write (.safetensors)")
    arguments = parser.parse_args()
    mouth = MotionModels().basis
    expression = expression_basis(default_model(), mouth)
    moved = expression.components * expression.typical_spread[:, None, None]
    arrays: dict[str, npt.NDArray[Any]] = {"shape": np.ascontiguousarray(moved.reshape(len(moved), -1).T)}
    lags: dict[str, int] = json.loads(arguments.lags.read_text()) if arguments.lags else {}
    clips = load_clips(arguments.trainset, uses=frozenset({"train"}), lags=arguments.lags)
    for index, clip in enumerate(clips):
        file = arguments.trainset / "clips" / f"{clip.name}.safetensors"
        # A positive lag: the sound of frame n + lag belongs to the picture of frame n.
        first = max(0, lags.get(clip.name, 0)) * SAMPLES_PER_FRAME
        sound = np.array(decode_arrays(file.read_bytes())["audio"], np.float32)
        arrays[f"audio.{index}"] = sound[first : first + len(clip) * SAMPLES_PER_FRAME]
        arrays[f"expression.{index}"] = expression_targets(clip, mouth, expression)
        arrays[f"usable.{index}"] = clip.usable
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(encode_arrays(arrays, {"format": "dubstage.expression_targets/1"}))
    print(f"{len(clips)} clips, {sum(map(len, clips))} frames, {len(expression.components)} coefficients")


if __name__ == "__main__":
    main()
