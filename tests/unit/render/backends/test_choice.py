from __future__ import annotations

from services.render.backends.choice import DEFAULTS, MEASURED, MIN_PICTURE_DB, Choice, default_choice
from services.render.types import Precision


def test_the_default_is_the_fastest_that_keeps_the_picture() -> None:
    chosen = default_choice("cpu")
    good = [row for row in MEASURED if row.device == "cpu" and row.everywhere and row.picture_db >= MIN_PICTURE_DB]
    assert chosen in [row.choice for row in good]
    assert min(row.ms_per_frame for row in good) == next(row.ms_per_frame for row in good if row.choice == chosen)


def test_the_default_needs_no_special_cpu() -> None:
    assert default_choice("cpu").precision is not Precision.BFLOAT16


def test_a_device_that_was_not_measured_gets_plain_arithmetic() -> None:
    assert DEFAULTS["cuda"] == Choice("onnxruntime", Precision.FLOAT32)
