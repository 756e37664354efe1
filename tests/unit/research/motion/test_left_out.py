"""The judge that leaves speakers out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research.methods.everyone.motion import NETWORK
from research.motion.left_out import left_out_scores, left_out_sets, mean_over_speakers
from research.motion.protocol import Scores
from research.motion.sync import SyncTraining
from services.common.errors import InvalidRequestError
from tests.refusals import raised
from tests.unit.motion.made_clips import made_clip, write_set
from tests.unit.research.methods.everyone.tiny import TINY
from tests.unit.research.motion.tiny import TINY_SYNC


def test_speakers_left_out_once(tmp_path: Path) -> None:
    """Each speaker of free speech is left out once and dev is not read."""
    clips = [made_clip(index, speaker=name) for index, name in enumerate(("anna", "anna", "ben", "carl"))]
    data = write_set(tmp_path / "set", [*clips, made_clip(4, "dev", speaker="dora")])
    data.rows = tuple(replace(row, narrow=row.speaker == "carl") for row in data.rows)
    found = [
        (out, {row.speaker for row in part.rows if row.split == "val"}, {row.speaker for row in part.rows if row.split == "train"})
        for out, part in left_out_sets(data, 9)
    ]
    assert found == [(["anna"], {"anna"}, {"ben", "carl"}), (["ben"], {"ben"}, {"anna", "carl"})]
    data.rows = tuple(row for row in data.rows if row.speaker != "ben")
    with pytest.raises(InvalidRequestError, match="at least two"):
        next(left_out_sets(data, 9))


def test_left_out_speaker_is_unseen(tmp_path: Path) -> None:
    """A speaker is scored by a network that has not seen the speaker."""
    data = write_set(tmp_path / "set", [made_clip(index, num_frames=120, speaker=("anna", "ben")[index % 2]) for index in range(4)])
    config = replace(TINY, loop=replace(TINY.loop, steps=1))
    own: Scores = {}
    closed_form: Scores = {}
    for scores, baseline in left_out_scores(NETWORK, config, data, 2):
        assert set(scores) == set(baseline)
        own |= scores
        closed_form |= baseline
    assert set(own) == {"anna", "ben"}
    assert own != closed_form
    mean = mean_over_speakers(own)
    assert mean["r_opening"] == pytest.approx((own["anna"]["r_opening"] + own["ben"]["r_opening"]) / 2)
    with raised(InvalidRequestError, match="--folds 1: at least 2", field="folds"):
        next(left_out_scores(NETWORK, config, data, 1))


def test_a_network_that_predicts_no_mouths_is_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [made_clip(index, speaker=("anna", "ben")[index % 2]) for index in range(4)])
    sync = replace(NETWORK, name="sync", open=SyncTraining)
    with pytest.raises(InvalidRequestError, match="sync predicts"):
        next(left_out_scores(sync, TINY_SYNC, data, 2))
