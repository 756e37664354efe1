"""Live streams: their start and end, sound and frames, and streams that break, are read slowly, or ask for too much."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.duration_pb2 import Duration

from dubstage.audio.v1 import audio_pb2
from dubstage.client import Connection, DubstageCallError, rpcs
from dubstage.client import gateway as client
from dubstage.client.names import resource_id
from dubstage.gateway.v1 import dub_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.actors.store import ActorStore
from gateway.cli.app import run
from gateway.provenance.claim import SYNTHETIC
from gateway.provenance.installation import trusted_authorities
from gateway.provenance.verdict import ManifestState, verdict_of
from gateway.settings import GatewaySettings
from services.common.methods import DEFAULT_METHOD, LIVE_LOOK_AHEAD, METHODS
from services.common.server.settings import load_settings
from tests.integration.client_calls import enrolment, until
from tests.integration.servers import RunningGateway
from tests.refusals import refusal

FEATURES_AHEAD_MS = 60
STATES_AHEAD_MS = 130
"""Look-ahead of the audio stage without and with states of the speech encoder (docs/coordinates.md)."""

Samples = tuple[npt.NDArray[np.float32], int]


def pieces(samples: npt.NDArray[np.float32], rate: int, seconds: float = 0.04) -> list[npt.NDArray[np.float32]]:
    step = int(seconds * rate)
    return [samples[first : first + step] for first in range(0, len(samples), step)]


def config(actor: str, **fields: Any) -> pb.LiveRequest:
    given: dict[str, Any] = {"sample_rate_hz": 16000, "channels": 1, **fields}
    return pb.LiveRequest(config=pb.LiveConfig(actor=f"actors/{actor}", **given))


def sound(first: int, values: npt.NDArray[np.float32]) -> pb.LiveRequest:
    return pb.LiveRequest(audio=pb.LiveAudio(first_sample=first, pcm_f32=values.tobytes()))


def live(connection: Connection, actor: str, samples: Samples, seconds: float = 60.0, **options: Any) -> list[client.LiveFrame]:
    """All frames of a stream of the first seconds of speech."""
    speech, rate = samples
    spoken = pieces(speech[: round(seconds * rate)], rate)
    return list(client.live(connection, spoken, actor_id=actor, sample_rate_hz=rate, **options))


def failure(connection: Connection, requests: list[pb.LiveRequest]) -> DubstageCallError:
    return refusal(connection.stream, rpcs.gateway.LIVE, requests, timeout_s=60)


def test_frames_come_before_the_speech_has_ended(connection: Connection, actor: str, samples: Samples) -> None:
    speech, rate = samples
    shown = threading.Event()
    before_the_end: list[bool] = []

    def speaking() -> Iterator[npt.NDArray[np.float32]]:
        yield from pieces(speech[:rate], rate)
        # All is said, and the stream stays open: whatever comes now does not wait for the end.
        before_the_end.append(shown.wait(60))

    frames = []
    for frame in client.live(connection, speaking(), actor_id=actor, sample_rate_hz=rate):
        shown.set()
        frames.append(frame)
    assert before_the_end == [True]
    assert [frame.frame_index for frame in frames] == list(range(25))
    assert frames[0].picture.shape == (288, 352, 3)
    assert any((a.picture != b.picture).any() for a, b in zip(frames, frames[1:], strict=False))


def test_sound_pieces_same_frames(connection: Connection, actor: str, samples: Samples) -> None:
    speech, rate = samples
    a = list(client.live(connection, pieces(speech[: rate // 2], rate, 0.02), actor_id=actor, sample_rate_hz=rate))
    b = list(client.live(connection, pieces(speech[: rate // 2], rate, 0.11), actor_id=actor, sample_rate_hz=rate))
    assert [frame.frame_index for frame in a] == [frame.frame_index for frame in b]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.picture, other.picture)


def test_expressiveness_scales_the_mouth(connection: Connection, actor: str, samples: Samples) -> None:
    """The mouth of a stream moves as far as the config says."""
    unset, one, most = (live(connection, actor, samples, 1.0, expressiveness=value) for value in (None, 1.0, 1.5))
    for frame, same in zip(unset, one, strict=True):
        np.testing.assert_array_equal(frame.picture, same.picture)
    assert any((frame.picture != other.picture).any() for frame, other in zip(unset, most, strict=True))


def test_label_in_every_frame(connection: Connection, actor: str, samples: Samples) -> None:
    """Every frame shows the label of the request in the corner of the request, and is otherwise the frame without a label."""
    plain = live(connection, actor, samples, 0.5)
    labelled = live(connection, actor, samples, 0.5, label="Doublé par IA", label_position="top-left")
    assert len(plain) == len(labelled) > 0
    for frame, other in zip(plain, labelled, strict=True):
        rows, columns = np.nonzero((frame.picture != other.picture).any(-1))
        assert rows.max() < 40, "the corner is at the top"
        assert columns.max() < 176, "and at the left"
        inside = other.picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (inside.min(-1) > 240).mean() > 0.02, "letters are white"
        assert np.median(inside) < 110, "their ground is dark"


def test_disclosure_record_of_a_stream(gateway, connection, actor, samples, tmp_path, monkeypatch, capsys) -> None:
    """The first frame brings a record that the gateway has signed, about the watermark that the audit log names."""
    (first, *others), undisclosed = (live(connection, actor, samples, 0.25, disclose=disclose) for disclose in (True, False))
    assert [frame.disclosure for frame in [*others, *undisclosed]] == [None] * (len(others) + len(undisclosed))
    record = tmp_path / "stream.xmp"
    record.write_bytes(first.disclosure.xmp)
    (tmp_path / "stream.xmp.c2pa").write_bytes(first.disclosure.manifest)
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(gateway.data))
    assert run(["inspect", str(record)]) == 0
    printed = capsys.readouterr().out.splitlines()
    with ActorStore(gateway.settings) as actors:
        begun = actors.audit.newest(2, event="live.begun")[0]
    for line in (
        "content credentials: valid, signed with a certificate of this installation",
        "action: c2pa.created; The mouth in this video is synthetic.; compositeWithTrainedAlgorithmicMedia",
        f"digital source type in the metadata: {SYNTHETIC}",
        "dubbed: frames of a live stream",
        f"method: {DEFAULT_METHOD}",
        f"watermark of the dub: {begun['details']['watermark_payload']}",
    ):
        assert line in printed
    record.write_bytes(first.disclosure.xmp.replace(b"synthetic", b"authentic"))
    assert run(["inspect", str(record)]) == 3


def test_command_records_what_the_gateway_discloses(gateway, actor, media, tmp_path, monkeypatch, capsys) -> None:
    """A video that another installation records names the models and the watermark of the gateway's stream, and has the label."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "another"))
    plain, video = tmp_path / "plain.mp4", tmp_path / "live.mp4"
    stream = ["live", actor, "--audio", str(media.speech), "--gateway", gateway.server.address, "--fast", "-o"]
    assert run([*stream, str(plain), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []
    assert run([*stream, str(video), "--label", "AI dubbed", "--label-position", "top-right"]) == 0
    verdict = verdict_of(video, anchors=trusted_authorities(load_settings(GatewaySettings)))
    assert verdict.state is ManifestState.TRUSTED
    with ActorStore(gateway.settings) as actors:
        (begun,) = actors.audit.newest(1, event="live.begun")
    assert verdict.dub.watermark == begun["details"]["watermark_payload"]
    assert verdict.dub.stream
    assert {model.stage for model in verdict.dub.models} >= {"motion", "render"}
    with av.open(str(plain)) as one, av.open(str(video)) as other:
        for before, after in zip(one.decode(video=0), other.decode(video=0), strict=True):
            changed = np.abs(before.to_ndarray(format="gray").astype(int) - after.to_ndarray(format="gray")) > 40
            rows, columns = np.nonzero(changed)
            assert rows.max() < 40, "the label is at the top"
            assert columns.min() > 176, "and at the right"


@pytest.fixture(scope="module")
def live_actor(gateway: RunningGateway, actor: str) -> Callable[[str], str]:
    """Returns a man who is enrolled for a method; enrols him once."""
    enrolled = {DEFAULT_METHOD: actor}

    def enrol(method: str) -> str:
        if method not in enrolled:
            with gateway.connect() as connection:
                made = client.enrol(connection, **enrolment(f"live-{method}", method=method)).wait(timeout_s=300)
            enrolled[method] = resource_id(made.name)
        return enrolled[method]

    return enrol


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].live])
def test_every_live_method_follows_sound(connection, live_actor, samples, method) -> None:
    speech, rate = samples
    spoken = live(connection, live_actor(method), samples, 1.0)
    silent = live(connection, live_actor(method), (np.zeros_like(speech), rate), 1.0)
    assert [frame.frame_index for frame in spoken] == [frame.frame_index for frame in silent] == list(range(25))
    # The same footage is behind both: what differs is the mouth.
    differs = np.array([(a.picture != b.picture).any(axis=-1).mean() for a, b in zip(spoken, silent, strict=True)])
    assert (differs > 0.0005).mean() > 0.5
    assert differs.max() < 0.35


