from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import LEFT_EYE_LIDS, NUM_LANDMARKS, RIGHT_EYE_LIDS
from services.face.quality import (
    COVER_BEGINS,
    COVER_ENDS,
    LOWER,
    UPPER,
    AppearanceMemory,
    FrameVerdict,
    MouthView,
    SkinColours,
    decide,
    eye_closure,
    first_reason,
    mouth_in_picture,
    sample_appearance,
    visibility,
)
from services.face.types import Reason

APPEARANCE_HEAD = head_template()
HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])


def turned(yaw: float, scale: float = 1.0) -> HeadPose:
    angle = np.radians(yaw)
    rotation = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    return HeadPose(scale, rotation, np.zeros(3))


def skin(seed: int, light: float = 0.0) -> SkinColours:
    random = np.random.default_rng(seed)
    base = np.array([150.0, 145.0, 150.0])
    lower = base + random.normal(0, 1, (len(LOWER), 3)) + [light, 0, 0]
    upper = base + random.normal(0, 1, (len(UPPER), 3)) + [light, 0, 0]
    return SkinColours(lower.astype(np.float32), upper.astype(np.float32))


def remembering(frames: int = 20) -> AppearanceMemory:
    memory = AppearanceMemory()
    for seed in range(frames):
        memory.measure(skin(seed), turned(0.0))
    return memory


def test_skin_that_stays_itself_is_not_foreign() -> None:
    memory = AppearanceMemory()
    assert max(memory.measure(skin(seed), turned(0.0)) for seed in range(30)) == 0.0


def test_light_on_the_whole_face_is_not_foreign() -> None:
    assert remembering().measure(skin(99, light=-60.0), turned(0.0)) == 0.0


