"""Retrieval and warping of a stream: one target frame in, its texture out, from the frames t - 5 .. t."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.face.landmarks import NUM_LIPS, NUM_MOUTH_AREA
from services.common.face.mouth_bank import WINDOW, MouthBank, Retrieved, retrieve, wanted_points
from services.common.face.mouth_detail import warped_detail, without_hidden_inside
from services.common.face.mouth_texture import fit_retrieved, warp_by_grids
from services.common.face.thin_plate_spline import ThinPlateSpline, bending_energy, dense_map, evaluate_grid, fitting_error
from services.texture.frame_order import check_order
from services.texture.models import MAX_WINDOWS, TemporalWarpModel
from services.texture.types import TargetFrame, WarpedFrame, WarpMode
from services.texture.unseen_inside import UnseenInside


class WarpStream:
    """Textures for one stream of target frames.

    A frame's answer depends on the bank and the last six frames alone, so the cut of the stream makes no difference. After a gap of
    the indices, and at the beginning, the first frame is repeated as its own past. A caller that starts in the middle sends the
    five frames before as `context_only`, and gets the same bytes as a caller that starts at the beginning.

    Args:
        bank: the person's mouths.
        mode: how textures are chosen and warped.
        model: corrects the splines, in the mode TEMPORAL_WARP_NETWORK.
        detail_scale: pixels of the answered detail per box pixel, 1 to 4; 0: no detail. Modes with splines only.
    """

    def __init__(self, bank: MouthBank, mode: WarpMode, model: TemporalWarpModel, detail_scale: int = 0) -> None:
        self._bank = bank
        self._mode = mode
        self._model = model
        self._detail_scale = detail_scale
        self._inside = UnseenInside(bank)
        self._past: deque[tuple[Float32, Float32]] = deque(maxlen=WINDOW)
        self._last_index: int | None = None

    def push(self, frame: TargetFrame) -> WarpedFrame | None:
        """Return the texture of the next frame; None for a context frame.

        Raises:
            InvalidRequest: the frame's index does not increase.
        """
        check_order(frame.frame_index, self._last_index)
        if self._last_index is None or frame.frame_index != self._last_index + 1:
            self._past.clear()
        self._last_index = frame.frame_index
        points = wanted_points(frame.mouth, self._bank.geometry, frame.pose)
        self._past.append((frame.mouth, points))
        while len(self._past) < WINDOW:
            self._past.append((frame.mouth, points))
        return None if frame.context_only else self._answer(frame, points)

    def _answer(self, frame: TargetFrame, wanted: Float32) -> WarpedFrame:
        found, mouth = self._choose(frame), frame.mouth
        if self._mode is WarpMode.MEAN_MOUTH:
            mouth = self._bank.mouth[self._bank.medoid]
            wanted = wanted_points(mouth, self._bank.geometry, frame.pose)
        row = int(found.rows[0, -1])
        source = self._bank.control_points[row]
        fitting = bending = 0.0
        detail: UInt8 | None = None
        if self._mode is WarpMode.RETRIEVAL_ONLY:
            texture = _moved(self._bank.boxes[row], source, wanted)
        else:
            spline = fit_retrieved(self._bank, found, wanted, self._residual(found))
            grids = evaluate_grid(spline)
            texture = self._inside.drawn(warp_by_grids(self._bank, found, grids), wanted)
            best = ThinPlateSpline(spline.centres, spline.weights[:, :2], spline.affine[:, :2])
            fitting = float(fitting_error(best, source, NUM_MOUTH_AREA))
            bending = float(bending_energy(grids[..., :2]))
            if self._detail_scale:
                backward = dense_map(grids[..., :2])
                detail = warped_detail(self._bank, row, backward, self._detail_scale)
                if len(self._bank.mouth) == 1:
                    detail = without_hidden_inside(detail, source[:NUM_MOUTH_AREA], wanted[:NUM_MOUTH_AREA], backward)
        return WarpedFrame(
            frame_index=frame.frame_index,
            texture=texture,
            box_landmarks=wanted[:NUM_MOUTH_AREA],
            bank_frame_index=int(self._bank.frame_index[row]),
            distance=float(np.abs(self._bank.mouth[row] - frame.mouth).sum(axis=1).mean()),
            fitting_error=fitting,
            bending_energy=bending,
            detail=detail,
        )

    def _choose(self, frame: TargetFrame) -> Retrieved:
        if self._mode is WarpMode.MEAN_MOUTH:
            return _alone(self._bank.medoid)
        if self._mode is WarpMode.SINGLE_FRAME:
            distances = np.abs(self._bank.mouth - frame.mouth).sum(axis=(1, 2))
            return _alone(int(np.argmin(distances)))
        mouths = np.stack([mouth for mouth, _ in self._past])
        count = 1 if self._mode is WarpMode.RETRIEVAL_ONLY else MAX_WINDOWS
        return retrieve(self._bank, mouths, frame.pose.rotation, count)

    def _residual(self, found: Retrieved) -> Float32 | None:
        if self._mode is not WarpMode.TEMPORAL_WARP_NETWORK:
            return None
        window = np.stack([points for _, points in self._past])
        return self._model.residual(window, self._bank.control_points[found.rows])


def _alone(row: int) -> Retrieved:
    return Retrieved(np.full((1, WINDOW), row, dtype=np.intp), np.ones(1, np.float32))


def _moved(box: npt.NDArray[np.uint8], source: Float32, wanted: Float32) -> npt.NDArray[np.uint8]:
    shift = wanted[:NUM_LIPS].mean(axis=0, dtype=np.float64) - source[:NUM_LIPS].mean(axis=0, dtype=np.float64)
    affine = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    picture = cv2.warpAffine(box, affine, box.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(picture, dtype=np.uint8)
