"""The command line with real people: a signed record of one person opens no work with another person."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Clips, clips_root
from tests.integration.test_consent_subjects import write_video_of_picture
from tests.integration.videos import write_short_clip
from tests.system.dubbing import SPEECH, cut
from tests.unit.consent.records import RECORD, STUDIO, private_pem, trusted

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class People:
    """Two videos of one person, and a video of another person."""

    one: Path
    one_again: Path
    other: Path


@pytest.fixture
def people(request: pytest.FixtureRequest, tmp_path: Path) -> People:
    """People of the clips. Without the clips: a man in a video and a woman in a picture, both from packages."""
    found = People(*(tmp_path / f"{name}.mp4" for name in ("one", "again", "other")))
    if not (clips_root() / "catalogue.csv").is_file() and os.environ.get("DUBSTAGE_REQUIRE_CLIPS") != "1":
        carphone, astronaut = (request.getfixturevalue(name) for name in ("carphone", "astronaut"))
        write_short_clip(carphone, found.one, 36)
        write_short_clip(carphone, found.one_again, 36, end=40)
        write_video_of_picture(astronaut, found.other, 36)
        return found
    clips: Clips = request.getfixturevalue("clips")
    one, other = (clips.path(f"people/{name}.mp4") for name in ("dev_4", "dev_6"))
    cut(one, found.one, 0.0, 2.0)
    cut(one, found.one_again, 8.0, 10.0)
    cut(other, found.other, 0.0, 2.0)
    return found


@pytest.mark.long
def test_consent_record_binds_its_person(people: People, tmp_path: Path, forked_dubstage: Run) -> None:
    """A record is made, signed, and used for its own person alone."""
    key, out = tmp_path / "key.pem", tmp_path / "out.mp4"
    key.write_bytes(private_pem(STUDIO))
    strict = {"DUBSTAGE_REQUIRE_CONSENT": "signed", "DUBSTAGE_CONSENT_KEYS": str(trusted(tmp_path / "keys"))}
    plain, named, mine, old = (tmp_path / f"{name}.json" for name in ("plain", "named", "mine", "old"))
    plain.write_text(json.dumps(RECORD))

    def done(*command: object) -> str:
        result = forked_dubstage(*command, **strict)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(*command: object) -> str:
        result = forked_dubstage(*command, **strict)
        assert (result.returncode, "Traceback" in result.stderr) == (11, False), result.stderr
        assert not out.exists()
        return result.stderr.replace("\n", " ")

    done("consent", "subject", people.one, "--record", plain, "-o", named)
    done("consent", "sign", named, "--key", key, "-o", mine)
    done("consent", "verify", mine)
    embedding = json.loads(mine.read_text())["face"]["embedding"]
    dub, fast = ("--audio", SPEECH, "-o", out), "--no-personalize"

    assert "another person than the consent record" in refused("actor", "create", "two", people.other, fast, "--consent", mine)
    assert "another person than the consent record" in refused("dub", people.other, *dub, fast, "--consent", mine)
    done("actor", "create", "one", people.one_again, fast, "--consent", mine)
    assert "another person than the consent record" in refused("dub", people.other, *dub, "--actor", "one")
    done("dub", people.one, *dub, "--actor", "one")
    told = done("inspect", "--json", "--no-watermark", out)
    assert list(json.loads(told)["dub"]["consent_sha256"]) == ["person"]
    assert embedding not in told
    assert embedding.encode() not in out.read_bytes()
    out.unlink()

    done("consent", "sign", plain, "--key", key, "-o", old)
    for command in (("actor", "create", "two", people.one), ("dub", people.one, *dub), ("dub", people.one, *dub, "--actor", "one")):
        assert "`dubstage consent subject FOOTAGE`" in refused(*command, "--consent", old)

    done("actor", "erase", "one")
    left = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and embedding.encode() in path.read_bytes()]
    assert left == []