def bearded(seed: int, light: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> SkinColours:
    """Return the colours of a face with a dark beard under light of gains in red, green and blue."""
    random = np.random.default_rng(seed)
    parts = []
    for base, count in (((70.0, 132.0, 134.0), len(LOWER)), ((185.0, 143.0, 150.0), len(UPPER))):
        lab = (np.array(base) + random.normal(0, 1, (count, 3)) - (0, 128, 128)) / (2.55, 1, 1)
        linear = cv2.cvtColor(lab.astype(np.float32)[None], cv2.COLOR_Lab2LRGB) * np.array(light, np.float32)
        parts.append(cv2.cvtColor(linear.clip(0, 1), cv2.COLOR_LRGB2Lab)[0] * (2.55, 1, 1) + (0, 128, 128))
    return SkinColours(*(part.astype(np.float32) for part in parts))


@pytest.mark.parametrize(
    "lights",
    [
        [(0.05, 0.05, 0.05), (0.9, 0.9, 0.9)],
        [(1.0, 0.35, 0.35), (0.35, 0.35, 1.0)],
        [(0.9, 0.4, 0.2), (0.2, 0.9, 0.5), (0.4, 0.2, 0.9)],
    ],
    ids=["strobe", "police", "stage"],
)
def test_changing_lights_are_not_foreign(lights: list[tuple[float, float, float]]) -> None:
    """Light multiplies: a dark beard changes less than a bright forehead, and colours change with the light."""
    memory = AppearanceMemory()
    shares = [memory.measure(bearded(number, lights[number // 6 % len(lights)]), turned(0.0)) for number in range(60)]
    assert max(shares) < COVER_ENDS
    covered = bearded(99, lights[0])
    covered.lower[APPEARANCE_HEAD[LOWER, 1] > 10] = [200.0, 128.0, 128.0]
    assert memory.measure(covered, turned(0.0)) > COVER_BEGINS


def test_a_patch_of_another_colour_is() -> None:
    seen = skin(99)
    left = APPEARANCE_HEAD[LOWER, 0] < -10
    seen.lower[left] = [140.0, 133.0, 160.0]
    assert remembering().measure(seen, turned(0.0)) == pytest.approx(0.4, abs=0.15)


@pytest.mark.parametrize("pitch", [-40.0, 0.0, 20.0, 30.0])
def test_share_is_one_at_most(pitch: float) -> None:
    """A face that is covered as a whole has no share above 1, with which tracking could not go on, wherever the head looks."""
    up = np.radians(pitch)
    rotation = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(up), -np.sin(up)], [0.0, np.sin(up), np.cos(up)]])
    memory, nodding = AppearanceMemory(), HeadPose(1.0, rotation, np.zeros(3))
    for seed in range(20):
        memory.measure(skin(seed), nodding)
    covered = skin(99)
    covered.lower[:] = [40.0, 128.0, 128.0]
    assert 0.8 < memory.measure(covered, nodding) <= 1.0


def test_patch_not_learned_within_second() -> None:
    """A patch that stays is not learnt within a second."""
    memory = remembering()
    shares = []
    for seed in range(25):
        seen = skin(100 + seed)
        seen.lower[APPEARANCE_HEAD[LOWER, 1] > 20] = [40.0, 128.0, 128.0]
        shares.append(memory.measure(seen, turned(0.0)))
    assert min(shares) > 0.2


def test_far_cheek_is_not_judged() -> None:
    """The far cheek shows what lies behind the face: no cover, and nothing to learn."""
    memory = remembering()
    far = APPEARANCE_HEAD[LOWER, 0] < -40
    for seed in range(10):
        seen = skin(200 + seed)
        seen.lower[far] = [40.0, 128.0, 128.0]
        assert memory.measure(seen, turned(-45.0)) == 0.0
    assert memory.measure(skin(99), turned(0.0)) == 0.0


def test_underrated_turn_shows_background() -> None:
    """A head that is turned by 45 degrees measures 34: what moves behind its far cheek and far corner of the mouth is no cover."""
    memory = AppearanceMemory()
    far = APPEARANCE_HEAD[LOWER, 0] < -30
    shares = []
    for seed in range(20):
        seen = skin(300 + seed)
        seen.lower[far] = [40.0 + 60.0 * (seed % 3), 128.0, 128.0]
        shares.append(memory.measure(seen, turned(-34.0)))
    assert max(shares) < COVER_ENDS


def test_new_cheek_is_learned() -> None:
    memory = AppearanceMemory()
    hidden = skin(0)
    hidden.lower[APPEARANCE_HEAD[LOWER, 0] < -40] = [40.0, 128.0, 128.0]
    memory.measure(hidden, turned(-45.0))
    assert max(memory.measure(skin(seed), turned(0.0)) for seed in range(1, 20)) == 0.0


def test_cover_on_new_cheek_not_learned() -> None:
    """A hand that is there when a cheek turns into sight is not taken for skin."""
    memory = AppearanceMemory()
    for seed in range(20):
        memory.measure(skin(seed), turned(-45.0))
    covered = skin(30)
    covered.lower[APPEARANCE_HEAD[LOWER, 1] > 10] = [40.0, 128.0, 128.0]
    covered.lower[APPEARANCE_HEAD[LOWER, 0] < -40] = [40.0, 128.0, 128.0]
    assert memory.measure(covered, turned(0.0)) > 0.2
    assert max(memory.measure(skin(seed), turned(0.0)) for seed in range(31, 40)) == 0.0


def test_vertex_colours_match_picture() -> None:
    """Colours are those of the picture at the vertices."""
    pose = HeadPose(1.5, np.eye(3), np.array([320.0, 240.0, 0.0]))
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:, :320] = 200
    landmarks = to_frame(np.concatenate([APPEARANCE_HEAD, np.zeros((NUM_LANDMARKS - 468, 3), np.float32)]), pose)
    colours = sample_appearance(picture, landmarks, pose)
    assert (colours.lower[APPEARANCE_HEAD[LOWER, 0] < -8, 0] > 190).all()
    assert (colours.lower[APPEARANCE_HEAD[LOWER, 0] > 8, 0] < 10).all()


def view(
    yaw: float = 0.0, scale: float = 1.0, confidence: float = 1.0, seen: float = 1.0, lips: bool = True, foreign: float = 0.0
) -> MouthView:
    return MouthView(confidence, turned(yaw, scale), seen, lips, foreign)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (view(), Reason.DUBBED),
        (view(yaw=55.0), Reason.PROFILE_VIEW),
        (view(yaw=-55.0), Reason.PROFILE_VIEW),
        (view(yaw=45.0), Reason.DUBBED),
        (view(scale=0.2), Reason.FACE_TOO_SMALL),
        (view(confidence=0.9), Reason.LOW_CONFIDENCE),
        (view(yaw=30.0, confidence=0.95), Reason.LOW_CONFIDENCE),
        (view(yaw=48.0, confidence=0.95), Reason.DUBBED),
        (view(yaw=48.0, confidence=0.85), Reason.LOW_CONFIDENCE),
        (view(lips=False), Reason.OUT_OF_FRAME),
        (view(seen=0.95), Reason.DUBBED),
        (view(seen=0.6), Reason.OUT_OF_FRAME),
    ],
)
def test_each_reason_has_its_cause(seen: MouthView, reason: Reason) -> None:
    assert first_reason(seen, covered=False) is reason


