"""A texture from the frames of real footage, drawn in frames that the texture has not seen."""

from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from services.common.array_types import Float32, UInt8
from services.common.face.actor_geometry import ANCHORS, lower_face_mask, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, head_to_box, to_head_space
from services.common.face.landmarks import MOUTH_AREA, NUM_LIPS, mouth_opening
from services.common.face.neural_texture import TEXTURE_SIZE, NeuralSurface, sample
from services.common.face.sampling import sample_patch
from services.common.geometry.morphable_model import default_model
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackOptions
from tests.unit.common.face.people import mean_person

MODEL = default_model()
SEEN = 80
FRAMES = 120


@dataclass(frozen=True)
class Frame:
    box: UInt8
    mouth: Float32
    anchors: Float32
    head: Float32
    pose: HeadPose


@pytest.fixture(scope="module")
def frames(carphone: Path) -> list[Frame]:
    """A real man talking, tracked."""
    with av.open(str(carphone)) as video:
        pictures = [frame.reformat(3 * frame.width, 3 * frame.height).to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    networks = Networks()
    tracker = FaceTracker(networks, TrackOptions(max_faces=1))
    found = [faces for picture in pictures[:FRAMES] for faces in tracker.push(picture)] + tracker.finish()
    networks.close()
    result = []
    for picture, answer in zip(pictures, found, strict=False):
        face = answer.faces[0]
        head = to_head_space(face.landmarks, face.pose)[: MODEL.num_vertices]
        box = sample_patch(picture, box_from_frame(face.pose), (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_LINEAR)
        result.append(Frame(box, head[list(MOUTH_AREA)], head[list(ANCHORS)], head, face.pose))
    return result


@pytest.fixture(scope="module")
def surface(frames: list[Frame]) -> NeuralSurface:
    """The man's surface. In place of a fitted identity: the mean of his tracked faces."""
    offset = np.mean([frame.head for frame in frames[:SEEN]], axis=0) - MODEL.mean_shape
    person = mean_person(offset=offset.astype(np.float32))
    return NeuralSurface(person, MODEL)


def colours_of(frames: list[Frame], surface: NeuralSurface) -> UInt8:
    """The mean colour of each texel over the frames, uint8 [256, 256, 3]; texels that no frame shows are filled from around."""
    total = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 4))
    for frame in frames:
        uv = surface.uv_of(surface.expression_of(frame.mouth), frame.pose)
        covered = uv[..., 0] >= 0.0
        column, row = (uv[covered] * TEXTURE_SIZE).astype(int).T
        seen = np.concatenate([frame.box[covered], np.ones((covered.sum(), 1))], axis=1)
        for channel, values in enumerate(seen.T):
            total[..., channel] += np.bincount(row * TEXTURE_SIZE + column, values, TEXTURE_SIZE**2).reshape(total.shape[:2])
    mean = (total[..., :3] / np.maximum(total[..., 3:], 1.0)).astype(np.uint8)
    return np.asarray(cv2.inpaint(mean, (total[..., 3] == 0).astype(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)


def test_texture_draws_other_mouths(frames: list[Frame], surface: NeuralSurface) -> None:
    seen, others = frames[:SEEN], frames[SEEN:]
    texture = colours_of(seen[::2], surface)
    geometry = measure_geometry(np.stack([frame.mouth for frame in seen]), np.stack([frame.anchors for frame in seen]))
    resting = surface.expression_of(geometry.closed_mouth)
    errors: list[float] = []
    still_errors: list[float] = []
    covered: list[float] = []
    for frame in others:
        uv = surface.uv_of(surface.expression_of(frame.mouth), frame.pose)
        still = surface.uv_of(resting, frame.pose)
        mask = (lower_face_mask(geometry, frame.pose) > 127) & (uv[..., 0] >= 0.0)
        covered.append(mask.sum() / (lower_face_mask(geometry, frame.pose) > 127).sum())
        lips = head_to_box(frame.mouth[:NUM_LIPS], frame.pose)
        (left, top), (right, bottom) = lips.min(0).astype(int), lips.max(0).astype(int)
        near = np.s_[top - 4 : bottom + 5, left - 4 : right + 5]
        for drawn, found in ((uv, errors), (still, still_errors)):
            picture = 255.0 * sample(texture, drawn)
            found.append(float(np.abs(picture - frame.box)[near][mask[near]].mean()))
    assert np.ptp(mouth_opening(np.stack([frame.mouth for frame in others]))) > 4.0
    assert np.mean(covered) > 0.85
    assert np.mean(errors) < 11.0
    assert np.mean(errors) < 0.7 * np.mean(still_errors)
