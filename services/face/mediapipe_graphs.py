"""MediaPipe's face networks as pure functions from one picture to numbers, without state, on one thread.

MediaPipe's own `FaceMesh` keeps state, hides the mesh's confidence, shears the points of tilted faces in pictures that are not
square, and cuts the patch without a low-pass filter. This module runs the networks on patches that `mesh.py` and `detect.py` cut.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

PATCH_SIZE: Final = 192
"""Side of the mesh network's input, pixels."""

_EXECUTOR: Final = 'executor { type: "ApplicationThreadExecutor" }\n'
_MESH_GRAPH: Final = (
    _EXECUTOR
    + """
input_stream: "image"
output_stream: "landmarks"
output_stream: "score"
node {
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:with_attention"
  options { [mediapipe.ConstantSidePacketCalculatorOptions.ext] { packet { bool_value: true } } }
}
node { calculator: "TfLiteCustomOpResolverCalculator" output_side_packet: "OP_RESOLVER:op_resolver" }
node {
  calculator: "FaceLandmarksModelLoader"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_side_packet: "MODEL:model"
}
node {
  calculator: "ImageToTensorCalculator"
  input_stream: "IMAGE:image"
  output_stream: "TENSORS:input_tensors"
  options {
    [mediapipe.ImageToTensorCalculatorOptions.ext] {
      output_tensor_width: 192 output_tensor_height: 192 output_tensor_float_range { min: 0.0 max: 1.0 }
    }
  }
}
node {
  calculator: "InferenceCalculator"
  input_stream: "TENSORS:input_tensors"
  output_stream: "TENSORS:output_tensors"
  input_side_packet: "MODEL:model"
  input_side_packet: "OP_RESOLVER:op_resolver"
  options { [mediapipe.InferenceCalculatorOptions.ext] { delegate { xnnpack { num_threads: 1 } } } }
}
node {
  calculator: "SplitTensorVectorCalculator"
  input_stream: "output_tensors"
  output_stream: "landmark_tensors"
  output_stream: "flag_tensor"
  options { [mediapipe.SplitVectorCalculatorOptions.ext] { ranges { begin: 0 end: 6 } ranges { begin: 6 end: 7 } } }
}
node {
  calculator: "TensorsToFloatsCalculator"
  input_stream: "TENSORS:flag_tensor"
  output_stream: "FLOAT:score"
  options { [mediapipe.TensorsToFloatsCalculatorOptions.ext] { activation: SIGMOID } }
}
node {
  calculator: "TensorsToFaceLandmarksWithAttention"
  input_stream: "TENSORS:landmark_tensors"
  output_stream: "LANDMARKS:landmarks"
}
"""
)
_DETECTOR_GRAPH: Final = (
    _EXECUTOR
    + """
input_stream: "image"
output_stream: "detections"
node {
  calculator: "FaceDetection%sRangeCpu"
  input_stream: "IMAGE:image"
  output_stream: "DETECTIONS:detections"
  options { [mediapipe.FaceDetectionOptions.ext] { min_score_thresh: %.3f } }
}
"""
)
_LANDMARK_BYTES: Final = 17
"""Wire size of one landmark: tag and length of the submessage, then three fields of one tag byte and a float32."""