def test_cover_backdated_with_proof() -> None:
    """A cover is dated back to its first trace but needs proof in sight."""
    rising = [view(foreign=share) for share in (0.06, 0.09, 0.11, 0.2)]
    assert decide(None, rising) == FrameVerdict(Reason.OCCLUDED_MOUTH, True)
    assert decide(None, rising[:3]) == FrameVerdict(Reason.DUBBED, False)
    assert decide(None, [view(foreign=0.01), *rising[1:]]).covered is False


def test_a_cover_lasts_until_its_last_trace() -> None:
    covered = FrameVerdict(Reason.OCCLUDED_MOUTH, True)
    assert decide(covered, [view(foreign=0.06), view(), view()]).covered
    assert decide(covered, [view(foreign=0.02), view(foreign=0.02), view(foreign=0.02)]) == FrameVerdict(Reason.DUBBED, False)


def test_gaps_of_two_frames_are_bridged() -> None:
    before = FrameVerdict(Reason.PROFILE_VIEW, False)
    assert decide(before, [view(yaw=49), view(yaw=49), view(yaw=51)]).reason is Reason.PROFILE_VIEW
    assert decide(before, [view(yaw=49), view(yaw=49), view(yaw=49), view(yaw=51)]).reason is Reason.DUBBED


def test_visibility_falls_with_turn_cover_and_border() -> None:
    assert visibility(view(), covered=False) == 1.0
    assert visibility(view(yaw=60), covered=False) == 0.0
    assert visibility(view(seen=0.5), covered=False) == pytest.approx(0.5)
    assert visibility(view(foreign=0.25), covered=True) == pytest.approx(0.75)


def test_points_beyond_border() -> None:
    """Points beyond the border are not in the picture."""
    landmarks = HEAD + np.float32([20.0, 200.0, 0.0])
    inside = mouth_in_picture(landmarks, 640, 480)
    assert 0 < inside.sum() < 59
    assert mouth_in_picture(HEAD + np.float32([320, 240, 0]), 640, 480).all()


def test_shut_eyes_are_shut() -> None:
    shut = HEAD.copy()
    for upper, lower in RIGHT_EYE_LIDS + LEFT_EYE_LIDS:
        shut[upper] = shut[lower]
    assert eye_closure(shut) == 1.0
    wide = HEAD.copy()
    for upper, _ in RIGHT_EYE_LIDS + LEFT_EYE_LIDS:
        wide[upper, 1] -= 4.0
    assert eye_closure(wide) == 0.0
