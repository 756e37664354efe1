"""The openings that predictors answer for real speech, compared with each other."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import soundfile

from research.motion.agreement import PREDICTORS_COMPARED, REAL, agreement, table
from research.motion.clips import TrainingClip
from research.motion.protocol import served_mouths
from services.audio.extract import extract_features
from services.common.wire.timeline import Timeline
from services.motion.features import content_rows, sync_rows
from services.motion.head_network import encode_head_style
from services.motion.models import MotionModels
from services.motion.predictors.registry import predictor_named
from services.motion.types import EXTRA_FEATURES, Footage, SpeechFeatures
from tests.integration.videos import SPEECH
from tests.unit.motion.synthesised import head_poses, mouths

PAPERS = ("ugc", "everybody", "headpose", "hetero", "everyone")


@pytest.fixture(scope="module")
def clip(models: MotionModels) -> TrainingClip:
    """A person who says real speech with the mouth of the speech map."""
    samples, rate_hz = soundfile.read(SPEECH, dtype="float32")
    heard = extract_features(samples, rate_hz, Timeline(rate=Fraction(25)))
    names = [name for name in EXTRA_FEATURES if name in heard]
    features = SpeechFeatures(
        heard["posteriorgram"], heard["mel"], heard["speech_probability"], {name: heard[name] for name in names}
    )
    frames = len(features)
    opening = (5.0 + 4.0 * np.sin(np.arange(frames) * 0.7)).astype(np.float32)
    usable, poses = np.ones(frames, np.bool_), head_poses(frames)
    style = encode_head_style(Footage(mouths(opening), usable, poses), models)
    shown = served_mouths(predictor_named("dubstage").open(models, style, None), features)
    seen = np.concatenate([shown, np.repeat(shown[-1:], frames - len(shown), axis=0)])
    content, input_rows = content_rows(features), sync_rows(features)
    return TrainingClip("speech", "val", "somebody", seen, usable, features, content, input_rows, poses)


def test_each_paper_moves_its_own_mouth(models: MotionModels, clip: TrainingClip) -> None:
    names, matrix = agreement([clip], [predictor_named(name) for name in PREDICTORS_COMPARED], models)
    print(table(names, matrix))
    assert names == [REAL, *PREDICTORS_COMPARED]
    assert matrix[0, names.index("dubstage")] > 0.9
    for one, other in combinations(PAPERS, 2):
        assert matrix[names.index(one), names.index(other)] < 0.95, (one, other)
