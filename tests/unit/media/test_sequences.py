"""Image sequences: frames of a real clip become a video and come back, and what the dub did not draw comes back exactly."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.media.choices import OcioSettings
from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.sequence_names import is_sequence
from gateway.media.sequences import SequenceDub, SequenceSettings, open_sequence, parse_rate, sequence_fault
from gateway.media.sound import SoundReader
from gateway.media.types import Plane
from gateway.media.writer import VideoWriter
from gateway.studio.turnover import timecode_of
from gateway.transfer import footage_problem
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from tests.forked import ForkedProcess
from tests.frame_files import FIRST, header_of, oiio, pictures, stored, write_sequence
from tests.unit.media.made_footage import make_sound, tone

FRAMES = 3
DRAWN = (slice(40, 60), slice(50, 80))
"""Rows and columns that the dub of these tests changes."""
ACES = OcioSettings(config="ocio://studio-config-latest")


def halve(plane: Plane) -> None:
    plane[DRAWN] //= 2


def draw(dub: SequenceDub, change: Callable[[Plane], object] = halve) -> None:
    """Dub the video of a sequence: every pixel of a rectangle is half as bright."""
    info = probe(dub.video)
    settings = WriteSettings(codec="ffv1", overwrite=True)
    with VideoWriter(dub.dubbed, info, settings=settings) as writer, VideoReader(info) as reader:
        for frame in reader:
            planes = [plane.copy() for plane in frame.planes]
            for plane in planes:
                change(plane)
            writer.write(frame, planes)


def dubbed(
    pattern: Path, output: Path, work: Path, settings: SequenceSettings | None = None, *, drawn: bool = True, **more: Any
) -> SequenceDub:
    """Dub a sequence. Not `drawn`: the video stays as it is."""
    dub = SequenceDub(pattern, output, settings or SequenceSettings(), work, **more)
    dub.read()
    if drawn:
        draw(dub)
    else:
        shutil.copy(dub.video, dub.dubbed)
    dub.write()
    return dub


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], Path]:
    def made(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    return made


@pytest.mark.parametrize(
    ("name", "bits", "header"),
    [
        ("a.%04d.exr", 0, {}),
        ("a.%04d.exr", 0, {"compression": "piz"}),
        ("a.%04d.dpx", 10, {}),
        ("a.%04d.dpx", 12, {}),
        ("a.%04d.dpx", 16, {}),
        ("a.%04d.tif", 16, {"rate": None}),
        ("a.%04d.tif", 8, {"rate": None}),
        ("a.%04d.png", 16, {"rate": None}),
        ("a.%04d.png", 8, {"rate": None}),
    ],
)
def test_round_trip(name: str, bits: int, header: dict[str, object], place: Callable[[str], Path], carphone: Path) -> None:
    """Outside of the drawing, every sample, every other channel and the header come back as they were."""
    pattern = write_sequence(carphone, place("plates") / name, FRAMES, bits=bits, **header)
    output = place("out") / name
    settings = SequenceSettings(rate=None if "rate" not in header else Fraction(25))
    dub = dubbed(pattern, output, place("work"), settings)
    assert probe(dub.video).video.num_frames == FRAMES
    names = [name % (FIRST + index) for index in range(FRAMES)]
    assert sorted(file.name for file in output.parent.iterdir()) == [*names, "a.sha256"]
    digests = (output.parent / "a.sha256").read_text().splitlines()
    assert digests == [f"{hashlib.sha256((output.parent / file).read_bytes()).hexdigest()}  {file}" for file in names]
    for index in range(FRAMES):
        before, after = (Path(str(path) % (FIRST + index)) for path in (pattern, output))
        old, new = stored(before), stored(after)
        outside = np.ones(old.shape[:2], bool)
        outside[DRAWN] = False
        assert old[outside].tobytes() == new[outside].tobytes()
        assert old[..., 3:].tobytes() == new[..., 3:].tobytes()
        assert (old[DRAWN] != new[DRAWN])[..., :3].any(-1).mean() > 0.9
        assert header_of(before) == header_of(after)


def test_no_change_no_difference(place: Callable[[str], Path], carphone: Path) -> None:
    pattern = write_sequence(carphone, place("plates") / "a.%04d.exr", 2)
    output = place("out") / "b.%04d.exr"
    dubbed(pattern, output, place("work"), drawn=False)
    for number in (FIRST, FIRST + 1):
        before, after = (stored(Path(str(path) % number)) for path in (pattern, output))
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize(("name", "bits", "rounding"), [("a.%04d.dpx", 10, 1), ("a.%04d.png", 16, 64)])
@pytest.mark.parametrize("beyond", [0, 1])
def test_video_of_other_options_refused(
    name: str, bits: int, rounding: int, beyond: int, place: Callable[[str], Path], carphone: Path
) -> None:
    """The first picture of the video may differ from the frame by rounding, and by no more."""
    pattern = write_sequence(carphone, place("plates") / name, 2, bits=bits, rate=None)
    dub = SequenceDub(pattern, place("out") / name, SequenceSettings(rate=Fraction(25)), place("work"))
    dub.read()
    draw(dub, lambda plane: np.add(plane[DRAWN], rounding + beyond, out=plane[DRAWN]))
    shutil.move(dub.dubbed, dub.video)
    draw(dub)
    with pytest.raises(MediaUnsupportedError, match="its first picture is not") if beyond else nullcontext():
        dub.write()


def test_windows_of_exr(place: Callable[[str], Path], carphone: Path) -> None:
    """A data window inside of the display window stays where it is, and pixels outside of it are black."""
    window = {"data_window": (20, 10, 150, 120), "display_window": (176, 144)}
    pattern = write_sequence(carphone, place("plates") / "a.%04d.exr", 2, **window)
    output = place("out") / "a.%04d.exr"
    info = probe(dubbed(pattern, output, place("work")).video)
    assert (info.video.width, info.video.height) == (176, 144)
    with VideoReader(info) as reader:
        green = next(iter(reader)).planes[0].copy()
    assert green[10:130, 20:170].mean() > 1000
    green[10:130, 20:170] = 0
    assert not green.any()
    for number in (FIRST, FIRST + 1):
        before, after = (Path(str(path) % number) for path in (pattern, output))
        assert header_of(before) == header_of(after)
        assert header_of(after)["data"] == (20, 10, 150, 120)
        rows, columns = np.nonzero((stored(before) != stored(after)).any(-1))
        assert (rows.min() + 10, rows.max() + 11) == (DRAWN[0].start, DRAWN[0].stop)
        assert (columns.min() + 20, columns.max() + 21) == (DRAWN[1].start, DRAWN[1].stop)


def test_data_windows_that_differ(place: Callable[[str], Path], carphone: Path) -> None:
    """Every frame keeps its own data window."""
    plates = place("plates") / "a.%04d.exr"
    write_sequence(carphone, plates, 2, data_window=(0, 0, 176, 144), display_window=(176, 144))
    write_sequence(carphone, plates, 1, data_window=(30, 20, 100, 90), display_window=(176, 144))
    output = place("out") / "a.%04d.exr"
    dubbed(plates, output, place("work"))
    for number, window in ((FIRST, (30, 20, 100, 90)), (FIRST + 1, (0, 0, 176, 144))):
        assert header_of(Path(str(output) % number))["data"] == window
        assert (stored(Path(str(output) % number)) != stored(Path(str(plates) % number))).any()


def test_files_of_several_parts(place: Callable[[str], Path]) -> None:
    """The part with R, G and B is dubbed, and all other parts of an OpenEXR file stay, each in its own type."""
    folder, output = place("plates"), place("out") / "a.%04d.exr"
    random = np.random.default_rng(2)
    depth = random.random((144, 176, 1)).astype(np.float32)
    beauty = random.random((144, 176, 3)).astype(np.float16)
    for number in (1, 2):
        specs = [oiio.ImageSpec(176, 144, 1, "float"), oiio.ImageSpec(176, 144, 3, "half")]
        specs[0].channelnames = ("Z",)
        for spec, name in zip(specs, ("depth", "beauty"), strict=True):
            spec.attribute("oiio:subimagename", name)
        file = f"{folder}/a.{number:04d}.exr"
        writer = oiio.ImageOutput.create(file)
        assert writer.open(file, tuple(specs))
        assert writer.write_image(depth)
        assert writer.open(file, specs[1], "AppendSubimage")
        assert writer.write_image(beauty)
        writer.close()
    dubbed(folder / "a.%04d.exr", output, place("work"), SequenceSettings(rate=Fraction(24)))
    opened = oiio.ImageInput.open(str(output) % 2)
    assert opened.read_image(0, 0, 0, 1, "float").tobytes() == depth.tobytes()
    drawn = np.asarray(opened.read_image(1, 0, 0, 3, "half")).reshape(144, 176, 3)
    names = [opened.spec(part).getattribute("oiio:subimagename") for part in (0, 1)]
    opened.close()
    assert names == ["depth", "beauty"]
    changed = (drawn != beauty).any(-1)
    assert changed[DRAWN].mean() > 0.9
    changed[DRAWN] = False
    assert not changed.any()


def test_lossy_exr_is_written_without_loss(place: Callable[[str], Path], carphone: Path) -> None:
    pattern = write_sequence(carphone, place("plates") / "a.%04d.exr", 2, compression="dwaa:45")
    output = place("out") / "a.%04d.exr"
    dubbed(pattern, output, place("work"), drawn=False)
    assert header_of(Path(str(output) % FIRST))["compression"] == "zip"
    assert stored(Path(str(pattern) % FIRST)).tobytes() == stored(Path(str(output) % FIRST)).tobytes()


def test_alpha_of_png_and_tiff_is_kept(place: Callable[[str], Path]) -> None:
    """Alpha that is not multiplied into the colours comes back with colours under transparent pixels."""
    samples = np.random.default_rng(1).integers(0, 65536, (48, 64, 4)).astype(np.uint16)
    samples[:8, :, 3] = 0
    for ending in ("png", "tif"):
        folder = place(ending)
        for number in (1, 2):
            spec = oiio.ImageSpec(64, 48, 4, "uint16")
            spec.attribute("oiio:UnassociatedAlpha", 1)
            writer = oiio.ImageOutput.create(f"{folder}/a.{number:04d}.{ending}")
            assert writer.open(f"{folder}/a.{number:04d}.{ending}", spec)
            assert writer.write_image(samples)
            writer.close()
        settings, work = SequenceSettings(rate=Fraction(24)), place(f"work_{ending}")
        dubbed(folder / f"a.%04d.{ending}", folder / f"b.%04d.{ending}", work, settings, drawn=False)
        assert stored(folder / f"b.0002.{ending}").tobytes() == samples.tobytes()


def test_rate_timecode_and_sound(place: Callable[[str], Path], carphone: Path, tmp_path: Path) -> None:
    """The video has the rate and timecode of the headers and the sound of its file, and a dub gives its sound back."""
    pattern = write_sequence(carphone, place("plates") / "a.%04d.exr", 6, rate=Fraction(24000, 1001))
    sound = make_sound(tmp_path / "own.wav", tone(48000, 24000), 48000)
    dub = dubbed(pattern, place("out") / "dub.%04d.exr", place("work"), SequenceSettings(sound=sound), drawn=False)
    info = probe(dub.video)
    assert info.video.constant_rate == Fraction(24000, 1001)
    assert timecode_of(info) == "10:00:00:00"
    assert info.audio
    assert sum(len(chunk.samples) for chunk in SoundReader(tmp_path / "out/dub.wav")) > 0


def test_pixels_that_are_not_square(place: Callable[[str], Path], carphone: Path) -> None:
    pattern = write_sequence(carphone, place("plates") / "a.%04d.dpx", 2, bits=10, PixelAspectRatio=2.0)
    dub = SequenceDub(pattern, place("out") / "a.%04d.dpx", SequenceSettings(), place("work"))
    dub.read()
    assert probe(dub.video).video.orientation.sample_aspect == 2


@pytest.mark.parametrize("pattern", ["a.%04d.exr", "a.####.exr", "a.#.exr", "a.@@@@.exr", "a.%d.exr", "a.1001-1003####.exr"])
def test_patterns(pattern: str, place: Callable[[str], Path], carphone: Path) -> None:
    folder = place("plates")
    write_sequence(carphone, folder / "a.%04d.exr", FRAMES)
    for other in ("a.1004.dpx", "b.1004.exr", "a.1005.exr.tmp", "ba.1006.exr", "a.left.1007.exr"):
        (folder / other).touch()
    assert is_sequence(folder / pattern)
    found = open_sequence(folder / pattern)
    assert found.numbers == (1001, 1002, 1003)
    assert [file.name for file in found.files] == ["a.1001.exr", "a.1002.exr", "a.1003.exr"]


def test_folders_with_signs(place: Callable[[str], Path]) -> None:
    """Signs of patterns in the names of folders are letters."""
    folder = place("show@home #2 1-3 %02x")
    for number in (7, 8):
        (folder / f"sh020-30_v2.{number:04d}.png").touch()
    with pytest.raises(MediaUnsupportedError, match=r"sh020-30_v2\.0007\.png: "):
        open_sequence(folder / "sh020-30_v2.%04d.png", Fraction(24))


def test_single_files_are_no_sequence(tmp_path: Path) -> None:
    assert not is_sequence(tmp_path / "portrait_0001.png")
    assert not is_sequence(tmp_path / "take_%04d.mov")
    (tmp_path / "odd#name.png").touch()
    assert not is_sequence(tmp_path / "odd#name.png")


def test_rates_of_text() -> None:
    assert parse_rate("23.976") == parse_rate("24000/1001") == Fraction(24000, 1001)
    assert parse_rate("25") == 25
    for wrong in ("fast", "0", "1/0", "-24", "inf"):
        with pytest.raises(InvalidRequestError, match=r"^rate: .*give frames per second"):
            parse_rate(wrong)


def signed(listing: Path) -> bool:
    return listing.with_name(f"{listing.name}.c2pa").exists()


class TestWrittenBefore:
    """Frames that an earlier run wrote are replaced, and no others."""

    @pytest.fixture
    def dub(self, place: Callable[[str], Path], carphone: Path) -> SequenceDub:
        plates = write_sequence(carphone, place("plates") / "a.%04d.dpx", 4, bits=10)
        place("out")
        found = self.again(plates, place("work"))
        found.read()
        draw(found)
        return found

    def again(self, plates: Path, work: Path) -> SequenceDub:
        return SequenceDub(plates, plates.parents[1] / "out" / "b.%04d.dpx", SequenceSettings(), work, is_signed=signed)

    def test_replaced(self, dub: SequenceDub, tmp_path: Path) -> None:
        dub.write()
        files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert set(files) == {*(f"b.{FIRST + frame}.dpx" for frame in range(4)), "b.sha256"}
        plates = tmp_path / "plates" / "a.%04d.dpx"
        with pytest.raises(InvalidRequestError, match=r"b\.1001\.dpx exists, and dubstage did not write it"):
            self.again(plates, tmp_path / "work")
        (tmp_path / "out" / "b.sha256.c2pa").touch()
        again = self.again(plates, tmp_path / "work")
        again.write()
        (tmp_path / "out" / "b.sha256.c2pa").unlink()
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files

    @pytest.mark.parametrize("ending", ["dpx", "tif"])
    def test_same_bytes(self, ending: str, place: Callable[[str], Path], carphone: Path) -> None:
        """A second dub has the same bytes, whatever its folder is called, and also if the frames have no date."""
        plates = place("plates") / f"a.%04d.{ending}"
        if ending == "dpx":
            write_sequence(carphone, plates, 2, bits=10)
        else:
            for index, picture in enumerate(pictures(carphone, 2)):
                cv2.imwrite(str(plates) % (FIRST + index), np.round(picture[..., ::-1] * 65535).astype(np.uint16))
        found = []
        for name in ("one", "another"):
            settings = SequenceSettings(rate=Fraction(25))
            dub = dubbed(plates, place(name) / f"b.%04d.{ending}", place(f"work{name}"), settings)
            found.append([file.read_bytes() for file in sorted(dub.listing.parent.iterdir())])
            time.sleep(1.1)
        assert len(found[0]) == 3
        assert found[0] == found[1]

    def test_changed_frames_stay(self, dub: SequenceDub, tmp_path: Path) -> None:
        dub.write()
        plates, frame = tmp_path / "plates" / "a.%04d.dpx", tmp_path / "out" / f"b.{FIRST + 2}.dpx"
        (tmp_path / "out" / "b.sha256.c2pa").touch()
        again = self.again(plates, tmp_path / "work")
        frame.write_bytes(b"the work of a compositor")
        with pytest.raises(InvalidRequestError, match=r"b\.1003\.dpx was written by another program"):
            again.write()
        with pytest.raises(InvalidRequestError, match=r"b\.1003\.dpx exists, and dubstage did not write it"):
            self.again(plates, tmp_path / "work")
        assert frame.read_bytes() == b"the work of a compositor"

    def test_faults(self, dub: SequenceDub, tmp_path: Path) -> None:
        dub.write()
        listing, frame = tmp_path / "out" / "b.sha256", tmp_path / "out" / f"b.{FIRST + 2}.dpx"
        digest, content = hashlib.sha256(listing.read_bytes()).hexdigest(), frame.read_bytes()
        assert sequence_fault(listing, digest) == ""
        assert sequence_fault(listing, "0" * 64) == "was changed"
        frame.write_bytes(b"cut")
        assert sequence_fault(listing, digest) == "was changed"
        frame.unlink()
        assert sequence_fault(listing, digest) == "was gone"
        frame.write_bytes(content)
        dub.remove()
        assert sequence_fault(listing, digest) == "was gone"
        assert list((tmp_path / "out").iterdir()) == []

    @pytest.mark.parametrize("moment", ["write", "names"])
    def test_killed(self, moment: str, dub: SequenceDub, tmp_path: Path) -> None:
        """The next run removes the folder of a run that was killed, and replaces the frames that this run had named."""
        plates, out = tmp_path / "plates" / "a.%04d.dpx", tmp_path / "out"
        killed = ForkedProcess(write_and_die, plates, out / "b.%04d.dpx", tmp_path / "work", moment)
        killed.wait(60)
        assert killed.exit_code == -signal.SIGKILL
        assert {path.suffix for path in out.iterdir()} == {".partial"}
        (left,) = (path for path in out.iterdir() if path.is_dir())
        if moment == "names":
            shutil.move(left / f"b.{FIRST}.dpx", out)
        self.again(plates, tmp_path / "work").write()
        assert {path.name for path in out.iterdir()} == {*(f"b.{FIRST + frame}.dpx" for frame in range(4)), "b.sha256"}

    def test_old_folders_of_other_outputs(self, dub: SequenceDub, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for name, age_s in (("old", 25 * 3600), ("new", 60)):
            folder = out / f".dubstage-{hashlib.sha256(name.encode()).hexdigest()[:16]}-{'0' * 16}.partial"
            folder.mkdir()
            (folder / "c.1001.dpx").touch()
            os.utime(folder, (time.time() - age_s,) * 2)
        dub.write()
        assert [path for path in out.iterdir() if path.is_dir()] == [folder]


def write_and_die(plates: Path, output: Path, work: Path, moment: str) -> None:
    """Write the dub of a sequence, and be killed after two frames, or when all files are about to get their names."""
    dub = SequenceDub(plates, output, SequenceSettings(), work)

    def die(*_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "names":
        dub.write(confirm=die)
    dub.write(on_frame=lambda done, _: die() if done == 2 else None)


class TestRefusals:
    @pytest.fixture
    def plates(self, place: Callable[[str], Path], carphone: Path) -> Path:
        return write_sequence(carphone, place("plates") / "a.%04d.dpx", 4, bits=10)

    def test_a_missing_frame(self, plates: Path) -> None:
        (plates.parent / "a.1003.dpx").unlink()
        with pytest.raises(MediaUnsupportedError, match=r"a\.1003\.dpx: .* missing between 1001 and 1004"):
            open_sequence(plates)
        with pytest.raises(MediaUnsupportedError, match=r"a\.1003\.dpx: .* missing"):
            open_sequence(plates.with_name("a.1001-1004####.dpx"))

    def test_a_frame_of_another_size(self, plates: Path, carphone: Path) -> None:
        write_sequence(carphone, plates.with_name("b.%04d.dpx"), 1, bits=10, width=88)
        plates.with_name("b.1001.dpx").rename(plates.with_name("a.1003.dpx"))
        with pytest.raises(MediaUnsupportedError, match=r"a\.1003\.dpx: the display window is .*88, 72.*a\.1001\.dpx"):
            open_sequence(plates)

    def test_a_frame_of_another_depth(self, plates: Path, carphone: Path) -> None:
        write_sequence(carphone, plates.with_name("b.%04d.dpx"), 1, bits=12)
        plates.with_name("b.1001.dpx").rename(plates.with_name("a.1003.dpx"))
        with pytest.raises(MediaUnsupportedError, match=r"a\.1003\.dpx: the bits per sample are 12"):
            open_sequence(plates)

    @pytest.mark.parametrize("ending", ["dpx", "exr", "tif", "png"])
    def test_a_frame_that_is_cut_short(self, ending: str, place: Callable[[str], Path], carphone: Path) -> None:
        plates = write_sequence(carphone, place("cut") / f"a.%04d.{ending}", 3, bits=0 if ending == "exr" else 16)
        broken = Path(str(plates) % 1002)
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
        output = place("out") / f"b.%04d.{ending}"
        work = place("work")
        with pytest.raises(MediaUnsupportedError, match=rf"a\.1002\.{ending}: the frame cannot be read"):
            SequenceDub(plates, output, SequenceSettings(rate=Fraction(24)), work).read()
        assert list(output.parent.iterdir()) == []
        assert list(work.iterdir()) == []

    def test_a_frame_that_breaks_meanwhile_leaves_nothing(self, plates: Path, place: Callable[[str], Path]) -> None:
        output = place("out") / "b.%04d.dpx"
        dub = SequenceDub(plates, output, SequenceSettings(), place("work"))
        dub.read()
        draw(dub)
        plates.with_name("a.1004.dpx").write_bytes(b"nothing")
        with pytest.raises(MediaUnsupportedError, match=r"a\.1004\.dpx"):
            dub.write()
        assert list(output.parent.iterdir()) == []

    def test_no_rate(self, place: Callable[[str], Path], carphone: Path) -> None:
        plates = write_sequence(carphone, place("tif") / "a.%04d.tif", 2, bits=16)
        with pytest.raises(InvalidRequestError, match="give rate"):
            open_sequence(plates)

    def test_a_turned_picture(self, place: Callable[[str], Path], carphone: Path) -> None:
        plates = write_sequence(carphone, place("tif") / "a.%04d.tif", 2, bits=16, Orientation=6)
        with pytest.raises(MediaUnsupportedError, match=r"a\.1001\.tif: the header turns the picture"):
            open_sequence(plates, Fraction(24))

    def test_no_files(self, tmp_path: Path) -> None:
        (tmp_path / "b.1001.exr").touch()
        with pytest.raises(MediaUnsupportedError, match="no file of this sequence"):
            open_sequence(tmp_path / "a.%04d.exr")
        with pytest.raises(MediaUnsupportedError, match="does not exist"):
            open_sequence(tmp_path / "no/a.%04d.exr")

    def test_outputs(self, plates: Path, place: Callable[[str], Path]) -> None:
        out, work = place("out"), place("work")
        for output, said in (
            (out / "dub.mov", "give the output as one too"),
            (out / "a.%04d.exr", r"the ending \.dpx"),
            (out / "no/a.%04d.dpx", "create it first"),
            (plates, "the footage itself"),
        ):
            with pytest.raises(InvalidRequestError, match=said):
                SequenceDub(plates, output, SequenceSettings(), work)
        (out / "a.1002.dpx").touch()
        with pytest.raises(InvalidRequestError, match=r"a\.1002\.dpx exists"):
            SequenceDub(plates, out / "a.%04d.dpx", SequenceSettings(), work)
        SequenceDub(plates, out / "a.%04d.dpx", SequenceSettings(), work, overwrite=True)

    def test_logarithmic_values_without_a_configuration(self, place: Callable[[str], Path], carphone: Path) -> None:
        header = {"dpx__Transfer": "Logarithmic"}
        plates = write_sequence(carphone, place("log") / "a.%04d.dpx", 2, bits=10, **header)
        with pytest.raises(InvalidRequestError, match=r"a\.1001\.dpx: the header says that the values are logarithmic"):
            SequenceDub(plates, place("out") / "a.%04d.dpx", SequenceSettings(), place("work"))

    def test_colour_options(self, plates: Path, place: Callable[[str], Path]) -> None:
        output, work = place("out") / "a.%04d.dpx", place("work")
        for colour, said in (
            (ACES, "give input_colourspace"),
            (OcioSettings(colourspace="ACEScg"), "need ocio"),
            (OcioSettings(config="no.ocio", colourspace="ACEScg"), "ocio: no.ocio"),
            (OcioSettings(config=ACES.config, colourspace="ACEScgg"), "near to it are: .*ACEScg"),
        ):
            with pytest.raises(InvalidRequestError, match=said):
                SequenceDub(plates, output, SequenceSettings(colour=colour), work)

    def test_the_sound_is_no_input(self, plates: Path, place: Callable[[str], Path]) -> None:
        out = place("out")
        speech = make_sound(out / "b.wav", tone(48000, 24000), 48000)
        before = speech.read_bytes()
        for given in ({"inputs": [speech]}, {"settings": SequenceSettings(sound=speech)}):
            asked = {"settings": SequenceSettings(), **given}
            with pytest.raises(InvalidRequestError, match=r"b\.wav is read and would be replaced"):
                SequenceDub(plates, out / "b.%04d.dpx", folder=place(f"work{next(iter(given))}"), overwrite=True, **asked)
        reference = out / "b.1002.dpx"
        reference.write_bytes(b"")
        with pytest.raises(InvalidRequestError, match=r"b\.1002\.dpx is read and would be replaced"):
            SequenceDub(plates, out / "b.%04d.dpx", SequenceSettings(), folder=place("work"), inputs=[reference], overwrite=True)
        assert speech.read_bytes() == before

    @pytest.mark.parametrize("name", ["a.%0999999999d.exr", "a.%04d.%04d.exr", "a.1-999999999@.exr", "a.1-9x2@.exr", "a.5@.exr"])
    def test_patterns_that_name_no_shot(self, name: str, tmp_path: Path) -> None:
        with pytest.raises((InvalidRequestError, MediaUnsupportedError), match=r"a\."):
            open_sequence(tmp_path / name)

    def test_footage_of_batches(self, plates: Path) -> None:
        assert footage_problem(str(plates)) == ""
        (plates.parent / f"a.{FIRST + 1}.dpx").unlink()
        problem = footage_problem(str(plates))
        assert problem.startswith(f"{plates.parent}/a.{FIRST + 1}.dpx: ")
        assert "missing between 1001 and 1004" in problem

    def test_another_video(self, plates: Path, place: Callable[[str], Path], carphone: Path) -> None:
        """A video that was made of other frames, or with other options, is not taken for the video of the sequence."""
        other = write_sequence(carphone, place("other") / "a.%04d.dpx", 4, bits=10, dpx__Transfer="User defined")
        for file in other.parent.iterdir():
            image = oiio.ImageBuf(str(file))
            assert oiio.ImageBufAlgo.mul(image, image, 0.5)
            assert image.write(str(file))
        theirs = SequenceDub(other, place("out") / "a.%04d.dpx", SequenceSettings(), place("work"))
        theirs.read()
        mine = SequenceDub(plates, place("out2") / "a.%04d.dpx", SequenceSettings(), place("work2"))
        shutil.copy(theirs.video, mine.video)
        shutil.copy(theirs.video, mine.dubbed)
        with pytest.raises(MediaUnsupportedError, match=r"its first picture is not .*a\.1001\.dpx"):
            mine.write()
