"""Training sets from videos and recordings: what is made, what is kept, and what is left out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.training.trainset import ClipRow, Part, TrainSet, part_path
from research.trainset.build import BuildOrder, build
from research.trainset.output_folder import record_path
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.store.tensor_bytes import NamedArrays, decode_arrays, encode_arrays
from tests.integration.research.trainset.footage import write_recording, write_video

LEFT_OUT = {
    "bob/broken.mp4": "not a media file",
    "bob/empty.mkv": "no face in the video",
    "bob/silent.mkv": "the video has no sound",
    "eve/broken.wav": "not a media file",
}


def make(order: BuildOrder) -> tuple[dict[str, ClipRow], dict[str, str], list[str]]:
    """Build a set; return rows and refusals by file, and what was said."""
    said: list[str] = []
    rows, refusals = build(order, lambda *_: None, said.append)
    assert not list(order.output.rglob(".*.partial"))
    assert not (order.output / ".working").exists()
    return {row.name: row for row in rows}, {refusal.file: refusal.reason for refusal in refusals}, said


def read(order: BuildOrder, row: ClipRow, part: Part) -> NamedArrays:
    return decode_arrays(part_path(order.output, row.shard, row.name, part).read_bytes())


def times(order: BuildOrder, *parts: Part) -> dict[str, int]:
    paths = [path for part in parts for path in order.output.rglob(f"*.{part}.safetensors")]
    return {path.name: path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> BuildOrder:
    """A set from videos and recordings of several kinds. Tests that change it take a copy."""
    root = tmp_path_factory.mktemp("first")
    clips = root / "clips"
    write_video(clips / "ann" / "one.mkv", frames=32)
    write_video(clips / "bob" / "fast.mkv", rate=50, frames=20)
    write_video(clips / "bob" / "empty.mkv", face=False)
    write_video(clips / "bob" / "silent.mkv", sound=False)
    write_recording(clips / "cat" / "speech.wav", 0.9, 44_100, 2)
    write_recording(clips / "dan" / "speech.flac")
    write_recording(clips / "eve" / "speech.ogg")
    (clips / "cat" / "speech.txt").write_text("one\ntwo\n")
    for name in ("bob/broken.mp4", "eve/broken.wav"):
        (clips / name).write_bytes(b"no media")
    order = BuildOrder(folder=clips, output=root / "set", processes=0)
    make(order)
    return order


@pytest.fixture
def copy(first: BuildOrder, tmp_path: Path) -> BuildOrder:
    """A copy of the usable clips and of the finished set, with the times of the files."""
    unusable = [Path(name).name for name in LEFT_OUT]
    shutil.copytree(first.folder, tmp_path / "clips", ignore=shutil.ignore_patterns(*unusable))
    shutil.copytree(first.output, tmp_path / "set")
    return replace(first, folder=tmp_path / "clips", output=tmp_path / "set")


def label_phones(order: BuildOrder, name: str) -> Path:
    path = part_path(order.output, "00000", name, "phones")
    path.write_bytes(encode_arrays({"labels": np.zeros(48, np.uint8)}, {"origin": "aligned"}))
    return path


def test_videos_and_recordings_become_clips(first: BuildOrder) -> None:
    data = TrainSet(first.output)
    rows = {row.file: row for row in data.rows}
    assert sorted(rows) == ["ann/one.mkv", "bob/fast.mkv", "cat/speech.wav", "dan/speech.flac", "eve/speech.ogg"]

    video = rows["ann/one.mkv"]
    assert (video.name, video.shard, video.speaker, video.source) == ("ann__one.mkv", "00000", "ann", "clips")
    assert video.has_face
    assert video.has_pixels
    assert (video.frames, video.usable_frames, video.seconds) == (32, 32, 1.28)
    assert 60 < video.face_px < 160  # the face of the photograph is about 100 px wide
    assert video.speaker_hours == pytest.approx(1.28 / 3600, abs=1e-4)
    assert (video.lag_frames, video.lag_confidence) == (0, -1)  # the sound is a tone, which belongs to no mouth
    track = data.arrays(video, "track", ("landmarks", "boxes", "usable"))
    assert track["landmarks"].shape == (32, 478, 3)
    assert track["boxes"].shape == (32, 160, 160, 3)
    short = rows["bob/fast.mkv"]
    assert (short.frames, short.lag_frames, short.lag_confidence) == (10, 0, -1)

    recording = rows["cat/speech.wav"]
    assert not recording.has_face
    assert (recording.frames, recording.usable_frames, recording.face_px) == (22, 0, 0.0)
    assert recording.transcript == "one two"
    sound, speech = read(first, recording, "sound"), read(first, recording, "speech")
    assert sound["samples"].shape == (22 * 640,)
    assert 0.2 * 32767 < np.abs(sound["samples"]).max() < 0.3 * 32767
    told = {"speaker": "cat", "transcript": "one two", "sha256": recording.sha256}
    assert {name: sound.metadata[name] for name in told} == told
    assert "words" not in sound.metadata
    shapes = {"mel": (4, 80), "mfcc": (4, 40), "posteriorgram": (4, 40), "identity_removed": (4, 20)}
    assert {name: speech[name].shape[1:] for name in shapes} == shapes
    assert len(speech["speech_probability"]) == 22
    assert speech.metadata["audio_networks"]


def test_unusable_clip_skipped_with_reason(first: BuildOrder) -> None:
    """A clip that cannot be used is left out with the reason."""
    refused = [json.loads(line) for line in (first.output / "refused.jsonl").read_text().splitlines()]
    assert {line["file"] for line in refused} == set(LEFT_OUT)
    assert all(LEFT_OUT[line["file"]] in line["reason"] for line in refused)


def test_what_is_finished_is_not_made_again(copy: BuildOrder) -> None:
    manifest, made = (copy.output / "manifest.jsonl").read_bytes(), times(copy, "track", "sound", "speech")
    make(copy)
    assert (copy.output / "manifest.jsonl").read_bytes() == manifest
    assert times(copy, "track", "sound", "speech") == made


def test_only_changed_video_rebuilt(copy: BuildOrder) -> None:
    """A changed video is made again and nothing else."""
    phones, made = label_phones(copy, "ann__one.mkv"), times(copy, "speech")
    write_video(copy.folder / "ann" / "one.mkv", frames=15)
    rows, _, _ = make(copy)
    assert rows["ann__one.mkv"].frames == 15
    assert not phones.exists()
    assert {name for name, time in times(copy, "speech").items() if made[name] != time} == {"ann__one.mkv.speech.safetensors"}


@pytest.mark.long
def test_other_networks_rebuild_features(copy: BuildOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other networks make the features again from the sound in the set."""
    phones, made, heard = label_phones(copy, "ann__one.mkv"), times(copy, "track", "sound"), times(copy, "speech")
    monkeypatch.setattr("research.trainset.build.networks_digest", lambda stage: f"other {stage}")
    rows, _, _ = make(copy)
    assert times(copy, "track", "sound") == made
    assert all(time != heard[name] for name, time in times(copy, "speech").items())
    assert read(copy, rows["dan__speech.flac"], "speech").metadata["audio_networks"] == "other audio"
    assert phones.exists()
    assert rows["ann__one.mkv"].phones == "aligned"


