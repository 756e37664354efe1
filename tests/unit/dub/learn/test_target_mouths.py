from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.learn.slow_expression import filmed_mouths
from gateway.dub.learn.target_mouths import FADE_S, SHORTEST_S, TargetMouths, expressive_mouths, filmed_share
from gateway.dub.state.records import EXPRESSION_RECORD, FACE_RECORD, MOTION_RECORD, RecordFile, RecordSpan
from services.common.array_types import Array, Bool, Float32, Float64

FRAMES = 60
SECONDS: Float64 = np.arange(FRAMES) / 25.0
ALL = np.ones(FRAMES, np.bool_)


def frames(begin: int, end: int) -> Bool:
    inside = np.zeros(FRAMES, np.bool_)
    inside[begin:end] = True
    return inside


def test_an_open_mouth_stays_through_pause() -> None:
    share = filmed_share(frames(20, 40), ALL, SECONDS)
    assert not share[~frames(21, 39)].any()
    np.testing.assert_array_equal(share[24:36], 1.0)


def test_share_rises_and_falls_evenly() -> None:
    share = filmed_share(frames(20, 40), ALL, SECONDS)
    assert 0 < share[21] < share[22] < share[23] < share[24] == 1.0
    np.testing.assert_allclose(share[20:40], share[20:40][::-1], atol=1e-6)
    assert round(FADE_S * 25) == 4


@pytest.mark.parametrize("frame", [20, 30, 39])
def test_one_frame_at_rest_denies_pause(frame: int) -> None:
    """A person who rests or speaks in one frame of the pause does not hold the mouth open through it."""
    assert not filmed_share(frames(20, 40), ALL & ~frames(frame, frame + 1), SECONDS).any()


def test_short_pauses_have_predicted_mouth() -> None:
    longest_short = int(SHORTEST_S * 25)
    assert not filmed_share(frames(20, 21 + longest_short - 1), ALL, SECONDS).any()
    assert filmed_share(frames(20, 22 + longest_short), ALL, SECONDS).any()


def test_pauses_at_ends_have_no_fade_there() -> None:
    share = filmed_share(~frames(20, 40), ALL, SECONDS)
    np.testing.assert_array_equal(share[:15], 1.0)
    np.testing.assert_array_equal(share[-15:], 1.0)
    assert not share[20:40].any()
    assert share[19] == share[40] == 0.0


def test_lines_fade_inside_the_video() -> None:
    """Frames that begin or end inside the video may stand beside a predicted mouth, of another line or behind a preview."""
    share = filmed_share(~frames(20, 40), ALL, SECONDS, first=False, last=False)
    assert share[0] == share[-1] == 0.0
    np.testing.assert_array_equal(share[4:15], 1.0)


def test_each_pause_counts_alone() -> None:
    share = filmed_share(frames(5, 20) | frames(30, 50), frames(0, 25), SECONDS)
    assert share[5:20].any()
    assert not share[25:].any()


@pytest.mark.parametrize("hidden", [slice(0, 0), slice(8, 12)], ids=["seen", "hidden for a while"])
async def test_share_of_a_line(tmp_path: Path, hidden: slice) -> None:
    """A line begins inside the video, so its frames are not those of the expression's rows. Hidden frames part a pause."""
    motion, kept = np.zeros(FRAMES, MOTION_RECORD), np.zeros(FRAMES + 30, EXPRESSION_RECORD)
    motion["speech_probability"][25:] = 1.0
    kept["gain"], kept["still"] = 1.0, 2.0
    kept["seen"][:] = True
    kept["held_open"][10:40] = True
    kept["seen"][10:][hidden] = kept["held_open"][10:][hidden] = False
    shot: Any = SimpleNamespace(seconds=np.arange(FRAMES + 30) / 25.0)
    with stored(tmp_path, motion) as spoken, stored(tmp_path, kept) as expression:
        mouths = await expressive_mouths(shot, spoken, range(10, 10 + FRAMES), expression)
    assert mouths.share is not None
    assert mouths.share[0] == 0.0
    assert mouths.share[15:21].max() == 1.0
    assert not mouths.share[24:].any()
    assert (mouths.share[hidden] == 0.0).all()


