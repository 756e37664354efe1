from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from gateway.consent.record import Consent, ConsentUse
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.key import enrolment_key, file_digests, job_key, people_key, result_key
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.request.dub_request import ActorRecord, DubLine, DubRequest
from gateway.dub.sound.timecode import VideoTime
from gateway.media.label import Label
from gateway.media.mix import SoundMix
from gateway.provenance.claim import VoiceFacts
from gateway.stages.opening import ListedModels
from services.common.face.actor_geometry import ActorGeometry
from services.common.methods import Finish, Method, MouthOptions, method_named
from services.common.texts import Field
from tests.unit.consent.records import RECORD


def listed(
    *, motion: str = "m1", shared: str = "s1", render: str = "r1", device: str = "cpu", personalize_device: str = "cpu"
) -> ListedModels:
    return ListedModels(
        motion_pb2.ListModelsResponse(models=[motion_pb2.Model(name="dubstage", version=motion)], shared_version=shared),
        render_pb2.ListModelsResponse(
            models=[render_pb2.Model(name="ugc", sha256=render)], device=device, personalize_device=personalize_device
        ),
    )


@pytest.fixture
def request_of(tmp_path: Path) -> DubRequest:
    (tmp_path / "video.mp4").write_bytes(b"video")
    return DubRequest(footage=tmp_path / "video.mp4", speech=None, output=tmp_path / "out.mp4", method="dubstage")


async def key_of(request: DubRequest, method: Method, models: ListedModels, face_model: str = "") -> str:
    return job_key(request, method, models, await file_digests(request), face_model)


async def test_the_same_dub_has_the_same_key(request_of: DubRequest) -> None:
    method = method_named("dubstage")
    assert await key_of(request_of, method, listed()) == await key_of(request_of, method, listed())


@pytest.mark.parametrize(
    "other",
    [listed(motion="m2"), listed(shared="s2"), listed(render="r2"), listed(device="cuda"), listed(personalize_device="cuda")],
)
async def test_other_networks_give_another_key(request_of: DubRequest, other: ListedModels) -> None:
    method = method_named("dubstage")
    assert people_key("a", method, listed(), "") != people_key("a", method, other, "")
    assert await key_of(request_of, method, listed()) != await key_of(request_of, method, other)


async def test_other_footage_gives_another_key(request_of: DubRequest) -> None:
    method = method_named("dubstage")
    before = await key_of(request_of, method, listed())
    request_of.footage.write_bytes(b"another video")
    assert await key_of(request_of, method, listed()) != before


async def test_another_face_model_gives_another_key(request_of: DubRequest) -> None:
    method = method_named("dubstage")
    assert await key_of(request_of, method, listed(), "flame") != await key_of(request_of, method, listed())


async def test_a_reference_is_part_of_the_key(request_of: DubRequest, tmp_path: Path) -> None:
    method = method_named("dubstage")
    without = await key_of(request_of, method, listed())
    keys = []
    for content in (b"one picture", b"another picture"):
        (tmp_path / "reference.png").write_bytes(content)
        keys.append(await key_of(replace(request_of, reference=tmp_path / "reference.png"), method, listed()))
    assert len({without, *keys}) == 3


async def test_expression_is_part_of_key(request_of: DubRequest) -> None:
    """The expression is part of the key of videos that can keep it."""
    method = method_named("dubstage")
    kept = await key_of(request_of, method, listed())
    assert await key_of(replace(request_of, expression="keep"), method, listed()) == kept
    assert await key_of(replace(request_of, expression="neutral"), method, listed()) != kept
    retimed = replace(request_of, fit="retime")
    assert await key_of(replace(retimed, expression="neutral"), method, listed()) == await key_of(retimed, method, listed())


@pytest.mark.parametrize("name", ["dubstage", "everybody", "dubstage+everybody"])
async def test_finish_is_part_of_key(request_of: DubRequest, name: str) -> None:
    """The finish of a key is the one that the video shows, whether the request or the method chooses it."""
    method = method_named(name)
    request = replace(request_of, method=name)
    keys = {finish: await key_of(replace(request, finish=finish), method, listed()) for finish in Finish}
    assert keys[Finish.BANK] != keys[Finish.RENDERER]
    assert await key_of(request, method, listed()) == keys[method.finish]
    scene = replace(request, lines=(DubLine(name=Field("lines[0]"), start=VideoTime(Fraction(0)), dub=request),))
    keys_of_scenes = {await key_of(replace(scene, finish=finish), method, listed()) for finish in (None, *Finish)}
    assert len(keys_of_scenes) == 2


async def test_the_expressiveness_is_part_of_the_key(request_of: DubRequest) -> None:
    method = method_named("dubstage")
    mouths = [MouthOptions(expressiveness=value) for value in (0.5, 1.0, 1.2)]
    keys = [await key_of(replace(request_of, mouth=mouth), method, listed()) for mouth in mouths]
    assert len(set(keys)) == 3
    assert keys[1] == await key_of(request_of, method, listed())


async def test_label_leaves_key_alone(request_of: DubRequest) -> None:
    """A label is drawn over finished mouths, so dubs that differ in the label share these mouths."""
    method = method_named("dubstage")
    labels = (None, Label("AI dubbed"), Label("AI dubbed", "top-left"))
    assert len({await key_of(replace(request_of, label=label), method, listed()) for label in labels}) == 1


