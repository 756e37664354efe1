"""Training clips on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.store.tensor_bytes import encode_arrays
from services.motion.train.clips import load_clips, shifted
from tests.unit.motion.made_clips import made_clip


def test_a_lag_is_taken_out_of_a_clip() -> None:
    clip = made_clip(0)
    late = shifted(clip, 3)
    assert len(late) == len(clip) - 3
    np.testing.assert_array_equal(late.mouth_landmarks[0], clip.mouth_landmarks[0])
    np.testing.assert_array_equal(late.content[0], clip.content[3])
    early = shifted(clip, -2)
    np.testing.assert_array_equal(early.mouth_landmarks[0], clip.mouth_landmarks[2])
    np.testing.assert_array_equal(early.content[0], clip.content[0])


def test_clips_are_read_from_disk_by_use_and_with_their_lags(tmp_path: Path) -> None:
    tracks, features = tmp_path / "clips", tmp_path / "features"
    for folder in (tracks, features):
        folder.mkdir()
    for index, use in enumerate(("train", "val")):
        clip = made_clip(index)
        arrays = {"mouth_landmarks": clip.mouth_landmarks, "usable": clip.usable}
        (tracks / f"c{index}.safetensors").write_bytes(encode_arrays(arrays, {"use": use, "speaker": "anna"}))
        heard = {name: getattr(clip.features, name) for name in ("posteriorgram", "mel", "speech_probability")}
        (features / f"c{index}.safetensors").write_bytes(encode_arrays(heard))
    lags = tmp_path / "lags.json"
    lags.write_text('{"c0": 4}')
    found = load_clips(tmp_path, uses=frozenset({"train"}), lags=lags)
    assert [(clip.name, clip.speaker, len(clip)) for clip in found] == [("c0", "anna", 86)]
    with pytest.raises(InvalidRequest, match="no clip"):
        load_clips(tmp_path, uses=frozenset({"dev"}))
