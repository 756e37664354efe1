"""Request for a dub, and the checks of the request and of its files before any computation."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gateway.consent.record import Consent, ConsentUse, consent_line
from gateway.dub.analyse.face_boxes import check_inside
from gateway.dub.analyse.face_choice import AUTOMATIC, FaceChoice
from gateway.dub.choices import PREVIEW_S, EnrolOptions, Expression, Fit
from gateway.dub.sound.scene_sound import SceneSound, SpokenLine
from gateway.dub.sound.speech import UNWARNED_PER_S, speech_duration
from gateway.dub.sound.timecode import VideoTime
from gateway.media.background import own_timeline
from gateway.media.choices import QUALITIES
from gateway.media.encoders import EncoderChoice, WriteSettings, check_graded
from gateway.media.inspection import inspect_sound, inspect_video
from gateway.media.label import Label
from gateway.media.locations import local_path
from gateway.media.mix import MixedSound, SoundMix, mixed
from gateway.media.output import MARK
from gateway.media.sequence_names import is_sequence
from gateway.media.sound import SoundReader, Speech, sound_file
from gateway.media.stills import check_opaque, is_named_like_picture, is_still, is_still_file, still_video_info
from gateway.media.types import MediaInfo, VideoInfo
from gateway.media.voice import with_usual_channels
from gateway.media.writer import VideoSigner, VideoWriter
from gateway.provenance.claim import SYNTHETIC, VoiceFacts
from gateway.safe_paths import open_media_file
from services.common.array_types import Int64
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from services.common.methods import DEFAULT_METHOD, METHODS, STILL_METHOD, Finish, Method, MouthOptions, method_named
from services.common.store.artefacts import ArtefactRef
from services.common.texts import Field, Option, Text

if TYPE_CHECKING:
    from gateway.dub.learn.enrol import EnrolledActor


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorRecord:
    """Facts that the store holds of the actor of a dub, for the consent checks.

    Attributes:
        consent: the actor's own consent record; None: there is none.
        footage_sha256: digest of the footage that the actor was enrolled from.
        faces: face records of the stored footage; None: the actor was enrolled without.
        footage: the stored footage; None: the actor was enrolled without.
    """

    actor_id: str
    consent: Consent | None
    footage_sha256: str
    faces: ArtefactRef | None
    footage: ArtefactRef | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DubRequest:
    """Request for a dub.

    Attributes:
        footage: video file, or a picture for methods that take one.
        speech: sound file; None: the sound of the footage.
        audio_channel: number of the channel of the speech that is the voice, from 1; None: the sound decides (media/voice.py).
        method: name of the method (services.common.methods).
        actor: enrolled actor; None: the person is learned from this footage.
        actor_record: what the store says of the actor; None: the person is learned from this footage.
        consent: consent record that comes with the request. It narrows the actor's own record. None: none comes.
        consent_required: whether the installation requires consent records.
        reference: picture or video of the person whose appearance the video takes; None: the actor's own appearance.
        reference_consent: consent record of the person in `reference`; None: there is none.
        use: project and language, which the consent records must cover.
        mix: music and effects under the new speech; None: only the speech.
        keep_audio: the output keeps the sound of the footage.
        label: visible label of every frame of a video with synthetic pictures; None: there is none.
        codec: video codec of the output; None: chosen by the container.
        crf: quality of the pictures (gateway.media.choices.QUALITIES); None: the default of the writer.
        enrol: which parts of the enrolment from this footage are done.
        threads: threads of decoder and encoder.
        fit: length of the video where the speech is longer or shorter than the footage (fit.py).
        expression: what becomes of the person's slow expression; None: `keep`, and `neutral` for videos with their own timeline.
        finish: whose pixels the mouths show; None: the method decides (`shown_finish`).
        mouth: options that go to the motion stage.
        overwrite: replace any file at `output`. False: replace only a video that dubstage wrote.
        preview: dub only PREVIEW_S seconds, and train no network.
        preview_at: where the preview begins (VideoTime.first_frame_in); None: with the first frame.
        half_size: write frames of half the width and height, if these are large enough (VideoInfo.halved).
        lines: lines of a scene, each with its own speech, face and actor; empty: the dub is of one person.
        voice: the synthetic voice of `speech`; None: no facts about the voice.
    """

    footage: Path
    speech: Path | None
    output: Path
    method: str
    audio_channel: int | None = None
    face: FaceChoice = AUTOMATIC
    actor: EnrolledActor | None = None
    actor_record: ActorRecord | None = None
    consent: Consent | None = None
    consent_required: bool = False
    reference: Path | None = None
    reference_consent: Consent | None = None
    use: ConsentUse = ConsentUse()
    mix: SoundMix | None = None
    keep_audio: bool = False
    label: Label | None = None
    codec: str | None = None
    crf: int | None = None
    enrol: EnrolOptions = EnrolOptions()
    threads: int = 2
    fit: Fit = "cut"
    expression: Expression | None = None
    finish: Finish | None = None
    mouth: MouthOptions = MouthOptions()
    overwrite: bool = False
    preview: bool = False
    preview_at: VideoTime | None = None
    half_size: bool = False
    lines: tuple[DubLine, ...] = ()
    voice: VoiceFacts | None = None

    def for_report(self) -> DubRequest:
        """Return the request of a dub with a report, whose pictures compare the video with the footage at one size."""
        return replace(self, half_size=False)

    @property
    def consents(self) -> tuple[Consent | None, ...]:
        """The records that must all allow the dub."""
        if self.lines:
            return tuple(record for line in self.lines for record in line.dub.consents)
        return self.consent, self.own_consent, self.reference_consent

    @property
    def parts(self) -> tuple[DubRequest, ...]:
        """The dubs of single people that this dub consists of: the dubs of the lines, or the dub itself."""
        return tuple(line.dub for line in self.lines) or (self,)

    @property
    def inputs(self) -> tuple[tuple[str, Path], ...]:
        """Files that the dub reads, each behind what it is. Consent records were read before there was a request."""
        files = [
            ("the footage itself", self.footage),
            *(("the speech itself", part.speech) for part in self.parts),
            ("the reference itself", self.reference),
            ("the music and effects", self.mix.file if self.mix is not None else None),
        ]
        return tuple((what, file) for what, file in files if file is not None)

    @property
    def actor_ids(self) -> tuple[str, ...]:
        """Ids of the enrolled actors of the dub, each once."""
        return tuple(dict.fromkeys(part.actor_record.actor_id for part in self.parts if part.actor_record is not None))

    @property
    def own_consent(self) -> Consent | None:
        """The actor's own record; None: there is none."""
        return self.actor_record.consent if self.actor_record is not None else None

    @property
    def named_consent(self) -> Consent | None:
        """The record of the person that the video names: that of the request, otherwise the actor's own; None: there is none."""
        return self.consent or self.own_consent

    @property
    def keeps_expression(self) -> bool:
        """Whether the video keeps the slow expression of the footage. Only a video with the frames of the footage can."""
        return self.expression != "neutral" and not self.own_timeline

    @property
    def own_timeline(self) -> bool:
        """Whether the video gets its own timeline, so that its frames are not those of the footage one by one."""
        return is_own_timeline(method_named(self.method), self.fit)

    @property
    def shown_finish(self) -> Finish:
        """Whose pixels the mouths show: the choice of the request, otherwise that of the method."""
        return self.finish or method_named(self.method).finish

    @property
    def has_bank_detail(self) -> bool:
        """Whether the mouths get the fine detail of the person's bank."""
        return self.shown_finish is Finish.BANK


