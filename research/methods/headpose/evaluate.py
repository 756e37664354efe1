"""Predict head motion on held-out clips: `python -m research.methods.headpose.evaluate --data SET --out FILE`.

The exported predictor enrols each clip on the clip's first 60 %, personalises on at most 300 frames of that part, and predicts
the rest from the clip's own sound. The command writes a file of poses that `python -m research.evaluation.head_motion` scores, and
prints the correlation of the paper's Appendix A.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from research.methods.headpose.motion import angle_correlation, audio_pose_correlation
from research.motion.clips import TrainingClip, clips_of, footage_of
from research.motion.protocol import served_poses
from research.training.command import command_line, data_parser
from research.training.trainset import TrainSet
from services.common.array_types import Float64
from services.common.errors import NoUsableFootageError
from services.common.store.tensor_bytes import encode_arrays
from services.motion.head_network import encode_head_style, mean_head_speaker
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictors.headpose.predictor import HeadposePredictor, personalize

ENROLMENT: Final = 0.6


def evaluate(clips: Iterable[TrainingClip], models: MotionModels) -> dict[str, Float64]:
    """Predict the poses of clips, and print one line a clip. Clips that are too short to personalise on are left out.

    Returns:
        Poses by `CLIP/VARIANT`, float64 [T, 6].
    """
    arrays: dict[str, Float64] = {}
    for clip in clips:
        cut = int(len(clip) * ENROLMENT)
        footage = footage_of(clip, slice(0, cut))
        general = encode_head_style(footage, models)
        try:
            *_, last = personalize(general, clip.features[:cut], footage, models)
        except NoUsableFootageError as problem:
            print(f"{clip.name}: left out: {problem}", file=sys.stderr)
            continue
        own = last.style
        assert own is not None
        styles = {"personalised": own, "own_spread": general, "general": mean_head_speaker(general, models)}
        wrong = clip.features[np.roll(np.arange(len(clip)), len(clip) // 3)]
        line: dict[str, float] = {"appendix_a": audio_pose_correlation(clip)}
        for name, style in styles.items():
            poses = served_poses(HeadposePredictor(models, style), clip.features)
            arrays[f"{clip.name}/{name}"] = poses[cut:]
            line |= {f"{name} {axis}": r for axis, r in angle_correlation(poses, clip, slice(cut, None)).items()}
        arrays[f"{clip.name}/wrong_sound"] = served_poses(HeadposePredictor(models, own), wrong)[cut:]
        arrays[f"{clip.name}/real"] = clip.poses[cut:][clip.usable[cut:]]
        arrays[f"{clip.name}/known"] = clip.poses[:cut][footage.usable]
        print(clip.name, json.dumps({name: round(value, 3) for name, value in line.items()}), flush=True)
    return arrays


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = data_parser(__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help=f"Folder of exported models. Default: {WEIGHTS}.")
    parser.add_argument("--split", default="dev", help="Split of the clips to evaluate. Default: dev.")
    parser.add_argument("--out", type=Path, required=True, help="File of poses to write (.safetensors).")
    arguments = parser.parse_args()
    arrays = evaluate(clips_of(TrainSet(arguments.data), arguments.split), MotionModels(arguments.weights))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(encode_arrays(arrays, {"format": "dubstage.head_motion/1", "frame_rate": "25"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
