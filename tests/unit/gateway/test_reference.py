"""The reference picture of a dub: which methods take one, whose consent it needs, and what is told of wrong files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dubstage.gateway.v1.consent_pb2 import ConsentRecord
from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.api.convert import check_dub
from gateway.api.media import MediaFolder
from gateway.cli.app import run
from gateway.cli.demo import SPEECH
from gateway.consent.record import Consent
from gateway.dub.request.dub_request import DubRequest, check_reference, consent_sentence
from gateway.dub.request.spec import request_from
from services.common.errors import InvalidRequestError
from services.common.methods import METHODS, combined, method_named
from tests.unit.cli.test_commands import CONSENT, VIDEO
from tests.unit.consent.records import of_footage

TAKES = next(name for name, row in METHODS.items() if row.renderer.reference)
TAKES_NONE = next(name for name, row in METHODS.items() if not row.renderer.reference)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "artefacts"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "look.png"
    assert cv2.imwrite(str(path), np.full((120, 100, 3), 90, np.uint8))
    return path


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "consent.json"
    path.write_text(json.dumps(CONSENT | of_footage(VIDEO)))
    return path


def test_renderer_decides_on_reference(picture: Path) -> None:
    """The renderer decides whether a method takes a reference."""
    unable = METHODS[TAKES_NONE].renderer.name
    for motion in METHODS:
        check_reference(method_named(combined(motion, renderer=TAKES)), True)
        check_reference(method_named(combined(motion, renderer=TAKES_NONE)), False)
        name = combined(motion, renderer=TAKES_NONE)
        with pytest.raises(InvalidRequestError, match=rf"method {name.replace('+', '.')} takes no reference.*{unable}.*: {TAKES}"):
            check_reference(method_named(name), True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--reference", "look.png"], 10, f"method {TAKES_NONE} takes no reference picture"),
        (["--reference-consent", "consent.json"], 10, "--reference-consent is given without --reference"),
        (["--method", TAKES, "--reference", "none.png"], 10, "none.png"),
        (["--method", TAKES, "--reference", "consent.json"], 10, "consent.json"),
        (["--method", TAKES, "--reference", "look.png", "--reference-consent", "none.json"], 10, "none.json"),
        (
            ["--method", TAKES, "--reference", "out.mkv", "--overwrite"],
            10,
            "is the reference itself; give another name",
        ),
    ],
)
def test_the_command_line_refuses_in_one_line(
    arguments: list[str],
    code: int,
    said: str,
    picture: Path,
    record: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "out.mkv" in arguments:
        (tmp_path / "out.mkv").write_bytes(picture.read_bytes())
    assert run(["dub", str(VIDEO), "--audio", str(SPEECH), "-o", "out.mkv", *arguments]) == code
    printed = capsys.readouterr()
    assert said in printed.err.replace("\n", " ")
    assert "Traceback" not in printed.err


def test_reference_person_needs_record(
    picture: Path, record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If consent is required, the person in the reference needs a record too."""
    monkeypatch.setenv("DUBSTAGE_REQUIRE_CONSENT", "true")
    command = ["dub", str(VIDEO), "--audio", str(SPEECH), "-o", str(tmp_path / "out.mkv"), "--method", TAKES]
    assert run([*command, "--reference", str(picture), "--consent", str(record)]) == 11
    assert "the person in the reference picture" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out.mkv").exists()


def test_video_and_report_name_both_consents(picture: Path, tmp_path: Path) -> None:
    mine = Consent.model_validate({**CONSENT, "subject": "Ann"})
    other = Consent.model_validate({**CONSENT, "subject": "Bob"})
    request = DubRequest(footage=VIDEO, speech=None, output=tmp_path / "out.mkv", method=TAKES, consent=mine)
    assert consent_sentence(request).startswith("consent of Ann")
    assert consent_sentence(replace(request, reference=picture)).endswith("appearance of another picture: no consent on record")
    both = consent_sentence(replace(request, reference=picture, reference_consent=other))
    assert both.index("consent of Ann") < both.index("appearance of another picture: consent of Bob")


def spec(**fields: object) -> DubSpec:
    return DubSpec(footage_uri="video.mp4", output_uri="out.mkv", **fields)  # type: ignore[arg-type]


@pytest.fixture
def media(tmp_path: Path, picture: Path) -> MediaFolder:
    (tmp_path / "video.mp4").write_bytes(VIDEO.read_bytes())
    return MediaFolder(tmp_path)


def test_the_interface_takes_a_reference_with_its_consent(media: MediaFolder, picture: Path) -> None:
    record = ConsentRecord(**CONSENT)
    request = request_from(spec(method=TAKES, reference_uri="look.png", reference_consent=record), media, threads=1)
    assert request.reference == picture
    assert request.reference_consent is not None
    assert request.reference_consent.subject == CONSENT["subject"]
    assert request_from(spec(method=TAKES), media, threads=1).reference is None
    with pytest.raises(InvalidRequestError, match="is the reference itself"):
        check_dub(replace(request, output=picture, overwrite=True))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"method": TAKES_NONE, "reference_uri": "look.png"}, "reference"),
        ({"method": TAKES, "reference_uri": "none.png"}, "reference_uri"),
        ({"method": TAKES, "reference_uri": "../look.png"}, "reference_uri"),
        ({"method": TAKES, "reference_consent": ConsentRecord(**CONSENT)}, "reference_consent"),
    ],
)
def test_the_interface_refuses_with_the_field(fields: dict[str, object], field: str, media: MediaFolder) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request_from(spec(**fields), media, threads=1)
    assert caught.value.field == field
