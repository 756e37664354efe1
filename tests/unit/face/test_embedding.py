"""Face embeddings of real pictures: one face stays near itself, and two people are far apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from skimage.data import astronaut as portrait

from services.common.face.crops import apply_affine, fit_head_pose
from services.common.store.network_files import networks_in
from services.face.embedding import EMBEDDING_SIZE, NETWORK, SIDE, WEIGHTS, EmbeddingNetwork, aligned_crop
from services.face.stream import FaceTracker, Networks
from services.face.types import FrameFaces, TrackOptions

PHOTOGRAPH = np.ascontiguousarray(portrait()[:320, 60:400])


@pytest.fixture(scope="module")
def networks():
    loaded = Networks()
    yield loaded
    loaded.close()


def tracked(networks: Networks, pictures: list[npt.NDArray[np.uint8]], **options: int) -> list[FrameFaces]:
    tracker = FaceTracker(networks, TrackOptions(**options))
    return [frame for picture in pictures for frame in tracker.push(picture)] + tracker.finish()


def embedding(networks: Networks, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    (face,) = tracked(networks, [picture], embed_every=1)[0].faces
    assert face.embedding is not None
    assert face.embedding.network == NETWORK
    assert face.embedding.vector.shape == (EMBEDDING_SIZE,)
    return face.embedding.vector


def film(path: Path, *frames: int) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as reader:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    return [cv2.resize(pictures[frame], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for frame in frames]


def test_the_file_is_small_and_is_the_one_that_its_description_names() -> None:
    (network,) = networks_in(WEIGHTS.parent)
    assert network.path == WEIGHTS
    assert WEIGHTS.stat().st_size <= 6_500_000
    description = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert description["sha256"] == network.sha256
    assert description["parity"]["largest_difference"] <= description["parity"]["allowed"]
    sizes: Counter[int] = Counter()
    for tensor in onnx.load(str(WEIGHTS)).graph.initializer:
        sizes[tensor.data_type] += int(np.prod(tensor.dims))
    assert sizes[onnx.TensorProto.UINT8] > 10 * sizes[onnx.TensorProto.FLOAT]
    # No runtime takes the network for a quantised one, which each kind of processor would compute in another way.
    assert not {node.op_type for node in onnx.load(str(WEIGHTS)).graph.node} & {"DequantizeLinear", "QuantizeLinear"}


def test_the_network_computes_what_the_package_computed_from_the_same_crop() -> None:
    """Numbers of the PyTorch reference (services/face/train/face_embedding.py) for its first random picture."""
    from services.face.train.face_embedding import pictures

    session = EmbeddingNetwork()._session
    (found,) = session.run(None, {"crops": pictures(1)})
    np.testing.assert_allclose(found[0, :4], [-0.061205, 0.116304, 0.064644, -0.010075], atol=2e-5)
    assert np.linalg.norm(found[0]) == pytest.approx(1.310869, abs=1e-4)


def test_eyes_and_mouth_lie_at_the_same_places_of_the_crop_however_the_head_is_held(networks) -> None:
    (face,) = tracked(networks, [PHOTOGRAPH])[0].faces
    for degrees, scale in ((0.0, 1.0), (25.0, 0.7), (-30.0, 1.6)):
        affine = cv2.getRotationMatrix2D((170.0, 120.0), degrees, scale)
        landmarks = face.landmarks.copy()
        landmarks[:, :2] = apply_affine(affine, landmarks)
        landmarks[:, 2] *= scale
        turned = cv2.warpAffine(PHOTOGRAPH, affine, (340, 320), borderMode=cv2.BORDER_REPLICATE)
        crop = aligned_crop(turned, landmarks, fit_head_pose(landmarks))
        assert crop.shape == (SIDE, SIDE, 3)
        upright = aligned_crop(PHOTOGRAPH, face.landmarks, face.pose)
        assert np.abs(crop.astype(float) - upright).mean() < 8


def test_one_face_stays_near_itself_and_two_people_are_far_apart(networks, carphone: Path) -> None:
    woman = embedding(networks, PHOTOGRAPH)
    for degrees, scale, light in ((20.0, 1.0, 1.0), (-15.0, 0.6, 1.0), (0.0, 1.3, 0.7)):
        affine = cv2.getRotationMatrix2D((170.0, 120.0), degrees, scale)
        other = cv2.warpAffine(PHOTOGRAPH, affine, (340, 320), borderMode=cv2.BORDER_REPLICATE)
        assert np.linalg.norm(embedding(networks, (other * light).astype(np.uint8)) - woman) < 0.43
    man = [embedding(networks, picture) for picture in film(carphone, 0, 40, 100)]
    assert max(np.linalg.norm(one - other) for one in man for other in man) < 0.5
    assert min(np.linalg.norm(one - woman) for one in man) > 0.6


def test_a_face_is_measured_in_its_first_frame_and_then_every_so_often(networks) -> None:
    pictures = [np.ascontiguousarray(np.roll(PHOTOGRAPH, 2 * step, axis=1)) for step in range(8)]

    def measured(every: int) -> list[int]:
        frames = tracked(networks, pictures, embed_every=every)
        return [frame.frame_index for frame in frames if frame.faces[0].embedding is not None]

    assert (measured(0), measured(1), measured(3)) == ([], list(range(8)), [0, 3, 6])


def test_a_face_that_comes_later_is_measured_in_its_own_first_frame(networks) -> None:
    grey = np.full_like(PHOTOGRAPH, 128)
    frames = tracked(networks, [*[grey] * 4, *[PHOTOGRAPH] * 4], embed_every=100)
    assert [(frame.frame_index, face.embedding is not None) for frame in frames for face in frame.faces][:2] == [
        (4, True),
        (5, False),
    ]
