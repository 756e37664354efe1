"""Stream of RetrieveWarp: one target frame in, its texture out, from the frames t - 5 .. t.

**Mouths that the footage never shows open** get a drawn inside.

A warp opens shut lips only by stretching the line between them, so such a person would never be seen to speak. The inside is
drawn dark instead, with soft borders. Teeth are not drawn, because the footage does not show the person's teeth.

**Albedo modes** draw the identity's face in the target pose and expression, in place of a retrieved texture.

services/common/face/drawing.py draws the face, in serving and in the renderer's training. The light is the identity's
mean over the footage. The renderer adapts the face to the light of a frame.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import head_to_box
from services.common.face.drawing import IdentityDrawing, lip_pictures
from services.common.face.landmarks import NUM_LIPS, NUM_MOUTH_AREA, mouth_opening, never_open
from services.common.face.mouth_bank import WINDOW, MouthBank, Retrieved, retrieve, target_points, window_costs
from services.common.face.mouth_detail import warped_detail, without_hidden_inside
from services.common.face.mouth_inside import MouthView
from services.common.face.mouth_texture import fit_retrieved, warp_retrieved
from services.common.face.thin_plate_spline import ThinPlateSpline, bending_energy, evaluate_grid, fitting_error
from services.common.server.call_context import set_model_version
from services.texture.artefacts import StoredFaces
from services.texture.inside_path import HeldInside, InsideCosts
from services.texture.temporal_warp import MAX_WINDOWS, TemporalWarpModel
from services.texture.types import TargetFrame, WarpConfig, WarpedFrame, WarpMode, check_order

BLENDED_WINDOWS: Final = 7
"""Windows whose last textures are blended. Each frame chooses its windows anew. With seven windows in place of three, lips and skin
change a seventh less from frame to frame without motion, and stay as sharp (docs/methods/dubstage.md, "Beside other systems").
"""
_SHADE: Final = np.array([0.26, 0.2, 0.2], np.float32)
"""Colour of the inside as a share of the lips' mean colour: red, green, blue."""
_FIRST_PX: Final = 0.7
_WHOLE_PX: Final = 2.5
"""Openings from which on the inside shows, and shows in full, box pixels: lips that hardly part show no dark line."""
_SOFT_PX: Final = 0.6
"""Softness of the border, the standard deviation of a Gaussian, box pixels."""


class UnseenInside:
    """Draws the inside of one person's mouth where the bank has none.

    Args:
        bank: the person's mouths.
    """

    def __init__(self, bank: MouthBank) -> None:
        self.needed = never_open(bank.mouth)
        self._colour = _SHADE * _lip_colour(bank) if self.needed else np.zeros(3, np.float32)

    def drawn(self, texture: UInt8, target: Float32) -> UInt8:
        """Return a texture with the inside of the mouth; the same texture if the bank shows an inside.

        Args:
            texture: uint8 [160, 160, 3], RGB.
            target: float32 [M, 2], target landmarks, the mouth area first, box pixels.
        """
        if not self.needed:
            return texture
        opening = float(mouth_opening(target))
        share = np.clip((opening - _FIRST_PX) / (_WHOLE_PX - _FIRST_PX), 0.0, 1.0)
        if not share:
            return texture
        weight = share * _soft(lip_pictures(target)[..., 1])[..., None]
        return np.asarray(np.rint(texture + weight * (self._colour - texture)), np.uint8)


def _lip_colour(bank: MouthBank) -> Float32:
    """Return the mean colour of the lips in the picture with the most ordinary mouth, float32 [3]."""
    lips = _soft(lip_pictures(bank.box_landmarks[bank.medoid])[..., 0])
    return np.asarray(np.average(bank.boxes[bank.medoid].reshape(-1, 3), axis=0, weights=lips.ravel() + 1e-6), np.float32)


def _soft(mask: UInt8) -> Float32:
    """Return a mask, uint8 [160, 160], with soft borders: float32, 0 to 1."""
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32) / 255.0, (0, 0), _SOFT_PX), np.float32)


