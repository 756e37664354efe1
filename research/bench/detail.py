"""Fine detail and the moved jaw alone: `python -m research.bench.detail`.

Milliseconds of processor time a frame, one thread, best of many.

The pictures are noise: the work does not depend on what a picture shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from gateway.compositing.detail import box_with_detail
from gateway.compositing.jaw import jaw_shift, warp_footage
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import BOX_SIZE, HeadPose, head_template, head_to_box
from services.common.face.landmarks import JAW, MOUTH_AREA, NUM_MOUTH_AREA
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.face.mouth_detail import warped_detail
from services.common.face.mouth_inside import InsideMap
from services.common.face.native_pictures import MAX_SCALE, encoded, packed

_RUNS: Final = 30
_JAW_PX: Final = np.array([0.0, 6.0], np.float32)
"""Distance from the target jaw down to the filmed jaw, box pixels."""


@dataclass(frozen=True, slots=True)
class DetailTime:
    """One row: milliseconds of processor time a frame, for a face of `scale` footage pixels per box pixel.

    Attributes:
        scale: native pixels per box pixel, 1 to 4.
        warp_ms: decoding and warping of the bank's luma, in the texture stage.
        box_ms: enlarging of the rendered box, and its blend with the detail, in the gateway.
    """

    scale: int
    warp_ms: float
    box_ms: float


def measure_detail() -> tuple[DetailTime, ...]:
    """Return the times of every scale; OpenCV has one thread meanwhile."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return tuple(measure(scale) for scale in range(1, MAX_SCALE + 1))
    finally:
        cv2.setNumThreads(threads)


def measure(scale: int, runs: int = _RUNS) -> DetailTime:
    """Return the times of one scale, the best of `runs`."""
    random, side = np.random.default_rng(scale), scale * BOX_SIZE
    bank, box = _bank(scale), random.integers(0, 256, (BOX_SIZE, BOX_SIZE, 3)).astype(np.uint8)
    unmoved = np.stack(np.meshgrid(np.arange(BOX_SIZE), np.arange(BOX_SIZE)), axis=-1).astype(np.float32)
    places = InsideMap(unmoved, np.zeros((BOX_SIZE, BOX_SIZE), np.float32))
    own, mask = random.uniform(0, 255, (side, side)).astype(np.float32), np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)
    detail = warped_detail(bank, 0, places, scale)
    return DetailTime(
        scale,
        _best_ms(lambda: warped_detail(bank, 0, places, scale), runs),
        _best_ms(lambda: box_with_detail(box, detail, mask, mask, own), runs),
    )


def measure_jaw(runs: int = _RUNS) -> float:
    """Return the milliseconds of processor time that finding the jaw's shift and moving a render box take."""
    mouth = head_template()[list(MOUTH_AREA)]
    target = head_to_box(mouth, HeadPose(1.0, np.eye(3), np.zeros(3)))
    box, mask = np.zeros((BOX_SIZE, BOX_SIZE, 3), np.uint8), np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)
    return _best_ms(lambda: warp_footage(box, jaw_shift(target + _JAW_PX, target, mask)), runs)


def _bank(scale: int) -> MouthBank:
    """Return a bank of one frame, with a native picture from scale 2 on."""
    random = np.random.default_rng(0)
    lengths = (NUM_MOUTH_AREA, NUM_MOUTH_AREA, len(JAW), len(ANCHORS))
    geometry = ActorGeometry(*(np.zeros((length, 3), np.float32) for length in lengths))
    native = random.integers(0, 256, (scale * BOX_SIZE, scale * BOX_SIZE)).astype(np.uint8)
    return make_bank(
        random.integers(0, 256, (1, BOX_SIZE, BOX_SIZE, 3)).astype(np.uint8),
        np.zeros((1, NUM_MOUTH_AREA, 3), np.float32),
        np.eye(3)[None],
        np.arange(1),
        geometry,
        native=packed([encoded(native)]) if scale > 1 else None,
    )


def _best_ms(work: Callable[[], object], runs: int) -> float:
    best = float("inf")
    for _ in range(runs):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best * 1000.0


def main() -> None:
    """Print the table."""
    table = Table("footage pixels per box pixel", "warp, ms", "box, ms")
    for row in measure_detail():
        table.add_row(str(row.scale), f"{row.warp_ms:.2f}", f"{row.box_ms:.2f}")
    console = Console()
    console.print(table)
    console.print(f"jaw: {measure_jaw():.2f} ms")


if __name__ == "__main__":
    main()
