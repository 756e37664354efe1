"""Timelines become batches and come back with every cut on its frame: frames show their own numbers."""

import csv
import json
import random
import shutil
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest

from gateway.batch.manifest import manifest_or_mistakes
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from gateway.cli.app import run
from gateway.dub.request.dub_request import sha256_of
from gateway.media.sound import sound_length
from gateway.settings import GatewaySettings
from gateway.studio.timeline import timecode_label
from services.common.server.settings import load_settings
from tests.batches import open_store
from tests.unit.batch.asset_library import write_library
from tests.unit.batch.painted import paint_video, painted_numbers, write_speech

LANGUAGES = ("de", "fr", "pt-BR")
NTSC_FILM, DROP = Fraction(24000, 1001), Fraction(30000, 1001)
HOUR = {NTSC_FILM: 86400, DROP: 107892}
FILES, FRAMES = 4, 400


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchStore:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    return open_store(load_settings(GatewaySettings).data_dir)


@dataclass(frozen=True)
class Event:
    """An event of the drawn timeline: frames of a file, at frames of the timeline. `dissolve`: from the event before."""

    file: int
    source: int
    length: int
    record: int
    dissolve: int = 0


def drawn_events(count: int, seed: int) -> list[Event]:
    """Events with gaps and dissolves. Every file has the frames that a dissolve needs."""
    draw = random.Random(seed)
    events: list[Event] = []
    record = 0
    for _ in range(count):
        length, gap = draw.randint(6, 12), draw.choice([0, 0, 0, 5])
        dissolve = draw.choice([0, 0, 0, 4]) if events and not gap else 0
        record += gap
        events.append(Event(draw.randrange(FILES), draw.randint(20, FRAMES - 40), length, record, dissolve))
        record += length
    return events


def write_edl(path: Path, events: list[Event], rate: Fraction) -> Path:
    drop = rate == DROP

    def label(frame: int) -> str:
        return str(otio.opentime.to_timecode(otio.opentime.RationalTime(HOUR[rate] + frame, float(rate)), float(rate), drop))

    lines = ["TITLE: night", f"FCM: {'DROP FRAME' if drop else 'NON-DROP FRAME'}"]
    for number, event in enumerate(events, 1):
        labels = [label(frame) for frame in (event.source, event.source + event.length, event.record, event.record + event.length)]
        kind = "C       "
        if event.dissolve:
            before = events[number - 2]
            end = label(before.source + before.length)
            lines.append(f"{number:03d}  A{before.file:03d}     V     C        {end} {end} {labels[2]} {labels[2]}")
            kind = f"D    {event.dissolve:03d}"
        lines.append(f"{number:03d}  A{event.file:03d}     V     {kind} {' '.join(labels)}")
        lines.append(f"* {'TO' if event.dissolve else 'FROM'} CLIP NAME:  sh{number:04d}")
    path.write_text("\n".join(lines))
    return path


def write_otio(path: Path, events: list[Event], rate: Fraction) -> Path:
    def time(frames: int) -> Any:
        return otio.opentime.RationalTime(frames, float(rate))

    timeline = otio.schema.Timeline("night", global_start_time=time(HOUR[rate]))
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    end = 0
    for number, event in enumerate(events, 1):
        if event.record > end:
            track.append(otio.schema.Gap(duration=time(event.record - end)))
        if event.dissolve:
            track.append(otio.schema.Transition("", "SMPTE_Dissolve", time(2), time(event.dissolve - 2)))
        whole = otio.opentime.TimeRange(time(HOUR[rate]), time(FRAMES))
        media = otio.schema.ExternalReference(f"file:///Volumes/OFFLINE/A{event.file:03d}.mov", whole)
        span = otio.opentime.TimeRange(time(HOUR[rate] + event.source), time(event.length))
        track.append(otio.schema.Clip(f"sh{number:04d}", media, span))
        end = event.record + event.length
    otio.adapters.write_to_file(timeline, str(path), "otio_json")
    return path


WRITERS: dict[str, Callable[[Path, list[Event], Fraction], Path]] = {"edl": write_edl, "otio": write_otio}


