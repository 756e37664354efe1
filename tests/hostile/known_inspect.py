"""Files that `dubstage inspect` is given, at an installation that has a watermark of its own to look for."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from gateway.provenance.credential import installation_credential
from gateway.provenance.seal import Sealer
from tests.hostile.case import Case
from tests.hostile.known_records import KEYS, NO_FILES
from tests.hostile.lines import WRONG, command_line
from tests.hostile.records import CHANGED, UNSIGNED
from tests.hostile.world import World
from tests.unit.provenance.signed_videos import claim_gigabytes, write_video


def _inspections() -> list[Case]:
    """Videos, sidecars and lists of authorities."""

    def case(name: str, put: Callable[[World, Path], object], allowed: frozenset[str], file: str = "video.mp4", *more: str) -> Case:
        def prepare(world: World, folder: Path) -> list[str]:
            installation_credential(folder / "data")
            put(world, folder / "cwd")
            return ["inspect", *more, "--", file]

        return command_line(f"inspect {name}", prepare, allowed)

    none = UNSIGNED
    any_end = none | CHANGED | WRONG

    def clip(world: World, place: Path) -> Path:
        return world.shelf.copy("footage.mp4", place, "video.mp4")

    def hole(world: World, place: Path) -> None:
        file = clip(world, place)
        data = bytearray(file.read_bytes())
        data[len(data) // 3 : len(data) // 3 + 3000] = bytes(3000)
        file.write_bytes(data)

    def cut(world: World, place: Path) -> None:
        file = clip(world, place)
        os.truncate(file, file.stat().st_size // 2)

    def sidecar(content: bytes, video: bool = True) -> Callable[[World, Path], object]:
        def put(world: World, place: Path) -> None:
            if video:
                world.shelf.copy("clip.mkv", place, "video.mkv")
            (place / "video.mkv.c2pa").write_bytes(content)

        return put

    def endless(world: World, place: Path) -> None:
        world.shelf.copy("clip.mkv", place, "video.mkv")
        (place / "video.mkv.c2pa").symlink_to("/dev/zero")

    def pipe(world: World, place: Path) -> None:
        world.shelf.copy("clip.mkv", place, "video.mkv")
        os.mkfifo(place / "video.mkv.c2pa")

    def gigabytes(world: World, place: Path) -> None:
        footage = world.shelf.folder / "mute.mp4"
        claim_gigabytes(write_video(place / "video.mp4", footage, Sealer(installation_credential(place.parent / "data"))))

    def trusting(kind: str) -> Callable[[World, Path], object]:
        return lambda world, place: (clip(world, place), KEYS[kind](place / "trust"))

    jumb = b"\x00\x00\x00\x20jumb"
    return [
        case("a video without a manifest", clip, none),
        case("a video without a manifest, as JSON", clip, none, "video.mp4", "--json"),
        case("a sound file", lambda world, place: world.shelf.copy("speech.wav", place), none, "speech.wav"),
        case("a picture", lambda world, place: world.shelf.copy("portrait.png", place), none, "portrait.png"),
        case("text", lambda world, place: (place / "video.mp4").write_text("no video\n" * 50), any_end),
        case("an empty file", lambda world, place: (place / "video.mp4").touch(), WRONG),
        case("half a video", cut, any_end),
        case("a video with a hole", hole, any_end),
        case("a video whose manifest claims 6 GiB", gigabytes, CHANGED),
        case("a pipe", lambda world, place: os.mkfifo(place / "video.mp4"), WRONG),
        case("a folder", lambda world, place: (place / "video.mp4").mkdir(), WRONG),
        case("a device", lambda world, place: None, WRONG, "/dev/zero"),
        case("a loop of links", lambda world, place: (place / "video.mp4").symlink_to("video.mp4"), WRONG),
        case("a sidecar without its video", sidecar(jumb + bytes(24), video=False), WRONG, "video.mkv.c2pa"),
        case("a video with a sidecar of noise", sidecar(jumb + Random(2).randbytes(50_000)), any_end, "video.mkv"),
        case("a video with a sidecar that claims to be huge", sidecar(b"\xff\xff\xff\xffjumb" + bytes(64)), any_end, "video.mkv"),
        case("a video with a sidecar without an end", endless, none, "video.mkv"),
        case("a video with a pipe as sidecar", pipe, none, "video.mkv"),
        *(
            case(f"with --trust, which is {kind}", trusting(kind), WRONG, "video.mp4", "--trust=trust")
            for kind in ("text", "a private key", *NO_FILES)
        ),
    ]


KNOWN_INSPECTIONS: tuple[Case, ...] = tuple(_inspections())
