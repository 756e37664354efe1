"""Files that once read others, hung, filled a disk, or were dubbed in another way than was asked for."""

import threading
from fractions import Fraction
from pathlib import Path
from random import Random

import av

from tests.hostile.case import ANSWERED, EXIT_OK, TOLD, WRITTEN, Case, Fault, Outcome
from tests.hostile.children import dubstage
from tests.hostile.commands import run
from tests.hostile.lines import OK, UNDUBBED, WRONG, Prepare, command_line, dub_line, good_files
from tests.hostile.media import PLAYLISTS, SOUNDS, Recipe, claim_samples, wav
from tests.hostile.shelf import MediaShelf
from tests.hostile.videos import over_the_api
from tests.hostile.world import World
from tests.unit.media.made_footage import Clip, make_clip

REFUSED = frozenset({"INVALID_ARGUMENT"})
MOST_FOR_ONE_SPEECH = 512 << 20
"""Bytes that the servers may take while they read one short speech."""


def _over_the_api(name: str, kind: str, recipe: Recipe, *, speech: bool) -> Case:
    return Case("media", name, lambda world: over_the_api(world, Random(kind), recipe, speech=speech), REFUSED)


def _playlists() -> list[Case]:
    def prepare(kind: str, suffix: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = good_files(world, folder)
            (place / f"list{suffix}").write_text(PLAYLISTS[kind].format(name="clip.mp4"))
            return dub_line(f"list{suffix}")

        return put

    def in_media(kind: str) -> Case:
        def recipe(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
            shelf.copy("clip.mp4", folder)
            path = folder / "list.mp4"
            path.write_text(PLAYLISTS[kind].format(name="clip.mp4"))
            return path

        return _over_the_api(f"{kind} in the media folder", kind, recipe, speech=False)

    def named(kind: str, suffix: str) -> Case:
        return command_line(f"{kind} as footage{suffix}", prepare(kind, suffix), WRONG, f"list{suffix}", surface="media")

    own = {"m3u8": ".m3u8", "concat": ".ffconcat", "sdp": ".sdp", "mpd": ".mpd"}
    return [
        *(named(kind, ".mp4") for kind in PLAYLISTS),
        *(named(kind, suffix) for kind, suffix in own.items()),
        *(in_media(kind) for kind in ("m3u8", "concat", "sdp", "mpd")),
    ]


def _sounds() -> list[Case]:
    def prepare(kind: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = good_files(world, folder)
            (place / "odd.wav").write_bytes(wav(**SOUNDS[kind]))
            return dub_line("clip.mp4", audio="odd.wav")

        return put

    def in_media(kind: str) -> Case:
        def recipe(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
            path = folder / "odd.wav"
            path.write_bytes(wav(**SOUNDS[kind]))
            return path

        return _over_the_api(f"speech over the API: {kind}", kind, recipe, speech=True)

    kinds = ("nan", "inf", "24 channels", "1 Hz", "no sample", "0 channels")
    return [
        *(command_line(f"speech: {kind}", prepare(kind), WRONG, "odd.wav", surface="media") for kind in kinds),
        *(in_media(kind) for kind in ("nan", "1 Hz", "no sample")),
    ]


def _videos() -> list[Case]:
    def lying(world: World, folder: Path) -> list[str]:
        data = bytearray((good_files(world, folder) / "clip.mp4").read_bytes())
        claim_samples(data, 80_000_000)
        (folder / "cwd" / "lie.mp4").write_bytes(data)
        return dub_line("lie.mp4")

    def jumping(suffix: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = good_files(world, folder)
            clip = Clip(codec="ffv1", pts=(0, 1, 2, 3, 25_000_000_000), time_base=Fraction(1), last_duration=1)
            make_clip(place / f"jump{suffix}", clip)
            return dub_line(f"jump{suffix}")

        return put

    def pixels(pixel: str, suffix: str, to: str, codec: str = "ffv1") -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = good_files(world, folder)
            make_clip(place / f"odd{suffix}", Clip(pixel, codec, pts=(0, 512, 1024)))
            return dub_line(f"odd{suffix}", f"../out/video{to}")

        return put

    def lying_speech(world: World) -> Outcome:
        def recipe(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
            data = bytearray((shelf.folder / "clip.mp4").read_bytes())
            claim_samples(data, 80_000_000)
            (folder / "lie.mp4").write_bytes(data)
            return folder / "lie.mp4"

        over = threading.Event()
        before, peak = world.servers.resident_bytes(), [0]

        def watch() -> None:
            while not over.wait(0.05):
                peak[0] = max(peak[0], world.servers.resident_bytes())

        watching = threading.Thread(target=watch)
        watching.start()
        outcome = over_the_api(world, Random("lie"), recipe, speech=True)
        over.set()
        watching.join()
        grown = peak[0] - before
        return outcome.adding([Fault("growth", f"{grown >> 20} MiB for one speech")] if grown > MOST_FOR_ONE_SPEECH else [])

    def jump(suffix: str) -> Case:
        return command_line(f"times that jump by 25e9 s, {suffix}", jumping(suffix), WRONG, f"jump{suffix}", surface="media")

    return [
        command_line("a header that claims 8e7 samples", lying, WRONG, "lie.mp4", surface="media"),
        Case("media", "speech over the API: a header that claims 8e7 samples", lying_speech, ANSWERED),
        *map(jump, (".mkv", ".nut")),
        command_line("yuva420p to .mkv", pixels("yuva420p", ".nut", ".mkv"), TOLD, surface="media"),
        command_line("gbrap to .mp4", pixels("gbrap", ".avi", ".mp4", "utvideo"), TOLD, "gbrap", surface="media"),
        command_line("ProRes 4444 with alpha", pixels("yuva444p10le", ".mov", ".mov", "prores_ks"), UNDUBBED, surface="media"),
    ]


def _names() -> list[Case]:
    def named(name: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            world.shelf.copy("clip.mp4", good_files(world, folder), name)
            return dub_line(name)

        return put

    def to(name: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            good_files(world, folder)
            return dub_line("clip.mp4", f"../out/{name}")

        return put

    names = ("x" * 251 + ".mp4", "file:colon.mp4", "http:x.mp4", "concat:a|b.mp4", "[bold]x[red].mp4", "%03d.mp4")
    missing = "[/]nowhere[bold].mp4"
    return [
        *(command_line(f"footage named {name!r:.30}", named(name), UNDUBBED) for name in names),
        *(command_line(f"output named {name!r:.30}", to(name), UNDUBBED) for name in (names[0], names[1], names[4])),
        command_line("footage of a missing name with markup", lambda world, folder: dub_line(missing), WRONG, missing),
        command_line("output of 300 bytes", to("x" * 300 + ".mp4"), WRONG),
    ]


def _endings() -> list[Case]:
    """How a dub ends: told to, with longer speech, without any dubbed frame."""

    def told_to_end(world: World) -> Outcome:
        folder = world.sandbox()
        good_files(world, folder, "footage.mp4")
        line = dub_line("footage.mp4", "../out/video.mp4")
        outcome = dubstage(line, folder, world.servers.environment(), stop_when=lambda: any((folder / "out").iterdir()))
        names = [path.name for path in (folder / "out").iterdir() if path.name != "video.mp4"]
        faults = tuple(Fault("leftover", f"after SIGTERM: {name}") for name in names)
        return Outcome(EXIT_OK, outcome.said, (*outcome.faults, *faults))

    def longer_speech(rate: int, frames: int) -> Case:
        def act(world: World) -> Outcome:
            folder = world.sandbox()
            make_clip(folder / "cwd" / "clip.mkv", Clip(pts=tuple(range(0, frames * 512, 512))))
            (folder / "cwd" / "speech.wav").write_bytes(wav(samples=16384 * 3, rate=rate, fill=0.05))
            outcome = run(world, folder, dub_line("clip.mkv", "../out/video.mkv"), output=folder / "out" / "video.mkv")
            silent = "speech" not in outcome.said.replace("speech.wav", "")
            return outcome.adding([Fault("message", "longer speech is cut without a word")] if silent else [])

        return Case("media", f"longer speech at {rate} Hz, {frames} frames", act, UNDUBBED)

    def unmarked(world: World) -> Outcome:
        folder = world.sandbox()
        good_files(world, folder)
        output = folder / "out" / "video.mp4"
        outcome = run(world, folder, dub_line("clip.mp4"), output=output)
        said = ""
        if outcome.code in WRITTEN:
            with av.open(str(output)) as video:
                said = video.metadata.get("comment", "")
        synthetic = "mouth in this video is synthetic" in said and not said.startswith("No mouth")
        return outcome.adding([Fault("message", f"no frame is dubbed, and the video says: {said}")] if synthetic else [])

    return [
        Case("command", "a dub that is told to end leaves no hidden file", told_to_end, OK),
        *(longer_speech(rate, frames) for rate, frames in ((16000, 25), (48000, 8), (48000, 16))),
        Case("media", "a video without any dubbed frame is not marked", unmarked, UNDUBBED),
    ]


KNOWN_MEDIA: tuple[Case, ...] = (*_playlists(), *_sounds(), *_videos(), *_names(), *_endings())
