"""Predict head motion on held-out clips: `python -m services.motion.predictors.headpose.train.evaluate --trainset DIR --out FILE`.

The exported predictor enrols each clip on the clip's first 60 %, personalises on at most 300 frames of that part, and predicts
the rest from the clip's own sound. The command writes a file of poses that `python -m gateway.evaluation.head_motion` scores, and
prints the correlation of the paper's Appendix A.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Float64
from services.common.store.tensor_bytes import encode_arrays
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictors.headpose.grid import HeadposeGrid
from services.motion.predictors.headpose.inputs import cepstra
from services.motion.predictors.headpose.personalize import personalize
from services.motion.predictors.headpose.style import encode_head_style, mean_head_speaker
from services.motion.train.clips import TrainingClip, footage_of, load_clips
from services.motion.train.command import trainset_parser
from services.motion.train.metrics import pearson
from services.motion.train.served import served_poses

ENROLMENT: Final = 0.6
_RADIUS: Final = 0.5


def audio_pose_correlation(clip: TrainingClip) -> float:
    """Return the correlation of Appendix A: MFCC distances and pose distances of frames with near MFCC, |s - s'| <= .5 |s|."""
    assert clip.poses is not None
    heard = cepstra(clip.features.mel).mean(axis=1)[clip.usable].astype(np.float64)
    angles = np.degrees(clip.poses[clip.usable, :3])
    sounds = np.linalg.norm(heard[:, None] - heard[None], axis=-1)
    turns = np.linalg.norm(angles[:, None] - angles[None], axis=-1)
    near = sounds <= _RADIUS * np.linalg.norm(heard, axis=-1)[:, None]
    np.fill_diagonal(near, val=False)
    return pearson(sounds[near], turns[near])


def main() -> None:
    """Run the command line."""
    parser = trainset_parser(__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help=f"Folder of exported models. Default: {WEIGHTS}.")
    parser.add_argument("--use", default="dev", help="Use of the clips to evaluate. Default: dev.")
    parser.add_argument("--out", type=Path, required=True, help="File of poses to write (.safetensors).")
    arguments = parser.parse_args()
    models = MotionModels(arguments.weights)
    arrays: dict[str, Float64] = {}
    for clip in load_clips(arguments.trainset, uses=frozenset({arguments.use}), lags=arguments.lags):
        cut = int(len(clip) * ENROLMENT)
        footage = footage_of(clip, slice(0, cut), head_poses=True)
        assert clip.poses is not None
        general = encode_head_style(footage, models)
        *_, last = personalize(general, clip.features[:cut], footage, models)
        own = last.style
        assert own is not None
        styles = {"personalised": own, "own_spread": general, "general": mean_head_speaker(general, models)}
        wrong = clip.features[np.roll(np.arange(len(clip)), len(clip) // 3)]
        line: dict[str, float] = {"appendix_a": audio_pose_correlation(clip)}
        for name, style in styles.items():
            poses = served_poses(HeadposeGrid(models, style), clip.features)
            arrays[f"{clip.name}/{name}"] = poses[cut:]
            for axis, angle in enumerate(("pitch", "yaw", "roll")):
                line[f"{name} r_{angle}"] = pearson(poses[cut:, axis][clip.usable[cut:]], clip.poses[cut:, axis][clip.usable[cut:]])
        arrays[f"{clip.name}/wrong_sound"] = served_poses(HeadposeGrid(models, own), wrong)[cut:]
        arrays[f"{clip.name}/real"] = clip.poses[cut:][clip.usable[cut:]]
        arrays[f"{clip.name}/known"] = clip.poses[:cut][footage.usable]
        print(clip.name, json.dumps({name: round(value, 3) for name, value in line.items()}), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(encode_arrays(arrays, {"format": "dubstage.head_motion/1", "frame_rate": "25"}))


if __name__ == "__main__":
    main()
