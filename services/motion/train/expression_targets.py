"""Expression of training clips: `python -m services.motion.train.expression_targets --trainset SET --out TARGETS.safetensors`.

The command writes the targets of the joint training of the Audio ID-Removing Network and expression (Everybody's Talkin', Sec.
3.2.2). That network belongs to the audio stage, and the file is all that its training needs of faces. For clip i: `audio.i`
float32 [N], `expression.i` float32 [T, E] in units of the person's spread, `usable.i` bool [T]. For all clips: `shape` float32
[P, E], the pixels by which a coefficient of one typical spread moves the P mouth coordinates.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Array, Float32
from services.common.geometry.default_model import default_model
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.motion.basis import LandmarkBasis
from services.motion.expression import expression_basis, expression_spread
from services.motion.models import MotionModels
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip, load_clips
from services.motion.train.command import trainset_parser

SAMPLES_PER_FRAME: Final = 640
"""Audio samples (16 kHz) of a frame of 40 ms."""


class ExpressionTarget(NamedTuple):
    """Expression of one clip.

    Attributes:
        coefficients: float32 [T, E], from the clip's own rest mouth, in units of the clip's own spread.
        spread: float32 [E], the clip's own spread.
    """

    coefficients: Float32
    spread: Float32


def expression_target(clip: TrainingClip, mouth: LandmarkBasis, expression: LandmarkBasis) -> ExpressionTarget:
    """Measure the expression of a clip. Rest mouth and spread are the clip's own, as in serving.

    Args:
        clip: the clip.
        mouth: landmark basis of the style.
        expression: expression basis.
    """
    measured = measure_mouth(clip.mouth_landmarks[clip.usable], mouth)
    spread = expression_spread(measured.spread, mouth, expression)
    coefficients = expression.project(clip.mouth_landmarks - measured.rest_mouth) / spread
    return ExpressionTarget(coefficients.astype(np.float32), spread)


def main() -> None:
    """Run the command line."""
    parser = trainset_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="File to write (.safetensors).")
    arguments = parser.parse_args()
    mouth = MotionModels().basis
    expression = expression_basis(default_model(), mouth)
    moved = expression.components * expression.typical_spread[:, None, None]
    arrays: dict[str, Array] = {"shape": np.ascontiguousarray(moved.reshape(len(moved), -1).T)}
    lags: dict[str, int] = json.loads(arguments.lags.read_text()) if arguments.lags else {}
    clips = load_clips(arguments.trainset, uses=frozenset({"train"}), lags=arguments.lags)
    for index, clip in enumerate(clips):
        file = arguments.trainset / "clips" / f"{clip.name}.safetensors"
        # A positive lag: the sound of frame n + lag belongs to the picture of frame n.
        first = max(0, lags.get(clip.name, 0)) * SAMPLES_PER_FRAME
        sound = np.array(decode_arrays(file.read_bytes())["audio"], np.float32)
        arrays[f"audio.{index}"] = sound[first : first + len(clip) * SAMPLES_PER_FRAME]
        arrays[f"expression.{index}"] = expression_target(clip, mouth, expression).coefficients
        arrays[f"usable.{index}"] = clip.usable
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(encode_arrays(arrays, {"format": "dubstage.expression_targets/1"}))
    print(f"{len(clips)} clips, {sum(map(len, clips))} frames, {len(expression.components)} coefficients")


if __name__ == "__main__":
    main()
