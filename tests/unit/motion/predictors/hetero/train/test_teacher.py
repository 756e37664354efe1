from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from services.motion.predictors.hetero.inputs import Heard
from services.motion.predictors.hetero.train.teacher import TeacherConfig, fit_teacher
from services.motion.style import measure_mouth
from services.motion.train.basis import committed_basis
from services.motion.train.clips import Clips
from services.motion.train.metrics import pearson

SHORT = TeacherConfig(past=2, ahead=1)
"""A filter that is fitted in a tenth of the time."""


def test_the_teacher_expects_what_the_sound_tells(clips: Clips) -> None:
    basis = committed_basis()
    teacher = fit_teacher(clips[:5], basis, SHORT, "paper")
    held_out = clips[5]
    expected = teacher.answer(held_out.features, held_out.content)
    mouth = measure_mouth(held_out.mouth_landmarks, basis)
    truth = basis.project(held_out.mouth_landmarks - mouth.rest_mouth)
    assert expected.shape == truth.shape
    assert pearson(expected[:, 0], truth[:, 0]) > 0.3


@pytest.mark.parametrize("heard", get_args(Heard))
def test_what_holds_in_a_narrow_corpus_is_kept_apart(clips: Clips, heard: Heard) -> None:
    teacher = fit_teacher(clips, committed_basis(), SHORT, heard)
    assert not teacher.alone(clips[0]).any()
    assert teacher.alone(replace(clips[0], apart="elsewhere")).shape == (len(clips[0]), 16)
    assert not np.isnan(teacher.answer(clips[0].features, clips[0].content)).any()
