"""Head motion of the exported predictor of `headpose` on held-out clips: `python -m services.motion.train.evaluate_head_motion`.

Each clip is enrolled on its first 60 %, personalised (on at most 300 frames), and predicted from its own sound; the rest is
compared with. What comes out is a file for `python -m gateway.evaluation.head_motion`, which scores it, and the correlation of the
paper's Appendix A.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.tensor_bytes import encode_arrays
from services.common.timeline import Timeline
from services.motion.adapt.personalize_head_motion import personalize_head_motion
from services.motion.cepstra import cepstra
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predict_head_motion import encode_head_style, head_motion_stream, mean_head_speaker
from services.motion.style import Style
from services.motion.train.clips import TrainingClip, load_clips
from services.motion.train.metrics import pearson
from services.motion.types import SpeechFeatures

_Float64 = npt.NDArray[np.float64]

ENROLMENT: Final = 0.6
_RADIUS: Final = 0.5


def predicted_poses(models: MotionModels, style: Style, features: SpeechFeatures) -> _Float64:
    """Head-pose vectors that the serving code answers for a clip, float64 [T, 6]."""
    stream = head_motion_stream(models, style, Timeline(rate=Fraction(25)), len(features))
    parts = [stream.push(0, features)]
    while (part := stream.drain()) is not None:
        parts.append(part)
    return np.concatenate([part.poses for part in parts if part.poses is not None])


def audio_pose_correlation(clip: TrainingClip) -> float:
    """Appendix A: correlation of MFCC distances and pose distances of frames whose MFCC are near, |s - s'| <= .5 |s|."""
    assert clip.poses is not None
    heard = cepstra(clip.features.mel).mean(axis=1)[clip.usable].astype(np.float64)
    angles = np.degrees(clip.poses[clip.usable, :3])
    sounds = np.linalg.norm(heard[:, None] - heard[None], axis=-1)
    turns = np.linalg.norm(angles[:, None] - angles[None], axis=-1)
    near = sounds <= _RADIUS * np.linalg.norm(heard, axis=-1)[:, None]
    np.fill_diagonal(near, val=False)
    return pearson(sounds[near], turns[near])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainset", type=Path, required=True, help="training set: a folder with clips/ and features/")
    parser.add_argument("--lags", type=Path, help="JSON file of lags that the sync network found")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of exported models")
    parser.add_argument("--use", default="dev", help="clips to evaluate")
    parser.add_argument("--out", type=Path, required=True, help="file of poses to write (.safetensors)")
    arguments = parser.parse_args()
    models = MotionModels(arguments.weights)
    arrays: dict[str, _Float64] = {}
    for clip in load_clips(arguments.trainset, uses=frozenset({arguments.use}), lags=arguments.lags):
        assert clip.poses is not None
        cut = int(len(clip) * ENROLMENT)
        first, mouths, usable = clip.poses[:cut], clip.mouth_landmarks[:cut], clip.usable[:cut]
        general = encode_head_style(mouths, usable, first, models)
        own = list(personalize_head_motion(general, clip.features[:cut], mouths, usable, first, models))[-1].style
        assert own is not None
        styles = {"personalised": own, "own_spread": general, "general": mean_head_speaker(general, models)}
        wrong = clip.features[np.roll(np.arange(len(clip)), len(clip) // 3)]
        line: dict[str, float] = {"appendix_a": audio_pose_correlation(clip)}
        for name, style in styles.items():
            poses = predicted_poses(models, style, clip.features)
            arrays[f"{clip.name}/{name}"] = poses[cut:]
            for axis, angle in enumerate(("pitch", "yaw", "roll")):
                line[f"{name} r_{angle}"] = pearson(poses[cut:, axis][clip.usable[cut:]], clip.poses[cut:, axis][clip.usable[cut:]])
        arrays[f"{clip.name}/wrong_sound"] = predicted_poses(models, replace(own), wrong)[cut:]
        arrays[f"{clip.name}/real"] = clip.poses[cut:][clip.usable[cut:]]
        arrays[f"{clip.name}/known"] = first[usable]
        print(clip.name, json.dumps({name: round(value, 3) for name, value in line.items()}), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(encode_arrays(arrays, {"format": "dubstage.head_motion/1", "frame_rate": "25"}))


if __name__ == "__main__":
    main()
