from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.frame_plan import FramePlan
from gateway.dub.render.mouth_samples import MOST_SAMPLES, mouth_samples
from gateway.dub.state.records import FACE_RECORD, RecordFile
from services.common.face.landmarks import LIPS_OUTER, NUM_MOUTH_AREA


def test_samples_follow_the_mouth(tmp_path: Path) -> None:
    """A box lies around the lips of its frame; long videos have samples from the first to the last frame with the face."""
    num_frames = MOST_SAMPLES + 100
    reason = np.full(num_frames, common_pb2.FRAME_REASON_DUBBED, np.int32)
    reason[:2], reason[-1] = common_pb2.FRAME_REASON_NO_FACE, common_pb2.FRAME_REASON_PROFILE_VIEW
    row = np.arange(num_frames) - 2
    row[:2] = -1
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        for number in range(num_frames - 2):
            record = np.zeros(1, FACE_RECORD)
            record["landmarks"][0, LIPS_OUTER[0], :2] = (100.0 + number, 50.0)
            record["landmarks"][0, LIPS_OUTER[1:], :2] = (140.0 + number, 60.0)
            faces.append(record)
        plan = FramePlan(reason, row, np.ones(num_frames, np.float32))
        samples = mouth_samples(plan, faces, lambda begin, end: np.zeros((end - begin, NUM_MOUTH_AREA, 3), np.float32), 1)
        halved = mouth_samples(plan, faces, None, 2)
    assert all(sample.opening is None for sample in halved)
    assert halved[0].box == pytest.approx((38.0, 13.75, 44.0, 27.5)), "pixels of the frames that are written"
    assert len(samples) == MOST_SAMPLES
    assert (samples[0].frame, samples[-1].frame) == (2, num_frames - 1)
    assert samples[0].box == pytest.approx((76.0, 27.5, 88.0, 55.0))
    assert (samples[0].opening, samples[-1].opening) == (0.0, None)
