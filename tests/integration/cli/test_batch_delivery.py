"""`dubstage batch deliver` with real signed videos: streams bit by bit, decisions in manifests, and what is not delivered."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from gateway.actors.store import ActorStore
from gateway.batch.assets import resolve_references
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.cli.app import run
from gateway.dub.request.dub_request import sha256_of
from gateway.media.sequence_names import is_sequence
from gateway.media.sequences import SequenceDub, SequenceSettings
from gateway.provenance.binding import sidecar_of
from gateway.provenance.installation import open_sealer
from gateway.provenance.verdict import ManifestState, verdict_of
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.batches import open_store
from tests.contract.stores.s3_servers import BUCKET
from tests.frame_files import FIRST, write_sequence
from tests.integration.provenance.conftest import carphone
from tests.unit.batch.asset_library import write_publisher
from tests.unit.batch.rows import shot_of_row
from tests.unit.provenance.second_reader import second_verdict
from tests.unit.provenance.signed_videos import claim_gigabytes, claim_of, write_video

__all__ = ["carphone"]

pytestmark = pytest.mark.timeout(300)

SUFFIXES = {"a": ".mp4", "b": ".mkv", "c": ".mov", "d": ".mp4", "e": ".mp4"}
Library = Callable[[], dict[str, list[dict[str, Any]]]]


@pytest.fixture
def store(carphone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchStore:
    """A batch of five shots with signed videos, and one that failed."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    settings = load_settings(GatewaySettings)
    sealer = open_sealer(settings)
    store = open_store(settings.data_dir)
    outputs = {name: f"{tmp_path}/out/{name}{suffix}" for name, suffix in SUFFIXES.items()}
    shots = [shot_of_row(id=name, footage=str(carphone), output=output) for name, output in outputs.items()]
    store.create(manifest_of("night", [*shots, shot_of_row(id="f", footage="/no.mp4", output="/no/f.mp4")]), "local")
    (tmp_path / "out").mkdir()
    for shot in shots:
        video = write_video(Path(shot.output), carphone, sealer)
        told = {"frames": 12, "frames_dubbed": 4, "frame_rate": "30000/1001"}
        made = {"output": shot.output, "output_sha256": sha256_of(video)}
        store.put("night", ShotRecord(id=shot.id, state=ShotState.DONE, **told, **made))
    store.put("night", ShotRecord(id="f", state=ShotState.FAILED, exit_code=10, error="no such file"))
    return store


def streams(video: Path) -> dict[str, str]:
    """Return a digest of all packets with their times, by kind of stream."""
    found: dict[str, hashlib._Hash] = {}
    with av.open(str(video)) as container:
        for packet in container.demux():
            if packet.size:
                digest = found.setdefault(packet.stream.type, hashlib.sha256())
                digest.update(repr((packet.pts, packet.dts, packet.duration)).encode())
                digest.update(bytes(packet))
    return {kind: digest.hexdigest() for kind, digest in found.items()}


def approve(shot: str, *more: str) -> None:
    assert run(["batch", "review", "night", shot, "--approve", *more]) == 0


