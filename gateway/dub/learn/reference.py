"""The reference picture of a dub: the face whose appearance the video takes, warped to the shape of the person in the video.

A thin-plate spline moves the face of the picture onto the face of the person.

A renderer that takes a reference picture has learned from pictures of the person in the video. Nostrils, lips and outline of
another person lie elsewhere in the render box. So the picture is warped: its mouth area, nose base and cheeks come to where they
are in a picture of the person in the video. The lips stay as far apart as in the picture, because a warp that opens shut lips has
no teeth to show. Only lips that are wide open come nearer to each other, because a renderer leaves traces of such lips around the
target lips. The jaw comes to the person's jaw at its lowest, so that neither neck nor collar of the picture gets into the person's
mask.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.consent.subject import Face
from gateway.dub.analyse.face_records import FaceMeans, face_records
from gateway.dub.analyse.footage import tracked_frames
from gateway.dub.state.records import pose_of
from gateway.media.inspection import inspect_in_child
from gateway.media.stills import open_footage
from gateway.media.types import MediaInfo
from gateway.stages.calls import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Float32, UInt8
from services.common.errors import MediaUnsupportedError, NoUsableFootageError
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import HeadPose, apply_affine, box_from_frame
from services.common.face.landmarks import MOUTH_AREA, NUM_LIPS, lip_gaps, mouth_opening, part_lips, shut_lips
from services.common.face.mouth_bank import BORDER_POINTS, target_points
from services.common.face.thin_plate_spline import dense_map, evaluate_grid, fit_spline, warp

_TALKING_PX: Final = 10.0
"""Opening of a speaking mouth that shows its teeth, head-space pixels."""
_WIDEST_PX: Final = 12.0
"""Largest opening of the mouth in a warped picture, head-space pixels."""
_TURN_COST_PER_DEGREE: Final = 0.2
"""Cost of one degree between nose and line of sight, pixels of opening."""
_SMOOTHING: Final = 30.0
"""Regularisation of the spline, box pixels squared. The control points are missed by .3 to .6 px. A video needs more, against
flicker."""
MAX_FRAMES: Final = 250
"""Most frames of a reference video that are searched for a face."""
_EMBED_EVERY: Final = 5
"""Frames of a face in a reference video from one embedding to the next."""
CHOICE_FRAMES: Final = 50
"""Frames of a reference video, from the first usable face on, of which the best one is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceFace:
    """Face of a reference picture.

    Attributes:
        box: uint8 [160, 160, 3], RGB, render box.
        points: float32 [86, 2], control points of the warp in `box`: mouth area, anchors, border points; box pixels.
        mouth: float32 [59, 3], mouth-area landmarks, head space.
        cost: how far the picture is from one of a speaking mouth from the front, head-space pixels.
        face: mean embedding of the face over the frames of the file; None: it was not measured.
    """

    box: UInt8
    points: Float32
    mouth: Float32
    cost: float
    face: Face | None = None

    def in_shape_of(self, geometry: ActorGeometry, pose: HeadPose) -> UInt8:
        """Return the picture in the shape of a person, uint8 [160, 160, 3].

        Args:
            geometry: lower face of the person.
            pose: head orientation in which the person is seen.
        """
        narrower = _WIDEST_PX / max(float(mouth_opening(self.mouth)), _WIDEST_PX)
        mouth = part_lips(shut_lips(geometry.closed_mouth), lip_gaps(self.mouth) * np.float32(narrower))
        mouth[NUM_LIPS:] = geometry.jaw_envelope
        spline = fit_spline(target_points(mouth, geometry, pose), self.points, _SMOOTHING)
        return warp(self.box, dense_map(evaluate_grid(spline)))


def reference_face(record: Any) -> ReferenceFace:
    """Return the face of a FACE_RECORD."""
    pose, mouth = pose_of(record), np.array(record["mouth"], np.float32)
    points = apply_affine(box_from_frame(pose), record["landmarks"][list(MOUTH_AREA + ANCHORS)])
    turn = float(np.degrees(np.arccos(np.clip(pose.rotation[2, 2], -1.0, 1.0))))
    return ReferenceFace(
        box=np.array(record["pixels"], np.uint8),
        points=np.concatenate([points, BORDER_POINTS]),
        mouth=mouth,
        cost=abs(float(mouth_opening(mouth)) - _TALKING_PX) + _TURN_COST_PER_DEGREE * turn,
    )


async def find_reference(stages: Stages, path: Path, folder: Path, *, threads: int, embed: bool = False) -> ReferenceFace:
    """Return the first usable face in a file. If a frame shows several, the largest. Of a video, the best picture of this face.

    Args:
        path: a picture or a video.
        folder: folder for a temporary file.
        threads: threads of the decoder.
        embed: whether the face is measured for comparisons with other videos.

    Raises:
        MediaUnsupportedError: the file is no picture and no video.
        NoUsableFootageError: no face can be used.
        DubstageError: from the face stage.
    """
    try:
        info = await inspect_in_child(path)
        with TemporaryDirectory(prefix="reference-", dir=folder) as scratch:
            opened = await asyncio.to_thread(open_footage, info, Path(scratch), threads=threads)
            face = await until_done(lambda: _best_face(stages, opened, threads, _EMBED_EVERY if embed else 0))
    except MediaUnsupportedError as problem:
        raise MediaUnsupportedError(problem.message, field="reference") from problem
    if face is None:
        searched = f" in its first {MAX_FRAMES} frames" if info.video.num_frames > MAX_FRAMES else ""
        raise NoUsableFootageError(
            f"the reference {path} shows no face that can be used{searched}: give a picture of a whole face from the front",
            subject=str(path),
        )
    return face


async def _best_face(stages: Stages, info: MediaInfo, threads: int, embed_every: int) -> ReferenceFace | None:
    best: ReferenceFace | None = None
    means = FaceMeans()
    face_id, last = -1, MAX_FRAMES - 1
    async with aclosing(tracked_frames(stages, info, threads, embed_every=embed_every)) as frames:
        async for tracked in frames:
            for answered in tracked.faces.faces:
                means.add(answered)
            records = await asyncio.to_thread(face_records, tracked.faces, tracked.cut_box, tracked.scale)
            usable = records[records["reason"] == common_pb2.FRAME_REASON_DUBBED]
            if best is None and len(usable):
                area = usable["box"][:, 2] * usable["box"][:, 3]
                face_id, last = int(usable["face_id"][np.argmax(area)]), tracked.index + CHOICE_FRAMES - 1
            for record in usable[usable["face_id"] == face_id]:
                face = reference_face(record)
                best = face if best is None or face.cost < best.cost else best
            if tracked.index == last:
                break
    return replace(best, face=means.faces().get(face_id)) if best is not None else None
