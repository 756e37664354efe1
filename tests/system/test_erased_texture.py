"""The renderer `everyone` without an actor's texture draws no person that the renderer was trained on.

When an actor is deleted, texture and reference picture are deleted. What stays is the committed network, the prior. Here the prior
draws training people, from a grey texture and a grey reference picture. The identity embedding compares the drawn pictures with
the people's filmed pictures. The same measurement with the people's textures shows that the embedding knows the people.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import pytest

from services.common.array_types import Bool, Float32, UInt8
from services.common.face.actor_geometry import ANCHORS, lower_face_mask, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, head_to_box, to_head_space
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.mouth_bank import SPEECH_SHAPE, MouthBank, make_bank
from services.common.face.neural_texture import TEXTURE_SHAPE, NeuralSurface, sample
from services.common.face.sampling import sample_patch
from services.common.geometry.morphable_model import default_model
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackOptions
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.renderers.everyone.personalize import bank_texture
from services.render.renderers.everyone.renderer import REFERENCE_SIZE, packed, reference_row
from services.render.renderers.headpose.identity_features import read_identity_features
from services.render.streams import default_state
from services.render.types import RenderFrame
from tests.conftest import Clips
from tests.unit.common.face.people import mean_person
from tests.unit.render.rendering import committed_models, render

MODEL: Final = default_model()
RENDERER: Final = committed_models("onnxruntime-float32")
EVERYONE: Final = RENDERER.files["everyone"]
PRIOR: Final = default_state(EVERYONE)
PEOPLE: Final = 12
CHANCE: Final = 1.0 / PEOPLE
FRAMES: Final = 32
ENROLLED: Final = 24
"""Frames that the person's texture is made of."""
DRAWN: Final = 3
"""Frames at the end that are drawn."""
GREY: Final = 128
NO_TEXTURE: Final = np.full(TEXTURE_SHAPE, GREY, np.uint8)


@dataclass(frozen=True)
class Person:
    """A training person: enrolled frames, and pictures, poses and mouths of the frames that are drawn."""

    bank: MouthBank
    surface: NeuralSurface
    boxes: UInt8
    poses: list[HeadPose]
    mouths: Float32

    @cached_property
    def texture(self) -> UInt8:
        return bank_texture(self.bank, self.surface, 0)

    def mask(self, pose: HeadPose) -> UInt8:
        return lower_face_mask(self.bank.geometry, pose)

    def frames(self, texture: UInt8) -> list[RenderFrame]:
        """The later frames, as the texture stage and the gateway would send them."""
        return [
            RenderFrame(
                frame_index=number,
                background=box,
                texture=None,
                mask=self.mask(pose),
                box_landmarks=head_to_box(mouth, pose),
                speech_features=np.zeros(SPEECH_SHAPE, np.float32),
                neural_features=sample(texture, self.surface.uv_of(self.surface.expression_of(mouth), pose)),
            )
            for number, (box, pose, mouth) in enumerate(zip(self.boxes, self.poses, self.mouths, strict=True))
        ]


def upright(rotation: np.ndarray) -> HeadPose:
    return HeadPose(1.0, rotation, np.zeros(3))


def surface_of(head: Float32) -> NeuralSurface:
    """The person's surface. In place of a fitted identity: the mean of the tracked faces, float32 [T, V, 3]."""
    person = mean_person(offset=(head.mean(axis=0) - MODEL.mean_shape).astype(np.float32))
    return NeuralSurface(person, MODEL)


def tracked(path: Path, networks: Networks) -> Person:
    """The person of a clip."""
    with av.open(str(path)) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame, _ in zip(video.decode(video=0), range(FRAMES), strict=False)]
    tracker = FaceTracker(networks, TrackOptions(max_faces=1))
    found = [answer.faces[0] for picture in pictures for answer in tracker.push(picture)]
    found += [answer.faces[0] for answer in tracker.finish()]
    head = np.stack([to_head_space(face.landmarks, face.pose) for face in found])
    mouth, anchors = head[:, list(MOUTH_AREA)], head[:ENROLLED, list(ANCHORS)]
    rotation = np.stack([face.pose.rotation for face in found])
    patches = (sample_patch(each, box_from_frame(face.pose), (BOX_SIZE,) * 2) for each, face in zip(pictures, found, strict=True))
    boxes = np.stack(list(patches))
    geometry = measure_geometry(mouth[:ENROLLED], anchors)
    return Person(
        bank=make_bank(boxes[:ENROLLED], mouth[:ENROLLED], rotation[:ENROLLED], np.arange(ENROLLED), geometry),
        surface=surface_of(head[:ENROLLED, : MODEL.num_vertices]),
        boxes=boxes[-DRAWN:],
        poses=[upright(each) for each in rotation[-DRAWN:]],
        mouths=mouth[-DRAWN:],
    )