def test_delivered_videos_have_their_decisions(store: BatchStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Approved videos are copied with the same streams and a valid manifest about the decision. Others are named and counted."""
    for shot in ("a", "b", "c", "d"):
        approve(shot, "--by", "Ada", "--note", "ship it")
    assert run(["batch", "review", "night", "e", "--reject"]) == 0
    changed = Path(store.record("night", "d").output)
    changed.write_bytes(changed.read_bytes() + bytes(8))
    capsys.readouterr()
    folder = tmp_path / "delivered"
    assert run(["batch", "deliver", "night", "--output", str(folder)]) == 0
    shown = capsys.readouterr()
    wanted = [folder / f"{name}{SUFFIXES[name]}" for name in "abc"]
    assert shown.out.splitlines() == [str(file) for file in wanted]
    assert "d is not delivered: its video has changed since the decision" in shown.err
    assert "e is not delivered: it is rejected" in shown.err
    assert "f is not delivered: it is failed" in shown.err
    assert "batch night: 3 of 6 videos are delivered" in shown.err
    assert sorted(file.name for file in folder.iterdir()) == ["a.mp4", "b.mkv", "b.mkv.c2pa", "c.mov"], "nothing half-written"
    for file in wanted:
        source = Path(store.record("night", file.stem).output)
        assert streams(file) == streams(source)
        told = verdict_of(file)
        assert told.state is ManifestState.VALID, told.reasons
        assert (told.decision.reviewer, told.decision.note, told.decision.state) == ("Ada", "ship it", "approved")
        assert told.decision.video_sha256 == sha256_of(source)
        (parent,) = told.ingredients
        assert (parent["relationship"], parent["valid"]) == ("parentOf", True)
        assert told.dub == verdict_of(source).dub != None  # noqa: E711
    assert run(["inspect", str(wanted[0]), "--no-watermark"]) == 0
    assert "decision: approved by Ada" in capsys.readouterr().out
    assert run(["inspect", str(wanted[1]), "--no-watermark", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decision"]["note"] == "ship it"
    with ActorStore(load_settings(GatewaySettings)) as actors:
        (entry,) = (entry for entry in actors.audit.newest(20) if entry["event"] == "batch.delivered")
    assert entry["details"] == {"shots": 3}


def test_a_second_reader_finds_delivered_videos_valid(store: BatchStore, tmp_path: Path) -> None:
    """A reader of other authors finds delivered videos valid, with the manifest of the reviewed video inside."""
    for shot in ("a", "b", "c"):
        approve(shot)
    assert run(["batch", "deliver", "night", "--output", str(tmp_path / "delivered")]) == 0
    certificate = open_sealer(load_settings(GatewaySettings)).credential.chain
    for name in ("a.mp4", "b.mkv", "c.mov"):
        assert second_verdict(tmp_path / "delivered" / name, certificate) == ("valid", "Trusted", [])


def test_delivery_replaces_nothing_unasked(store: BatchStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second delivery leaves its files, another file is refused without --overwrite, and --complete wants every shot."""
    approve("a")
    folder = tmp_path / "delivered"
    deliver = ["batch", "deliver", "night", "--output", str(folder)]
    assert run([*deliver, "--complete"]) == 10
    assert (
        "--complete: shot b: it is undecided, and 4 more shots cannot be delivered; nothing was delivered"
        in capsys.readouterr().err
    )
    assert not folder.exists()
    assert run(deliver) == 0
    before = (folder / "a.mp4").stat()
    assert run(deliver) == 0
    after = (folder / "a.mp4").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    shutil.copy(store.record("night", "e").output, folder / "a.mp4")
    assert run(deliver) == 10
    assert "a.mp4 exists, and is not the delivered video of shot a" in capsys.readouterr().err
    assert run([*deliver, "--overwrite"]) == 0
    delivered = verdict_of(folder / "a.mp4")
    assert (delivered.state, delivered.decision is not None) == (ManifestState.VALID, True)


def test_complete_looks_at_every_video(store: BatchStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --complete, a video that has changed prevents all copies. An error behind the first copy leaves its audit entry."""
    store.put("night", store.record("night", "a").model_copy(update={"id": "f"}))
    for shot in "abcdef":
        approve(shot)
    folder = tmp_path / "delivered"
    deliver = ["batch", "deliver", "night", "--output", str(folder)]
    changed = Path(store.record("night", "c").output)
    content = changed.read_bytes()
    changed.write_bytes(content + bytes(8))
    capsys.readouterr()
    assert run([*deliver, "--complete"]) == 10
    assert "--complete: shot c: its video has changed since the decision" in capsys.readouterr().err
    assert not folder.exists()
    folder.mkdir()
    shutil.copy(changed, folder / "c.mov")
    changed.write_bytes(content)
    assert run([*deliver, "--complete"]) == 10
    assert sorted(file.name for file in folder.iterdir()) == ["a.mp4", "b.mkv", "b.mkv.c2pa", "c.mov"]
    with ActorStore(load_settings(GatewaySettings)) as actors:
        (entry,) = (entry for entry in actors.audit.newest(20) if entry["event"] == "batch.delivered")
    assert entry["details"] == {"shots": 2}


def test_dub_of_delivered_video_knows_first_dub(store: BatchStore, carphone: Path, tmp_path: Path) -> None:
    """A mark of the first dub that is left in the second one belongs to the footage, whose own manifest has the decision alone."""
    approve("a")
    assert run(["batch", "deliver", "night", "--output", str(tmp_path / "delivered")]) == 0
    delivered = tmp_path / "delivered" / "a.mp4"
    again = write_video(tmp_path / "again.mp4", carphone, open_sealer(load_settings(GatewaySettings)), source=delivered)
    first, told = verdict_of(Path(store.record("night", "a").output)).dub, verdict_of(again)
    assert first is not None
    assert "dub" not in told.ingredients[0]
    assert told.earlier_dubs == (first.model_dump(exclude_unset=True),)


def test_lost_manifest_of_reviewed_video_warns(store: BatchStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    approve("b")
    claim_gigabytes(sidecar_of(Path(store.record("night", "b").output)))
    capsys.readouterr()
    assert run(["batch", "deliver", "night", "--output", str(tmp_path / "delivered"), "--json"]) == 0
    shown = capsys.readouterr()
    (warning,) = json.loads(shown.out)["warnings"]["b"]
    assert "names its sources (reviewed) without their own manifests" in warning
    assert "warning: b: the video's manifest names its sources" in shown.err


def sequence_shot(store: BatchStore, carphone: Path, tmp_path: Path) -> SequenceDub:
    """Make shot `a` of the batch an image sequence with its signed list."""
    for name in ("plates", "frames", "work"):
        (tmp_path / name).mkdir()
    plates = write_sequence(carphone, tmp_path / "plates" / "a.%04d.dpx", 12, bits=10)
    dub = SequenceDub(plates, tmp_path / "frames" / "b.%04d.dpx", SequenceSettings(), tmp_path / "work")
    dub.read()
    shutil.copy(dub.video, dub.dubbed)
    dub.write(seal=open_sealer(load_settings(GatewaySettings)).seal(claim_of(carphone), dub.listing))
    update = {"output": str(dub.listing), "output_sha256": sha256_of(dub.listing), "frame_rate": "25"}
    store.put("night", store.record("night", "a").model_copy(update=update))
    return dub


def test_image_sequence(store: BatchStore, carphone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files of an image sequence are delivered in a folder, with a signed list about the decision."""
    dub = sequence_shot(store, carphone, tmp_path)
    record = store.record("night", "a")
    approve("a", "--by", "Ada")
    deliver = ["batch", "deliver", "night", "--output", str(tmp_path / "delivered")]
    folder, frame = tmp_path / "delivered" / "a", tmp_path / "frames" / f"b.{FIRST + 3}.dpx"
    content = frame.read_bytes()
    frame.write_bytes(content[:-1])
    assert run(deliver) == 0
    assert "a is not delivered: its video has changed" in capsys.readouterr().err
    frame.write_bytes(content)
    for _ in range(2):  # the second delivery leaves the files of the first
        assert run(deliver) == 0
        assert capsys.readouterr().out.splitlines() == [str(folder / "b.sha256")]
    names = {f"b.{FIRST + number}.dpx" for number in range(12)} | {"b.sha256"}
    assert {file.name for file in folder.iterdir()} == names | {"b.sha256.c2pa"}
    assert [name for name in names if (folder / name).read_bytes() != (dub.listing.with_name(name)).read_bytes()] == []
    told = verdict_of(folder / "b.sha256")
    assert told.state is ManifestState.VALID, told.reasons
    assert (told.decision.reviewer, told.decision.video_sha256) == ("Ada", record.output_sha256)
    assert told.dub == verdict_of(dub.listing).dub != None  # noqa: E711
    (folder / frame.name).unlink()
    assert run(deliver) == 10
    assert "b.sha256 exists, and is not the delivered video of shot a" in capsys.readouterr().err


def test_videos_of_a_bucket(store, s3, aws, tmp_path, capsys) -> None:
    """Videos in S3 are delivered to a folder, those with a manifest beside them too; a video that is gone is named."""
    aws(s3.endpoint)
    for shot in ("a", "b", "c"):
        video = Path(store.record("night", shot).output)
        for file in (video, sidecar_of(video)):
            if file.exists() and shot != "c":
                s3.client.upload_file(str(file), BUCKET, f"delivery/{file.name}")
        store.put("night", store.record("night", shot).model_copy(update={"output": f"s3://{BUCKET}/delivery/{video.name}"}))
        approve(shot)
    folder = tmp_path / "delivered"
    assert run(["batch", "deliver", "night", "--output", str(folder)]) == 0
    assert "c is not delivered: its video is missing" in capsys.readouterr().err
    assert sorted(file.name for file in folder.iterdir()) == ["a.mp4", "b.mkv", "b.mkv.c2pa"]
    for name in ("a.mp4", "b.mkv"):
        dub, delivered = verdict_of(tmp_path / "out" / name), verdict_of(folder / name)
        assert streams(folder / name) == streams(tmp_path / "out" / name)
        assert delivered.state is ManifestState.VALID
        assert delivered.dub == dub.dub != None  # noqa: E711


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """An asset manager that keeps what is registered. Returns the versions of its entities by name, without the names' prefix."""
    pytest.importorskip("openassetio", reason="OpenAssetIO has no wheels for this machine")
    config, plug_ins = write_publisher(tmp_path, {})
    monkeypatch.setenv("OPENASSETIO_DEFAULT_CONFIG", str(config))
    monkeypatch.setenv("OPENASSETIO_PLUGIN_PATH", str(plug_ins))

    def entities() -> dict[str, list[dict[str, Any]]]:
        found = json.loads((tmp_path / "library.json").read_text())["entities"]
        return {
            name: [
                {key.rpartition(".")[2]: value for key, value in version["traits"].items() if value}
                for version in entity["versions"]
            ]
            for name, entity in found.items()
        }

    return entities


def test_delivered_videos_are_registered_once(store, library, tmp_path, capsys) -> None:
    """Each copy becomes a version of its entity, whose reference finds the file. A later delivery registers only new copies."""
    approve("a")
    folder = tmp_path / "my delivered%"
    # The manager gets the folder by its plain path.
    deliver = ["batch", "deliver", "night", "--output", f"{tmp_path}/out/../{folder.name}", "--register", "bal:///{id}/dub"]
    assert run(deliver) == 0
    assert "a is registered as bal:///a/dub?v=1" in capsys.readouterr().err
    (version,) = library()["a/dub"]
    assert version == {
        "LocatableContent": {"location": (folder / "a.mp4").as_uri(), "mimeType": "video/mp4"},
        "DisplayName": {"name": "a"},
        "FrameRanged": {"startFrame": 1, "endFrame": 12, "framesPerSecond": pytest.approx(30000 / 1001)},
    }
    assert resolve_references(["bal:///a/dub"]).locations == {"bal:///a/dub": str(folder / "a.mp4")}
    approve("b")
    assert run(deliver) == 0
    shown = capsys.readouterr().err
    assert "b is registered as bal:///b/dub?v=1" in shown
    assert "a is registered" not in shown
    assert {name: len(versions) for name, versions in library().items()} == {"a/dub": 1, "b/dub": 1}
    assert run([*deliver, "--overwrite"]) == 0
    assert {name: len(versions) for name, versions in library().items()} == {"a/dub": 2, "b/dub": 2}


def test_a_delivery_that_was_never_registered_is_registered_later(store: BatchStore, library: Library, tmp_path: Path) -> None:
    approve("a")
    deliver = ["batch", "deliver", "night", "--output", str(tmp_path / "delivered")]
    assert run(deliver) == 0
    before = (tmp_path / "delivered" / "a.mp4").stat()
    assert library() == {}
    assert run([*deliver, "--register", "bal:///{id}"]) == 0
    assert list(library()) == ["a"]
    after = (tmp_path / "delivered" / "a.mp4").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_image_sequences_are_registered_with_their_frames(store, library, carphone, tmp_path, capsys) -> None:
    """The location has the variable `frame`, as a manifest reads it, and the frames have the numbers of the files."""
    sequence_shot(store, carphone, tmp_path)
    approve("a")
    deliver = ["batch", "deliver", "night", "--output", str(tmp_path / "delivered"), "--register", "bal:///{id}"]
    for _ in range(2):  # the second delivery leaves the files of the first, and their registration
        assert run(deliver) == 0
    (version,) = library()["a"]
    assert version["LocatableContent"]["isTemplated"] is True
    assert version["FrameRanged"] == {"startFrame": FIRST, "endFrame": FIRST + 11, "framesPerSecond": 25.0}
    pattern = str(tmp_path / "delivered" / "a" / "b.%04d.dpx")
    assert resolve_references(["bal:///a"]).locations == {"bal:///a": pattern}
    assert is_sequence(Path(pattern))


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("bal:///{shot}", "{shot} is unknown: the names are {id}, {project}, {language}, {actor}"),
        ("bal:///{id}/{language}", "shot a has no language for {language}"),
        ("bal:///dub", "the shots a and b have the same reference bal:///dub: write {id} in the reference"),
        ("shots/{id}", "'shots/a' is no entity reference of Basic Asset Library"),
    ],
)
def test_a_reference_that_cannot_be_registered_delivers_nothing(store, library, tmp_path, capsys, reference, told) -> None:
    approve("a")
    approve("b")
    capsys.readouterr()
    folder = tmp_path / "delivered"
    assert run(["batch", "deliver", "night", "--output", str(folder), "--register", reference]) == 10
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1, shown
    assert told in shown
    assert not folder.exists()
    assert library() == {}


