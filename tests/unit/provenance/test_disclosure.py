"""Disclosure records: what the metadata of a video say of its making, beside the footage's own XMP packet."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import av
import pytest

from gateway.live.recording import StreamedActor, disclosed_facts
from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.writer import VideoWriter
from gateway.provenance.binding import media_sha256, sidecar_of
from gateway.provenance.claim import SYNTHETIC, ModelFacts
from gateway.provenance.credential import installation_credential
from gateway.provenance.disclosure import LARGEST_PACKET, append_packet, disclosure_packet, find_packet, source_type_of
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import ManifestState, verdict_of
from tests.unit.provenance.second_reader import second_verdict
from tests.unit.provenance.signed_videos import flip, write_video

OWN = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Camera 1.0"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"
  xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:studio="https://studio.example/" studio:reel="A004"
  dcterms:provenance="https://studio.example/old.c2pa"
  ext:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Scene 4 &amp; 5</rdf:li><rdf:li xml:lang="fr">Scènes 4 et 5</rdf:li></rdf:Alt>
</dc:description></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
SENTENCE = "The mouth in this video is synthetic."


@pytest.fixture(scope="module")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    return Sealer(installation_credential(tmp_path_factory.mktemp("data")))


def with_packet(footage: Path, video: Path, packet: bytes) -> Path:
    video.write_bytes(footage.read_bytes())
    with video.open("r+b") as file:
        append_packet(file, packet)
    return video


def by_ffmpeg(video: Path) -> bytes:
    """The XMP packet of a video as FFmpeg finds it."""
    with av.open(str(video), container_options={"export_xmp": "1"}) as container:
        return container.metadata["xmp"].encode()


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
def test_ffmpeg_reads_the_record(suffix: str, carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """FFmpeg reads the term and the sentence, equal dubs have equal records, and a changed record is found."""
    video = write_video(tmp_path / f"video{suffix}", carphone, sealer)
    packet = by_ffmpeg(video)
    ElementTree.fromstring(packet)
    assert packet.count(SYNTHETIC.encode()) == 1
    assert SENTENCE.encode() in packet
    assert source_type_of(video) == SYNTHETIC
    again = write_video(tmp_path / f"again{suffix}", carphone, sealer)
    assert media_sha256(again) == media_sha256(video)
    flip(video, video.read_bytes().index(SENTENCE.encode()))
    assert verdict_of(video).state is ManifestState.INVALID


def test_record_of_a_stream(sealer: Sealer, tmp_path: Path) -> None:
    """Two readers find the record of a live stream valid; it names the watermark, and a recording repeats what holds alone."""
    facts = ModelFacts(stage="render", name="ugc", version="ab" * 32)
    signed = sealer.disclosure(StreamedActor("dubstage", (facts,), None, "cd" * 32, "123456789").claim())
    record = tmp_path / "stream.xmp"
    record.write_bytes(signed.packet)
    sidecar_of(record).write_bytes(signed.manifest)
    verdict = verdict_of(record)
    assert verdict.state is ManifestState.VALID
    assert source_type_of(record) == SYNTHETIC
    assert second_verdict(record, sealer.credential.chain) == ("valid", "Trusted", [])
    assert verdict.dub == disclosed_facts(signed)
    assert verdict.dub is not None
    assert (verdict.dub.stream, verdict.dub.job, verdict.dub.watermark) == (True, "cd" * 32, "123456789")
    assert verdict.dub.models == [facts]
    assert disclosed_facts(replace(signed, packet=signed.packet + b" ")) is None


def test_the_packet_of_the_footage_stays(carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """All that the footage says stays, but its own source type, and the place of a manifest that is not the video's."""
    footage = with_packet(carphone, tmp_path / "footage.mp4", OWN)
    packet = by_ffmpeg(write_video(tmp_path / "video.mp4", footage, sealer)).decode()
    for kept in ('studio:reel="A004"', f"{SENTENCE} | Scene 4 &amp; 5", "Scènes 4 et 5", "Camera 1.0"):
        assert kept in packet
    assert "digitalCapture" not in packet
    assert "old.c2pa" not in packet
    assert packet.count(SYNTHETIC) == 1
    twice = disclosure_packet(SENTENCE, packet.encode()).decode()
    assert twice.count(SYNTHETIC) == twice.count(SENTENCE) == 1


@pytest.mark.parametrize(
    "packet",
    [
        b"<x:xmpmeta",
        b"\xff\xfe\x00",
        b"<a/>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><x xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:RDF/></x>',
        b"<a>" * 50_000,
        b'<?xml version="1.0" encoding="no-such"?><a/>',
    ],
)
def test_a_damaged_packet_is_left_out(packet: bytes, carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    footage = with_packet(carphone, tmp_path / "footage.mp4", packet)
    video = write_video(tmp_path / "video.mp4", footage, sealer)
    assert source_type_of(video) == SYNTHETIC
    assert source_type_of(footage) == ""
    with pytest.raises(ValueError, match=r"."):
        disclosure_packet(SENTENCE, packet)


def test_deep_elements_are_left_out(carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    depth = 20_000
    inside = b"<a>" * depth + b"</a>" * depth
    packet = b'<x><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' + inside + b"</r:RDF></x>"
    assert len(packet) < LARGEST_PACKET
    footage = with_packet(carphone, tmp_path / "footage.mp4", packet)
    assert source_type_of(write_video(tmp_path / "video.mp4", footage, sealer)) == SYNTHETIC


def test_a_large_packet_is_left_out() -> None:
    video = io.BytesIO()
    append_packet(video, OWN)
    assert find_packet(video) == OWN
    video = io.BytesIO()
    append_packet(video, OWN + b" " * LARGEST_PACKET)
    assert find_packet(video) == b""


@pytest.mark.parametrize("suffix", [".mkv", ".nut"])
def test_other_containers_have_a_tag(suffix: str, carphone: Path, tmp_path: Path) -> None:
    """The tag takes the place of the footage's own tag, and stays where nothing is synthetic."""
    info, video = probe(carphone), tmp_path / f"video{suffix}"
    for source_type, wanted in ((SYNTHETIC, SYNTHETIC), ("", "")):
        settings = WriteSettings(threads=1, overwrite=True, source_type=source_type)
        with VideoWriter(video, info, settings=settings) as writer, VideoReader(info) as reader:
            for frame in reader:
                writer.write(frame)
        assert source_type_of(video) == wanted