@pytest.fixture(scope="module")
def media_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fraction], Path]:
    """Folder of the media at a frame rate."""
    return cache(lambda rate: write_media(tmp_path_factory.mktemp("media"), rate))


def write_media(folder: Path, rate: Fraction) -> Path:
    """Files whose frames show 1000 times the file and the number of the frame, as A000.mov and so on."""
    for file in range(FILES):
        label = timecode_label(HOUR[rate], rate, drop=rate == DROP)
        (folder / f"day{file % 2}").mkdir(exist_ok=True)
        paint_video(folder / f"day{file % 2}" / f"A{file:03d}.mov", FRAMES, rate, timecode=label, first=1000 * file)
    return folder


def write_script(path: Path, events: list[Event], rate: Fraction, languages: tuple[str, ...] = LANGUAGES) -> Path:
    """A line for each event and language, which begins with the second frame of the event."""
    speech = write_speech(path.parent / "line.wav", 0.1)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["start", "language", "id", "speaker", "face", "speech"])
        for number, event in enumerate(events, 1):
            label = timecode_label(HOUR[rate] + event.record + 1, rate, drop=rate == DROP)
            for language in languages:
                writer.writerow([label, language, f"l{number}", "ADA", "largest", speech.name])
    return path


def finish(store: BatchStore, manifest: Path, *, leave: str = "") -> None:
    """Put every video of a manifest in its place: its part itself. The shot `leave` fails."""
    found = manifest_or_mistakes(manifest, check_files=False)
    assert not isinstance(found, tuple), found[:3]
    store.create(found, "local")
    facts = json.loads((manifest.parent / "clips.json").read_text())
    frames = {row: clip["frames"] for clip in facts["clips"] for row in clip["rows"].values()}
    for shot in found.shots:
        if shot.id == leave:
            store.put(found.name, ShotRecord(id=shot.id, state=ShotState.FAILED, exit_code=10, error="no face"))
            continue
        Path(shot.output).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shot.dub.footage_uri, shot.output)
        told = {"frames": frames[shot.id], "frames_dubbed": 1, "frame_rate": facts["rate"]}
        video = {"output": shot.output, "output_sha256": sha256_of(Path(shot.output))}
        store.put(found.name, ShotRecord(id=shot.id, state=ShotState.DONE, **told, **video))


def shown(item: Any, numbers: dict[str, list[int]]) -> list[int]:
    """Numbers of the frames that a clip of a timeline shows."""
    url = item.media_reference.target_url.removeprefix("file://")
    if url not in numbers:
        numbers[url] = painted_numbers(Path(url))
    available = item.media_reference.available_range
    first = round(item.source_range.start_time.value) - round(available.start_time.value)
    assert round(available.duration.value) == len(numbers[url])
    return numbers[url][first : first + round(item.source_range.duration.value)]


def command(*parts: object) -> int:
    return run(["batch", *map(str, parts)])


def rate_of(kind: str, rate: Fraction) -> list[str]:
    """The option that an EDL needs."""
    return ["--rate", "23.976" if rate == NTSC_FILM else "29.97"] if kind == "edl" else []


def formats_at_rates(*kinds: str, always: Container[tuple[str, Fraction]]) -> list[Any]:
    """Parameters of a test: each format at each rate. Pairs that are not in `always` are `long`."""
    names = {NTSC_FILM: "23.976", DROP: "29.97 drop frame"}
    return [
        pytest.param(kind, rate, id=f"{names[rate]}-{kind}", marks=[] if (kind, rate) in always else pytest.mark.long)
        for rate in names
        for kind in kinds
    ]