@dataclass(frozen=True, kw_only=True, slots=True)
class DubLine:
    """One line of a scene.

    Attributes:
        name: the line in the request, such as `lines[2]`.
        start: when the line begins. The line begins with the nearest frame, and ends with its speech.
        actor_id: enrolled actor who speaks the line; empty: the person is learned from the footage.
        dub: the dub of this line alone, of the scene's footage and with the scene's options.
    """

    name: Field
    start: VideoTime
    actor_id: str = ""
    dub: DubRequest


def is_synthetic(request: DubRequest, *, dubbed: bool) -> bool:
    """Return whether any picture of a video is synthetic.

    Args:
        dubbed: whether the mouth of any frame is rendered.
    """
    return dubbed or method_named(request.method).motion.moves_head


def has_synthetic_voice(request: DubRequest) -> bool:
    """Return whether the video has a synthetic voice."""
    return any(part.voice is not None for part in request.parts) and not request.keep_audio


def what_is_synthetic(request: DubRequest, *, dubbed: bool) -> str:
    """Return the sentence that says which parts of a video are synthetic, without its full stop.

    Args:
        dubbed: whether the mouth of any frame is rendered.
    """
    parts = {
        "the mouth": dubbed,
        "the voice": has_synthetic_voice(request),
        "the motion of the head": method_named(request.method).motion.moves_head,
    }
    *first, last = [part for part, synthetic in parts.items() if synthetic] or ["no mouth"]
    what = f"{', '.join(first)} and {last}" if first else last
    return f"{what[0].upper()}{what[1:]} in this video {'are' if first else 'is'} synthetic"


