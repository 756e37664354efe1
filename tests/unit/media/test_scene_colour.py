"""Scene-linear colour: a chart comes back within one code value of 10 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gateway.media.choices import OcioSettings
from gateway.media.scene_colour import LinearRec709, OcioColour, SceneColour
from services.common.errors import InvalidRequestError

CHART = np.float32(
    [
        [0.110, 0.053, 0.036], [0.389, 0.193, 0.134], [0.113, 0.121, 0.218], [0.079, 0.087, 0.050], [0.158, 0.136, 0.261],
        [0.255, 0.475, 0.413], [0.523, 0.244, 0.067], [0.070, 0.073, 0.245], [0.328, 0.107, 0.107], [0.072, 0.045, 0.096],
        [0.337, 0.397, 0.093], [0.567, 0.363, 0.070], [0.050, 0.052, 0.190], [0.113, 0.242, 0.089], [0.248, 0.070, 0.047],
        [0.633, 0.521, 0.070], [0.296, 0.098, 0.178], [0.100, 0.205, 0.276], [0.880, 0.880, 0.880], [0.590, 0.590, 0.590],
        [0.360, 0.360, 0.360], [0.190, 0.190, 0.190], [0.090, 0.090, 0.090], [0.031, 0.031, 0.031],
    ]
)  # fmt: skip
"""Scene-linear values of a chart with 24 patches of skin, foliage, sky and greys, about those of a ColorChecker under ACES."""


def cct(light: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """ACEScct code values of 10 bits (S-2016-001): equal steps are about equally visible."""
    light = light.astype(np.float64)
    low = 10.5402377416545 * light + 0.0729055341958355
    high = (np.log2(np.maximum(light, 1e-10)) + 9.72) / 17.52
    return np.where(light <= 0.0078125, low, high) * 1023


def colours() -> list[SceneColour]:
    config = "ocio://studio-config-latest"
    return [
        LinearRec709(),
        OcioColour(OcioSettings(config=config)),
        OcioColour(OcioSettings(config=config, colourspace="ACES2065-1")),
        OcioColour(OcioSettings(config=config, view="Un-tone-mapped", colourspace="Linear Rec.709 (sRGB)")),
        OcioColour(OcioSettings(config="ocio://cg-config-latest", colourspace="Linear Rec.709 (sRGB)")),
    ]


@pytest.mark.parametrize("colour", colours(), ids=["plain", "acescg", "aces2065", "untoned", "linear709"])
def test_chart(colour: SceneColour) -> None:
    """Through the 16 bits of the video and back, every patch stays within one code value of 10 bits."""
    shown = colour.to_display(CHART)
    assert shown.min() >= 0
    assert shown.max() <= 1
    codes = np.round(shown * 65535) / 65535
    back = colour.to_scene(codes.astype(np.float32))
    assert np.abs(cct(back) - cct(CHART)).max() <= 1


def test_grey_is_shown_as_on_a_display() -> None:
    """A grey of 18 % lies where viewers see it, and black and white are the ends."""
    plain = LinearRec709().to_display(np.float32([[0, 0, 0], [0.18, 0.18, 0.18], [1, 1, 1], [7, 7, 7]]))
    np.testing.assert_allclose(plain[:, 0], [0, 0.4614, 1, 1], atol=1e-3)
    toned = OcioColour(OcioSettings(config="ocio://studio-config-latest")).to_display(np.float32([[0.18, 0.18, 0.18]]))
    assert 0.3 < toned[0, 0] < 0.5


def test_values_that_are_no_light() -> None:
    """Infinite, negative and undefined values become colours that a display shows."""
    for colour in colours()[:2]:
        with np.errstate(all="raise"):
            shown = colour.to_display(np.float32([[np.inf, -1, np.nan]]))
        assert ((shown >= 0) & (shown <= 1)).all()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"display": "Cinema"}, "--display 'Cinema'"),
        ({"view": "Nice"}, "--view 'Nice' is not in the configuration"),
        ({"colourspace": "acescgg"}, "--input-colourspace"),
        ({"config": "ocio://no-such-config"}, "--ocio ocio://no-such-config"),
    ],
)
def test_names_that_are_not_there(said: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        OcioColour(OcioSettings(**{"config": "ocio://studio-config-latest", **said}))


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "show.ocio"
    file.write_text("colours: nice\n")
    with pytest.raises(InvalidRequestError, match=r"--ocio .*show\.ocio"):
        OcioColour(OcioSettings(config=str(file)))