@pytest.mark.long
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize(("kind", "rate"), formats_at_rates("edl", "otio", always={("edl", DROP), ("otio", NTSC_FILM)}))
def test_every_cut_in_3_languages(count, kind, rate, store, media_of, tmp_path) -> None:
    """Parts with handles, videos on new tracks: each frame of the cut is the frame of the media that the timeline names."""
    events = drawn_events(count, 7)
    source = WRITERS[kind](tmp_path / f"cut.{kind}", events, rate)
    media = media_of(rate)
    script = write_script(tmp_path / "script.csv", events, rate)
    folder, speed = tmp_path / "night", rate_of(kind, rate)
    made = ("from-timeline", source, "--script", script, "--media", media, "--handles", 8, "--output", folder, *speed)
    assert command(*made) == 0
    rows = [json.loads(line) for line in (folder / "night.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * count
    assert len(list((folder / "parts").iterdir())) == count
    # A line begins with the second frame of its event, behind eight frames of handle.
    assert {line["start"] for row in rows for line in row["lines"]} == {"00:00:00:09"}

    finish(store, folder / "night.jsonl")
    output = tmp_path / "back.otio"
    assert command("conform", "night", source, "--output", output, *speed) == 0
    timeline = otio.adapters.read_from_file(str(output))
    tracks = [track for track in timeline.video_tracks() if track.metadata.get("dubstage", {}).get("language")]
    assert [track.name for track in tracks] == [f"dub {language}" for language in LANGUAGES]
    numbers: dict[str, list[int]] = {}
    for track in tracks:
        clips = [item for item in track if isinstance(item, otio.schema.Clip)]
        assert len(clips) == len(events)
        for event, item in zip(events, clips, strict=True):
            assert round(track.range_of_child(item).start_time.value) == event.record
            begin = 1000 * event.file + event.source
            assert shown(item, numbers) == list(range(begin, begin + event.length))

    back = tmp_path / "back.edl"
    assert command("conform", "night", source, "--output", back, "--language", "fr", *speed) == 0
    check_edl(back.read_text(), events, rate, lead=0 if kind == "edl" else 2)


def check_edl(text: str, events: list[Event], rate: Fraction, *, lead: int) -> None:
    """An independent reader finds each event of a list at its frames. A dissolve begins `lead` frames before its cut."""
    assert ("FCM: DROP FRAME" in text) == (rate == DROP)
    assert text.count("SOURCE FILE") == len(events)
    (track,) = otio.adapters.read_from_string(text, "cmx_3600", rate=float(rate)).video_tracks()
    start = -round(track.source_range.start_time.value)
    track.source_range = None
    items = list(track.find_clips())
    assert len(items) == len(events)
    for number, (event, item) in enumerate(zip(events, items, strict=True)):
        early = lead if event.dissolve else 0
        following = events[number + 1] if number + 1 < len(events) else None
        late = lead if following is not None and following.dissolve else 0
        assert round(track.range_of_child(item).start_time.value) + start == HOUR[rate] + event.record - early
        assert round(item.source_range.start_time.value) == HOUR[rate] + event.source - early
        assert round(item.source_range.duration.value) == event.length + early - late


@pytest.mark.long
@pytest.mark.parametrize(("kind", "rate"), formats_at_rates("fcpxml", "aaf", always={("fcpxml", DROP), ("aaf", NTSC_FILM)}))
def test_fcpxml_and_aaf_are_exact_both_ways(kind, rate, store, media_of, tmp_path) -> None:
    """A timeline that was written in a format makes the same batch again, and comes back with every cut on its frame."""
    # otio-aaf-adapter writes no transitions of its own.
    events = [replace(event, dissolve=event.dissolve if kind == "fcpxml" else 0) for event in drawn_events(20, 3)]
    source = write_otio(tmp_path / "cut.otio", events, rate)
    media = media_of(rate)
    script = write_script(tmp_path / "script.csv", events, rate, ("de",))
    assert command("from-timeline", source, "--script", script, "--media", media, "--output", tmp_path / "night") == 0
    finish(store, tmp_path / "night" / "night.jsonl")
    assert command("conform", "night", source, "--output", tmp_path / f"back.{kind}") == 0

    made = ("from-timeline", tmp_path / f"back.{kind}", "--track", 1, "--script", script, "--media", media)
    assert command(*made, "--output", tmp_path / "again") == 0
    first, second = (json.loads((tmp_path / name / "clips.json").read_text())["clips"] for name in ("night", "again"))
    same = ("start", "frames", "source", "length", "rows")
    assert [[clip[key] for key in same] for clip in first] == [[clip[key] for key in same] for clip in second]

    assert command("conform", "night", tmp_path / f"back.{kind}", "--track", 1, "--output", tmp_path / "last.otio") == 0
    timeline = otio.adapters.read_from_file(str(tmp_path / "last.otio"))
    numbers: dict[str, list[int]] = {}
    # The track that the first conform made, and the one of the second.
    for track in list(timeline.video_tracks())[1:]:
        clips = [item for item in track if isinstance(item, otio.schema.Clip)]
        for event, item in zip(events, clips, strict=True):
            assert round(track.range_of_child(item).start_time.value) == event.record
            begin = 1000 * event.file + event.source
            assert shown(item, numbers) == list(range(begin, begin + event.length))


def test_markers_gaps_and_missing_videos(store, media_of, tmp_path, capsys) -> None:
    """Decisions and flags are markers on their frames. A shot that failed stops the conform, or is left out as a gap."""
    events = [Event(0, 50, 10, 0), Event(1, 60, 10, 10), Event(2, 70, 10, 20), Event(3, 80, 10, 30)]
    source = write_otio(tmp_path / "cut.otio", events, NTSC_FILM)
    media = media_of(NTSC_FILM)
    script = write_script(tmp_path / "script.csv", events[:3], NTSC_FILM, ("de",))
    folder = tmp_path / "night"
    made = ("from-timeline", source, "--script", script, "--media", media, "--handles", 5, "--output", folder)
    assert command(*made) == 0
    said = capsys.readouterr().err
    assert "3 rows of 3 clips; 1 clips have no line" in said
    assert "seconds in scripts count from 01:00:00:00, the first frame of the timeline" in said
    finish(store, folder / "night.jsonl", leave="0002_sh0002_de")
    record = store.record("night", "0003_sh0003_de")
    store.put("night", record.model_copy(update={"look": ("0.2 of the frames are dubbed",)}))
    assert command("review", "night", "0001_sh0001_de", "--reject", "--note", "chin", "--frame", 8) == 0

    output = tmp_path / "back.otio"
    assert command("conform", "night", source, "--output", output) == 10
    assert "clip 2 (sh0002) at 01:00:00:10: shot 0002_sh0002_de is failed; nothing was written" in capsys.readouterr().err
    assert not output.exists()
    assert command("conform", "night", source, "--output", output, "--leave-out") == 0
    track = list(otio.adapters.read_from_file(str(output)).video_tracks())[-1]
    first, second, third, fourth = track
    assert [type(item).__name__ for item in track] == ["Clip", "Gap", "Clip", "Gap"]
    assert [round(item.duration().value) for item in (second, fourth)] == [10, 10]
    (rejected,), (flagged,) = first.markers, third.markers
    # Frame 8 of the video is the fourth of the clip, behind five frames of handle.
    assert round(rejected.marked_range.start_time.value) == HOUR[NTSC_FILM] + 50 + 3
    assert (rejected.color, rejected.name) == ("RED", "rejected: chin")
    assert (flagged.color, flagged.name) == ("ORANGE", "look: 0.2 of the frames are dubbed")
    assert command("conform", "night", source, "--output", output, "--approved") == 10
    final = tmp_path / "final"
    assert command("conform", "night", source, "--output", output, "--leave-out", "--delivered", final) == 10
    final.mkdir()
    shutil.copy(record.output, final)
    assert command("conform", "night", source, "--output", output, "--leave-out", "--delivered", final) == 0
    (only,) = list(otio.adapters.read_from_file(str(output)).video_tracks())[-1].find_clips()
    assert only.media_reference.target_url == (final / "0003_sh0003_de.mov").as_uri()

    later = write_otio(tmp_path / "later.otio", [Event(0, 47, 16, 0), Event(2, 60, 20, 16)], NTSC_FILM)
    assert command("conform", "night", later, "--output", output, "--leave-out") == 0
    said = capsys.readouterr().err
    assert "it needs 5 frames before its begin, which its dubbed part lacks" in said
    assert "shot 0002_sh0002_de is on no clip of later.otio" in said


def test_refused_clips_are_named_and_nothing_is_written(media_of, tmp_path, capsys) -> None:
    events = [Event(0, 50, 10, 0), Event(1, 60, 10, 10), Event(2, 390, 20, 20), Event(3, 80, 10, 40)]
    media = shutil.copytree(media_of(DROP), tmp_path / "media")
    (media / "day1" / "A003.mov").unlink()
    source = write_edl(tmp_path / "cut.edl", events, DROP)
    name = "* FROM CLIP NAME:  sh0002"
    source.write_text(source.read_text().replace(name, f"M2   A001     -030.0                01:00:02:00\n{name}"))
    script = write_script(tmp_path / "script.csv", events, DROP, ("de",))
    made = ("from-timeline", source, "--rate", "29.97", "--script", script, "--media", media, "--output", tmp_path / "night")
    assert command(*made) == 10
    said = capsys.readouterr().err
    assert "clip 2 (sh0002) at 01:00:00;10: its speed is -100 %" in said
    assert "clip 3 (sh0003) at 01:00:00;20: it needs 01:00:13;00 to 01:00:13;20, and its media" in said
    assert "clip 4 (sh0004) at 01:00:01;10: no file in the folders of the media has one of its names (A003, sh0004)" in said
    assert "3 clips and lines are refused; nothing was written" in said
    assert not (tmp_path / "night").exists()
    assert command(*made, "--leave-out") == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "night" / "night.jsonl").read_text().splitlines()] == ["0001_sh0001_de"]


