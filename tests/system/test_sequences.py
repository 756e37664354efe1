"""Dubs of image sequences of a real person: the mouth is new, and everything else in every file is as it was."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gateway.cli.app import run
from gateway.dub.job.dub_job import DubJob
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.request.sequences import with_files
from gateway.media.choices import OcioSettings
from gateway.media.sequences import SequenceDub, SequenceSettings, parse_rate
from gateway.provenance.verdict import ManifestState, verdict_of
from tests.frame_files import FIRST, header_of, stored, write_sequence
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, cut

FRAMES = 26
"""An enrolment needs 25."""
FEW_FRAMES = 12
"""Frames of a dub of the enrolled man."""
WIDTH, HEIGHT = 480, 270
ACES = OcioSettings(config="ocio://studio-config-latest")


@pytest.fixture(scope="module")
def clip(clips: Any) -> Path:
    return clips.path("video/hp_31.mp4")


@pytest.fixture(scope="module")
def man(clip: Path, dubber: Dubber, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnrolledActor]:
    """The man of the clip, from its first frames. What the dub learned of him stays as long as its job."""
    folder = tmp_path_factory.mktemp("man")
    footage = cut(clip, folder / "footage.mkv", 0.0, FRAMES / 25)
    request = DubRequest(footage=footage, speech=SPEECH, output=folder / "dub.mkv", method="dubstage", enrol=UNPERSONALIZED)
    job = DubJob(request, dubber.host.stages, dubber.store, folder / "jobs")
    actor = dubber.host.run(job.run(lambda *_: None)).actor
    assert actor is not None
    yield actor
    job.discard()


def changed_pixels(plates: Path, dub: Path, count: int) -> list[npt.NDArray[np.bool_]]:
    """Pixels of each frame whose colours differ. All other channels and the header must be equal."""
    found = []
    for number in range(FIRST, FIRST + count):
        before, after = Path(str(plates) % number), Path(str(dub) % number)
        old, new = stored(before), stored(after)
        assert old.dtype == new.dtype
        assert old[..., 3:].tobytes() == new[..., 3:].tobytes()
        assert header_of(before) == header_of(after)
        found.append((old[..., :3] != new[..., :3]).any(-1))
    return found


def assert_mouth_alone(changed: list[npt.NDArray[np.bool_]]) -> None:
    """Most frames have a new mouth, in the lower half of the face, and nothing else."""
    assert sum(pixels.any() for pixels in changed) >= 0.9 * len(changed)
    rows, columns = np.nonzero(np.any(changed, axis=0))
    assert rows.min() > 0.4 * HEIGHT
    assert rows.max() < 0.85 * HEIGHT
    assert columns.min() > 0.25 * WIDTH
    assert columns.max() < 0.6 * WIDTH
    assert 0.003 < np.mean(changed) < 0.1


@pytest.mark.parametrize(
    ("name", "bits", "colour"),
    [
        pytest.param("a.%04d.exr", 0, ACES, marks=pytest.mark.long),
        ("a.%04d.exr", 0, OcioSettings()),
        pytest.param("a.%04d.dpx", 10, OcioSettings(), marks=pytest.mark.long),
        pytest.param("a.%04d.tif", 16, OcioSettings(), marks=pytest.mark.long),
    ],
    ids=["exr_aces", "exr_linear", "dpx10", "tif16"],
)
def test_dub(name: str, bits: int, colour: OcioSettings, clip: Path, man: EnrolledActor, dubber: Dubber, tmp_path: Path) -> None:
    for folder in ("plates", "out", "work"):
        (tmp_path / folder).mkdir()
    plates, output = tmp_path / "plates" / name, tmp_path / "out" / name
    write_sequence(clip, plates, FEW_FRAMES, bits=bits, width=WIDTH)
    settings = SequenceSettings(rate=parse_rate("25"), sound=clip, colour=colour)
    frames = SequenceDub(plates, output, settings, tmp_path / "work")
    frames.read()
    asked = DubRequest(footage=plates, speech=SPEECH, output=output, method="dubstage", actor=man)
    assert not dubber(with_files(asked, frames.video, frames.dubbed)).undubbed
    frames.write()
    assert_mouth_alone(changed_pixels(plates, output, FEW_FRAMES))
    assert (tmp_path / "out" / "a.wav").stat().st_size > 1000
    if not bits:
        # Nothing in the new mouth is brighter than the face was, or is no colour at all.
        drawn = stored(Path(str(output) % (FIRST + FEW_FRAMES - 1)))[..., :3].astype(np.float32)
        assert np.isfinite(drawn).all()
        assert drawn[150:225].max() <= 2


@pytest.mark.long
def test_commands(clip, dubstage, forked_dubstage, tmp_path) -> None:
    """One command dubs a sequence, and three commands by way of a video give the same frames."""
    plates = write_sequence(clip, tmp_path / "a.%04d.dpx", FRAMES, bits=10, width=WIDTH)
    pattern = str(plates).replace("%04d", "####")
    options = ("--audio", SPEECH, "--no-personalize")
    at_once = dubstage("dub", pattern, *options, "-o", tmp_path / "once.%04d.dpx")
    assert at_once.returncode == 0, at_once.stderr
    assert at_once.stdout.splitlines()[-1] == str(tmp_path / "once.%04d.dpx")
    assert "leaked" not in at_once.stderr
    assert_mouth_alone(changed_pixels(plates, tmp_path / "once.%04d.dpx", FRAMES))
    assert subprocess.run(["sha256sum", "--check", "--quiet", "once.sha256"], cwd=tmp_path, check=False).returncode == 0
    credentials = verdict_of(tmp_path / "once.sha256")
    assert credentials.state is ManifestState.VALID
    assert credentials.place == "sidecar"
    (tmp_path / "once.sha256").write_text("0" * 64 + "  once.1001.dpx\n")
    assert verdict_of(tmp_path / "once.sha256").state is ManifestState.INVALID

    video, dub = tmp_path / "plate.mp4", tmp_path / "dub.mkv"
    made = forked_dubstage("frames", "to-video", pattern, "-o", video)
    assert made.returncode == 0, made.stderr
    dubbed = forked_dubstage("dub", video, *options, "--codec", "ffv1", "-o", dub)
    assert dubbed.returncode == 0, dubbed.stderr
    back = forked_dubstage("frames", "from-video", pattern, "--video", video, "--dub", dub, "-o", tmp_path / "back.%04d.dpx")
    assert back.returncode == 0, back.stderr
    for number in range(FIRST, FIRST + FRAMES):
        once, again = (tmp_path / f"{name}.{number}.dpx" for name in ("once", "back"))
        assert stored(once).tobytes() == stored(again).tobytes()
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]


def test_mistakes(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A user's mistake is one line that names the file or the option, and no file is written."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    plates = write_sequence(clip, tmp_path / "a.%04d.dpx", 4, bits=10, width=WIDTH)
    sound = ("--audio", SPEECH)
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "b.%04d.dpx"

    def refused(*arguments: object) -> str:
        assert run(["dub", *map(str, arguments)]) == 10
        assert list((tmp_path / "out").iterdir()) == []
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said

    for arguments, said in (
        ((plates, *sound, "-o", output, "--codec", "ffv1"), "leave --codec out"),
        ((plates, *sound, "-o", output, "--fit", "loop"), "leave --fit loop out"),
        ((plates, *sound, "-o", output, "--method", "portrait"), "choose another method"),
        ((plates, *sound, "-o", output, "--rate", "fast"), "rate: 'fast'"),
        ((plates, *sound, "-o", tmp_path / "out" / "dub.mov"), "give the output as one too"),
        ((clip, *sound, "-o", tmp_path / "out" / "dub.mov", "--rate", "24"), "--rate is for image sequences"),
        ((tmp_path / "c.%04d.dpx", *sound, "-o", output), "no file of this sequence"),
        ((plates, "-o", output), "give new speech with --audio"),
    ):
        assert said in refused(*arguments)
    shutil.move(tmp_path / "a.1002.dpx", tmp_path / "elsewhere.dpx")
    assert "a.1002.dpx: this frame is missing" in refused(plates, *sound, "-o", output)