@pytest.fixture(scope="module")
def people(clips: Clips) -> list[Person]:
    """The first clip of each of the first people that the renderer was trained on."""
    first: dict[str, Path] = {}
    for row in clips.rows(use="train", under="grid"):
        if row.path.suffix in {".mkv", ".mp4", ".mpg"}:
            first.setdefault(row.speaker, row.path)
    networks = Networks()
    found = [tracked(path, networks) for path in list(first.values())[:PEOPLE]]
    networks.close()
    return found


class Recogniser:
    """Says who a picture shows, among people whose filmed pictures it has seen.

    Only pixels inside everybody's mask count, and their mean colour is taken away: the outline of the mask comes with a request,
    and the skin's colour comes from the footage around the mask. Both would tell people apart, whatever the renderer knows.
    """

    def __init__(self, people: list[Person]) -> None:
        self._embedding = read_identity_features(WEIGHTS_FOLDER / "identity_embedding.safetensors")
        everywhere = [person.mask(upright(rotation)) for person in people for rotation in person.bank.rotation[::4]]
        self._area: Bool = np.mean(np.equal(everywhere, 255), axis=0) > 0.9
        means = [self._features(person.bank.boxes[::4]).mean(axis=0) for person in people]
        self._known = np.stack([mean / np.linalg.norm(mean) for mean in means])

    def _features(self, boxes: UInt8) -> Float32:
        shown = np.full(boxes.shape, GREY, np.uint8)
        inside = boxes[:, self._area].astype(np.float32)
        shown[:, self._area] = np.clip(np.rint(inside - inside.mean(axis=1, keepdims=True) + GREY), 0, 255)
        return self._embedding.of(shown)

    def judge(self, drawn: list[UInt8]) -> tuple[float, float]:
        """Judge pictures of each person, uint8 [N, 160, 160, 3].

        Returns:
            The share of the other people who are nearer than the person (chance: one half), and the share of the pictures that
            are given to the right person (chance: CHANCE).
        """
        nearer, right = [], []
        for number, boxes in enumerate(drawn):
            cosine = self._features(boxes) @ self._known.T
            others = np.delete(cosine, number, axis=1)
            nearer.append((others > cosine[:, [number]]).mean())
            right.append((cosine.argmax(axis=1) == number).mean())
        return float(np.mean(nearer)), float(np.mean(right))


def with_texture(person: Person) -> tuple[list[RenderFrame], Float32]:
    style = np.zeros(len(PRIOR) - REFERENCE_SIZE, np.float32)
    reference = person.bank.boxes[reference_row(person.bank)]
    return person.frames(person.texture), packed(style, reference)


def faint(person: Person) -> tuple[list[RenderFrame], Float32]:
    """A texture that survived with a quarter of its contrast."""
    texture = np.rint(GREY + 0.25 * (person.texture.astype(np.float32) - GREY)).astype(np.uint8)
    return person.frames(texture), PRIOR


def erased(person: Person) -> tuple[list[RenderFrame], Float32]:
    return person.frames(NO_TEXTURE), PRIOR


def erased_without_footage(person: Person) -> tuple[list[RenderFrame], Float32]:
    return [replace(frame, background=np.full_like(frame.background, GREY)) for frame in person.frames(NO_TEXTURE)], PRIOR


@pytest.mark.long
def test_the_prior_without_a_texture_looks_like_nobody(people: list[Person]) -> None:
    cv2.setNumThreads(1)
    recogniser = Recogniser(people)

    def judged(inputs: Callable[[Person], tuple[list[RenderFrame], Float32]]) -> tuple[float, float]:
        drawn = []
        for person in people:
            frames, state = inputs(person)
            drawn.append(np.stack([made.box for made in render(RENDERER.backend, EVERYONE, frames, state)]))
        return recogniser.judge(drawn)

    nearer, right = judged(with_texture)
    assert (nearer < 0.2, right > 4.0 * CHANCE) == (True, True), (nearer, right)
    nearer, right = judged(faint)
    assert (nearer < 0.3, right > 1.5 * CHANCE) == (True, True), (nearer, right)
    # If all drawn pictures were alike, half of the others would be nearer, and one person in PEOPLE would be right.
    for inputs in (erased, erased_without_footage):
        nearer, right = judged(inputs)
        assert (abs(nearer - 0.5) < 0.1, right < 2.5 * CHANCE) == (True, True), (inputs.__name__, nearer, right)
