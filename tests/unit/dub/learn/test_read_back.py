"""A later run checks the files of an earlier run before it uses them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_records import read_index
from gateway.dub.analyse.frame_plan import RENDERED
from gateway.dub.learn.enrol import EnrolledActor, actor_arrays, actor_from_arrays
from gateway.dub.render.all_windows import joined_windows, journalled_window
from gateway.dub.render.windows import RenderedWindow
from gateway.dub.state.records import FACE_RECORD, RecordFile
from services.common.errors import ContractBrokenError
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.landmarks import JAW, NUM_MOUTH_AREA
from services.common.store.tensor_bytes import NamedArrays, decode_arrays, encode_arrays
from services.common.wire.mouth_curves import SpeakingMotion

SPEAKING = SpeakingMotion(0.4, 17.25, 5.5, 2.1, 14.1)


def faces(frames: list[int], ids: list[int]) -> np.ndarray:
    made = np.zeros(len(frames), FACE_RECORD)
    made["frame"], made["face_id"] = frames, ids
    return made


def test_an_index_is_read_with_its_shot_cuts(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as file:
        file.append(faces([0, 0, 1, 3], [0, 1, 0, 1]))
        index = read_index(file, [0, 2], 4)
    assert index.rows_of(1).tolist() == [1, -1, -1, 3]
    assert index.shot_cuts == (0, 2)


@pytest.mark.parametrize(
    ("frames", "ids", "cuts"),
    [
        ([0, 4], [0, 0], []),
        ([-1, 0], [0, 0], []),
        ([1, 0], [0, 0], []),
        ([0, 0], [2, 2], []),
        ([0, 1], [-1, 0], []),
        ([0, 1], [0, 0], None),
        ([0, 1], [0, 0], [4]),
        ([0, 1], [0, 0], [-1]),
        ([0, 1], [0, 0], [2, 1]),
        ([0, 1], [0, 0], ["1"]),
        ([0, 1], [0, 0], [True]),
        ([0, 1], [0, 0], {"1": 1}),
    ],
)
def test_foreign_records_are_no_index(frames: list[int], ids: list[int], cuts: Any, tmp_path: Path) -> None:
    """Records that are not of the footage are no index."""
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as file:
        file.append(faces(frames, ids))
        with pytest.raises(ContractBrokenError):
            read_index(file, cuts, 4)


def window_arrays(frames: list[int]) -> dict[str, np.ndarray]:
    shapes = {field.name: getattr(joined_windows([]), field.name) for field in fields(RenderedWindow)}
    made = {name: np.zeros((len(frames), *like.shape[1:]), like.dtype) for name, like in shapes.items()}
    return {**made, "frame": np.array(frames, np.int64)}


def test_window_for_own_frames_only() -> None:
    """A window is taken for its own frames alone."""
    reason = np.array(
        [common_pb2.FRAME_REASON_DUBBED, common_pb2.FRAME_REASON_NO_FACE, common_pb2.FRAME_REASON_DUBBED] * 2, np.int32
    )
    usable = np.isin(reason, RENDERED)
    good = window_arrays([2, 3])
    assert journalled_window(NamedArrays(good), usable, range(1, 4), 0).frame.tolist() == [2, 3]
    wrong = [
        window_arrays([2]),
        window_arrays([2, 4]),
        {name: array for name, array in good.items() if name != "mask"},
        {**good, "box": good["box"].astype(np.float32)},
        {**good, "landmarks": good["landmarks"][:, :5]},
        {**good, "detail": np.zeros((2, 160, 160), np.uint8)},
    ]
    for arrays in wrong:
        with pytest.raises(ValueError, match="the arrays are"):
            journalled_window(NamedArrays(arrays), usable, range(1, 4), 0)


def stored_actor(**other: Any) -> NamedArrays:
    def ref(name: str) -> common_pb2.ArtefactRef:
        return common_pb2.ArtefactRef(uri=f"memory://x/{name}", sha256="0" * 64, size_bytes=1)

    shapes = {"mean_mouth": NUM_MOUTH_AREA, "closed_mouth": NUM_MOUTH_AREA, "jaw_envelope": len(JAW), "anchors": len(ANCHORS)}
    geometry = ActorGeometry(**{name: np.zeros((count, 3), np.float32) for name, count in shapes.items()})
    actor = EnrolledActor(
        ref("style"),
        ref("bank"),
        None,
        geometry,
        30,
        np.arange(6, dtype=np.float64),
        lag_frames=-2,
        lag_fraction=0.25,
        speaking=SPEAKING,
    )
    arrays, metadata = actor_arrays(actor)
    for name, value in other.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            metadata[name] = value
    return decode_arrays(encode_arrays(arrays, metadata))


def test_an_actor_comes_back_as_it_was() -> None:
    actor = actor_from_arrays(stored_actor())
    assert (actor.style.uri, actor.renderer, actor.num_frames, actor.lag_frames) == ("memory://x/style", None, 30, -2)
    assert actor.lag_fraction == 0.25
    assert actor.pose.tolist() == [0, 1, 2, 3, 4, 5]
    assert actor.speaking == SPEAKING


@pytest.mark.parametrize(
    "other",
    [
        {"style": "{}"},
        {"style": "[1, 2, 3]"},
        {"bank": "["},
        {"num_frames": "many"},
        {"speaking": "{"},
        {"speaking": '{"rest_opening": 1.0}'},
        {"pose": np.zeros(5)},
        {"pose": np.full(6, np.nan)},
        {"mean_mouth": np.zeros((NUM_MOUTH_AREA, 3))},
        {"anchors": np.zeros((1, 3), np.float32)},
    ],
    ids=str,
)
def test_arrays_that_are_no_actor_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not an enrolled actor"):
        actor_from_arrays(stored_actor(**other))


def test_arrays_of_something_else_are_no_actor() -> None:
    with pytest.raises(ValueError, match="not an enrolled actor"):
        actor_from_arrays(NamedArrays(MappingProxyType({"box": np.zeros(3, np.uint8)})))