_STDERR_LOCK: Final = threading.Lock()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence file descriptor 2 inside the block: MediaPipe's C++ code writes start-up notes there at any log level.

    One thread at a time: overlapping blocks would restore each other's descriptor.
    """
    with _STDERR_LOCK:
        yield from _redirected()


def _redirected() -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with open(os.devnull, "w", encoding="utf-8") as silent, redirect_stderr(silent):  # redirects Python's sys.stderr too
            yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


class _Graph:
    """Running MediaPipe graph with the input stream `image`."""

    def __init__(self, config: str, outputs: tuple[str, ...]) -> None:
        with _quiet_stderr():
            import mediapipe
            from mediapipe.python import packet_creator, packet_getter
            from mediapipe.python._framework_bindings import calculator_graph, resource_util

            resource_util.set_resource_dir(str(Path(mediapipe.__file__).parent.parent))
            self._create = packet_creator.create_image_frame
            self._format = mediapipe.ImageFormat.SRGB
            self.get = packet_getter
            self._packets: dict[str, Any] = {}
            self._graph = calculator_graph.CalculatorGraph(graph_config=config)
            for output in outputs:
                self._graph.observe_output_stream(output, self._packets.__setitem__)
            self._graph.start_run()
        self._timestamp = 0
        self._warm = False
        self._lock = threading.Lock()

    def run(self, picture: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """Return the packets by output name. An output without a packet is absent."""
        with self._lock:
            self._timestamp += 1
            self._packets.clear()
            packet = self._create(np.ascontiguousarray(picture), image_format=self._format).at(self._timestamp)
            if self._warm:
                self._feed(packet)
            else:
                with _quiet_stderr():
                    self._feed(packet)
                self._warm = True
            return dict(self._packets)

    def _feed(self, packet: Any) -> None:
        self._graph.add_packet_to_input_stream("image", packet)
        self._graph.wait_until_idle()

    def close(self) -> None:
        """End the graph. It cannot run again."""
        self._graph.close_all_packet_sources()
        self._graph.wait_until_done()


class PatchReading(NamedTuple):
    """Face that the mesh network found in a patch.

    Attributes:
        landmarks: float32 [478, 3], patch pixels, z negative towards the camera.
        score: confidence that there is a face, 0 to 1.
    """

    landmarks: npt.NDArray[np.float32]
    score: float


class MeshNetwork:
    """MediaPipe's face mesh with attention (478 points)."""

    def __init__(self) -> None:
        self._graph = _Graph(_MESH_GRAPH, ("landmarks", "score"))

    def __call__(self, patch: npt.NDArray[np.uint8]) -> PatchReading:
        """Return the landmarks of one face.

        Args:
            patch: uint8 RGB [192, 192, 3], the face upright, its bounding box two thirds of the side.

        Returns:
            The reading of this patch.
        """
        packets = self._graph.run(patch)
        message = self._graph.get.get_proto(packets["landmarks"])
        points = _landmarks(message) * PATCH_SIZE
        points[:, :2] -= 0.5
        return PatchReading(points, float(self._graph.get.get_float(packets["score"])))

    def close(self) -> None:
        """Free the network."""
        self._graph.close()


def _landmarks(message: Any) -> npt.NDArray[np.float32]:
    """Return x, y, z of a NormalizedLandmarkList, float32 [N, 3].

    The values are read from the wire bytes, which is six times as fast as reading the message's objects.
    """
    count = len(message.landmark)
    data = np.frombuffer(message.SerializeToString(), dtype=np.uint8)
    if len(data) == count * _LANDMARK_BYTES:
        fields = data.reshape(count, _LANDMARK_BYTES)[:, 2:].reshape(count, 3, 5)[:, :, 1:]
        return np.ascontiguousarray(fields).view("<f4")[:, :, 0].astype(np.float32)
    return np.array([(point.x, point.y, point.z) for point in message.landmark], dtype=np.float32)  # zeros are not on the wire


class RawDetection(NamedTuple):
    """One detection of MediaPipe, in fractions of the picture's sides.

    Attributes:
        box: left, top, width, height.
        keypoints: float64 [6, 2]: right eye, left eye, nose tip, mouth, right ear, left ear (the subject's right and left).
        score: 0 to 1.
    """

    box: tuple[float, float, float, float]
    keypoints: npt.NDArray[np.float64]
    score: float


class DetectorNetwork:
    """MediaPipe's face detector; `reach` is "Short" (faces near the camera, 128 x 128) or "Full" (far faces too, 192 x 192)."""

    def __init__(self, reach: str, min_score: float) -> None:
        self._graph = _Graph(_DETECTOR_GRAPH % (reach, min_score), ("detections",))

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[RawDetection]:
        """Return all faces in a picture, uint8 RGB [H, W, 3], by falling score."""
        packet = self._graph.run(picture).get("detections")
        found: list[RawDetection] = []
        for message in [] if packet is None else self._graph.get.get_proto_list(packet):
            box = message.location_data.relative_bounding_box
            points = np.array([(point.x, point.y) for point in message.location_data.relative_keypoints], dtype=np.float64)
            found.append(RawDetection((box.xmin, box.ymin, box.width, box.height), points, float(message.score[0])))
        return sorted(found, key=lambda detection: (-detection.score, detection.box))

    def close(self) -> None:
        """Free the network."""
        self._graph.close()