async def test_preview_has_other_key(request_of: DubRequest) -> None:
    """A preview and the dub work in folders of their own."""
    method = method_named("dubstage")
    whole, half = (replace(request_of, preview=True, half_size=half) for half in (False, True))
    later = replace(half, preview_at=VideoTime(Fraction(2)))
    assert len({await key_of(each, method, listed()) for each in (request_of, whole, half, later)}) == 4


async def test_own_sound_has_other_key(request_of: DubRequest) -> None:
    """The own sound begins with the first frame, and the sound of a file with its first sample."""
    method = method_named("dubstage")
    own = await key_of(request_of, method, listed())
    assert await key_of(replace(request_of, speech=request_of.footage), method, listed()) != own


def test_enrolment_key_by_method_and_networks() -> None:
    """An enrolment for another method, by other networks, or with embedded faces has another key."""
    dubstage, everybody = method_named("dubstage"), method_named("everybody")
    keys = [
        enrolment_key("f" * 64, "ann", dubstage, listed()),
        enrolment_key("f" * 64, "ann", everybody, listed()),
        enrolment_key("f" * 64, "ann", dubstage, listed(motion="m2")),
        enrolment_key("f" * 64, "ann", dubstage, listed(render="r2")),
        enrolment_key("f" * 64, "ann", dubstage, listed(), "flame"),
        enrolment_key("f" * 64, "ann", dubstage, listed(), embeds=True),
        enrolment_key("f" * 64, "bob", dubstage, listed()),
        enrolment_key("e" * 64, "ann", dubstage, listed()),
    ]
    assert len(set(keys)) == len(keys)
    assert enrolment_key("f" * 64, "ann", dubstage, listed()) == keys[0]


async def test_channel_is_part_of_key(request_of: DubRequest, full: DubRequest) -> None:
    """Keys of dubs and of scenes, whose lines all take the channel, differ by the channel."""
    method = method_named("dubstage")
    for request in (request_of, full):
        keys = [await key_of(replace(request, audio_channel=channel), method, listed()) for channel in (None, 1, 2)]
        assert len(set(keys)) == 3


@pytest.fixture
def full(request_of: DubRequest, tmp_path: Path) -> DubRequest:
    """A request with a line and files of every kind."""
    for name in ("speech.wav", "mix.wav", "reference.png"):
        (tmp_path / name).write_bytes(name.encode())
    line = DubLine(name=Field("lines[0]"), start=VideoTime(Fraction(1, 2)), dub=request_of)
    mix = SoundMix(file=tmp_path / "mix.wav")
    return replace(request_of, speech=tmp_path / "speech.wav", reference=tmp_path / "reference.png", mix=mix, lines=(line,))


async def result_of(request: DubRequest, stages: str = "stages", signed: str = "signed", manifests: Sequence[str] = ()) -> str:
    return result_key(request, await file_digests(request), stages, signed, manifests)


REF = common_pb2.ArtefactRef(uri="memory://a", sha256="a" * 64, size_bytes=1)
GEOMETRY = ActorGeometry(*(np.zeros((rows, 3), np.float32) for rows in (59, 59, 19, 15)))
OTHER: Mapping[str, Any] = {
    "speech": None,
    "method": "everybody",
    "audio_channel": 2,
    "face": FaceChoice("id", face_id=1),
    "actor": EnrolledActor(REF, REF, None, GEOMETRY, 200, np.zeros(6)),
    "actor_record": ActorRecord(actor_id="ann", consent=None, footage_sha256="f" * 64, faces=None, footage=None),
    "consent": Consent.model_validate(RECORD),
    "consent_required": True,
    "reference": None,
    "reference_consent": Consent.model_validate(RECORD),
    "use": ConsentUse(project="film"),
    "mix": None,
    "keep_audio": True,
    "label": Label("AI dubbed"),
    "codec": "ffv1",
    "crf": 20,
    "enrol": EnrolOptions(seed=1),
    "threads": 3,
    "fit": "pad",
    "expression": "neutral",
    "finish": Finish.RENDERER,
    "mouth": MouthOptions(expressiveness=1.1),
    "preview": True,
    "preview_at": VideoTime(Fraction(2)),
    "half_size": True,
    "lines": (),
    "voice": VoiceFacts(program="espeak-ng"),
}
"""Another value of each field of a request that the result depends on, but for the footage."""


@pytest.mark.parametrize("field", [each.name for each in fields(DubRequest)])
async def test_result_depends_on_field(full: DubRequest, tmp_path: Path, field: str) -> None:
    """Every field of a request is part of the key of its result, but for the two that change no byte."""
    same = {"output": tmp_path / "other.mp4", "overwrite": True}
    plain = replace(full, lines=()) if field == "footage" else full
    other = replace(plain, **{field: {**OTHER, **same, "footage": tmp_path / "speech.wav"}[field]})
    assert (await result_of(other) == await result_of(plain)) == (field in same)


async def test_result_depends_on_surroundings(full: DubRequest, tmp_path: Path) -> None:
    """Files, lines, the container, the stages, the signature and manifests of files are parts of the key of a result."""
    moved = replace(full, lines=(replace(full.lines[0], start=VideoTime(Fraction(1))),))
    keys = [
        await result_of(full),
        await result_of(moved),
        await result_of(replace(full, output=tmp_path / "out.mkv")),
        await result_of(full, stages="other"),
        await result_of(full, signed="other"),
        await result_of(full, manifests=["other"]),
    ]
    (tmp_path / "mix.wav").write_bytes(b"other music")
    assert len({*keys, await result_of(full)}) == 7