class IdentityStream:
    """Drawn faces for one stream of target frames. A frame's answer depends on the identity and the frame alone."""

    def __init__(self, drawing: IdentityDrawing, mode: WarpMode) -> None:
        """Prepare a stream.

        Args:
            mode: one of ALBEDO_MODES.

        Raises:
            InvalidRequestError: the mode is DETAILED_ALBEDO, and the identity has no detailed albedo.
        """
        self._drawing = drawing
        self._detailed = mode is WarpMode.DETAILED_ALBEDO
        self._last_index: int | None = None
        if self._detailed and not drawing.has_detail:
            raise InvalidRequestError(
                "this identity has no detailed albedo, since its morphable model has no texture coordinates",
                field="config.identity",
            )

    def push(self, frame: TargetFrame) -> WarpedFrame | None:
        """Return the face of the next frame; None for a context frame.

        Raises:
            InvalidRequestError: the frame's index does not increase.
        """
        check_order(frame.frame_index, self._last_index)
        self._last_index = frame.frame_index
        if frame.context_only:
            return None
        return WarpedFrame(
            frame_index=frame.frame_index,
            texture=self._drawing.draw(frame.mouth, frame.pose, detailed=self._detailed),
            box_landmarks=head_to_box(frame.mouth, frame.pose),
            bank_frame_index=-1,
            distance=0.0,
            fitting_error=0.0,
            bending_energy=0.0,
            inside_frame_index=-1,
        )