def test_lines_that_go_on_behind_a_cut(media_of: Callable[[Fraction], Path], tmp_path: Path) -> None:
    """A line over a cut is a line of both clips. The second clip speaks the rest of the sound, to the sample."""
    events = [Event(0, 50, 24, 0), Event(1, 60, 24, 24)]
    source = write_otio(tmp_path / "cut.otio", events, NTSC_FILM)
    media = media_of(NTSC_FILM)
    write_speech(tmp_path / "long.wav", 1.5)
    (tmp_path / "script.csv").write_text("start,language,speech\n01:00:00:12,de,long.wav\n")
    folder = tmp_path / "night"
    made = ("from-timeline", source, "--script", tmp_path / "script.csv", "--media", media, "--output", folder, "--handles", 4)
    assert command(*made) == 0
    first, second = (json.loads(line) for line in (folder / "night.jsonl").read_text().splitlines())
    assert first["lines"] == [{"start": "00:00:00:16", "speech": str(tmp_path / "long.wav"), "face": "speaker"}]
    assert second["lines"] == [{"start": "00:00:00:00", "speech": "speech/0002_sh0002_de_1.wav", "face": "speaker"}]
    # The second part begins four frames before its cut, which is eight frames after the begin of the line.
    left_out = round(Fraction(8) / NTSC_FILM * 16000)
    assert sound_length(folder / second["lines"][0]["speech"]) == (24000 - left_out, 16000)