def test_managers_that_take_no_videos(store, tmp_path, monkeypatch, capsys) -> None:
    """Without a manager, and where the manager takes no videos or asks for traits that videos lack, nothing is copied."""
    pytest.importorskip("openassetio", reason="OpenAssetIO has no wheels for this machine")
    approve("a")
    folder = tmp_path / "delivered"

    def refusal() -> str:
        capsys.readouterr()
        assert run(["batch", "deliver", "night", "--output", str(folder), "--register", "bal:///{id}"]) == 10
        assert not folder.exists()
        return capsys.readouterr().err

    monkeypatch.delenv("OPENASSETIO_DEFAULT_CONFIG", raising=False)
    assert "--register needs an asset manager: set OPENASSETIO_DEFAULT_CONFIG" in refusal()
    for number, (managed, told) in enumerate(((False, "registers no videos"), (True, "refuses 'bal:///a': Publishing to this"))):
        (tmp_path / str(number)).mkdir()
        config, plug_ins = write_publisher(tmp_path / str(number), {"a": None}, managed=managed)
        library = tmp_path / str(number) / "library.json"
        library.write_text(library.read_text().replace("usage.Entity", "threeDimensional.Geometry"))
        monkeypatch.setenv("OPENASSETIO_DEFAULT_CONFIG", str(config))
        monkeypatch.setenv("OPENASSETIO_PLUGIN_PATH", str(plug_ins))
        assert told in refusal()


def test_a_file_that_the_manager_refuses_is_named_and_registered_later(store, library, tmp_path, capsys) -> None:
    """The copies stay. The command fails, and registers what is missing when it runs again."""
    plug_in = tmp_path / "keeping" / "keeping" / "__init__.py"
    able = plug_in.read_text()
    refusal = (
        "from openassetio.errors import BatchElementError as E; arguments[6](0, E(E.ErrorCode.kEntityAccessError, 'disk full'))"
    )
    plug_in.write_text(able.replace("super().register(*arguments)", refusal))
    assert plug_in.read_text() != able
    approve("a")
    capsys.readouterr()
    deliver = ["batch", "deliver", "night", "--output", str(tmp_path / "delivered"), "--register", "bal:///{id}"]
    assert run(deliver) == 10
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(tmp_path / "delivered" / "a.mp4")]
    assert "--register: the asset manager refuses bal:///a: disk full" in shown.err
    plug_in.write_text(able)
    assert run(deliver) == 0
    assert list(library()) == ["a"]