def default_method(name: str, footage: Path | None = None) -> str:
    """Return the method of a request that names neither method nor actor: STILL_METHOD for a single picture, or DEFAULT_METHOD.

    Args:
        name: path or URL of the footage, whose ending decides if no file is given, or the file is not there yet.
        footage: the file, whose content decides; a file is read, which blocks. None: no file is given.
    """
    if footage is not None and os.path.isfile(footage):
        is_picture = is_still_file(footage)
    else:
        is_picture = is_named_like_picture(name) and not is_sequence(Path(local_path(name) or name))
    return STILL_METHOD if is_picture else DEFAULT_METHOD


def check_footage(method: Method, footage: Path, info: MediaInfo) -> None:
    """Raise InvalidRequestError if the footage is a single picture and the method needs a video."""
    if is_still(info) and not method.takes_still:
        able = ", ".join(name for name, row in METHODS.items() if row.takes_still)
        raise InvalidRequestError(
            f"{footage} is a single picture, and method {method.name} needs a video; methods that take a picture: {able}",
            field="method",
        )


def check_reference(method: Method, given: bool) -> None:
    """Raise InvalidRequestError if a reference is given, and the method's renderer takes none."""
    if given and not method.renderer.reference:
        able = ", ".join(name for name, row in METHODS.items() if row.renderer.reference)
        raise InvalidRequestError(
            f"method {method.name} takes no reference picture: its renderer {method.renderer.name} shows the actor as in the "
            f"footage; renderers that take a reference: {able or 'none'}",
            field="reference",
        )


def check_against_footage(request: DubRequest, info: MediaInfo) -> None:
    """Check that method, timeline, reference and boxes of a request fit each other and the opened footage.

    Raises:
        InvalidRequestError: parts of the request contradict each other, or the footage.
    """
    method = method_named(request.method)
    check_footage(method, request.footage, info)
    check_reference(method, request.reference is not None)
    check_inside(request.face.boxes, info.video)
    check_timeline(
        method,
        fit=request.fit,
        keep_audio=request.keep_audio,
        expression=request.expression,
        boxes=bool(request.face.boxes),
    )


def fitted(request: DubRequest, info: MediaInfo, speech: Speech) -> DubRequest:
    """Return the request with the fit `cut` in place of `pad` if the speech is not longer than the footage. Reads the speech then.

    Raises:
        InvalidRequestError: parts of the request contradict each other, or the speech has no samples.
        MediaUnsupportedError: the speech cannot be read.
    """
    if request.fit != "pad" or request.lines:
        return request
    # The fit `cut` would hide a contradiction.
    check_against_footage(request, info)
    longer = speech_duration(speech) > info.video.duration + Fraction(1, UNWARNED_PER_S)
    return request if longer else replace(request, fit="cut")


def is_own_timeline(method: Method, fit: Fit) -> bool:
    """Return whether a video gets its own timeline, so that its frames are not those of the footage one by one."""
    return fit != "cut" or method.own_timeline