@contextmanager
def stored(folder: Path, rows: Array) -> Iterator[RecordFile]:
    records = RecordFile(folder / f"{len(list(folder.iterdir()))}.bin", rows.dtype)
    try:
        records.append(rows)
        yield records
    finally:
        records.close()


def test_target_mouths_same_in_pieces(tmp_path: Path) -> None:
    """Pieces give the same mouths as the whole: predicted beside the pause, filmed inside."""
    rng = np.random.default_rng(2)
    motion, kept = np.zeros(FRAMES, MOTION_RECORD), np.zeros(FRAMES + 10, EXPRESSION_RECORD)
    motion["mouth"] = rng.normal(0.0, 5.0, motion["mouth"].shape)
    kept["gain"], kept["still"] = 1.0, 2.0
    filmed = rng.normal(0.0, 5.0, (FRAMES + 10, *motion["mouth"].shape[1:])).astype(np.float32)

    def read(begin: int, end: int) -> Float32:
        return filmed[begin:end]

    share = filmed_share(frames(20, 40), ALL, SECONDS)
    with stored(tmp_path, motion) as spoken, stored(tmp_path, kept) as expression:
        mouths = TargetMouths(RecordSpan(spoken, 0, FRAMES), 10, expression, share, read)
        whole = mouths(10, 10 + FRAMES + 5)
        assert len(whole) == FRAMES
        np.testing.assert_allclose(whole[:20], motion["mouth"][:20], atol=1e-5)
        np.testing.assert_allclose(whole[24:36], filmed[34:46], atol=1e-5)
        pieces = [mouths(begin, begin + 7) for begin in range(10, 10 + FRAMES, 7)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_mouths_of_span_count_from_0(tmp_path: Path) -> None:
    """A span of the frames has the mouths of the whole: predicted, filmed and with the expression of its own frames."""
    rng = np.random.default_rng(3)
    motion, kept = np.zeros(FRAMES, MOTION_RECORD), np.zeros(FRAMES, EXPRESSION_RECORD)
    motion["mouth"], kept["offset"] = (rng.normal(0.0, 5.0, motion["mouth"].shape) for _ in range(2))
    kept["gain"], kept["still"] = 1.0, 2.0
    filmed = rng.normal(0.0, 5.0, motion["mouth"].shape).astype(np.float32)
    share = filmed_share(frames(20, 40), ALL, SECONDS)
    with stored(tmp_path, motion) as spoken, stored(tmp_path, kept) as expression:
        whole = TargetMouths(spoken, 0, expression, share, lambda begin, end: filmed[begin:end])
        span = whole.span(range(15, 45))
        np.testing.assert_array_equal(span(0, 30), whole(15, 45))
        np.testing.assert_array_equal(span(7, 12), whole(22, 27))
        assert span.share is not None
        assert span.share.tolist() == share[15:45].tolist()


def test_filmed_mouths_of_usable_faces(tmp_path: Path) -> None:
    """A mouth is usable where the frame shows the face and its reason is DUBBED. Others are zero."""
    records = np.zeros(150, FACE_RECORD)
    records["mouth"] = np.arange(1.0, 151.0)[:, None, None]
    reason = np.full(150, common_pb2.FRAME_REASON_DUBBED)
    reason[7] = common_pb2.FRAME_REASON_OCCLUDED_MOUTH
    rows = np.arange(149, -1, -1)
    rows[4] = -1
    with stored(tmp_path, records) as faces:
        shot: Any = SimpleNamespace(rows=rows, index=SimpleNamespace(reason=reason), workspace=SimpleNamespace(faces=faces))
        filmed, usable = filmed_mouths(shot, 2, 150)
    expected = (rows >= 0) & (rows != 7)
    np.testing.assert_array_equal(usable, expected[2:])
    np.testing.assert_array_equal(filmed[:, 9, 1], np.where(expected, rows + 1.0, 0.0)[2:])
