"""Only the lower face and the bare neck below it change: sample by sample, in the footage's own format, written without loss."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from gateway.dub.render.composite import coded_from_box
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.records import pose_of
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.types import DecodedFrame, MediaInfo
from services.common.array_types import Bool
from services.common.face.actor_geometry import ANCHORS, ActorGeometry, lower_face_mask
from services.common.face.landmarks import JAW
from tests.plane_masks import plane_masks
from tests.system.dubbing import SPEECH, Dubber, cut, decoded

JAW_DROP_PX = 24.0
"""Crop pixels: how far below the jaw of a frame the mask may reach, which is that of the person's mouth at its widest."""
ROOM_PX = 6.0
"""Crop pixels all around, because the mask is made from a person's mean anchors: cheeks rise in a smile."""
NEAR_FACE_PX = 12.0
"""Crop pixels around the filmed jaw that the chin of another mouth may cover."""
SKIN_CR = 131
"""Red difference under which a sample of this clip is not skin: skin has 140 and more, jacket and turtleneck at most 129."""


def mask_of(geometry: ActorGeometry, record: Any, frame: DecodedFrame, info: MediaInfo, strength: float) -> list[Bool]:
    """The mask as docs/coordinates.md has it: from the person's geometry and the frame's head pose alone."""
    soft = lower_face_mask(geometry, pose_of(record)).astype(np.float32) * (strength / 255.0)
    return samples_under(soft, record, frame, info)


def reach_of(geometry: ActorGeometry, record: Any, frame: DecodedFrame, info: MediaInfo) -> list[Bool]:
    """Mask and all of the render box below it, where the footage's neck may move with the jaw; a pixel more for interpolation."""
    mask = lower_face_mask(geometry, pose_of(record))
    reach = cv2.dilate((np.maximum.accumulate(mask, axis=0) > 0).astype(np.float32), np.ones((3, 3)))
    return samples_under(np.asarray(reach, np.float32), record, frame, info)


def samples_under(soft: npt.NDArray[np.float32], record: Any, frame: DecodedFrame, info: MediaInfo) -> list[Bool]:
    """The samples of each plane of a frame that a weight in the render box touches."""
    rows, columns = frame.planes[0].shape
    return plane_masks(info.video.pixel, (rows, columns), coded_from_box(info, pose_of(record)), soft)


def lower_face(record: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Hull of the frame's own tracked jaw, cheeks and nose base, with the jaw's drop below and some room around."""
    pose = pose_of(record)
    points = record["landmarks"][[*ANCHORS, *JAW], :2].astype(np.float64)
    down = pose.rotation[:2, 1] * pose.scale
    hull = cv2.convexHull(np.concatenate([points, points + JAW_DROP_PX * down]).astype(np.float32))
    inside = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(inside, np.round(hull * 16).astype(np.int32), 1, shift=4)
    radius = int(np.ceil(ROOM_PX * pose.scale)) + 2
    return np.asarray(cv2.dilate(inside, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0)


# The planes of the other formats are compared in test_media_exactness.
@pytest.mark.parametrize(
    ("clip", "seconds", "pixel_format"),
    [
        ("video/vr_face5.mp4", 1.08, "yuv420p"),
        pytest.param("derived/d02_hevc10bit_23976.mp4", 1.1, "yuv420p10le", marks=pytest.mark.long),
        pytest.param("derived/d03_prores422lt_2997.mov", 1.08, "yuv422p10le", marks=pytest.mark.long),
    ],
    ids=["8-bit-420", "10-bit-420", "10-bit-422"],
)
def test_samples_outside_mask_unchanged(clip, seconds, pixel_format, clips, dubber, tmp_path) -> None:
    """Every sample outside the lower face and the neck is as it was."""
    footage, output = cut(clips.path(clip), tmp_path / "footage.mp4", 0, seconds), tmp_path / "dub.mp4"
    dub = dubber.with_faces(DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", codec="ffv1"))
    plan, actor, areas = dub.outcome.plan, dub.outcome.actor, dub.outcome.facts.mask_area_px
    info = probe(footage)
    assert info.video.pixel.name == probe(output).video.pixel.name == pixel_format
    assert plan.rendered().mean() >= 0.98
    np.testing.assert_array_equal(areas > 0, plan.rendered())
    with VideoReader(info) as reader:
        for frame, dubbed in zip(reader, decoded(output), strict=True):
            if not areas[frame.index]:
                continue
            record = dub.faces[plan.row[frame.index]]
            luma, *_ = mask_of(actor.geometry, record, frame, info, float(plan.strength[frame.index]))
            reach = reach_of(actor.geometry, record, frame, info)
            assert 0 < luma.sum() <= areas[frame.index] <= reach[0].sum()
            assert not (luma & ~lower_face(record, luma.shape)).any()
            for inside, before, after in zip(reach, frame.planes, dubbed, strict=True):
                np.testing.assert_array_equal(before[~inside], after[~inside])
            assert (frame.planes[0] != dubbed[0])[luma].mean() > 0.2


@pytest.mark.long
def test_clothing_keeps_its_samples(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """A turtleneck close under the chin does not move with the jaw: no sample of clothing changes, and the chin still moves."""
    footage, output = cut(clips.path("video/lp_s32.mp4"), tmp_path / "footage.mp4", 0, 1.4), tmp_path / "dub.mp4"
    dub = dubber.with_faces(DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", codec="ffv1"))
    plan, below = dub.outcome.plan, 0
    assert plan.rendered().mean() >= 0.98
    with VideoReader(probe(footage)) as reader:
        for frame, dubbed in zip(reader, decoded(output), strict=True):
            record = dub.faces[plan.row[frame.index]]
            pose, shape = pose_of(record), frame.planes[0].shape
            radius = int(np.ceil(NEAR_FACE_PX * pose.scale))
            jaw = np.zeros(shape, np.uint8)
            cv2.fillConvexPoly(jaw, cv2.convexHull(np.rint(record["landmarks"][list(JAW), :2]).astype(np.int32)), 1)
            face = cv2.dilate(jaw, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0
            red = cv2.resize(frame.planes[2], shape[::-1], interpolation=cv2.INTER_NEAREST)
            cloth = (cv2.erode((red < SKIN_CR).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~face
            changed = frame.planes[0] != dubbed[0]
            assert not (changed & cloth).any()
            below += int((changed & face & (jaw == 0)).sum())
    assert below > 100 * plan.num_frames
