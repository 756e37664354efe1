"""Detection of faces in whole pictures, and the mesh of one face, by MediaPipe's networks.

MediaPipe's own `FaceMesh` keeps state, hides the mesh's confidence, shears the points of tilted faces in pictures that are not
square, and cuts the patch without a low-pass filter. This module cuts the patches and runs the networks as pure functions, on one
thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.face.crops import HeadPose, fit_head_pose, head_template, invert
from services.common.face.sampling import sample_patch
from services.common.stderr import quiet_stderr

PATCH_SIZE: Final = 192
"""Side of the mesh network's input, pixels."""

EXECUTOR: Final = 'executor { type: "ApplicationThreadExecutor" }\n'
_MESH_GRAPH: Final = (
    EXECUTOR
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
    EXECUTOR
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


_WORKING_SIDE: Final = 384
"""Long side to which pictures are shrunk first. The networks take 128 and 192 pixels."""
_SHORT_RANGE_SCORE: Final = 0.5
_FULL_RANGE_SCORE: Final = 0.6
_SAME_FACE_OVERLAP: Final = 0.3
_CONFIRM_SCORE: Final = 0.6
_CONFIRM_OVERLAP: Final = 0.4
_CONFIRM_MARGIN: Final = 2.2
_CONFIRM_SIDE: Final = 192
ROI_MARGIN: Final = 1.5
"""Side of the patch divided by the long side of the face's bounding box, as in the network's training."""
_SETTLED: Final = 0.08
"""Share of a region's side by which the region may move before the face is measured again."""
_HEAD = head_template().astype(np.float64)


class Graph:
    """Running MediaPipe graph with the input stream `image`."""

    def __init__(self, config: str, outputs: tuple[str, ...]) -> None:
        with quiet_stderr():
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
            # The graph opens in threads of its own, which write their notes after `start_run` has returned.
            self._graph.wait_until_idle()
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
                with quiet_stderr():
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
        self._graph = Graph(_MESH_GRAPH, ("landmarks", "score"))

    def __call__(self, patch: npt.NDArray[np.uint8]) -> PatchReading:
        """Return the landmarks of one face.

        Args:
            patch: uint8 RGB [192, 192, 3], the face upright, its bounding box two thirds of the side.

        Returns:
            The reading of this patch.
        """
        packets = self._graph.run(patch)
        message = self._graph.get.get_proto(packets["landmarks"])
        points = landmarks_of(message) * PATCH_SIZE
        points[:, :2] -= 0.5
        return PatchReading(points, float(self._graph.get.get_float(packets["score"])))

    def close(self) -> None:
        """Free the network."""
        self._graph.close()


def landmarks_of(message: Any) -> npt.NDArray[np.float32]:
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
        self._graph = Graph(_DETECTOR_GRAPH % (reach, min_score), ("detections",))

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[RawDetection]:
        """Return all faces in a picture, uint8 RGB [H, W, 3], by falling score."""
        packet = self._graph.run(picture).get("detections")
        detections: list[RawDetection] = []
        for message in [] if packet is None else self._graph.get.get_proto_list(packet):
            box = message.location_data.relative_bounding_box
            points = np.array([(point.x, point.y) for point in message.location_data.relative_keypoints], dtype=np.float64)
            detections.append(RawDetection((box.xmin, box.ymin, box.width, box.height), points, float(message.score[0])))
        return sorted(detections, key=lambda detection: (-detection.score, detection.box))

    def close(self) -> None:
        """Free the network."""
        self._graph.close()


@dataclass(frozen=True, slots=True)
class Detection:
    """Detected face.

    Attributes:
        box: left, top, width, height, pixels: from the brows to the chin.
        keypoints: float64 [6, 2], pixels: right eye, left eye, nose tip, mouth, right ear, left ear.
        score: 0 to 1.
    """

    box: tuple[float, float, float, float]
    keypoints: npt.NDArray[np.float64]
    score: float


class FaceDetector:
    """Detector of near faces by the short-range network, and of far faces by the full-range network where faces are missing."""

    def __init__(self) -> None:
        self._short = DetectorNetwork("Short", _SHORT_RANGE_SCORE)
        self._full = DetectorNetwork("Full", _FULL_RANGE_SCORE)

    def detect(self, picture: npt.NDArray[np.uint8], *, thorough: bool) -> list[Detection]:
        """Return the faces of a picture, uint8 RGB [H, W, 3]: near faces first, by falling score.

        Args:
            picture: upright.
            thorough: look for far faces even where near faces were found.
        """
        height, width = picture.shape[:2]
        shrink = min(1.0, _WORKING_SIDE / max(height, width))
        small = picture
        if shrink < 1.0:
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        detections = [_in_pixels(raw, width, height) for raw in self._short(small)]
        if thorough or not detections:
            for raw in self._full(small):
                candidate = _in_pixels(raw, width, height)
                if all(overlap(candidate.box, other.box) < _SAME_FACE_OVERLAP for other in detections):
                    detections.append(candidate)
        return detections

    def confirm(self, picture: npt.NDArray[np.uint8], detection: Detection) -> bool:
        """Return whether the short-range network finds the face in a close-up too.

        The full-range network sometimes finds faces in foliage, and the mesh network accepts them.
        """
        left, top, width, height = detection.box
        side = _CONFIRM_MARGIN * max(width, height)
        scale = _CONFIRM_SIDE / side
        origin = np.array([left + width / 2 - side / 2, top + height / 2 - side / 2])
        affine = np.column_stack([np.eye(2) * scale, -scale * origin])
        close_up = sample_patch(picture, affine, (_CONFIRM_SIDE, _CONFIRM_SIDE), interpolation=cv2.INTER_LINEAR)
        for raw in self._short(close_up):
            seen = _in_pixels(raw, _CONFIRM_SIDE, _CONFIRM_SIDE)
            x, y = np.array(seen.box[:2]) / scale + origin
            box = (float(x), float(y), seen.box[2] / scale, seen.box[3] / scale)
            if seen.score >= _CONFIRM_SCORE and overlap(box, detection.box) >= _CONFIRM_OVERLAP:
                return True
        return False

    def close(self) -> None:
        """Free the networks."""
        self._short.close()
        self._full.close()


def overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> float:
    """Return intersection over union of two boxes (left, top, width, height)."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def _in_pixels(raw: RawDetection, width: int, height: int) -> Detection:
    left, top, box_width, box_height = raw.box
    box = (left * width - 0.5, top * height - 0.5, box_width * width, box_height * height)
    return Detection(box, raw.keypoints * np.array([width, height]) - 0.5, raw.score)


class FaceRegion(NamedTuple):
    """A turned square of the picture: centre (pixels), side (pixels), angle (radians, clockwise on the screen)."""

    x: float
    y: float
    side: float
    angle: float

    def patch_from_frame(self) -> npt.NDArray[np.float64]:
        """Return the similarity frame pixels -> patch pixels, float64 [2, 3]."""
        scale = PATCH_SIZE / self.side
        cos, sin = scale * np.cos(self.angle), scale * np.sin(self.angle)
        linear = np.array([[cos, sin], [-sin, cos]])
        middle = (PATCH_SIZE - 1) / 2
        return np.column_stack([linear, middle - linear @ np.array([self.x, self.y])])


class MeshReading(NamedTuple):
    """Face that the mesh network measured.

    Attributes:
        landmarks: float32 [478, 3], frame pixels, not smoothed.
        score: the network's confidence that there is a face, 0 to 1.
    """

    landmarks: npt.NDArray[np.float32]
    pose: HeadPose
    score: float


def region_of_detection(detection: Detection) -> FaceRegion:
    """Return the region in which to measure a detected face: the box, turned by the line of the eyes, 1.5 times as large."""
    left, top, width, height = detection.box
    right_eye, left_eye = detection.keypoints[0], detection.keypoints[1]
    angle = float(np.arctan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0]))
    return FaceRegion(left + width / 2, top + height / 2, ROI_MARGIN * max(width, height), angle)


def region_of_pose(pose: HeadPose) -> FaceRegion:
    """Return the region in which to measure a face with the given pose.

    The region lies around the mean head, not around the face's own points, so that the mouth's opening does not move the patch.
    """
    angle = np.radians(pose.roll_degrees)
    posed = _HEAD @ pose.rotation.T * pose.scale + pose.translation
    cos, sin = np.cos(angle), np.sin(angle)
    upright = posed[:, :2] @ np.array([[cos, -sin], [sin, cos]])
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2
    return FaceRegion(float(cos * x - sin * y), float(sin * x + cos * y), ROI_MARGIN * float((high - low).max()), float(angle))


def read_mesh(network: MeshNetwork, picture: npt.NDArray[np.uint8], region: FaceRegion) -> MeshReading:
    """Return the mesh of the face in `region`. If the mesh shows that the face lies elsewhere, the face is measured again there."""
    reading = _read_once(network, picture, region)
    better = region_of_pose(reading.pose)
    moved = max(abs(better.x - region.x), abs(better.y - region.y), abs(better.side - region.side))
    if reading.score > 0.1 and moved > _SETTLED * region.side:
        return _read_once(network, picture, better)
    return reading


def _read_once(network: MeshNetwork, picture: npt.NDArray[np.uint8], region: FaceRegion) -> MeshReading:
    affine = region.patch_from_frame()
    patch = sample_patch(picture, affine, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_LINEAR)
    points, score = network(patch)
    back = invert(affine)
    landmarks = np.empty_like(points)
    landmarks[:, :2] = points[:, :2].astype(np.float64) @ back[:, :2].T + back[:, 2]
    landmarks[:, 2] = points[:, 2] * (region.side / PATCH_SIZE)
    return MeshReading(landmarks, fit_head_pose(landmarks), score)
