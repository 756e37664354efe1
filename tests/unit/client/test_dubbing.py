"""`dubstage.dub`: what `import dubstage` loads, the options, and errors before any work."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

import dubstage
from dubstage import dubbing, suite
from dubstage.client import Connection, DubstageCallError, batch, files, gateway
from dubstage.gateway.v1.dub_pb2 import DubSpec
from dubstage.gateway.v1.media_pb2 import Upload
from services.common.errors import InvalidRequestError


def test_import_loads_no_library() -> None:
    """`import dubstage` and the table of errors load neither gRPC nor NumPy nor the suite."""
    code = (
        "import sys, dubstage, dubstage.error_kinds; "
        "print({name.split('.')[0] for name in sys.modules} & {'grpc', 'numpy', 'google', 'gateway', 'services'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


def test_options_of_create_dub() -> None:
    assert gateway.DubOptions is dubstage.DubOptions
    with pytest.raises(TypeError, match="'metod'"):
        gateway.dub.request(footage="video.mp4", output="out.mp4", metod="dubstage")  # type: ignore[call-arg]


def test_unknown_names() -> None:
    with pytest.raises(TypeError, match="'metod'"):
        dubstage.dub("video.mp4", "speech.wav", "out.mp4", metod="dubstage")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="give personalize=False in place of skip_personalization=True"):
        dubstage.dub("video.mp4", "speech.wav", "out.mp4", skip_personalization=True)  # type: ignore[call-arg]
    calls: list[Any] = [gateway.dub.request, gateway.enrol.request, batch.row, batch.shot_options]
    for call in calls:
        with pytest.raises(TypeError, match=r"has no argument 'skip_personalization': give personalize=False"):
            call(skip_personalization=True)
    with pytest.raises(TypeError, match=r"live\(\) has no argument 'lable': did you mean label\?"):
        gateway.live.requests(actor_id="ann", sample_rate_hz=16_000, lable="AI")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"did you mean footage\?"):
        gateway.dub.request(footag="video.mp4", output="out.mp4")  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="dubs"):
        dubstage.dubs  # noqa: B018


@pytest.mark.parametrize("missing", ["gateway", "services", "gateway.api"])
def test_client_alone_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dubbing.ADDRESS_VARIABLE, raising=False)
    monkeypatch.setattr(suite, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(dubstage.Error, match=r"pip install 'dubstage\[suite\]==.*address=.*DUBSTAGE_GATEWAY") as caught:
        dubstage.dub("video.mp4", "speech.wav", "out.mp4")
    assert (caught.value.reason, caught.value.field) == ("INVALID_REQUEST", "address")


def test_gateway_writes_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dubbing.ADDRESS_VARIABLE, "127.0.0.1:1")
    with pytest.raises(dubstage.Error, match="a gateway writes no report"):
        dubstage.dub("video.mp4", "speech.wav", "out.mp4", report="report")


def test_errors_have_one_base() -> None:
    """Errors of a call and of the suite have the same attributes."""
    near: dubstage.Error = InvalidRequestError("no", field="face")
    far: dubstage.Error = DubstageCallError("no", code="INVALID_ARGUMENT", reason="INVALID_REQUEST", field="face")
    names = ("message", "code", "reason", "field", "violations", "stage", "retryable", "retry_after_s")
    assert [getattr(near, name) for name in names] == [getattr(far, name) for name in names]


def test_gateway_speaks_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dubbing.ADDRESS_VARIABLE, "127.0.0.1:1")
    with pytest.raises(dubstage.Error, match="a gateway calls no command that speaks") as caught:
        dubstage.dub("video.mp4", None, "out.mp4", say="Hello")
    assert caught.value.field == "say"


@pytest.mark.parametrize(
    ("speech", "say", "voice", "said"),
    [("speech.wav", "Hello", "", "leave one of them out"), (None, "", "ann", "no words"), (None, "Hello", "ann", "takes no voice")],
)
def test_unclear_words_are_refused(speech: str | None, say: str, voice: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dubbing.ADDRESS_VARIABLE, raising=False)
    monkeypatch.setenv("DUBSTAGE_SPEECH_COMMAND", "espeak-ng -w {output} {text}")
    with pytest.raises(InvalidRequestError, match=said):
        dubstage.dub("video.mp4", speech, "out.mp4", say=say, voice=voice)


START = timedelta(seconds=1)
REQUEST = "123e4567-e89b-42d3-a456-426614174000"
LINES: list[tuple[dict[str, Any], str, str]] = [
    ({"say": "Hello", "speech_uri": "a.wav"}, "say", "not both"),
    ({"voice": "ann"}, "voice", "no words"),
    ({"say": 3}, "say", "is a text"),
    ({"say": "Hello", "voice": 3}, "voice", "is a text"),
    ({"say": " "}, "say", "no words"),
    ({"say": "Hello", "voice": "ann"}, "voice", "takes no voice"),
    ({"say": "Hello", "language": "no language"}, "language", "language"),
]


@pytest.mark.parametrize(("line", "field", "said"), LINES)
def test_unclear_words_of_line(line: dict[str, Any], field: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the line and the field."""
    monkeypatch.delenv(dubbing.ADDRESS_VARIABLE, raising=False)
    monkeypatch.setenv("DUBSTAGE_SPEECH_COMMAND", "espeak-ng -w {output} {text}")
    lines = [{"start_time": START, "speech_uri": "a.wav", "voice": ""}, {"start_time": START, **line}]
    with pytest.raises(dubstage.Error, match=said) as caught:
        dubstage.dub("video.mp4", None, "out.mp4", lines=lines)
    assert caught.value.field == f"lines[1].{field}"


