"""A dub in one call: in this process if the suite is installed, at a gateway if an address is given."""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Unpack

from google.protobuf.message import Message

from dubstage import suite
from dubstage.client import Connection, DubstageCallError, TlsFiles, connect, files, gateway
from dubstage.client.dub import DubOptions, Line, dub_spec
from dubstage.client.names import explaining_names, step_name
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1.dub_pb2 import DubSpec

ADDRESS_VARIABLE: Final = "DUBSTAGE_GATEWAY"
"""Environment variable with the HOST:PORT of the gateway that `dub` calls."""
_SUITE: Final = "gateway.api.in_process"
_SIDECAR: Final = ".c2pa"
"""Suffix of the manifest beside a video whose container cannot hold the manifest."""

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, and the finished and all frames or parts of the step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DubbedVideo:
    """Result of a dub.

    Attributes:
        output: the video, as the caller named the file.
        frames: number of frames of the video.
        dubbed: number of frames whose mouth was rendered.
        reasons: number of frames by reason, such as {"DUBBED": 98, "NO_FACE": 2}.
        warnings: texts for a person.
        undubbed: why no frame was dubbed, and what to do; empty: at least one frame is dubbed.
        consent_on_record: whether the dubbed person has a consent record.
        media_sha256: SHA-256 of the video without its manifest, hexadecimal.
        watermark: payload of the watermark, 9 hexadecimal digits; empty: the video has no watermark.
        report: page of the HTML report; None: no report was asked for.
    """

    output: str
    frames: int
    dubbed: int
    reasons: dict[str, int]
    warnings: tuple[str, ...]
    undubbed: str
    consent_on_record: bool
    media_sha256: str
    watermark: str
    report: Path | None = None


@explaining_names
def dub(
    footage: str | os.PathLike[str],
    speech: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    address: str | None = None,
    token: str | None = None,
    tls: TlsFiles | None = None,
    transfer: bool = False,
    report: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    request_id: str = "",
    say: str | None = None,
    voice: str = "",
    **options: Unpack[DubOptions],
) -> DubbedVideo:
    """Give a video new speech, and wait for the result. Ctrl-C and errors of `progress` cancel the dub.

    In this process, names are paths of this machine, and settings are the environment variables of the command line. At a gateway,
    names are as for `dubstage.client.gateway.dub`: relative to the gateway's media folder. With `transfer`, they are paths of this
    machine there too.

    Args:
        footage: video of the person.
        speech: sound file with the new speech; None: `say`, otherwise the footage's own sound.
        output: video to write. The file appears whole, or not at all.
        address: HOST:PORT of a gateway; None: the environment variable DUBSTAGE_GATEWAY. Empty: dub in this process.
        token: bearer token for the gateway.
        tls: files of the connection to the gateway; None: without TLS.
        transfer: whether the files of this machine are uploaded to the gateway, and the video is downloaded. Then the gateway's
            copies are deleted. An existing `output` is replaced. Without a gateway, nothing is sent.
        report: folder that gets an HTML report. A gateway writes none.
        progress: called with every frame and step.
        request_id: UUID by which a gateway knows a request that comes again; empty: one is made. With `transfer`, a gateway that
            was away keeps the files of such a request for the next call.
        say: words that the command of the setting DUBSTAGE_SPEECH_COMMAND speaks; None: none. A gateway calls no such command.
        voice: voice of `say`, as that command names it; empty: none is named.
        options: see DubOptions. In this process, a line of `lines` may have `say` and `voice` in place of `speech`.

    Raises:
        Error: the request cannot be used, or the dub failed. `reason` and `code` are the same in this process and at a gateway.
        OSError: a file cannot be read for the transfer, or the video cannot be written.
        TypeError: there is no such option.
    """
    output = os.fspath(output)
    options = {**options, "speech": os.fspath(speech) if speech is not None else ""}
    options["lines"], words = _without_words(options.get("lines") or ())
    try:
        spec = dub_spec(footage=os.fspath(footage), output=output, **options)
    except ValueError as problem:  # no such name of an enum
        raise DubstageCallError(str(problem), code="INVALID_ARGUMENT", reason="INVALID_REQUEST") from None
    where = os.environ.get(ADDRESS_VARIABLE, "") if address is None else address
    if not where:
        folder = Path(report) if report is not None else None
        result, page = _suite().dub(spec, folder, progress or _no_progress, say=say, voice=voice, line_words=words)
        return _video(result, page)
    for field, given, why in (
        ("report", report is not None, "a gateway writes no report"),
        ("say", say is not None, "a gateway calls no command that speaks: dub in this process, or give the speech as a file"),
        ("voice", bool(voice), "a gateway calls no command that speaks: dub in this process"),
        *((f"lines[{number}].say", True, "a gateway calls no command that speaks: give the speech as a file") for number in words),
    ):
        if given:
            raise DubstageCallError(f"{field}: {why}", code="INVALID_ARGUMENT", reason="INVALID_REQUEST", field=field)
    with connect(where, token=token, tls=tls) as connection:
        if not transfer:
            return _video(_at_gateway(spec, connection, progress or _no_progress, request_id))
        with _transferred(spec, connection, progress or _no_progress, request_id) as fetch:
            video = _video(_at_gateway(spec, connection, progress or _no_progress, request_id))
            fetch()
        return replace(video, output=output)


