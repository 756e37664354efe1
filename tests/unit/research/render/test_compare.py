"""Backends side by side on one frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from research.render.compare import opened
from services.common.errors import InvalidRequestError
from services.render.backends.base import PLAIN_CHOICE, BackendChoice
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.pairs import MASK, Pair
from services.render.types import Precision


def test_backends_draw_same_picture() -> None:
    """Two backends draw the same picture and their times have a ratio."""
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (160, 160, 9), np.uint8), (0, 0), 3.0)
    picture[..., MASK] = 0
    picture[40:150, 30:130, MASK] = 255
    pair = Pair(picture, np.full((160, 160, 3), 90, np.uint8))
    runs = [opened("ugc", WEIGHTS_FOLDER, BackendChoice(name, Precision.FLOAT32), 1) for name in ("onnxruntime", "openvino")]
    for run in runs:
        run.draw(pair)
    (one,), (other,) = (run.pictures for run in runs)
    assert (one[:40] == 90).all()
    assert (one[80, 80] != 90).any()
    assert np.abs(one.astype(int) - other).max() <= 1
    assert runs[0].ratio(runs[1]) == pytest.approx(1.0 / runs[1].ratio(runs[0]))
    assert all(run.load_s > 0.0 for run in runs)


def test_unsupported_precision_refused() -> None:
    """A backend that cannot compute in a precision is refused."""
    with pytest.raises(InvalidRequestError, match="set DUBSTAGE_BACKEND=openvino"):
        opened("ugc", WEIGHTS_FOLDER, BackendChoice(PLAIN_CHOICE["cpu"].backend, Precision.BFLOAT16), 1)