class WarpStream:
    """Textures for one stream of target frames.

    The answer to a frame that names its inside depends on the bank and the last six frames alone, so the cut of the stream makes no
    difference. After a gap of the indices, and at the beginning, the first frame is repeated as its own past. A caller that starts
    in the middle sends the five frames before as `context_only`, and gets the same bytes as a caller that starts at the beginning.
    Without a named inside, the inside also depends on the frames since the lips were shut (inside_path.HeldInside).

    Args:
        costs: costs of the person's bank.
        mode: how textures are chosen and warped.
        model: corrects the splines, in the mode TEMPORAL_WARP_NETWORK.
        detail_scale: pixels of the answered detail per box pixel, 1 to 4; 0: no detail. Modes with splines only.
    """

    def __init__(self, costs: InsideCosts, mode: WarpMode, model: TemporalWarpModel, detail_scale: int = 0) -> None:
        self._bank = costs.bank
        self._mode = mode
        self._model = model
        self._detail_scale = detail_scale
        self._inside = UnseenInside(costs.bank)
        self._held = HeldInside(costs)
        self._past: deque[tuple[Float32, Float32]] = deque(maxlen=WINDOW)
        self._last_index: int | None = None

    def push(self, frame: TargetFrame) -> WarpedFrame | None:
        """Return the texture of the next frame; None for a context frame.

        Raises:
            InvalidRequestError: the frame's index does not increase.
        """
        check_order(frame.frame_index, self._last_index)
        if self._last_index is None or frame.frame_index != self._last_index + 1:
            self._past.clear()
            self._held.begin()
        self._last_index = frame.frame_index
        points = target_points(frame.mouth, self._bank.geometry, frame.pose)
        self._past.append((frame.mouth, points))
        while len(self._past) < WINDOW:
            self._past.append((frame.mouth, points))
        return None if frame.context_only else self._answer(frame, points)

    def _answer(self, frame: TargetFrame, target: Float32) -> WarpedFrame:
        retrieved, mouth = self._choose(frame), frame.mouth
        if self._mode is WarpMode.MEAN_MOUTH:
            mouth = self._bank.mouth[self._bank.medoid]
            target = target_points(mouth, self._bank.geometry, frame.pose)
        row = int(retrieved.rows[0, -1])
        source = self._bank.control_points[row]
        fitting = bending = 0.0
        detail: UInt8 | None = None
        if self._mode is WarpMode.RETRIEVAL_ONLY:
            texture = _moved(self._bank.boxes[row], source, target)
        else:
            spline = fit_retrieved(self._bank, retrieved, target, self._residual(retrieved))
            grids = evaluate_grid(spline)
            shown = MouthView(mouth, frame.pose.rotation, target[:NUM_MOUTH_AREA])
            warped = warp_retrieved(self._bank, retrieved, grids, shown)
            texture = self._inside.drawn(warped.texture, target)
            best = ThinPlateSpline(spline.centres, spline.weights[:, :2], spline.affine[:, :2])
            fitting = float(fitting_error(best, source, NUM_MOUTH_AREA))
            bending = float(bending_energy(grids[..., :2]))
            if self._detail_scale:
                # A run of footage also keeps the detail of the skin calm.
                detail = warped_detail(self._bank, retrieved.inside, warped.inside_map, self._detail_scale)
                if len(self._bank.mouth) == 1:
                    detail = without_hidden_inside(detail, source[:NUM_MOUTH_AREA], shown.landmarks, warped.inside_map.backward)
        return WarpedFrame(
            frame_index=frame.frame_index,
            texture=texture,
            box_landmarks=target[:NUM_MOUTH_AREA],
            bank_frame_index=int(self._bank.frame_index[row]),
            distance=float(np.abs(self._bank.mouth[row] - frame.mouth).sum(axis=1).mean()),
            fitting_error=fitting,
            bending_energy=bending,
            inside_frame_index=int(self._bank.frame_index[retrieved.inside]),
            detail=detail,
        )

    def _choose(self, frame: TargetFrame) -> Retrieved:
        if self._mode is WarpMode.MEAN_MOUTH:
            return _alone(self._bank.medoid)
        costs = window_costs(self._bank, np.stack([mouth for mouth, _ in self._past]), frame.pose.rotation)
        if self._mode is WarpMode.RETRIEVAL_ONLY:
            return retrieve(self._bank, costs, 1)
        if frame.inside_frame_index is None:
            return retrieve(self._bank, costs, BLENDED_WINDOWS, self._held.next_row(frame.mouth, costs))
        return retrieve(self._bank, costs, BLENDED_WINDOWS, self._row_of(frame.inside_frame_index))

    def _row_of(self, frame_index: int) -> int:
        row = int(np.searchsorted(self._bank.frame_index, frame_index))
        if row == self._bank.num_frames or self._bank.frame_index[row] != frame_index:
            raise InvalidRequestError(
                f"frame.inside_frame_index: the bank has no frame {frame_index}; SelectInsides names frames of the bank",
                field="frame.inside_frame_index",
            )
        return row

    def _residual(self, retrieved: Retrieved) -> Float32 | None:
        if self._mode is not WarpMode.TEMPORAL_WARP_NETWORK:
            return None
        window = np.stack([points for _, points in self._past])
        # Further windows have little weight, and come out as near without the correction.
        return self._model.residual(window, self._bank.control_points[retrieved.rows[:MAX_WINDOWS]])


def _alone(row: int) -> Retrieved:
    return Retrieved(np.full((1, WINDOW), row, dtype=np.intp), np.ones(1, np.float32), row)


def _moved(box: npt.NDArray[np.uint8], source: Float32, target: Float32) -> npt.NDArray[np.uint8]:
    shift = target[:NUM_LIPS].mean(axis=0, dtype=np.float64) - source[:NUM_LIPS].mean(axis=0, dtype=np.float64)
    affine = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    picture = cv2.warpAffine(box, affine, box.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(picture, dtype=np.uint8)


def open_stream(config: WarpConfig, stored: StoredFaces, model: TemporalWarpModel) -> WarpStream | IdentityStream:
    """Return the stream of a configuration.

    Args:
        config: mode, and the bank or the identity.
        stored: banks and identities.
        model: the loaded network.

    Raises:
        InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError, ModelNotFoundError: the bank or the identity cannot be
            used.
    """
    if config.identity is not None:
        return IdentityStream(stored.drawing(config.identity), config.mode)
    assert config.bank is not None
    set_model_version(model.version)
    return WarpStream(stored.inside_costs(config.bank), config.mode, model, config.detail_scale)