def test_speech_by_clip_without_a_script(store: BatchStore, media_of: Callable[[Fraction], Path], tmp_path: Path) -> None:
    """Files by language and clip make rows; a manifest that is submitted again goes on with its batch."""
    events = [Event(0, 50, 10, 0), Event(1, 60, 10, 10), Event(2, 70, 10, 20)]
    source = write_otio(tmp_path / "cut.otio", events, NTSC_FILM)
    media = media_of(NTSC_FILM)
    write_speech(tmp_path / "de" / "sh0001.wav", 0.2)
    write_speech(tmp_path / "de" / "sh0003.wav", 0.2)
    write_speech(tmp_path / "fr" / "sh0003.wav", 0.2)
    made = ("from-timeline", source, "--speech", tmp_path / "{language}" / "{clip}.wav", "--language", "de", "--language", "fr")
    folder = tmp_path / "night"
    options = ("--media", media, "--output", folder, "--actor", "ADA=ada", "--set", "project=show", "--face", "0")
    assert command(*made, *options) == 0
    found = manifest_or_mistakes(folder / "night.jsonl")
    assert not isinstance(found, tuple), found
    assert [shot.id for shot in found.shots] == ["0001_sh0001_de", "0003_sh0003_de", "0003_sh0003_fr"]
    assert {shot.dub.project for shot in found.shots} == {"show"}
    store.create(found, "local")
    before = [part.read_bytes() for part in sorted((folder / "parts").iterdir())]
    assert command(*made, *options) == 0
    again = manifest_or_mistakes(folder / "night.jsonl")
    assert not isinstance(again, tuple)
    assert store.create(again, "local").manifest_sha256 == found.sha256
    assert [part.read_bytes() for part in sorted((folder / "parts").iterdir())] == before


