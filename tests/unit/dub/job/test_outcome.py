"""Tests of the messages about a video without a dubbed frame, and about speech without a speaker."""

from __future__ import annotations

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.frame_plan import FramePlan
from gateway.dub.job.outcome import about_no_frame, about_silence

NOT_DUBBED = [
    name.removeprefix("FRAME_REASON_")
    for name in common_pb2.FrameReason.DESCRIPTOR.values_by_name
    if name not in ("FRAME_REASON_UNSPECIFIED", "FRAME_REASON_DUBBED", "FRAME_REASON_SILENT")
]


def plan_of(*names: str) -> FramePlan:
    reason = np.array([common_pb2.FrameReason.Value(f"FRAME_REASON_{name}") for name in names], np.int32)
    return FramePlan(reason, np.zeros(len(names), np.int64), np.zeros(len(names), np.float32))


@pytest.mark.parametrize("name", NOT_DUBBED)
def test_undubbed_video_says_why(name: str) -> None:
    """A video without a dubbed frame says why and what to do."""
    said = about_no_frame(plan_of(name, name, "NO_FACE"), "")
    assert said.startswith("none of the 3 frames is dubbed (")
    assert f"{name} " in said
    _, _, remedy = said.rpartition(": ")
    assert remedy.split()[0] in ("give", "choose")


def test_unlearnable_person_says_why() -> None:
    """A person who cannot be learned is reported with the reason."""
    said = about_no_frame(plan_of("LOW_CONFIDENCE", "NO_FACE"), "only 3 frames show the face well enough to learn it")
    assert said.endswith("only 3 frames show the face well enough to learn it")


@pytest.mark.parametrize("names", [("DUBBED", "NO_FACE"), ("SILENT", "NO_FACE"), ("SILENT",)])
def test_shut_silence_is_dubbed(names: tuple[str, ...]) -> None:
    """A mouth at rest during silence is a dubbed frame."""
    assert about_no_frame(plan_of(*names), "") == ""


def test_speech_in_which_nobody_speaks_gets_a_warning() -> None:
    assert about_silence(plan_of("SILENT", "SILENT", "NO_FACE")) == [
        "nobody speaks in the new speech: the mouth is at rest in all 2 dubbed frames"
    ]
    assert about_silence(plan_of("SILENT", "DUBBED")) == []
    assert about_silence(plan_of("NO_FACE")) == []