def _without_words(lines: Sequence[Line]) -> tuple[list[Line], dict[int, tuple[str, str]]]:
    """Return lines without their words, and words and voice (empty: none is named) by number of the line, from 0.

    Raises:
        DubstageCallError: a line has words and a speech, a voice without words, or words that are no text.
    """
    bare_lines: list[Line] = []
    words: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(lines):
        if not isinstance(line, Mapping):
            bare_lines.append(line)
            continue
        fields = dict(line)
        say, voice = fields.pop("say", None), fields.pop("voice", None) or ""
        if say is None and voice == "":
            bare_lines.append(fields)
            continue
        for field, is_wrong, why in (
            ("voice", say is None, "is the voice of say, and the line has no words"),
            ("say", bool(fields.get("speech") or fields.get("speech_uri")), "give a speech or say, not both"),
            ("say", not isinstance(say, str), f"is a text, not {say!r}"),
            ("voice", not isinstance(voice, str), f"is a text, not {voice!r}"),
        ):
            if is_wrong:
                path = f"lines[{number}].{field}"
                raise DubstageCallError(f"{path}: {why}", code="INVALID_ARGUMENT", reason="INVALID_REQUEST", field=path)
        bare_lines.append(fields)
        words[number] = say, voice
    return bare_lines, words


def _suite() -> Any:
    """Return the suite's module for dubs in this process.

    Raises:
        DubstageCallError: the suite is not installed.
    """
    if not suite.is_installed():
        raise DubstageCallError(
            "only the client or single stages of dubstage are installed here. To dub in this process, install the suite: "
            f"{suite.INSTALL}. "
            f'To dub at a gateway, give address="HOST:PORT" or set {ADDRESS_VARIABLE}',
            code="INVALID_ARGUMENT",
            reason="INVALID_REQUEST",
            field="address",
        )
    return importlib.import_module(_SUITE)


def _at_gateway(spec: DubSpec, connection: Connection, progress: Progress, request_id: str) -> pb.DubResult:
    def on_progress(message: pb.OperationProgress) -> None:
        progress(step_name(message.step), message.done, message.total)

    operation = gateway.dub.begin(connection, pb.CreateDubRequest(dub=spec, request_id=request_id))
    try:
        return operation.wait(on_progress=on_progress)
    except DubstageCallError:
        raise
    except BaseException:
        # A gateway that is away must not hide why the caller stops.
        with suppress(DubstageCallError):
            operation.cancel()
        raise


@contextmanager
def _transferred(spec: DubSpec, connection: Connection, progress: Progress, request_id: str) -> Iterator[Callable[[], None]]:
    """Upload the files that a dub names, and let the dub name the uploads. Yield a function that downloads the video.

    At the end, the gateway's copies are deleted, unless a request with an id may succeed when the request comes again. Copies of a
    client that dies expire.
    """
    # Only calls with the same request have files of the same names: a gateway refuses other names under an id that it knows.
    prefix = hashlib.sha256(request_id.lower().encode()).hexdigest()[:32] if request_id else secrets.token_hex(8)
    sent, target, keep = list[str](), Path(spec.output_uri), False

    def upload(file: str) -> str:
        name = f"{prefix}-{len(sent)}{Path(file).suffix}"
        if Path(file + _SIDECAR).is_file():
            sent.append(name + _SIDECAR)
            files.upload(connection, file + _SIDECAR, name=name + _SIDECAR)
        sent.append(name)
        return files.upload(connection, file, name=name, progress=lambda done, total: progress("upload", done, total)).name

    def fetch() -> None:
        try:
            files.download(connection, spec.output_uri, target, progress=lambda done, total: progress("download", done, total))
        except DubstageCallError as error:
            if not request_id or error.code != "NOT_FOUND":
                raise
            raise DubstageCallError(
                f"request_id: the video of request {request_id} was downloaded before, and the gateway's copy was deleted: give "
                "another request_id",
                code=error.code,
                reason=error.reason,
                field="request_id",
            ) from error
        try:
            files.download(connection, spec.output_uri + _SIDECAR, target.with_name(target.name + _SIDECAR))
        except DubstageCallError as error:
            if error.code != "NOT_FOUND":
                raise

    try:
        spec.output_uri = ""
        _rename_files(spec, upload)
        video = f"{prefix}-video{target.suffix}"
        sent += [video, video + _SIDECAR]
        spec.output_uri = f"uploads/{video}"
        yield fetch
    except DubstageCallError as error:
        keep = bool(request_id) and error.retryable
        raise
    finally:
        for name in () if keep else sent:
            # A dub that was refused wrote no video. A gateway that does not answer deletes the copies when they expire.
            with suppress(DubstageCallError):
                files.delete_upload(connection, name)


def _rename_files(message: Message, rename: Callable[[str], str]) -> None:
    """Give new names to the files in the fields `..._uri` of a message and of the messages inside. URLs stay."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                _rename_files(inner, rename)
        elif field.name.endswith("_uri") and "://" not in value:
            setattr(message, field.name, rename(value))


def _no_progress(step: str, done: int, total: int) -> None:
    pass


def _video(result: pb.DubResult, report: Path | None = None) -> DubbedVideo:
    names = {item.reason: common_pb2.FrameReason.Name(item.reason).removeprefix("FRAME_REASON_") for item in result.reasons}
    return DubbedVideo(
        output=result.output_uri,
        frames=result.num_frames,
        dubbed=result.num_dubbed,
        reasons={names[item.reason]: item.num_frames for item in result.reasons},
        warnings=tuple(result.warnings),
        undubbed=result.undubbed,
        consent_on_record=result.consent_on_record,
        media_sha256=result.media_sha256,
        watermark=result.watermark,
        report=report,
    )