def test_a_common_reel_of_two_files_is_no_match(store, media_of, tmp_path, capsys) -> None:
    """EDLs cut reels to eight letters. A clip of another file with the same reel and frames keeps its own picture."""
    source = write_edl(tmp_path / "cut.edl", [Event(0, 50, 10, 0), Event(0, 50, 10, 10)], DROP)
    text = source.read_text().replace("A000 ", "SHOW_A00")
    for clip, file in (("sh0001", "A000"), ("sh0002", "A001")):
        text = text.replace(clip, f"{clip}\n* SOURCE FILE: {file}.mov")
    source.write_text(text)
    script = write_script(tmp_path / "script.csv", [Event(0, 50, 10, 0)], DROP, ("de",))
    media, rate = media_of(DROP), ("--rate", "29.97")
    assert command("from-timeline", source, *rate, "--script", script, "--media", media, "--output", tmp_path / "night") == 0
    finish(store, tmp_path / "night" / "night.jsonl")
    assert command("conform", "night", source, *rate, "--output", tmp_path / "back.edl") == 0
    assert "1 clips on 1 new tracks" in capsys.readouterr().err
    words = (tmp_path / "back.edl").read_text().split()
    dub = tmp_path / "night" / "dubs" / "de" / "0001_sh0001_de.mov"
    assert [words[words.index("FILE:") + 1], words[-1]] == [str(dub), "A001.mov"]


def test_media_by_entity_reference(store, media_of, tmp_path, monkeypatch, capsys) -> None:
    """Clips name their media by entity references whose last parts are equal. A later cut gets the dubs of its own media."""
    pytest.importorskip("openassetio", reason="OpenAssetIO has no wheels for this machine")
    media = media_of(NTSC_FILM)
    assets = {f"sc0{file}0/plate": (media / f"day{file % 2}" / f"A{file:03d}.mov").as_uri() for file in (1, 2)}
    events = [Event(file, 20, 10, 10 * place) for place, file in enumerate((1, 2))]
    later = [Event(file, 20, 10, 10 * place) for place, file in enumerate((2, 1))]

    def write(name: str, events: list[Event]) -> Path:
        path = write_otio(tmp_path / name, events, NTSC_FILM)
        timeline = otio.adapters.read_from_file(str(path), "otio_json")
        for event, clip in zip(events, timeline.find_clips(), strict=True):
            clip.media_reference.target_url = f"bal:///sc0{event.file}0/plate"
        otio.adapters.write_to_file(timeline, str(path), "otio_json")
        return path

    cut, folder, back = write("cut.otio", events), tmp_path / "night", tmp_path / "back.otio"
    script = write_script(tmp_path / "script.csv", events, NTSC_FILM, ("de",))
    make = ("from-timeline", cut, "--script", script, "--output", folder)
    assert command(*make) == 10
    assert "its media 'bal:///sc010/plate' cannot be used: " in capsys.readouterr().err
    monkeypatch.setenv("OPENASSETIO_DEFAULT_CONFIG", str(write_library(tmp_path, {**assets, "sc020/plate": "s3://plates/a.mov"})))
    assert command(*make) == 10
    assert "its media bal:///sc020/plate, which is s3://plates/a.mov, is not there: give the folder" in capsys.readouterr().err
    write_library(tmp_path, assets)
    assert command(*make) == 0
    finish(store, folder / "night.jsonl")
    monkeypatch.delenv("OPENASSETIO_DEFAULT_CONFIG")
    assert command("conform", "night", write("later.otio", later), "--output", back) == 0
    _, track = otio.adapters.read_from_file(str(back)).video_tracks()
    numbers: dict[str, list[int]] = {}
    assert [shown(item, numbers)[0] for item in track] == [1000 * event.file + event.source for event in later]