def test_set_without_lags_keeps_measurements(copy: BuildOrder) -> None:
    path = record_path(copy.output, "00000", "ann__one.mkv")
    record = json.loads(path.read_text())
    record["pieces"][0].update(lag_frames=3, lag_confidence=0.5)
    path.write_text(json.dumps(record))
    made = times(copy, "track", "sound", "speech")

    def lag(order: BuildOrder) -> tuple[int, float]:
        row = make(order)[0]["ann__one.mkv"]
        return row.lag_frames, row.lag_confidence

    assert lag(copy) == (3, 0.5)
    assert lag(replace(copy, with_lags=False)) == (0, -1.0)
    assert lag(copy) == (3, 0.5)
    assert times(copy, "track", "sound", "speech") == made


def test_new_transcript_drops_phone_labels(copy: BuildOrder) -> None:
    """Another transcript is noted and old phone labels go."""
    phones, made = label_phones(copy, "cat__speech.wav"), times(copy, "speech")
    (copy.folder / "cat" / "speech.txt").write_text("three")
    rows, _, _ = make(copy)
    assert rows["cat__speech.wav"].transcript == "three"
    assert read(copy, rows["cat__speech.wav"], "sound").metadata["transcript"] == "three"
    assert not phones.exists()
    assert times(copy, "speech") == made


