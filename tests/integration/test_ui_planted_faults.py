"""Five faults in a batch of fifty real dubs: a person who looks at the first eight shots of the page has seen all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import pytest

from dubstage.client import batch
from gateway.batch.finished import finish_of, skin_beside_lips
from gateway.dub.request.dub_request import sha256_of
from gateway.media.probe import probe
from gateway.reports.appearance import filled
from gateway.reports.records import TrackedOutput, track_output
from gateway.stages.opening import open_stages
from research.bench.runs import SAMPLE_RATE_HZ, read_sound
from services.common.array_types import Array, UInt8
from services.common.face.crops import BOX_SIZE, apply_affine, box_from_frame
from services.common.face.landmarks import LIPS_OUTER
from tests.batches import open_store
from tests.integration.client_calls import batch_ended
from tests.integration.test_ui import TOKEN, Site, browser, pytestmark, signed_in, site  # noqa: F401  # browser and site are fixtures

FRAMES: Final = 75
RATE: Final = 25
HEIGHT: Final = 512
"""Most rows of a picture."""
SHOTS: Final = {
    "people/dev_1.mp4": 20,
    "people/dev_2.mp4": 4,
    "people/dev_3.mp4": 4,
    "people/dev_4.mp4": 6,
    "people/dev_5.mp4": 3,
    "people/dev_6.mp4": 5,
    "video/hp_31.mp4": 8,
}
"""Number of shots of each clip, one after the other."""
SEEN: Final = 8
NIGHT: Final = "ui-faults"
ANYWHERE: Final = 0, (0, 0, 1, 1)
"""Frame and box of the face to track: the only face."""

Picture = Callable[[int, UInt8], UInt8]
"""Frame and its picture, uint8 [H, W, 3] RGB, to another picture."""


def write_video(source: Path, target: Path, picture: Picture, sound: Array, begin: int = 0) -> None:
    """Write FRAMES pictures of a video from frame `begin` on, and a sound, float32 [N] at 48 kHz."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        pictures = islice(reader.decode(video=0), begin, begin + FRAMES)
        video = None
        for number, frame in enumerate(pictures):
            scale = min(1.0, HEIGHT / frame.height)
            width, height = round(frame.width * scale / 2) * 2, round(frame.height * scale / 2) * 2
            shown = picture(number, frame.reformat(width, height, format="rgb24").to_ndarray())
            if video is None:
                video = writer.add_stream("libx264", rate=RATE, options={"crf": "14", "preset": "superfast"})
                video.width, video.height, video.pix_fmt = width, height, "yuv420p"
                audio = writer.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
            new = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            new.pts, new.time_base = number, Fraction(1, RATE)
            writer.mux(video.encode(new))
        writer.mux(video.encode(None))
        for place in range(0, len(sound), 1024):
            block = av.AudioFrame.from_ndarray(sound[None, place : place + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts = SAMPLE_RATE_HZ, place
            writer.mux(audio.encode(block))
        writer.mux(audio.encode(None))


def part_of(sound: Array, begin: int) -> Array:
    """The sound of FRAMES frames from frame `begin` on; silence, where there is none."""
    step = SAMPLE_RATE_HZ // RATE
    places = np.arange(begin * step, (begin + FRAMES) * step)
    inside = (places >= 0) & (places < len(sound))
    return np.where(inside, sound[np.clip(places, 0, len(sound) - 1)], 0.0).astype(np.float32)


@dataclass
class Mouths:
    """Draws in the render box of a tracked face."""

    tracked: TrackedOutput

    def box(self, number: int, picture: UInt8) -> Array:
        affine = box_from_frame(self.tracked.poses[number])
        return np.asarray(cv2.warpAffine(picture, affine, (BOX_SIZE, BOX_SIZE)), np.float32)

    def points(self, number: int) -> Array:
        return np.asarray(apply_affine(box_from_frame(self.tracked.poses[number]), self.tracked.landmarks[number])[..., :2])

    def drawn(self, number: int, picture: UInt8, box: Array, weight: Array) -> UInt8:
        """The picture with a box, float32 [160, 160, 3], laid over it by a weight, float32 [160, 160]."""
        back = cv2.invertAffineTransform(box_from_frame(self.tracked.poses[number]))
        size = picture.shape[1::-1]
        shown = cv2.warpAffine(box, back, size, borderMode=cv2.BORDER_REPLICATE)
        share = cv2.warpAffine(weight, back, size)[..., None]
        return np.asarray(np.clip(np.rint(picture * (1 - share) + shown * share), 0, 255), np.uint8)


def lips(points: Array, grow_px: int) -> Array:
    """The lips and a border, float32 [160, 160]."""
    kernel = np.ones((2 * grow_px + 1, 2 * grow_px + 1), np.uint8)
    return cv2.dilate(filled(points[list(LIPS_OUTER)]).astype(np.uint8), kernel).astype(np.float32)


def seam(mouths: Mouths) -> Picture:
    """Ten levels more in an area about the lips with a hard edge."""

    def draw(number: int, picture: UInt8) -> UInt8:
        box = mouths.box(number, picture)
        return mouths.drawn(number, picture, box + 10.0, lips(mouths.points(number), 14))

    return draw


def flicker(mouths: Mouths) -> Picture:
    """The skin of the lower face 6 % lighter in every second frame."""

    def draw(number: int, picture: UInt8) -> UInt8:
        area = skin_beside_lips(mouths.points(number).astype(np.float32)) | (lips(mouths.points(number), 8) > 0)
        # No edge where the box ends.
        area[[0, -1]] = area[:, [0, -1]] = False
        inner = cv2.erode(area.astype(np.float32), np.ones((19, 19), np.uint8), borderValue=0)
        weight = cv2.GaussianBlur(inner, (0, 0), 3.0)
        return mouths.drawn(number, picture, mouths.box(number, picture) * (1.06 if number % 2 else 1.0), weight)

    return draw


def frozen(mouths: Mouths) -> Picture:
    """The mouth of the first frame in all frames."""
    first: list[tuple[Array, Array]] = []

    def draw(number: int, picture: UInt8) -> UInt8:
        if not first:
            first.append((mouths.box(number, picture), cv2.GaussianBlur(lips(mouths.points(number), 16), (0, 0), 4.0)))
        return mouths.drawn(number, picture, *first[0])

    return draw


def same(number: int, picture: UInt8) -> UInt8:
    return picture


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_five_faults_are_among_the_first_eight_of_fifty_shots(
    browser,  # noqa: F811
    site,  # noqa: F811
    clips,
    media,
    loop_thread,
    tmp_path,
) -> None:
    """Wrong sound, late sound, a frozen mouth, a seam and flicker are planted in five of fifty dubs, which are measured again."""
    sounds: dict[str, Array] = {}
    for clip, number in SHOTS.items():
        whole = read_sound(clips.path(clip))
        for shot in range(number):
            name = f"{Path(clip).stem}-{shot:02d}"
            sounds[name] = part_of(whole, shot * FRAMES)
            write_video(clips.path(clip), media.root / f"{name}.mp4", same, sounds[name], shot * FRAMES)
    assert len(sounds) == 50
    with site.gateway.connect(token=TOKEN, timeout_s=3600) as connection:
        rows = [batch.row(name, footage=f"{name}.mp4", output=f"{name}-dub.mp4", personalize=False) for name in sounds]
        ended = batch_ended(connection, NIGHT, rows)
    assert ended.progress.num_done == 50
    late = part_of(read_sound(clips.path("people/dev_4.mp4")), 2 * FRAMES - 5)
    faults: dict[str, tuple[Callable[[Mouths], Picture], Array]] = {
        "dev_1-03": (lambda _: same, sounds["dev_4-01"]),
        "dev_4-02": (lambda _: same, late),
        "dev_1-11": (frozen, sounds["dev_1-11"]),
        "dev_6-01": (seam, sounds["dev_6-01"]),
        "dev_5-01": (flicker, sounds["dev_5-01"]),
    }
    settings = site.gateway.settings
    store = open_store(settings.data_dir)

    async def plant(name: str, fault: Callable[[Mouths], Picture], sound: Array) -> None:
        dub, faulty = media.root / f"{name}-dub.mp4", tmp_path / f"{name}.mp4"
        async with open_stages(settings) as stages:
            (tracked,) = await track_output(stages, probe(dub), [ANYWHERE])
            assert tracked is not None
            assert len(tracked.poses) == FRAMES
            write_video(dub, faulty, fault(Mouths(tracked)), sound)
            video = probe(faulty)
            (again,) = await track_output(stages, video, [ANYWHERE])
            assert again is not None
            finish = await finish_of(stages, video, probe(media.root / f"{name}.mp4"), again)
        faulty.replace(dub)
        store.put(NIGHT, store.record(NIGHT, name).model_copy(update={"finish": finish, "output_sha256": sha256_of(dub)}))

    for name, (fault, sound) in faults.items():
        loop_thread.run(plant(name, fault, sound))
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/batches/{NIGHT}")
        page.wait_for_selector(".shots h3 a")
        names = page.locator(".shots h3 a").all_inner_texts()
    ranks = {name: names.index(name) + 1 if name in names else None for name in faults}
    assert set(faults) <= set(names[:SEEN]), f"{ranks}; first: {names[:SEEN]}"
