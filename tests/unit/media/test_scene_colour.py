"""Scene-linear colour: a chart comes back within one code value of 10 bits."""

from __future__ import annotations

import os
import zipfile
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
LUT = "LUT_1D_SIZE 2\n0 0 0\n0.5 0.5 0.5\n"
"""Halves the light."""
REFERENCE = """<?xml version="1.0" encoding="UTF-8"?>
<ProcessList id="a" version="1.7"><Reference inBitDepth="32f" outBitDepth="32f" path="{path}"/></ProcessList>"""


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
        ({"display": "Cinema"}, "display: 'Cinema'"),
        ({"view": "Nice"}, "view: 'Nice' is not in the configuration"),
        ({"colourspace": "acescgg"}, "input_colourspace: "),
        ({"config": "ocio://no-such-config"}, "ocio: ocio://no-such-config"),
    ],
)
def test_names_that_are_not_there(said: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        OcioColour(OcioSettings(**{"config": "ocio://studio-config-latest", **said}))


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "show.ocio"
    file.write_text("colours: nice\n")
    with pytest.raises(InvalidRequestError, match=r"^ocio: .*show\.ocio"):
        OcioColour(OcioSettings(config=str(file)))


def configuration(path: Path, lut: str, *, environment: str = "", search: str = "luts") -> OcioSettings:
    """Write a configuration whose one view applies a LUT."""
    path.write_text(f"""ocio_profile_version: 2
{f"environment: {environment}" if environment else ""}
search_path: {search}
roles: {{default: raw, scene_linear: lin}}
file_rules:
  - !<Rule> {{name: Default, colorspace: default}}
displays:
  sRGB:
    - !<View> {{name: Film, colorspace: film}}
colorspaces:
  - !<ColorSpace> {{name: raw, isdata: true}}
  - !<ColorSpace> {{name: lin}}
  - !<ColorSpace>
    name: film
    from_scene_reference: !<FileTransform> {{src: "{lut}", interpolation: linear}}
""")
    return OcioSettings(config=str(path))


def halved(settings: OcioSettings) -> bool:
    return bool(np.allclose(OcioColour(settings).to_display(np.float32([[0.5, 0.5, 0.5]])), 0.25))


@pytest.fixture
def show(tmp_path: Path) -> Path:
    """A folder of a show with a LUT, and a LUT beside the folder."""
    folder = tmp_path / "show"
    (folder / "luts").mkdir(parents=True)
    (folder / "luts" / "half.cube").write_text(LUT)
    (tmp_path / "outside.cube").write_text(LUT)
    return folder


def test_luts_of_the_own_folder(show: Path) -> None:
    """Variables have the values that the configuration states; an archive has its LUTs inside."""
    assert halved(configuration(show / "show.ocio", "half.cube"))
    assert halved(configuration(show / "show.ocio", "../luts/half.cube"))
    assert halved(configuration(show / "show.ocio", "${NAME}.cube", environment="{NAME: half}"))
    (show / "luts" / "named.cube").write_text(REFERENCE.format(path=show / "luts" / "half.cube"))
    assert halved(configuration(show / "show.ocio", "named.cube"))
    configuration(show / "config.ocio", "half.cube")
    with zipfile.ZipFile(show.parent / "show.ocioz", "w") as archive:
        for file in ("config.ocio", "luts/half.cube"):
            archive.write(show / file, file)
    assert halved(OcioSettings(config=str(show.parent / "show.ocioz")))


def test_two_shows_with_one_name(show: Path, tmp_path: Path) -> None:
    """LUTs of the same name in two folders are two LUTs, although OpenColorIO keeps LUTs that it has read."""
    other = tmp_path / "other"
    (other / "luts").mkdir(parents=True)
    (other / "luts" / "half.cube").write_text(LUT.replace("0.5", "0.9"))
    assert halved(configuration(show / "show.ocio", "half.cube"))
    assert not halved(configuration(other / "show.ocio", "half.cube"))


def test_luts_outside_of_the_folder(show: Path, tmp_path: Path) -> None:
    """Neither a path, a search path, a variable, a link nor a LUT that names another leads out of the folder."""
    outside = tmp_path / "outside.cube"
    (show / "luts" / "link.cube").symlink_to(outside)
    (show / "luts" / "named.cube").write_text(REFERENCE.format(path=outside))
    for settings in (
        configuration(show / "a.ocio", "../../outside.cube"),
        configuration(show / "b.ocio", str(outside)),
        configuration(show / "c.ocio", "outside.cube", search=".."),
        configuration(show / "d.ocio", "${PLACE}/outside.cube", environment=f"{{PLACE: {tmp_path}}}"),
        configuration(show / "e.ocio", "link.cube"),
        configuration(show / "f.ocio", "named.cube"),
    ):
        with pytest.raises(InvalidRequestError, match=r"\.ocio: its LUT '.*' is not read: it lies outside of .*show, the folder"):
            OcioColour(settings)


def test_variables_of_this_process_are_not_read(show: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared or not, a variable has no value of the environment, and no message has it."""
    monkeypatch.setenv("NAME", "half")
    with pytest.raises(InvalidRequestError, match=r"its LUT '\$\{NAME\}\.cube' is not there"):
        OcioColour(configuration(show / "a.ocio", "${NAME}.cube"))
    (show / "luts" / "same.cube").write_text(LUT.replace("0.5", "1"))
    assert not halved(configuration(show / "b.ocio", "${NAME}.cube", environment="{NAME: same}"))


@pytest.mark.timeout(120)
def test_devices_and_pipes_are_not_opened(show: Path) -> None:
    os.mkfifo(show / "pipe.ocio")
    for place in (show / "pipe.ocio", Path("/dev/zero"), show):
        with pytest.raises(InvalidRequestError, match="cannot be read: not a regular file"):
            OcioColour(OcioSettings(config=str(place)))
    os.mkfifo(show / "luts" / "pipe.cube")
    with pytest.raises(InvalidRequestError, match=r"pipe\.cube' is not read: not a regular file"):
        OcioColour(configuration(show / "a.ocio", "pipe.cube"))


@pytest.mark.parametrize(
    "content",
    [
        b"password: hunter2\n",
        b"ocio_profile_version: 2\nhunter2: 1\nroles: hunter2\n",
        b"\xff\xfehunter2",
        b"roles: " + b"[" * 200_000,
        b"PK\x03\x04hunter2",
        b"#" * (17 << 20),
    ],
)
def test_messages_do_not_quote_files(content: bytes, show: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (show / "a.ocio").write_bytes(content)
    (show / "luts" / "bad.cube").write_bytes(content)
    for settings in (OcioSettings(config=str(show / "a.ocio")), configuration(show / "b.ocio", "bad.cube")):
        with pytest.raises(InvalidRequestError) as caught:
            OcioColour(settings)
        assert "hunter2" not in caught.value.message
    assert "hunter2" not in "".join(capfd.readouterr())