def test_deleted_file_is_rebuilt(copy: BuildOrder) -> None:
    """A file that was deleted from the set is made again."""
    part_path(copy.output, "00000", "dan__speech.flac", "speech").unlink()
    rows, _, _ = make(copy)
    assert len(read(copy, rows["dan__speech.flac"], "speech")["mel"]) == 25


def interrupted(order: BuildOrder) -> list[str]:
    """Interrupt a build after two clips, and return the files in the manifest."""

    def interrupt(_step: str, done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(order, interrupt, lambda _: None)
    return [row.file for row in TrainSet(order.output).rows]


def test_interrupted_set_completed_later(copy: BuildOrder, tmp_path: Path) -> None:
    for video in ("ann", "bob"):
        shutil.rmtree(copy.folder / video)
    order = replace(copy, output=tmp_path / "new")
    assert interrupted(order) == ["cat/speech.wav", "dan/speech.flac"]
    rows, _, _ = make(order)
    assert list(rows) == ["cat__speech.wav", "dan__speech.flac", "eve__speech.ogg"]


def test_interruption_keeps_finished_clips(copy: BuildOrder) -> None:
    label_phones(copy, "cat__speech.wav")
    assert len(interrupted(copy)) == 5
    assert [row.phones for row in TrainSet(copy.output).rows] == ["", "", "aligned", "", ""]


def test_long_recordings_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long recordings are cut into pieces with their own words."""
    monkeypatch.setattr("research.trainset.clip.PIECE_FRAMES", 50)
    write_recording(tmp_path / "clips" / "talk.wav", 4.4)
    (tmp_path / "clips" / "talk.words").write_text("0 10 sil\n10 15 early\n19 21 between\n30 35 late\n")
    corpus = tmp_path / "talks.toml"
    corpus.write_text(
        '[[source]]\nname = "talks"\nfiles = ["*.wav"]\n'
        '[source.words]\nfile = "{stem}.words"\nunits_per_second = 10\nsilence = ["sil"]\n'
    )
    order = BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set", corpus=corpus, processes=0)
    rows, _, said = make(order)
    assert [(row.name, row.first_frame, row.frames) for row in rows.values()] == [("talk.wav", 0, 50), ("talk.wav+1", 50, 50)]
    assert [row.transcript for row in rows.values()] == ["early", "late"]
    words = [json.loads(read(order, row, "sound").metadata["words"]) for row in rows.values()]
    assert words == [[["early", 1.0, 1.5]], [["late", 1.0, 1.5]]]
    assert [row.split for row in rows.values()] == ["train", "val"]
    assert any("talk.wav+1 is held out" in line for line in said)


@pytest.mark.long
def test_worker_processes_make_the_same_set(first: BuildOrder, tmp_path: Path) -> None:
    for name in ("dan/speech.flac", "eve/broken.wav"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True)
        shutil.copy(first.folder / name, tmp_path / "clips" / name)
    order = BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set", processes=1)
    rows, refused, _ = make(order)
    assert list(rows) == ["dan__speech.flac"]
    assert set(refused) == {"eve/broken.wav"}
    mine, theirs = (part_path(each.output, "00000", "dan__speech.flac", "speech").read_bytes() for each in (order, first))
    assert mine == theirs


def test_a_folder_of_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(NoUsableFootageError, match=r"none of the 1 clips can be used; broken\.mp4: .*not a media file"):
        make(BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set", processes=0))


def test_two_processes_never_make_one_set(copy: BuildOrder) -> None:
    def again(_step: str, _done: int, _total: int) -> None:
        build(copy, lambda *_: None, lambda _: None)

    with pytest.raises(InvalidRequestError, match="another process makes this training set"):
        build(copy, again, lambda _: None)


def test_wrong_side_files_reported(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_recording(tmp_path / "clips" / f"{name}.wav")
    (tmp_path / "clips" / "a.words").write_text("0 1 one\n1 two\n")
    corpus = tmp_path / "c.toml"
    corpus.write_text(
        '[[source]]\nname = "c"\nfiles = ["*"]\ntranscripts = "texts/{stem}.txt"\nwords = { file = "{stem}.words" }\n'
    )
    order = BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set", corpus=corpus, processes=0)
    rows, refused, said = make(order)
    assert sorted(rows) == ["b.wav", "c.wav"]
    assert refused["a.wav"].endswith("a.words, line 2: start, end and word were expected")
    assert "source c: no clip has a transcript; check the pattern in the corpus file" in said
