"""The face of a reference picture, found by the face stage in a real portrait and in a real video."""

import asyncio
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.dub.learn.reference import CHOICE_FRAMES, ReferenceFace, find_reference
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.stages.local import LocalStages, compose_stages
from services.common.array_types import Float32, UInt8
from services.common.errors import MediaUnsupportedError
from services.common.face.actor_geometry import ANCHORS, measure_geometry
from services.common.face.crops import HeadPose, head_template, head_to_box
from services.common.face.landmarks import LIPS_OUTER, MOUTH_AREA, NUM_LIPS, lip_gaps, mouth_opening, part_lips, shut_lips
from tests.refusals import raised

UPRIGHT = HeadPose(1.0, np.eye(3), np.zeros(3))


def found(path: Path, folder: Path) -> ReferenceFace:
    async def find() -> ReferenceFace:
        async with LocalStages(compose_stages(str(folder / "artefacts"), names=("face",))) as stages:
            return await find_reference(stages, path, folder, threads=1)

    return asyncio.run(find())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="module")
def portrait(astronaut: Path, folder: Path) -> ReferenceFace:
    return found(astronaut, folder)


@pytest.fixture(scope="module")
def talking(carphone: Path, folder: Path) -> ReferenceFace:
    return found(carphone, folder)


def test_of_a_video_the_best_picture_is_taken(carphone: Path, talking: ReferenceFace, folder: Path) -> None:
    with VideoReader(probe(carphone)) as reader:
        pictures = [to_rgb(frame) for frame, _ in zip(reader, range(CHOICE_FRAMES), strict=False)]
    for place in (0, CHOICE_FRAMES // 2):
        still = folder / f"frame{place}.png"
        assert cv2.imwrite(str(still), pictures[place][..., ::-1])
        assert talking.cost <= found(still, folder).cost + 0.5
    assert mouth_opening(talking.mouth) > 5.0


def redness(picture: UInt8, lips: Float32) -> float:
    """How much redder the lips are than the skin around them: difference of red's mean shares of all colour."""
    outer = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(outer, [np.rint(lips[: len(LIPS_OUTER)]).astype(np.int32)], 1)
    around = cv2.dilate(outer, np.ones((17, 17), np.uint8)) - cv2.dilate(outer, np.ones((5, 5), np.uint8))
    cv2.fillPoly(outer, [np.rint(lips[len(LIPS_OUTER) : NUM_LIPS]).astype(np.int32)], 0)
    share = picture[..., 0] / np.maximum(picture.sum(axis=2), 1)
    return float(share[outer > 0].mean() - share[around > 0].mean())


def test_reference_lips_colour_transfers(portrait: ReferenceFace) -> None:
    """The red lips of a portrait come to the lips of another person."""
    head = head_template()
    other = measure_geometry(head[None, list(MOUTH_AREA)] + np.float32([5.0, 4.0, 0.0]), head[None, list(ANCHORS)])
    mouth = part_lips(shut_lips(other.closed_mouth), lip_gaps(portrait.mouth))
    wanted = head_to_box(mouth, UPRIGHT)
    moved, own = redness(portrait.in_shape_of(other, UPRIGHT), wanted), redness(portrait.box, portrait.points)
    assert own > 0.01
    assert moved > 0.8 * own
    assert redness(portrait.box, wanted) < 0.5 * own


def test_what_shows_nothing_is_refused(folder: Path) -> None:
    text = folder / "look.png"
    text.write_text("no picture")
    with raised(MediaUnsupportedError, field="reference"):
        found(text, folder)
