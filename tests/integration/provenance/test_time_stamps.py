"""A video is dated by a time stamp authority, and a video that the authority does not date is not written."""

import datetime
import hashlib
import io
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import c2pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.provenance.binding import sidecar_binding, sidecar_of
from gateway.provenance.claim import definition
from gateway.provenance.credential import credential_of
from gateway.provenance.library import LibraryError, sign
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import ManifestState, verdict_of
from services.common.errors import BackendUnavailableError, InvalidRequestError
from tests.unit.provenance.signed_videos import chain_for, claim_gigabytes, claim_of, flip, pem_of, write_video
from tests.unit.provenance.time_stamps import STAMPED_AT, Answer, Door, Request, Stamper, authority, new_stamper, refusal

VIDEOS = (".mp4", ".mkv")
WRONG: dict[str, tuple[Callable[[Stamper], Answer], str]] = {
    "error": (lambda stamper: lambda door, request: door.give(stamper.stamp(request), status=500), "status = 500"),
    "garbage": (lambda _: lambda door, request: door.give(b"<html>Welcome</html>"), "decode error"),
    "nothing": (lambda _: lambda door, request: door.give(b""), "decode error"),
    "refusal": (lambda _: lambda door, request: door.give(refusal()), "unable to find signed data"),
    "half": (lambda stamper: lambda door, request: door.give(stamper.stamp(request)[:500]), "decode error"),
    "other bytes": (
        lambda stamper: lambda door, request: door.give(stamper.stamp(_of_other_bytes(request))),
        "does not match data",
    ),
    "older answer": (lambda stamper: lambda door, request: door.give(stamper.stamp(_asked_before(request))), "nonce mismatch"),
    "forgery": (lambda stamper: lambda door, request: door.give(_forger(stamper).stamp(request)), "authority is untrusted"),
}
"""Answers of an authority that are no time stamp of the video, and the error for each."""


@dataclass(frozen=True)
class Studio:
    """A studio with a certificate of its own.

    Attributes:
        sealer: signs its videos.
        anchor: certificate, PEM, of the authority that vouches for the studio.
    """

    sealer: Sealer
    anchor: bytes


@pytest.fixture(scope="module")
def stamper() -> Stamper:
    return new_stamper()


@pytest.fixture(scope="module")
def studio() -> Studio:
    return _studio(days=30)


def _studio(*, days: float) -> Studio:
    key = Ed25519PrivateKey.generate()
    chain, anchor = chain_for(key, days=days)
    return Studio(Sealer(credential_of(chain, pem_of(key))), anchor)


def _of_other_bytes(request: Request) -> Request:
    other = replace(request.imprint, digest=hashlib.sha256(b"other bytes").digest())
    return replace(request, imprint=other)


def _asked_before(request: Request) -> Request:
    assert request.nonce is not None
    return replace(request, nonce=request.nonce + 1)


def _forger(stamper: Stamper) -> Stamper:
    return replace(stamper, key=generate_private_key(SECP256R1()))


@pytest.mark.parametrize("suffix", VIDEOS)
def test_a_video_has_the_time_of_the_authority(suffix, carphone, stamper, studio, tmp_path) -> None:
    plain = write_video(tmp_path / f"plain{suffix}", carphone, studio.sealer)
    with authority(lambda door, request: door.give(stamper.stamp(request))) as url:
        video = write_video(tmp_path / f"video{suffix}", carphone, replace(studio.sealer, time_stamp_url=url))
    verdict = verdict_of(video, anchors=studio.anchor + stamper.anchor)
    assert (verdict.state, verdict.reasons, verdict.time_is_trusted) == (ManifestState.TRUSTED, (), True)
    assert datetime.datetime.fromisoformat(verdict.signer["time"]) == STAMPED_AT
    assert verdict.media_sha256 == verdict_of(plain).media_sha256
    doubted = verdict_of(video, anchors=studio.anchor)
    assert (doubted.state, doubted.time_is_trusted) == (ManifestState.TRUSTED, False)
    assert doubted.signer["time"] == verdict.signer["time"]
    undated = verdict_of(plain, anchors=studio.anchor + stamper.anchor)
    assert (undated.state, undated.time_is_trusted, "time" in undated.signer) == (ManifestState.TRUSTED, False, False)


def test_other_reader_and_changed_byte(carphone: Path, stamper: Stamper, studio: Studio, tmp_path: Path) -> None:
    """C2PA's own reader finds the time, and a video that was changed is reported in spite of its time."""
    with authority(lambda door, request: door.give(stamper.stamp(request))) as url:
        video = write_video(tmp_path / "video.mp4", carphone, replace(studio.sealer, time_stamp_url=url))
    trust = {"trust": {"trust_anchors": (studio.anchor + stamper.anchor).decode()}, "verify": {"verify_trust": True}}
    with c2pa.Context.from_dict(trust) as context, c2pa.Reader(video, context=context) as reader:
        assert reader.get_validation_state() == "Trusted"
        results, manifest = reader.get_validation_results(), reader.get_active_manifest()
    assert manifest is not None
    codes = [success["code"] for success in results["activeManifest"]["success"]]
    assert {"timeStamp.validated", "timeStamp.trusted", "claimSignature.validated"} <= set(codes)
    assert results["activeManifest"]["failure"] == []
    assert datetime.datetime.fromisoformat(manifest["signature_info"]["time"]) == STAMPED_AT
    flip(video, video.stat().st_size - 100)
    assert verdict_of(video, anchors=studio.anchor + stamper.anchor).state == ManifestState.INVALID


