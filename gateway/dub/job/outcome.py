"""Result of a dub, and warnings about the dub for the user."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from gateway.dub.analyse.frame_plan import SILENT, FramePlan
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.learn.target_mouths import TargetMouths
from gateway.dub.render.composite import VideoFacts
from gateway.dub.render.mouth_samples import MouthSample
from gateway.dub.request.dub_request import DubRequest, open_speech
from gateway.dub.sound.speech import SpeechExtent
from gateway.dub.state.journal import Journal
from gateway.dub.state.records import RecordFile, RecordSpan
from gateway.dub.state.workspace import Workspace
from gateway.media.stills import is_still
from gateway.media.types import MediaInfo, VideoInfo
from gateway.media.voice import voice_of
from gateway.media.writer import WriteReport
from gateway.provenance.claim import Claim, VideoWatermark
from gateway.stages.timing import StageTimes
from services.common.face.landmarks import mouth_opening
from services.common.texts import Option, Text

_SPEAKING_PX: Final = 1.0
"""Mean opening of the mouth in footage of a person who speaks now and then, head-space pixels."""
_SHUT_S: Final = 1.0
"""Seconds after the speech in which a mouth that rests open is shut."""
_REMEDIES: Final = {
    "NO_FACE": "no face is found: give footage in which the person faces the camera",
    "LOW_CONFIDENCE": "the face is not clear enough: give sharper or brighter footage",
    "PROFILE_VIEW": "the person looks away: give footage in which the person faces the camera",
    "OCCLUDED_MOUTH": "something covers the mouth: give footage that shows the mouth",
    "TARGET_NOT_PRESENT": Text("the chosen face is not in the picture: choose another face with {face}", face=Option("face")),
    "FACE_TOO_SMALL": "the face is narrower than 44 pixels: give footage in a higher resolution, or a closer shot",
    "OUT_OF_FRAME": "the mouth lies outside of the picture: give footage that shows the whole face",
    "NO_LINE": "no frame has a line: give lines that begin before the end of the footage",
}
"""Remedies for frames that are not dubbed, by reason."""


@dataclass(frozen=True, slots=True)
class TargetRecords:
    """Records of the target of a dub or of a line, which can be read while the job's folder is open.

    Attributes:
        motion: MOTION_RECORDs of the frames of the dub or of the line.
        features: FEATURE_RECORDs of the speech, from the first of these frames on.
        mouths: target mouths of the frames.
    """

    motion: RecordFile | RecordSpan
    features: RecordSpan
    mouths: TargetMouths


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """Result of one face of a dub, or of one line of a scene.

    Attributes:
        name: name of the line; empty: the dub has no lines.
        frames: frames of the dub or of the line.
        num_dubbed: frames of these whose mouth was rendered.
        face_id: face that was dubbed; None: the footage shows no face.
        why: why this face.
        plan: what happened to each frame of the video for this face.
        actor: actor that was used; None: the footage shows no usable face.
        actor_id: enrolled actor; empty: the person was learned from the footage.
        records: target of the line; None: the dub has no lines.
    """

    name: str
    frames: range
    num_dubbed: int
    face_id: int | None
    why: str
    plan: FramePlan
    actor: EnrolledActor | None
    actor_id: str = ""
    records: TargetRecords | None = None


@dataclass(slots=True)
class DubOutcome:
    """Result of a dub.

    Attributes:
        written: the output.
        video: video that was dubbed in place: the footage, or the background video of a dub with its own timeline.
        plan: what happened to each frame of the video.
        actor: actor that was used, in a scene for its first line; None: the footage shows no usable face.
        facts: what the last pass saw.
        windows_computed: number of windows that this run rendered.
        windows_reused: number of windows that an earlier run had finished.
        times: seconds of each stage.
        mouths: the target's mouth in some frames of the video.
        undubbed: why no frame of the video is dubbed, and what to do; empty: at least one frame is dubbed.
        parts: the face that was dubbed, or one part for each line.
        claim: what the manifest of the video says; None: the video got none.
        analysis_reused: whether an earlier dub of the footage had tracked the faces.
        records: target of the dub; None: the dub has lines.
        begin: time of the footage at which the video begins, seconds: that of a preview from a time on; 0: the video begins with
            the footage, or has a timeline of its own.
    """

    written: WriteReport
    info: MediaInfo
    video: MediaInfo
    plan: FramePlan
    actor: EnrolledActor | None
    facts: VideoFacts
    windows_computed: int
    windows_reused: int
    times: StageTimes
    watermark: VideoWatermark
    mouths: tuple[MouthSample, ...] = ()
    undubbed: str = ""
    warnings: list[str] = field(default_factory=list)
    parts: tuple[PartOutcome, ...] = ()
    claim: Claim | None = None
    analysis_reused: bool = False
    records: TargetRecords | None = None
    begin: Fraction = Fraction(0)

    @property
    def line(self) -> PartOutcome | None:
        """The line whose outcome this is (`of_lines`); None: this is the outcome of a whole dub."""
        return self.parts[0] if len(self.parts) == 1 and self.parts[0].records is not None else None

    def of_lines(self) -> list[DubOutcome]:
        """Return the outcome of each line of a scene, as if the scene had only this line. Empty: the dub has no lines."""
        return [replace(self, plan=part.plan, actor=part.actor, parts=(part,)) for part in self.parts if part.records is not None]


def line_reasons(plan: FramePlan) -> str:
    """Return why the frames of a line are not dubbed, and what to do."""
    counts = plan.counts()
    counts.pop("NO_LINE", None)
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda named: -named[1]))
    return Text("{reasons}: {remedy}", reasons=reasons, remedy=_REMEDIES[max(counts, key=lambda name: counts[name])])


def about_no_frame(plan: FramePlan, unlearned: str) -> str:
    """Return why no frame of a video is dubbed, and what to do; empty: at least one frame is dubbed.

    Args:
        plan: what happened to every frame of the video.
        unlearned: why the person could not be learned from the footage; empty: the person is known.
    """
    if plan.rendered().any():
        return ""
    counts = plan.counts()
    reasons = ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=lambda name: -counts[name]))
    # Frames without a line are as they shall be, unless there are no others.
    why = unlearned or _REMEDIES[max(counts, key=lambda name: counts[name] if name != "NO_LINE" else 0)]
    return Text(
        "none of the {frames} frames is dubbed ({reasons}), so the mouths in the video are those of the footage, with the new "
        "sound: {why}",
        frames=plan.num_frames,
        reasons=reasons,
        why=why,
    )


def about_silence(plan: FramePlan) -> list[str]:
    """Return a warning if the new speech holds no voice, so that the mouth is at rest in every dubbed frame."""
    reasons = plan.reason[plan.rendered()]
    if not len(reasons) or (reasons != SILENT).any():
        return []
    return [f"nobody speaks in the new speech: the mouth is at rest in all {len(reasons)} dubbed frames"]


def about_speech(extent: SpeechExtent, info: MediaInfo) -> list[str]:
    """Return warnings about speech that is longer or shorter than the footage."""
    video = float(info.video.duration)
    if extent.longer:
        return [f"the speech is longer than the footage ({video:.2f} s): it is cut there"]
    if extent.used_s < video - 0.1:
        shut = ", and is shut a second later" if video - extent.used_s > _SHUT_S else ""
        return [f"the speech ends at {extent.used_s:.2f} s of {video:.2f} s: the mouth rests after that{shut}"]
    return []


def about_channels(request: DubRequest, info: MediaInfo) -> list[str]:
    """Return a warning for each speech of a dub of which only some channels are the voice. Reads from the sound. Blocks.

    Raises:
        InvalidRequestError, MediaUnsupportedError: as `open_speech`.
    """
    if not request.lines:
        words = voice_of(open_speech(request, info)).words
        return [words] if words else []
    chosen = [(line.name, voice_of(open_speech(line.dub, info)).words) for line in request.lines]
    return [Text("{line}: {words}", line=name, words=words) for name, words in chosen if words]


def about_preview(video: MediaInfo, shown: VideoInfo) -> list[str]:
    """Return the sentence that says that a video is a preview.

    Args:
        video: the preview.
        shown: the span of the whole video that the preview shows (`shown_video`).
    """
    begin, seconds = float(shown.begin), f"{float(shown.duration):.2f} s"
    return [
        Text(
            "this is a preview: {part}, {width} x {height}; dub without {preview} for the whole video",
            part=f"{seconds} from {begin:.2f} s on" if begin else f"the first {seconds}",
            width=video.video.width,
            height=video.video.height,
            preview=Option("preview"),
        )
    ]


def about_pictures(info: MediaInfo) -> list[str]:
    """Return a warning if the footage has several video tracks."""
    others = [stream.index for stream in info.others if stream.kind == "video"]
    if not others or is_still(info):
        return []
    numbers = ", ".join(str(number) for number in sorted([info.video.index, *others]))
    return [
        f"the footage has {len(others) + 1} video tracks (streams {numbers} of the file): stream {info.video.index} is dubbed, "
        "which players show by default"
    ]


def about_left_out(info: MediaInfo) -> list[str]:
    """Return a warning if a video with its own timeline leaves streams of the footage out, besides its first sound."""
    kinds = [*("sound" for _ in info.audio[1:]), *(stream.kind for stream in info.others)]
    if not kinds:
        return []
    return [f"the video has a timeline of its own, so further streams of the footage are left out: {', '.join(sorted(set(kinds)))}"]


def about_scale(scale_db: float) -> list[str]:
    """Return a warning if speech with music and effects was made quieter so that no sample exceeds full scale."""
    if scale_db <= 0.0:
        return []
    return [f"speech with music and effects would exceed full scale: all sound is {scale_db:.1f} dB quieter"]


def about_mouth(actor: EnrolledActor | None) -> list[str]:
    """Return a warning if the enrolment has hardly seen the person's open mouth."""
    if actor is None or mouth_opening(actor.geometry.mean_mouth) >= _SPEAKING_PX:
        return []
    return [
        "the footage that the person was enrolled from hardly shows an open mouth, so the person's way of speaking, teeth and "
        "tongue are not known: enrol the person from footage with speech"
    ]


def about_voice(actor: EnrolledActor | None) -> list[str]:
    """Return a warning if the voice in the footage of the enrolment may be another person's."""
    if actor is None or not actor.lag_doubt:
        return []
    return [
        "the voice in the footage that the person was enrolled from may be another person's, so the way of speaking is not "
        f"learned from that voice: {actor.lag_doubt}"
    ]


def about_damage(facts: VideoFacts) -> list[str]:
    """Return warnings about frames of the footage that the decoder had to fill in."""
    if not facts.damaged:
        return []
    return [f"damaged frames in the footage, filled in by the decoder: {len(facts.damaged)}, the first is frame {facts.damaged[0]}"]


def about_redone(workspace: Workspace, journal: Journal) -> list[str]:
    """Return warnings about work of an earlier run that had to be done again."""
    if not journal.redone:
        return workspace.redone
    return [
        *workspace.redone,
        f"{journal.redone} finished steps of an earlier run could not be used (gone, damaged, or in another artefact store): they "
        "were made anew",
    ]
