"""Tests of face embeddings of real pictures."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from skimage.data import astronaut

from services.common.face.crops import apply_affine, fit_head_pose
from services.common.store.exported_networks import networks_in
from services.face.embedding import EMBEDDING_SIZE, NETWORK, SIDE, WEIGHTS, EmbeddingNetwork, aligned_crop
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackedFace, TrackOptions

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:320, 60:400])


def tracked_face(networks: Networks, picture: npt.NDArray[np.uint8]) -> TrackedFace:
    tracker = FaceTracker(networks, TrackOptions(embed_every=1))
    (frame,) = tracker.push(picture) + tracker.finish()
    (face,) = frame.faces
    return face


def embedding(networks: Networks, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    face = tracked_face(networks, picture)
    assert face.embedding is not None
    assert face.embedding.network == NETWORK
    assert face.embedding.vector.shape == (EMBEDDING_SIZE,)
    return face.embedding.vector


def video(path: Path, *frames: int) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as reader:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    return [cv2.resize(pictures[frame], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for frame in frames]


def test_embedding_file_matches_description() -> None:
    """The file is small and is the one that its description names."""
    (network,) = networks_in(WEIGHTS.parent)
    assert network.path == WEIGHTS
    assert WEIGHTS.stat().st_size <= 4_500_000
    description = json.loads((WEIGHTS.parent / "face_embedding.json").read_text())
    assert description["files"][WEIGHTS.name]["sha256"] == network.sha256
    assert description["parity"]["largest_difference"] <= description["parity"]["allowed"]
    sizes: Counter[int] = Counter()
    graph = onnx.load_from_string(gzip.decompress(WEIGHTS.read_bytes())).graph
    for tensor in graph.initializer:
        sizes[tensor.data_type] += int(np.prod(tensor.dims))
    assert sizes[onnx.TensorProto.UINT8] > 10 * sizes[onnx.TensorProto.FLOAT]
    # No runtime takes the network for a quantised one, which each kind of processor would compute in another way.
    assert not {node.op_type for node in graph.node} & {"DequantizeLinear", "QuantizeLinear"}


def test_network_equals_package() -> None:
    """Numbers of the PyTorch reference (research/face/embedding.py) for its first random picture."""
    from research.face.embedding import pictures

    session = EmbeddingNetwork()._session
    (found,) = session.run(None, {"crops": pictures(1)})
    np.testing.assert_allclose(found[0, :4], [-0.061205, 0.116304, 0.064644, -0.010075], atol=2e-5)
    assert np.linalg.norm(found[0]) == pytest.approx(1.310869, abs=1e-4)


def test_eyes_and_mouth_in_crop(networks) -> None:
    """Eyes and mouth lie at the same places of the crop however the head is held."""
    face = tracked_face(networks, PHOTOGRAPH)
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


def test_embedding_separates_two_people(networks, carphone: Path) -> None:
    """One face stays near itself and two people are far apart."""
    woman = embedding(networks, PHOTOGRAPH)
    for degrees, scale, light in ((20.0, 1.0, 1.0), (-15.0, 0.6, 1.0), (0.0, 1.3, 0.7)):
        affine = cv2.getRotationMatrix2D((170.0, 120.0), degrees, scale)
        other = cv2.warpAffine(PHOTOGRAPH, affine, (340, 320), borderMode=cv2.BORDER_REPLICATE)
        assert np.linalg.norm(embedding(networks, (other * light).astype(np.uint8)) - woman) < 0.43
    man = [embedding(networks, picture) for picture in video(carphone, 0, 40, 100)]
    assert max(np.linalg.norm(one - other) for one in man for other in man) < 0.5
    assert min(np.linalg.norm(one - woman) for one in man) > 0.6