def test_gateway_speaks_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dubbing.ADDRESS_VARIABLE, "127.0.0.1:1")
    with pytest.raises(dubstage.Error, match="a gateway calls no command that speaks") as caught:
        dubstage.dub("video.mp4", None, "out.mp4", lines=[{"start_time": START, "say": "Hello"}])
    assert caught.value.field == "lines[0].say"


def recorded_files(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], list[str]]:
    """Files that are uploaded, by name at the gateway, and names that are deleted."""
    sent: dict[str, str] = {}
    deleted: list[str] = []

    def upload(_: object, file: str, *, name: str, **__: object) -> Upload:
        sent[name] = file
        return Upload(name=f"uploads/{name}")

    monkeypatch.setattr(files, "upload", upload)
    monkeypatch.setattr(files, "delete_upload", lambda _, name: deleted.append(name))
    return sent, deleted


@pytest.mark.parametrize(("retryable", "request_id"), [(True, REQUEST), (False, REQUEST), (True, "")])
def test_request_that_comes_again_is_equal(
    retryable: bool, request_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A gateway knows an id with one request, so a second call names the same files, which are kept if it may succeed."""
    sent, deleted = recorded_files(monkeypatch)
    (tmp_path / "plate.mp4").write_bytes(b"content")
    requests = []

    def call(own_id: str) -> None:
        spec = DubSpec(footage_uri=str(tmp_path / "plate.mp4"), output_uri="out.mp4")
        with dubbing._transferred(spec, cast("Connection", None), lambda *_: None, own_id):
            requests.append(spec.SerializeToString(deterministic=True))
            raise DubstageCallError("away", code="UNAVAILABLE", retryable=retryable)

    for cased in (request_id, request_id.upper()):
        with pytest.raises(DubstageCallError):
            call(cased)
    assert len(set(requests)) == len(sent) == (1 if request_id else 2)
    assert bool(deleted) == (not request_id or not retryable)


def test_downloaded_video_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_files(monkeypatch)

    def gone(*_: object, **__: object) -> None:
        raise DubstageCallError("no such file", code="NOT_FOUND")

    monkeypatch.setattr(files, "download", gone)
    for request_id, said in ((REQUEST, "downloaded before.*give another request_id"), ("", "no such file")):
        spec = DubSpec(output_uri="out.mp4")
        with (
            pytest.raises(DubstageCallError, match=said),
            dubbing._transferred(spec, cast("Connection", None), lambda *_: None, request_id) as fetch,
        ):
            fetch()


def test_cancel_keeps_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is Ctrl-C, also while the gateway that should cancel the dub is away."""

    class Interrupted:
        cancelled = 0

        def wait(self, **_: object) -> None:
            raise KeyboardInterrupt

        def cancel(self) -> None:
            Interrupted.cancelled += 1
            raise DubstageCallError("away", code="UNAVAILABLE", retryable=True)

    monkeypatch.setattr(gateway.dub, "begin", lambda *_: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        dubbing._at_gateway(DubSpec(), cast("Connection", None), lambda *_: None, "")
    assert Interrupted.cancelled == 1


def test_manifests_beside_files_travel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The manifest beside a file is uploaded under the name of the upload, and deleted with it."""
    for name in ("plate.mkv", "plate.mkv.c2pa", "speech.wav"):
        (tmp_path / name).write_bytes(b"content")
    sent, deleted = recorded_files(monkeypatch)
    spec = DubSpec(footage_uri=str(tmp_path / "plate.mkv"), speech_uri=str(tmp_path / "speech.wav"), output_uri="out.mp4")
    with dubbing._transferred(spec, cast("Connection", None), lambda *_: None, ""):
        footage = spec.footage_uri.removeprefix("uploads/")
        assert sent[f"{footage}.c2pa"] == str(tmp_path / "plate.mkv.c2pa")
        assert len(sent) == 3
    assert set(sent) <= set(deleted)