def test_damaged_manifest_not_authority_error(carphone: Path, stamper: Stamper, studio: Studio, tmp_path: Path) -> None:
    """Footage with a damaged manifest is not the authority's fault."""
    footage = claim_gigabytes(write_video(tmp_path / "footage.mp4", carphone, studio.sealer))
    with authority(lambda door, request: door.give(stamper.stamp(request))) as url:
        stamped = replace(studio.sealer, time_stamp_url=url)
        video = write_video(tmp_path / "video.mp4", carphone, stamped, source=footage)
    verdict = verdict_of(video, anchors=studio.anchor + stamper.anchor)
    assert (verdict.state, verdict.time_is_trusted) == (ManifestState.TRUSTED, True)
    assert not verdict.ingredients[0]["has_manifest"]


@pytest.mark.parametrize(("case", "suffix"), list(zip(WRONG, cycle(VIDEOS), strict=False)))
def test_missing_time_stamp_is_retryable(case, suffix, carphone, stamper, studio, tmp_path) -> None:
    """An authority that gives no time stamp is an error that may pass."""
    answer, reason = WRONG[case]
    video = tmp_path / f"video{suffix}"
    video.write_bytes(b"the video before")
    with authority(answer(stamper)) as url:
        stamped = replace(studio.sealer, time_stamp_url=url)
        with pytest.raises(BackendUnavailableError, match=reason) as raised:
            write_video(video, carphone, stamped)
    assert f"the time stamp authority {url} gave no time stamp" in raised.value.message
    assert list(tmp_path.iterdir()) == [video]
    assert video.read_bytes() == b"the video before"


@pytest.mark.parametrize("said", ["nothing", "a beginning"])
def test_unfinished_authority_answer_times_out(said: str, carphone: Path, studio: Studio, tmp_path: Path) -> None:
    """An authority that does not finish its answer is given up."""

    def answer(door: Door, request: Request) -> None:
        if said != "nothing":
            door.begin()
            door.wfile.write(b"0")
        door.wait_for_the_end()

    with authority(answer) as url:
        stamped = replace(studio.sealer, time_stamp_url=url, time_stamp_limit_s=0.2)
        with pytest.raises(BackendUnavailableError, match=r"its answer was not complete after 0\.2 s") as raised:
            write_video(tmp_path / "video.mp4", carphone, stamped)
    assert url in raised.value.message
    assert "DUBSTAGE_PROVENANCE_TIME_STAMP_URL must name an authority" in raised.value.message
    assert list(tmp_path.iterdir()) == []


def test_endless_authority_answer_refused(carphone: Path, studio: Studio, tmp_path: Path) -> None:
    def answer(door: Door, request: Request) -> None:
        door.begin()
        with suppress(OSError):
            while True:
                door.wfile.write(bytes(1 << 20))

    with authority(answer) as url:
        stamped = replace(studio.sealer, time_stamp_url=url, time_stamp_limit_s=600.0)
        with pytest.raises(BackendUnavailableError, match="its answer does not fit into 256 MB") as raised:
            write_video(tmp_path / "video.mkv", carphone, stamped)
    assert url in raised.value.message
    assert list(tmp_path.iterdir()) == []


def test_expired_certificate_not_authority_error(carphone: Path, stamper: Stamper, tmp_path: Path) -> None:
    """A certificate that has expired is not the authority's fault."""
    with authority(lambda door, request: door.give(stamper.stamp(request))) as url:
        stamped = replace(_studio(days=-1).sealer, time_stamp_url=url)
        with pytest.raises(InvalidRequestError, match="certificate was not valid"):
            write_video(tmp_path / "video.mp4", carphone, stamped)
    assert list(tmp_path.iterdir()) == []


def test_time_stamp_outlives_certificate(carphone: Path, stamper: Stamper, tmp_path: Path) -> None:
    """A video stays valid after the certificate has expired if the reader trusts the time stamp."""
    dated, plain = tmp_path / "dated.mkv", tmp_path / "plain.mkv"
    with authority(lambda door, request: door.give(stamper.stamp(request))) as url:
        short = _signed_in_time(carphone, dated, plain, url)
    both = short.anchor + stamper.anchor
    limit_s = time.monotonic() + 60.0
    while verdict_of(plain, anchors=both).state != ManifestState.INVALID:
        assert time.monotonic() < limit_s
        time.sleep(0.02)
    assert verdict_of(dated, anchors=both).state == ManifestState.TRUSTED
    for video, anchors in ((dated, short.anchor), (plain, both)):
        expired = verdict_of(video, anchors=anchors)
        assert expired.state == ManifestState.INVALID
        assert any("no trusted authority vouches for that time" in reason for reason in expired.reasons)


def _signed_in_time(footage: Path, dated: Path, plain: Path, url: str) -> Studio:
    """Sign two videos, with and without a time, with a certificate that expires soon after."""
    claim = definition(claim_of(footage), {"footage": "ab" * 32}, sidecar_binding(io.BytesIO(b"a video")))
    made = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
    claim["assertions"][0]["data"]["actions"] = [made]
    valid_s = 1.0
    while valid_s < 60.0:
        studio = _studio(days=valid_s / 86_400)
        try:
            for video, authority_url in ((dated, url), (plain, "")):
                video.write_bytes(b"a video")
                credential = studio.sealer.credential
                manifest = sign(claim, (), credential, time_stamp_url=authority_url)
                sidecar_of(video).write_bytes(manifest)
        except LibraryError:  # the machine was slower than the certificate
            valid_s *= 2.0
        else:
            return studio
    raise AssertionError("two videos were not signed within 30 s")
