"""Tests of the verdict on videos: manifests of other people, files that are no videos, a reader that ends early, and watermarks.

A watermark proves something only together with a valid manifest of a trusted signer that the mark belongs to.
"""

from __future__ import annotations

import random
import resource
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.media.mp4 import copy_with_padding
from gateway.provenance import verdict as provenance_verdict
from gateway.provenance.binding import embedded_binding, put_manifest, sidecar_of
from gateway.provenance.claim import DubFacts, ModelFacts, SourceFacts, definition
from gateway.provenance.credential import installation_credential
from gateway.provenance.library import UNKNOWN, LibraryError, sign
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import ManifestState, Standing, Verdict, standing_of, verdict_of
from gateway.provenance.watermark.detection import Finding
from gateway.provenance.watermark.payload import PUBLIC, SECRET, Payload, watermark_key
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from tests.unit.provenance.signed_videos import claim_gigabytes, claim_of, write_video

ENDS: dict[str, tuple[int | None, str]] = {
    "no memory": (-signal.SIGABRT, "takes more than 2048 MiB of memory"),
    "a fault": (1, "status 1"),
    "no time": (None, "takes more than 60 s"),
}
FACTS = {"footage": "ab" * 32}
KEY = watermark_key(b"an installation")


@pytest.fixture(params=ENDS)
def reason(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the message about a process that ends in one of these ways."""
    status, reason = ENDS[request.param]

    def run_c2pa(task: str, *_: object, limit_s: float, **__: str) -> subprocess.CompletedProcess[bytes]:
        if status is None:
            raise subprocess.TimeoutExpired(task, limit_s)
        return subprocess.CompletedProcess(task, status, b'{"place": "embed')

    monkeypatch.setattr(provenance_verdict, "run_c2pa", run_c2pa)
    return reason


def test_no_answer_unreadable_manifest(reason: str, carphone: Path) -> None:
    """No answer is a manifest that cannot be read."""
    verdict = verdict_of(carphone)
    assert verdict.state == ManifestState.INVALID
    assert verdict.reasons[0].startswith("the manifest cannot be read: reading it ")
    assert reason in verdict.reasons[0]


def test_descriptor_read_from_start(tmp_path: Path) -> None:
    """A descriptor is read from its beginning and stays open."""
    (tmp_path / "notes.txt").write_text("words")
    with (tmp_path / "notes.txt").open("rb") as file:
        assert file.read() == b"words"
        assert provenance_verdict.read_credentials(file.fileno(), UNKNOWN) == provenance_verdict.FoundManifest(None, "")
        with pytest.raises(LibraryError):
            provenance_verdict.read_credentials(file.fileno(), None, sidecar=b"\x00\x00\x00\x20jumb" + bytes(24))


@pytest.fixture(scope="module")
def signed(carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    return write_video(folder / "video.mp4", carphone, Sealer(installation_credential(folder / "data")))


def lying(video: Path, tmp_path: Path, **facts: Any) -> Path:
    """A video whose manifest is signed, and says of the dub what no dub says."""
    output = tmp_path / "lying.mp4"
    with video.open("rb") as source, output.open("w+b") as target:
        copy_with_padding(source, target, 2 << 20)
        told = definition(claim_of(video), FACTS, embedded_binding(target))
    told["assertions"][0]["data"]["actions"] = [
        {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
    ]
    told["assertions"][1]["data"] |= facts
    with output.open("r+b") as target:
        put_manifest(target, sign(told, (), installation_credential(tmp_path / "data")))
    return output


@pytest.mark.parametrize(
    "facts",
    [
        {"frame_rate": "25/0"},
        {"frame_rate": 25},
        {"dubbed": [[1]]},
        {"dubbed": [["a", "b"]]},
        {"dubbed": None},
        {"models": ["drawer"]},
        {"consent_sha256": {"person": "Jane Doe"}},
        {"version": 2},
    ],
)
def test_facts_that_no_dub_says_are_not_shown(facts: dict[str, Any], carphone: Path, tmp_path: Path) -> None:
    verdict = verdict_of(lying(carphone, tmp_path, **facts))
    assert (verdict.state, verdict.dub) == (ManifestState.VALID, None)


def test_facts_of_a_dub_are_shown(carphone: Path, tmp_path: Path) -> None:
    verdict = verdict_of(lying(carphone, tmp_path))
    assert verdict.dub is not None
    assert verdict.dub.dubbed == [[2, 5], [8, 9]]


def test_a_file_without_a_manifest_has_none(carphone: Path, tmp_path: Path) -> None:
    assert (verdict_of(carphone).state, verdict_of(carphone).place) == (ManifestState.NONE, "")
    (tmp_path / "notes.txt").write_text("words")
    assert verdict_of(tmp_path / "notes.txt").state == ManifestState.NONE


def test_any_changed_byte_has_verdict(signed: Path, tmp_path: Path) -> None:
    """A manifest has a verdict whichever of its bytes are changed."""
    content = signed.read_bytes()
    begin = content.index(b"jumb")
    generator = random.Random(5)
    states = set()
    for _ in range(40):
        changed = bytearray(content)
        for _ in range(generator.choice((1, 3, 30))):
            changed[begin + generator.randrange(4000)] = generator.randrange(256)
        (tmp_path / "video.mp4").write_bytes(changed)
        states.add(verdict_of(tmp_path / "video.mp4").state)
    assert ManifestState.INVALID in states
    assert ManifestState.TRUSTED not in states


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_gigabyte_claim_invalid_without_memory(suffix: str, carphone: Path, tmp_path: Path) -> None:
    """A manifest that claims gigabytes is invalid and takes no memory here."""
    video = write_video(tmp_path / f"video{suffix}", carphone, Sealer(installation_credential(tmp_path / "data")))
    claim_gigabytes(video if suffix == ".mp4" else sidecar_of(video))
    before = peak_bytes()
    verdict = verdict_of(video)
    assert verdict.state == ManifestState.INVALID
    assert verdict.reasons
    assert peak_bytes() - before < 100 << 20


def test_too_long_manifest_is_invalid(carphone: Path, tmp_path: Path) -> None:
    """A manifest that says too much to be shown is invalid."""
    size = 900_000
    video = lying(carphone, tmp_path, method="Q" * size)
    # CBOR: in place of the text, an array of as many empty arrays, which c2pa prints as 14 characters each
    said = b"\x7a" + size.to_bytes(4, "big") + b"Q" * size
    video.write_bytes(video.read_bytes().replace(said, b"\x9a" + size.to_bytes(4, "big") + b"\x80" * size))
    before = peak_bytes()
    verdict = verdict_of(video)
    assert (verdict.state, verdict.reasons) == (ManifestState.INVALID, ("the manifest cannot be read: it says more than 8 MB",))
    assert peak_bytes() - before < 100 << 20


@pytest.mark.parametrize("part", [0.01, 0.05, 0.5, 0.999])
def test_truncated_video_is_invalid(part: float, signed: Path, tmp_path: Path) -> None:
    """A video that is cut off is not valid."""
    content = signed.read_bytes()
    (tmp_path / "video.mp4").write_bytes(content[: int(part * len(content))])
    assert verdict_of(tmp_path / "video.mp4").state in (ManifestState.INVALID, ManifestState.NONE)


def test_lonely_or_foreign_sidecar(tmp_path: Path) -> None:
    """A sidecar without its video, or a file that is no sidecar, is reported."""
    (tmp_path / "video.mkv.c2pa").write_bytes(b"words")
    with pytest.raises(InvalidRequestError, match=r"its video video\.mkv is not beside it"):
        verdict_of(tmp_path / "video.mkv.c2pa")
    (tmp_path / "video.mkv").write_bytes(b"a video")
    with pytest.raises(InvalidRequestError, match="is no C2PA manifest"):
        verdict_of(tmp_path / "video.mkv.c2pa")
    with pytest.raises(MediaUnsupportedError, match="does not exist"):
        verdict_of(tmp_path / "none.mp4")


def facts(**changed: object) -> DubFacts:
    """Claims of the manifest of a marked video."""
    said = {
        "version": 1,
        "method": "dubstage",
        "models": [ModelFacts(stage="render", name="ugc", version="ab" * 32)],
        "frames": 90,
        "frame_rate": "30000/1001",
        "dubbed": [[0, 90]],
        "sources": [SourceFacts(role="footage", sha256="cd" * 32)],
        "consent_sha256": {},
        "job": "ef" * 32,
        **changed,
    }
    bare = DubFacts.model_validate({**said, "watermark": ""})
    return bare.model_copy(update={"watermark": str(Payload.of_video(KEY, bare.statement))})


VIDEO = facts()
OTHER = facts(sources=[SourceFacts(role="footage", sha256="12" * 32)])


def mark_of(dub: DubFacts, version: int = PUBLIC, *, own: bool = True, log10_forged: float = -20.0) -> Finding:
    payload = Payload.of_message(int(dub.watermark, 16))
    return Finding(
        log10_chance=-40.0,
        soft=np.ones(64),
        payload=payload,
        version=version,
        own=own,
        agreeing=63,
        spans=(),
        log10_forged=log10_forged,
    )


def verdict_about(state: ManifestState, dub: DubFacts | None, *footage: DubFacts, valid: bool = True) -> Verdict:
    ingredients = tuple({"title": "footage", "valid": valid, "dub": each.model_dump(exclude_unset=True)} for each in footage)
    return Verdict(Path("video.mp4"), state, (), "embedded", "0" * 64, ingredients=ingredients, dub=dub)


def test_mark_of_trusted_manifest() -> None:
    """A mark that belongs to a trusted manifest is of this video."""
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.TRUSTED, VIDEO)) is Standing.THIS_VIDEO


@pytest.mark.parametrize("state", [ManifestState.VALID, ManifestState.INVALID])
def test_mark_with_broken_manifest(state: ManifestState) -> None:
    """A mark is a clue if its manifest does not hold or is of an unknown signer."""
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(state, VIDEO)) is Standing.CLUE


def test_mark_without_manifest_or_dub() -> None:
    """A mark without a manifest or without a dub in it is a clue."""
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.NONE, None)) is Standing.CLUE
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.TRUSTED, None)) is Standing.CLUE


@pytest.mark.parametrize("state", [ManifestState.TRUSTED, ManifestState.VALID, ManifestState.INVALID])
def test_copied_mark_is_told(state: ManifestState) -> None:
    """A mark that was copied under another manifest is reported."""
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(state, OTHER)) is Standing.ANOTHER_VIDEO
    # The forger writes the digits of the copied mark into the manifest of the other video.
    forged = OTHER.model_copy(update={"watermark": VIDEO.watermark})
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(state, forged)) is Standing.ANOTHER_VIDEO


def test_secret_mark_of_trusted_manifest() -> None:
    """A mark that only the installation can read belongs to its trusted manifest."""
    payload = Payload.of_video(KEY, VIDEO.statement, public=False)
    dub = VIDEO.model_copy(update={"watermark": str(payload)})
    mark = mark_of(dub, SECRET, log10_forged=0.0)
    assert standing_of(mark, KEY, verdict_about(ManifestState.TRUSTED, dub)) is Standing.THIS_VIDEO
    assert standing_of(mark, KEY, verdict_about(ManifestState.NONE, None)) is Standing.CLUE


def test_every_field_of_the_manifest_binds_the_mark() -> None:
    changes: dict[str, object] = {
        "method": "portrait",
        "models": [],
        "frames": 91,
        "frame_rate": "25/1",
        "dubbed": [[0, 89]],
        "sources": [],
        "consent_sha256": {"person": "34" * 32},
        "job": "56" * 32,
        "scene": True,
        "stream": True,
    }
    assert changes.keys() == DubFacts.model_fields.keys() - {"version", "watermark"}
    for name, value in changes.items():
        said = VIDEO.model_copy(update={name: value})
        assert standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.TRUSTED, said)) is Standing.ANOTHER_VIDEO, name


def test_footage_mark_is_not_copied() -> None:
    """The mark of footage that was a dub itself is told apart from a copied one."""
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.TRUSTED, OTHER, VIDEO)) is Standing.FOOTAGE
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.TRUSTED, None, VIDEO)) is Standing.FOOTAGE
    assert standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.VALID, OTHER, VIDEO)) is Standing.CLUE
    assert (
        standing_of(mark_of(VIDEO), KEY, verdict_about(ManifestState.TRUSTED, OTHER, VIDEO, valid=False)) is Standing.ANOTHER_VIDEO
    )


def test_mark_of_earlier_dub_is_footage() -> None:
    """The manifest of a delivered video has the decision, and the dub is in the manifest behind it."""
    verdict = replace(verdict_about(ManifestState.TRUSTED, OTHER), earlier_dubs=(VIDEO.model_dump(exclude_unset=True),))
    assert standing_of(mark_of(VIDEO), KEY, verdict) is Standing.FOOTAGE


def test_unconfirmed_mark_is_refused() -> None:
    """A public mark without the installation's own part is refused, unless a trusted manifest vouches for it."""
    forged = mark_of(VIDEO, log10_forged=-0.3)
    for state, dub in ((ManifestState.NONE, None), (ManifestState.VALID, VIDEO), (ManifestState.TRUSTED, OTHER)):
        assert standing_of(forged, KEY, verdict_about(state, dub)) is Standing.REFUSED
    assert standing_of(forged, KEY, verdict_about(ManifestState.TRUSTED, VIDEO)) is Standing.THIS_VIDEO


@pytest.mark.parametrize("key", [None, watermark_key(b"another installation")])
def test_mark_of_another_installation(key: bytes | None) -> None:
    """The mark of another installation is a clue without its trusted manifest."""
    mark = mark_of(VIDEO, own=False)
    assert standing_of(mark, key, verdict_about(ManifestState.NONE, None)) is Standing.CLUE
    assert standing_of(mark, key, verdict_about(ManifestState.VALID, VIDEO)) is Standing.CLUE
    assert standing_of(mark, key, verdict_about(ManifestState.TRUSTED, VIDEO)) is Standing.THIS_VIDEO
    assert standing_of(mark, key, verdict_about(ManifestState.TRUSTED, OTHER)) is Standing.ANOTHER_VIDEO


def test_unreadable_mark_is_clue() -> None:
    """A mark that cannot be read is a clue."""
    assert standing_of(mark_of(VIDEO, version=0), KEY, verdict_about(ManifestState.TRUSTED, VIDEO)) is Standing.CLUE
