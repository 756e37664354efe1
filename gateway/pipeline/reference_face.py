"""The face of a reference picture, and this face in the shape of another person: a thin-plate spline moves one onto the other.

A renderer that takes a reference picture has learned from pictures of the person in the film. Nostrils, lips and outline of another
person lie elsewhere in the render box. So the picture is warped: its mouth area, nose base and cheeks come to where they are in a
picture of the person in the film. The lips stay as far apart as in the picture, because a warp that opens shut lips has no teeth to
show. Only lips that are wide open come nearer to each other, because a renderer leaves traces of such lips around the wanted lips.
The jaw comes to the person's jaw at its lowest, so that neither neck nor collar of the picture gets into the person's mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gateway.consent.subject import Face
from gateway.pipeline.records import pose_of
from services.common.array_types import Float32, UInt8
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import HeadPose, apply_affine, box_from_frame
from services.common.face.landmarks import MOUTH_AREA, NUM_LIPS, lip_gaps, mouth_opening, part_lips, shut_lips
from services.common.face.mouth_bank import BORDER_POINTS, wanted_points
from services.common.face.thin_plate_spline import dense_map, evaluate_grid, fit_spline, warp

_TALKING_PX: Final = 10.0
"""Opening of a speaking mouth that shows its teeth, head-space pixels."""
_WIDEST_PX: Final = 12.0
"""Largest opening of the mouth in a warped picture, head-space pixels."""
_TURN_COST_PER_DEGREE: Final = 0.2
"""Cost of one degree between nose and line of sight, pixels of opening."""
_SMOOTHING: Final = 30.0
"""Regularisation of the spline, box pixels squared. The control points are missed by .3 to .6 px. A film needs more, against
flicker."""


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
        spline = fit_spline(wanted_points(mouth, geometry, pose), self.points, _SMOOTHING)
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