def waits_of(
    gateway: RunningGateway, actor: str, samples: Samples, look_ahead_ms: int, look_ahead_frames: int | None = None
) -> list[int]:
    """Milliseconds of sound after its own that each frame of a second of speech waited for.

    Args:
        look_ahead_ms: most that a frame may wait for. The speaker goes on only when the frames that are due have come.
    """
    speech, rate = samples
    heard_ms = 0
    waits: list[int] = []
    late: list[int] = []
    came = threading.Condition()

    def speaking() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal heard_ms
        for piece in pieces(speech[:rate], rate, 0.02):
            heard_ms += 20
            yield piece
            # Only what the stages have not heard may keep a frame back: nothing more is said before the frames that are due.
            due = (heard_ms - look_ahead_ms - 40) // 40
            with came:
                if not came.wait_for(lambda due=due: len(waits) >= due, timeout=60 if not late else 0):
                    late.append(heard_ms)

    with gateway.connect() as connection:
        for frame in client.live(connection, speaking(), actor_id=actor, sample_rate_hz=rate, look_ahead_frames=look_ahead_frames):
            with came:
                waits.append(heard_ms - 40 * (frame.frame_index + 1))
                came.notify()
    assert late == []
    assert len(waits) == 25
    return waits


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].live])
def test_frames_arrive_after_look_ahead(gateway, live_actor, samples, method) -> None:
    """Frames come as soon as the declared look ahead is heard."""
    motion = METHODS[method].streamed.motion
    states = audio_pb2.FEATURE_KIND_SPEECH_STATES_LIVE in motion.features
    look_ahead = motion.look_ahead_ms + (STATES_AHEAD_MS if states else FEATURES_AHEAD_MS)
    waits = waits_of(gateway, live_actor(method), samples, look_ahead)
    # The last frames come when the sound ends.
    assert np.median(waits[: 25 - look_ahead // 40 - 1]) > motion.look_ahead_ms


@pytest.mark.parametrize("ahead", METHODS["dubstage"].streamed.motion.look_ahead_choices)
def test_chosen_look_ahead_delays_frames(gateway, live_actor, samples, ahead) -> None:
    """Frames come once the chosen look-ahead is heard, and not before."""
    waits = waits_of(gateway, live_actor("dubstage"), samples, 40 * ahead + STATES_AHEAD_MS, look_ahead_frames=ahead)
    assert min(waits[: 25 - (40 * ahead + STATES_AHEAD_MS) // 40 - 1]) > 40 * ahead


def test_look_ahead_changes_the_mouth(connection: Connection, live_actor: Callable[[str], str], samples: Samples) -> None:
    """Each look-ahead draws mouths of its own. Unset, the stream has the default look-ahead."""
    unset, default, none = (
        [frame.picture.tobytes() for frame in live(connection, live_actor("dubstage"), samples, 1.0, look_ahead_frames=ahead)]
        for ahead in (None, LIVE_LOOK_AHEAD, 0)
    )
    assert unset == default
    assert unset != none


def test_method_without_choice_refuses_look_ahead(connection: Connection, live_actor: Callable[[str], str]) -> None:
    """A method whose predictor always needs the same frames ahead refuses the choice before any sound is taken."""
    error = failure(connection, [config(live_actor("everybody"), look_ahead_frames=1)])
    assert (error.reason, error.field) == ("INVALID_REQUEST", "config.look_ahead_frames")
    assert "everybody always needs 4 frames ahead" in str(error)


def with_the_actors_of(gateway: RunningGateway, folder: Path) -> Path:
    """A data folder whose gateway knows the same people."""
    shutil.copy(gateway.data / "actors.sqlite", folder)
    return folder


def is_free(connection: Connection, actor: str, samples: Samples) -> bool:
    """Whether the gateway has a place for a stream."""
    try:
        return bool(live(connection, actor, samples, 0.25))
    except DubstageCallError as error:
        return error.reason != "OVERLOADED"


def test_second_stream_waits_for_place(start_gateway, actor, samples, gateway, tmp_path) -> None:
    """A second stream learns when to retry, and finds the place of a stream that is given up."""
    speech, rate = samples
    running = start_gateway(max_live_streams=1, data_dir=with_the_actors_of(gateway, tmp_path))
    with running.connect() as connection:
        stream = client.live(connection, pieces(speech, rate), actor_id=actor, sample_rate_hz=rate)
        next(stream)
        second = failure(connection, [config(actor, sample_rate_hz=rate)])
        assert (second.reason, second.code, second.retryable) == ("OVERLOADED", "RESOURCE_EXHAUSTED", True)
        assert second.retry_after_s > 0
        stream.close()
        until(lambda: is_free(connection, actor, samples))


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "config"),
        ([sound(0, np.zeros(640, np.float32))], "config"),
        ([config("driver", sample_rate_hz=400)], "config.sample_rate_hz"),
        ([config("driver", channels=0)], "config.channels"),
        ([config("driver", channels=90)], "config.channels"),
        ([config("driver", expressiveness=0.0)], "config.expressiveness"),
        ([config("driver", expressiveness=1.6)], "config.expressiveness"),
        ([config("driver", expressiveness=np.nan)], "config.expressiveness"),
        ([config("driver", look_ahead_frames=-1)], "config.look_ahead_frames"),
        ([config("driver", look_ahead_frames=4)], "config.look_ahead_frames"),
        ([config("driver", jpeg_quality=0)], "config.jpeg_quality"),
        ([config("driver", label="由AI配音")], "config.label"),
        ([config("driver", label_position=dub_pb2.LABEL_POSITION_TOP_LEFT)], "config.label_position"),
        ([config("driver", label="AI dubbed", label_position=9)], "config.label_position"),
        ([config("driver"), config("driver")], "audio"),
        ([config("driver"), sound(7, np.zeros(640, np.float32))], "audio.first_sample"),
        ([config("driver"), sound(0, np.zeros(640, np.float32)), sound(0, np.zeros(640, np.float32))], "audio.first_sample"),
        ([config("driver"), sound(0, np.full(640, np.nan, np.float32))], "audio.pcm_f32"),
        ([config("driver"), sound(0, np.full(640, np.inf, np.float32))], "audio.pcm_f32"),
        ([config("driver", channels=2), sound(0, np.zeros(641, np.float32))], "audio.pcm_f32"),
        ([config("Nobody!")], "config.actor"),
        ([config("driver", language="?")], "config.language"),
    ],
)
def test_contract_violations_are_named(connection: Connection, actor: str, requests: list[pb.LiveRequest], field: str) -> None:
    """A stream that breaks the contract is told what is wrong."""
    error = failure(connection, requests)
    assert error.reason == "INVALID_REQUEST"
    assert error.field == field


def test_too_much_sound_in_one_message_is_refused(gateway: RunningGateway, actor: str) -> None:
    with gateway.connect(max_message_bytes=64 << 20) as connection:
        long = failure(connection, [config(actor), sound(0, np.zeros(16000 * 11, np.float32))])
        assert long.reason == "MESSAGE_TOO_LARGE"
        assert long.field == "audio.pcm_f32"
        # Beyond the server's own limit it is gRPC that refuses.
        larger = failure(connection, [config(actor), sound(0, np.zeros(5 << 20, np.float32))])
        assert larger.code == "RESOURCE_EXHAUSTED"


def test_impossible_configs_are_refused(connection: Connection, actor: str) -> None:
    assert failure(connection, [config("nobody")]).reason == "ACTOR_NOT_FOUND"
    hasty = config(actor, max_lateness=Duration(nanos=100_000_000))
    assert failure(connection, [hasty]).field == "config.max_lateness"


def test_refused_stream_keeps_its_sound(connection: Connection, actor: str, samples: Samples) -> None:
    """A refused stream leaves its sound to the next attempt."""
    speech, rate = samples
    parts = pieces(speech[:rate], rate)
    microphone = iter(parts)
    with pytest.raises(DubstageCallError, match="nobody"):
        list(client.live(connection, microphone, actor_id="nobody", sample_rate_hz=rate))
    assert len(list(client.live(connection, microphone, actor_id=actor, sample_rate_hz=rate))) == len(parts)


def test_silent_stream_times_out(start_gateway, actor, samples, gateway, tmp_path) -> None:
    """A stream that sends nothing ends and its place is free again."""
    speech, rate = samples
    running = start_gateway(max_live_streams=1, max_idle_s=2.0, data_dir=with_the_actors_of(gateway, tmp_path))
    goes_on = threading.Event()

    def silent() -> Iterator[npt.NDArray[np.float32]]:
        yield from pieces(speech[: rate // 2], rate)
        goes_on.wait(60)

    with running.connect() as connection:
        with pytest.raises(DubstageCallError) as caught:
            list(client.live(connection, silent(), actor_id=actor, sample_rate_hz=rate))
        goes_on.set()
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert "DUBSTAGE_MAX_IDLE_S" in caught.value.message
        assert len(live(connection, actor, samples, 0.5)) == 13


@pytest.mark.long
def test_continuous_sound_is_not_idle(start_gateway, actor, samples, gateway, tmp_path) -> None:
    """A stream that sends sound without pause is not idle."""
    speech, rate = samples
    # Slower than it is spoken, and for longer than a stream may be idle. A busy machine may add seconds to a pause.
    running = start_gateway(max_idle_s=4.5, data_dir=with_the_actors_of(gateway, tmp_path))

    def slowly() -> Iterator[npt.NDArray[np.float32]]:
        for piece in pieces(speech[:rate], rate, 0.1):
            yield piece
            time.sleep(0.5)

    with running.connect() as connection:
        assert len(list(client.live(connection, slowly(), actor_id=actor, sample_rate_hz=rate))) == 25


def test_unread_stream_times_out(start_gateway, actor, samples, gateway, tmp_path) -> None:
    """A stream whose frames no client takes ends, and its place is free again."""
    speech, rate = samples
    running = start_gateway(max_live_streams=1, max_idle_s=2.0, data_dir=with_the_actors_of(gateway, tmp_path))

    def without_end() -> Iterator[npt.NDArray[np.float32]]:
        while True:
            yield from pieces(speech, rate)

    with running.connect() as slow, running.connect() as other:
        stream = client.live(slow, without_end(), actor_id=actor, sample_rate_hz=rate)
        next(stream)
        until(lambda: is_free(other, actor, samples))
        stream.close()


def all_frames(connection: Connection, speech: npt.NDArray[np.float32], **options: Any) -> list[client.LiveFrame]:
    """All frames of a stream. A gateway that is busy is asked again, as callers do."""
    found: list[client.LiveFrame] = []

    def taken() -> bool:
        try:
            found[:] = client.live(connection, pieces(speech, options["sample_rate_hz"]), **options)
        except DubstageCallError as error:
            if error.code != "RESOURCE_EXHAUSTED" or not error.retry_after_s:
                raise
            return False
        return True

    until(taken)
    return found


def test_broken_stream_resumes(connection: Connection, actor: str, samples: Samples) -> None:
    speech, rate = samples
    speech = np.resize(speech, 2 * rate)
    whole = all_frames(connection, speech, actor_id=actor, sample_rate_hz=rate)
    broken = client.live(connection, pieces(speech, rate), actor_id=actor, sample_rate_hz=rate)
    came = [next(broken).frame_index for _ in range(35)]
    broken.close()
    rest = speech[client.live_first_sample(came[-1] + 1, rate) :]
    later = all_frames(connection, rest, actor_id=actor, sample_rate_hz=rate, first_frame=came[-1] + 1)
    assert [*came, *(frame.frame_index for frame in later)] == list(range(50))
    pictures = np.stack([frame.picture for frame in whole]).astype(np.int16)
    for frame in later:
        apart = np.abs(pictures - frame.picture).mean(axis=(1, 2, 3))
        # The same footage, and a mouth that has heard a second of the speech before: hardly a pixel differs.
        assert apart[frame.frame_index] < 0.5
        # The footage is played forwards and backwards, so that two pictures of shut lips can be of one frame of the footage.
        assert frame.silent or apart.argmin() == frame.frame_index
    assert not all(frame.silent for frame in later)


def test_slow_reader_misses_own_frames(gateway: RunningGateway, actor: str, samples: Samples) -> None:
    """Frames that a slow reader misses are left out for that reader alone."""
    speech, rate = samples
    long = np.resize(speech, 6 * rate)
    said = threading.Event()

    def speaking() -> Iterator[npt.NDArray[np.float32]]:
        yield from pieces(long, rate)
        said.set()

    with gateway.connect() as slow, gateway.connect() as other:
        frames = client.live(slow, speaking(), actor_id=actor, sample_rate_hz=rate, max_late_ms=300)
        indices = [next(frames).frame_index]
        quick = all_frames(other, speech[:rate], actor_id=actor, sample_rate_hz=rate)
        # All is said long before the next frame is taken: the frames in between are late.
        assert said.wait(60)
        indices += [frame.frame_index for frame in frames]
    assert len(quick) == 25
    assert indices == sorted(set(indices))
    assert len(indices) < 100
    # The picture never stands still for longer than a second.
    assert max(np.diff(indices)) <= 25