def check_timeline(
    method: Method, *, fit: Fit, keep_audio: bool, expression: Expression | None = None, boxes: bool = False
) -> None:
    """Check that the options of a dub fit the timeline of its video.

    Raises:
        InvalidRequestError: the options contradict each other.
    """
    if fit != "cut" and method.own_timeline:
        raise InvalidRequestError(
            Text(
                "videos of method {method} are always as long as the speech: leave {option} {fit} out",
                method=method.name,
                option=Option("fit"),
                fit=fit,
            ),
            field="fit",
        )
    own = is_own_timeline(method, fit)
    if own and keep_audio:
        raise InvalidRequestError(
            Text(
                "the video gets a timeline of its own, so the sound of the footage does not fit it: leave {keep} out",
                keep=Option("keep_audio"),
            ),
            field="keep_audio",
        )
    if own and expression == "keep":
        raise InvalidRequestError(
            Text(
                "the video gets a timeline of its own, so the expression of the footage does not fit its frames: leave "
                "{expression} keep out",
                expression=Option("expression"),
            ),
            field="expression",
        )
    if own and boxes:
        raise InvalidRequestError(
            "the video gets a timeline of its own, so boxes of frames do not fit it: give the number of the face", field="boxes"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        MediaUnsupportedError: the file is missing, no regular file, empty, or may not be read.
    """
    with open_media_file(path, field="video") as handle, open(handle, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileVersion(NamedTuple):
    """What differs after a program has replaced a file or has written to it. An equal version saves reading the file again."""

    device: int
    inode: int
    num_bytes: int
    mtime_ns: int


def version_of(path: Path) -> FileVersion | None:
    """Return the version of a file; None: the file cannot be found."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileVersion(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def check_unchanged(path: Path, version: FileVersion | None, sha256: str, field: str = "footage") -> None:
    """Check that a file has the contents that it had before. Blocks: a file of another version is read.

    Args:
        path: a file of a request.
        version: what `version_of` returned before the digest was computed.
        sha256: digest of the file, hexadecimal.
        field: field of the request that names the file.

    Raises:
        InvalidRequestError: the contents differ.
        MediaUnsupportedError: as `sha256_of`.
    """
    if (version is None or version_of(path) != version) and sha256_of(path) != sha256:
        raise InvalidRequestError(f"{path} changed while it was read: begin again when no program writes the file", field=field)


def open_speech(request: DubRequest, info: MediaInfo) -> Speech:
    """Return the speech of a dub: the sound file of the request, or the sound of the footage.

    Raises:
        InvalidRequestError: the request has no sound file, and the footage has no sound; or the sound has no such channel.
        MediaUnsupportedError: the sound cannot be read, or has no samples.
    """
    channel = None if request.audio_channel is None else request.audio_channel - 1
    if request.speech is not None:
        inspect_sound(request.speech)
        return sound_file(request.speech).speech(channel)
    if not info.audio:
        unread = any(stream.kind == "audio" for stream in info.others)
        have = "sound in a codec that cannot be decoded here only" if unread else "no sound to dub to"
        raise InvalidRequestError(
            Text(
                "{footage} has {have}: give new speech with {audio}",
                footage=info.path,
                have=have,
                audio=Option("speech_uri", "FILE"),
            ),
            field="audio",
        )
    own = SoundReader(info.path, origin=info.video.start)
    own.check_sound()
    return own.speech(channel)


def sound_of(request: DubRequest, speech: Speech, shown: VideoInfo) -> MixedSound:
    """Return the sound of a video: the speech, with the music and effects of the request under it. Blocks.

    Args:
        speech: the speech, or the sound of the scene (`output_speech`).
        shown: the picture of the video (`shown_video`).

    Raises:
        MediaUnsupportedError: the speech, or the music and effects, cannot be read.
    """
    if request.mix is None:
        # All of the speech decides which channels have the voice.
        return MixedSound(with_usual_channels(speech).later(shown.begin) if shown.begin else speech, 0.0)
    if isinstance(speech.chunks, SceneSound):
        return speech.chunks.with_mix(request.mix)
    sound = mixed(speech, sound_file(request.mix.file).speech(), request.mix, shown.end)
    return replace(sound, sound=sound.sound.later(shown.begin))


def shown_video(request: DubRequest, info: MediaInfo, speech: Speech) -> VideoInfo:
    """Return the picture of the video of a dub: of a preview, the span that it shows (VideoInfo.before). Blocks.

    Args:
        request: the request, as `fitted` returns it.
        info: the opened footage.
        speech: the new speech, which is read if the video is as long as the speech.

    Raises:
        InvalidRequestError: the preview begins after the end of the video.
    """
    video = info.video
    if request.own_timeline:
        rate = own_timeline(info, 1).video.average_rate
        video = own_timeline(info, math.ceil(speech_duration(speech) * rate)).video
    if not request.preview:
        return video
    if request.preview_at is None:
        return video.span(0, PREVIEW_S)
    try:
        return video.span(request.preview_at.first_frame_in(video), PREVIEW_S)
    except InvalidRequestError as error:
        error.blame("preview_at")
        raise


def check_mix(given: bool, *, keep_audio: bool) -> None:
    """Raise InvalidRequestError if music and effects are given for a video that keeps the sound of the footage."""
    if given and keep_audio:
        raise InvalidRequestError(
            Text(
                "the video keeps the sound of the footage: leave {mix} or {keep} out",
                mix=Option("mix_uri"),
                keep=Option("keep_audio"),
            ),
            field="mix",
        )


def check_line(line: DubLine, info: MediaInfo) -> range:
    """Return the frames of a line: from the frame nearest to its start to the end of its speech, or of the footage. Blocks.

    Raises:
        InvalidRequestError, MediaUnsupportedError: the line begins after the end of the footage, the speech cannot be used, or a
            box is not in the footage. The message names the line.
    """
    with naming(line):
        return frames_of_line(line, info)


def frames_of_line(line: DubLine, info: MediaInfo) -> range:
    """Return what `check_line` returns. The messages do not name the line."""
    video = info.video
    check_inside(line.dub.face.boxes, video)
    first = line.start.frame_in(video)
    length = speech_duration(open_speech(line.dub, info))
    ends = math.ceil((int(video.pts[first]) * video.time_base + length) / video.time_base)
    return range(first, max(first + 1, int(np.searchsorted(video.pts, ends))))


def seconds_of_parts(request: DubRequest, info: MediaInfo) -> list[Fraction]:
    """Return the time that the speech of each part of a dub has, seconds: until the next line begins, or the footage ends.

    Args:
        info: the footage. A single picture has no end: 0.

    Raises:
        InvalidRequestError: the footage ends before a line begins.
    """
    video = info.video
    if is_still(info):
        return [Fraction(0)] * len(request.parts)
    frames = [line.start.frame_in(video) for line in request.lines] or [0]
    begins = [int(video.pts[frame] - video.pts[0]) * video.time_base for frame in frames]
    return [min([later for later in begins if later > begin], default=video.duration) - begin for begin in begins]


def check_overlaps(lines: Sequence[DubLine], frames: Sequence[range], faces: Sequence[int | None]) -> None:
    """Check that no two lines of one face are spoken in the same frame.

    Raises:
        InvalidRequestError: two lines of a face overlap. The message names both.
    """
    ordered = sorted(range(len(lines)), key=lambda number: (frames[number].start, number))
    last: dict[int, int] = {}
    for number in ordered:
        face = faces[number]
        if face is None:
            continue
        before = last.get(face)
        if before is not None and frames[number].start < frames[before].stop:
            raise InvalidRequestError(
                Text(
                    "{one} and {other} overlap, and both are of face {face}: the first is spoken in the frames {start} to {last}, "
                    "the second begins with frame {begin}. Begin the second later, or name another face",
                    one=lines[before].name,
                    other=lines[number].name,
                    face=face,
                    start=frames[before].start,
                    last=frames[before].stop - 1,
                    begin=frames[number].start,
                ),
                field="lines",
            )
        last[face] = number


def check_shared_faces(lines: Sequence[DubLine], frames: Sequence[range], rows: Sequence[Int64 | None]) -> None:
    """Check that no face is spoken by two lines in one frame, where boxes follow faces over several tracks.

    Args:
        rows: face record of each line in each frame, int64 [T], -1: none; None: the footage shows no face.

    Raises:
        InvalidRequestError: two lines take the same face of a frame. The message names both, and the frame.
    """
    for one, other in combinations(range(len(lines)), 2):
        first, stop = max(frames[one].start, frames[other].start), min(frames[one].stop, frames[other].stop)
        mine, theirs = rows[one], rows[other]
        if first >= stop or mine is None or theirs is None:
            continue
        (same,) = np.nonzero((mine[first:stop] == theirs[first:stop]) & (mine[first:stop] >= 0))
        if len(same):
            raise InvalidRequestError(
                Text(
                    "{one} and {other} overlap, and both are of one face in frame {frame}. Begin the second later, or give other "
                    "boxes",
                    one=lines[one].name,
                    other=lines[other].name,
                    frame=first + same[0],
                ),
                field="lines",
            )


@contextmanager
def naming(line: DubLine) -> Iterator[None]:
    """Let errors name a line."""
    try:
        yield
    except (InvalidRequestError, MediaUnsupportedError) as error:
        raise type(error)(Text("{line}: {error}", line=line.name, error=error), field=f"lines.{error.field}") from error


def output_speech(request: DubRequest, info: MediaInfo, frames: Sequence[range] | None = None) -> Speech:
    """Return the sound of a dub's video, unless the dub keeps the sound of the footage: the new speech, or the sound of the scene.

    Args:
        info: the footage.
        frames: frames of the lines; None: they are not known yet, and the sound serves only for checks.

    Raises:
        InvalidRequestError, MediaUnsupportedError: as `open_speech`.
    """
    if not request.lines:
        return open_speech(request, info)
    spans = frames if frames is not None else [range(1)] * len(request.lines)
    spoken = []
    for line, span in zip(request.lines, spans, strict=True):
        with naming(line):
            begin = (int(info.video.pts[span.start]) - int(info.video.pts[0])) * info.video.time_base
            spoken.append(SpokenLine(begin, open_speech(line.dub, info)))
    return SceneSound.of(info, spoken).speech()


def open_writer(
    request: DubRequest,
    video: MediaInfo,
    speech: Speech,
    *,
    dubbed: bool = True,
    takes_over: bool = False,
    seal: VideoSigner | None = None,
) -> VideoWriter:
    """Return the writer of a dub's output. The output is checked and not begun.

    Args:
        video: video that is dubbed in place.
        dubbed: whether the mouth of any frame is rendered, for the mark in the output.
        takes_over: whether the unfinished file of a process that did this dub before is removed, even if the process holds it.
        seal: signs the video; None: the video gets no manifest.

    Raises:
        InvalidRequestError, MediaUnsupportedError: the output cannot be written as requested.
    """
    brings_sound = request.preview or request.speech is not None or request.mix is not None or bool(request.lines)
    new_sound = (brings_sound or video.path != request.footage or not video.audio) and not request.keep_audio
    return VideoWriter(
        request.output,
        video,
        speech=speech if new_sound else None,
        settings=WriteSettings(
            codec=request.codec,
            crf=QUALITIES["high"] if request.crf is None else request.crf,
            keep_audio=request.keep_audio,
            carry=not request.preview,
            marking=f"{what_is_synthetic(request, dubbed=dubbed)} ({MARK}); {consent_sentence(request)}.",
            label=request.label if is_synthetic(request, dubbed=dubbed) else None,
            source_type=SYNTHETIC if is_synthetic(request, dubbed=dubbed) or has_synthetic_voice(request) else "",
            threads=request.threads,
            overwrite=request.overwrite,
            takes_over=takes_over,
        ),
        inputs=request.inputs,
        seal=seal,
        segmented=bool(request.lines),
    )


def consent_sentence(request: DubRequest) -> str:
    """Return one line about the consent of the people who are dubbed and, if there is one, of the person in the reference."""
    if request.lines:
        return "; ".join(dict.fromkeys(consent_line(line.dub.named_consent) for line in request.lines))
    line = consent_line(request.named_consent)
    if request.reference is None:
        return line
    return f"{line}; appearance of another picture: {consent_line(request.reference_consent)}"


def check_request(request: DubRequest) -> None:
    """Check the files of a request before any stage is started.

    Raises:
        DubstageError: as `DubJob.run`, for errors that can be found without decoding the footage.
    """
    info = inspect_video(request.footage)
    for line in request.lines:
        check_line(line, info)
    speech = output_speech(request, info)
    check_output(fitted(request, info, speech), info, speech)
    if request.reference is not None:
        inspect_video(request.reference)


def check_output(request: DubRequest, info: MediaInfo, speech: Speech) -> EncoderChoice:
    """Check the output of a dub, and return how the video will be encoded.

    Args:
        request: the request, as `fitted` returns it.
        info: the opened footage.
        speech: the new speech.

    Raises:
        InvalidRequestError, MediaUnsupportedError: as `open_writer`, `check_against_footage` and `shown_video`, or the output is a
            file that the dub reads.
    """
    video = info
    check_against_footage(request, info)
    if request.mix is not None:
        check_mix(True, keep_audio=request.keep_audio)
        inspect_sound(request.mix.file)
    opened = still_video_info(info) if is_still(info) else info
    if request.preview_at is not None:
        shown_video(request, opened, speech)
    if request.own_timeline:
        if is_still(info):
            check_opaque(info)
        # Two frames, because a video of one frame has no rate.
        video = own_timeline(opened, 2)
    choice = open_writer(request, video, speech).choice
    if request.crf is not None:
        check_graded(choice.codec)
    return choice
