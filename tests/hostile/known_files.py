"""Files, folders and command lines that once overwrote, hung, filled a disk, or ended in "this should not happen"."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

import av

from tests.hostile.bases import ACTOR
from tests.hostile.case import ANSWERED, EXIT_OK, EXIT_WRONG, NOT_DONE, TOLD, Case, Fault, Outcome
from tests.hostile.commands import ANSWERS, CONSENTS, consent_file, run
from tests.hostile.films import over_the_api
from tests.hostile.media import PLAYLISTS, SOUNDS, MediaShelf, claim_samples, wav
from tests.hostile.stores import damaged, journal_entry, resumed_case
from tests.hostile.world import World
from tests.unit.media.made_footage import Clip, make_clip

OK = frozenset({EXIT_OK})
WRONG = frozenset({EXIT_WRONG})
Prepare = Callable[[World, Path], list[str]]
"""Puts files into a sandbox and gives the command line."""


def _line(name: str, prepare: Prepare, allowed: frozenset[str], *says: str, surface: str = "command", **environment: str) -> Case:
    def act(world: World) -> Outcome:
        folder = world.sandbox()
        line = prepare(world, folder)
        output = next((folder / "cwd" / part.removeprefix("--output=") for part in line if part.startswith("--output=")), None)
        return run(world, folder, line, output=Path(os.path.normpath(output)) if output is not None else None, **environment)

    return Case(surface, name, act, allowed, says)


def _dub(footage: str, output: str = "../out/film.mp4", *more: str, audio: str = "speech.wav") -> list[str]:
    return ["dub", f"--output={output}", f"--audio={audio}", "--no-personalize", *more, "--", footage]


def _with_good(world: World, folder: Path, *names: str) -> Path:
    for name in ("clip.mp4", "speech.wav", *names):
        world.shelf.copy(name, folder / "cwd")
    return folder / "cwd"


def _playlists() -> list[Case]:
    def prepare(kind: str, suffix: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = _with_good(world, folder)
            (place / f"list{suffix}").write_text(PLAYLISTS[kind].format(name="clip.mp4"))
            return _dub(f"list{suffix}")

        return put

    def in_media(kind: str) -> Case:
        def recipe(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
            shelf.copy("clip.mp4", folder)
            path = folder / "list.mp4"
            path.write_text(PLAYLISTS[kind].format(name="clip.mp4"))
            return path

        return Case("media", f"{kind} in the media folder", lambda world: over_the_api(world, Random(kind), recipe, speech=False), frozenset({"INVALID_ARGUMENT"}))

    suffixes = (".m3u8", ".mp4", ".ffconcat", ".sdp")
    return [
        *(_line(f"{kind} as footage{suffix}", prepare(kind, suffix), WRONG, f"list{suffix}", surface="media") for kind in PLAYLISTS for suffix in suffixes),
        *(in_media(kind) for kind in ("m3u8", "concat", "sdp", "mpd")),
    ]  # fmt: skip


def _sounds() -> list[Case]:
    def prepare(kind: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = _with_good(world, folder)
            (place / "odd.wav").write_bytes(wav(**SOUNDS[kind]))
            return _dub("clip.mp4", audio="odd.wav")

        return put

    def in_media(kind: str) -> Case:
        def recipe(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
            path = folder / "odd.wav"
            path.write_bytes(wav(**SOUNDS[kind]))
            return path

        return Case("media", f"speech over the API: {kind}", lambda world: over_the_api(world, Random(kind), recipe, speech=True), frozenset({"INVALID_ARGUMENT"}))

    return [
        *(_line(f"speech: {kind}", prepare(kind), WRONG, "odd.wav", surface="media") for kind in ("nan", "inf", "24 channels", "1 Hz", "no sample", "0 channels")),
        *(in_media(kind) for kind in ("nan", "1 Hz", "no sample")),
    ]  # fmt: skip


def _films() -> list[Case]:
    def lying(world: World, folder: Path) -> list[str]:
        data = bytearray((_with_good(world, folder) / "clip.mp4").read_bytes())
        claim_samples(data, 80_000_000)
        (folder / "cwd" / "lie.mp4").write_bytes(data)
        return _dub("lie.mp4")

    def jumping(suffix: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = _with_good(world, folder)
            clip = Clip(codec="ffv1", pts=(0, 1, 2, 3, 25_000_000_000), time_base=_second(), last_duration=1)
            make_clip(place / f"jump{suffix}", clip)
            return _dub(f"jump{suffix}")

        return put

    def pixels(pixel: str, suffix: str, to: str, codec: str = "ffv1") -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = _with_good(world, folder)
            make_clip(place / f"odd{suffix}", Clip(pixel, codec, pts=(0, 512, 1024)))
            return _dub(f"odd{suffix}", f"../out/film{to}")

        return put

    return [
        _line("a header that claims 8e7 samples", lying, WRONG, "lie.mp4", surface="media"),
        *(_line(f"times that jump by 25e9 s, {suffix}", jumping(suffix), WRONG, f"jump{suffix}", surface="media") for suffix in (".mkv", ".nut")),
        _line("gbrap to .mp4", pixels("gbrap", ".mkv", ".mp4"), TOLD, "odd.mkv", "gbrap", surface="media"),
        _line("ProRes 4444 with alpha to .mov", pixels("yuva444p10le", ".mov", ".mov", "prores_ks"), OK, surface="media"),
    ]  # fmt: skip


def _second() -> object:
    from fractions import Fraction

    return Fraction(1)


def _names() -> list[Case]:
    def named(name: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            world.shelf.copy("clip.mp4", _with_good(world, folder), name)
            return _dub(name)

        return put

    def to(name: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            _with_good(world, folder)
            return _dub("clip.mp4", f"../out/{name}")

        return put

    longest = "x" * 251 + ".mp4"
    return [
        *(_line(f"footage named {name!r:.30}", named(name), OK) for name in (longest, "file:colon.mp4", "http:x.mp4", "concat:a|b.mp4", "[bold]x[/].mp4", "%03d.mp4")),
        *(_line(f"output named {name!r:.30}", to(name), OK) for name in (longest, "file:colon.mp4", "http:x.mp4", "[/].mp4", "%03d.mp4")),
        _line("footage of a missing name with markup", lambda world, folder: _dub("[/]nowhere[bold].mp4"), WRONG, "[/]nowhere[bold].mp4"),
        _line("output of 300 bytes", to("x" * 300 + ".mp4"), WRONG),
    ]  # fmt: skip


def _overwritten() -> list[Case]:
    """What lies where the output is to be written."""

    def case(name: str, arguments: Callable[[World, Path], list[str]], kept: str, says: str) -> Case:
        def act(world: World) -> Outcome:
            folder = world.sandbox()
            place = _with_good(world, folder)
            (place / "thesis.mp4").write_text("somebody's work")
            os.symlink("loop.mp4", place / "loop.mp4")
            before = (place / kept).read_bytes() if kept != "loop.mp4" else b""
            outcome = run(world, folder, arguments(world, place))
            faults = list(outcome.faults)
            if kept == "loop.mp4" and not (place / kept).is_symlink():
                faults.append(Fault("outside", "the loop of symlinks was replaced"))
            elif kept != "loop.mp4" and (place / kept).read_bytes() != before:
                faults.append(Fault("outside", f"{kept} was overwritten"))
            return Outcome(outcome.code, outcome.said, tuple(faults))

        return Case("command", name, act, WRONG, (says,))

    def live(world: World, folder: Path) -> list[str]:
        return ["live", ACTOR, "--audio", "speech.wav", "-o", "speech.wav", "--fast", "--gateway", world.servers.addresses["gateway"]]

    return [
        case("dub -o the speech", lambda world, folder: _dub("clip.mp4", "speech.wav"), "speech.wav", "speech.wav"),
        case("dub -o the speech by another name", lambda world, folder: _dub("clip.mp4", "../cwd/./speech.wav"), "speech.wav", "speech.wav"),
        case("dub -o the footage", lambda world, folder: _dub("clip.mp4", "clip.mp4"), "clip.mp4", "clip.mp4"),
        case("live -o the speech", live, "speech.wav", "speech.wav"),
        case("dub -o a file that is no film", lambda world, folder: _dub("clip.mp4", "thesis.mp4"), "thesis.mp4", "--overwrite"),
        case("dub -o a loop of symlinks", lambda world, folder: _dub("clip.mp4", "loop.mp4"), "loop.mp4", "loop.mp4"),
    ]


def _escapes() -> list[Case]:
    """Symbolic links in the media folder that lead out of it."""

    def partial(world: World) -> Outcome:
        def recipe(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
            for name in (".dubbed.partial.mkv", "..dubbed.mkv.partial", ".dubbed.mkv.partial"):
                (folder / name).symlink_to(outside)
            return shelf.copy("clip.mp4", folder)

        outside = world.sandbox() / "outside"
        outside.write_text("somebody's work")
        outcome = over_the_api(world, Random("partial"), recipe, speech=False)
        changed = outside.read_text() != "somebody's work"
        return Outcome(outcome.code, outcome.said, (*outcome.faults, *([Fault("outside", "written through a symbolic link")] if changed else ())))

    def link(name: str, uri: str, field: str) -> Case:
        def act(world: World) -> Outcome:
            from tests.hostile.bases import dubbing
            from tests.hostile.rpcs import send

            folder, place = world.sandbox(), world.servers.media / f"case-{name}"
            world.shelf.copy("clip.mp4", folder / "out")
            place.mkdir()
            try:
                (place / "out").symlink_to(folder / "out")
                (place / "film.mp4").symlink_to(folder / "out" / "clip.mp4")
                (place / "loop.mp4").symlink_to("loop.mp4")
                data = [dubbing(**{field: f"case-{name}/{uri}"}).SerializeToString()]
                outcome = send(world, world.rpcs["gateway.CreateDub"], data)
            finally:
                for one in place.iterdir():
                    one.unlink()
                place.rmdir()
            return outcome

        return Case("command", f"{field} {name}", act, frozenset({"INVALID_ARGUMENT"}), (field,))

    return [
        Case("media", "the writer's temporary name is a symbolic link", partial, ANSWERED),
        link("through-a-folder", "out/film.mp4", "output_uri"),
        link("to-a-film", "film.mp4", "output_uri"),
        link("a-loop", "loop.mp4", "output_uri"),
        link("footage-elsewhere", "film.mp4", "footage_uri"),
    ]


def _options() -> list[Case]:
    def good(*more: str, output: str = "../out/film.mp4") -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            _with_good(world, folder)
            return _dub("clip.mp4", output, *more)

        return put

    def consent(kind: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = _with_good(world, folder)
            return _dub("nowhere.mp4", "../out/film.mp4", f"--consent={consent_file(place / 'consent.json', kind, Random(kind))}")

        return put

    def actors(*line: str) -> Prepare:
        return lambda world, folder: list(line)

    folders = ("/dev/null", "/proc/x", "/dev/full/x")
    return [
        *(_line(f"a report: {name!r:.20}", good(f"--report={name}"), WRONG, "report") for name in ("x" * 300, "clip.mp4", "/proc/report", "/dev/null/x", "clip.mp4/x")),
        *(_line(f"--seed {seed}", good(f"--seed={seed}"), NOT_DONE) for seed in (-1, 2**63, 2**64, 10**40)),
        *(_line(f"data folder {name}", good(), NOT_DONE, "DUBSTAGE_DATA_DIR", DUBSTAGE_DATA_DIR=name) for name in folders),
        *(_line(f"actor list with data folder {name}", actors("actor", "list"), NOT_DONE, "DUBSTAGE_DATA_DIR", DUBSTAGE_DATA_DIR=name) for name in folders),
        *(_line(f"doctor with data folder {name}", actors("doctor"), frozenset({"exit 1"}), DUBSTAGE_DATA_DIR=name) for name in folders),
        *(_line(f"{threads} threads", good(), ANSWERS, DUBSTAGE_COMPUTE_THREADS=threads) for threads in ("100000", "-1", "0")),
        *(_line(f"a consent file: {kind}", consent(kind), WRONG, "consent") for kind in (*(kind for kind in CONSENTS if kind not in ("markup", "escape codes")), "fifo", "folder", "/dev/zero", "loop")),
        _line("live to sound", actors("live", "nobody", "--audio", "nowhere.wav", "-o", "x.wav"), NOT_DONE),
        _line("an endpoint as host", actors("dub", "clip.mp4", "-o", "film.mp4", "--stages", "localhost:51051"), ANSWERS),
    ]  # fmt: skip


def _stores() -> list[Case]:
    def broken(name: str, line: list[str], damage: Callable[[Path], None], allowed: frozenset[str], *says: str) -> Case:
        def act(world: World) -> Outcome:
            folder = world.kept.copy(world, world.sandbox())
            damage(folder)
            return run(world, folder, line, DUBSTAGE_ARTEFACTS_URL=str(folder / "artefacts"))

        return Case("store", f"{' '.join(line)}: {name}", act, allowed, says)

    def page(folder: Path) -> None:
        file = folder / "data" / "actors.sqlite"
        data = bytearray(file.read_bytes())
        data[4096:8192] = bytes(4096)
        file.write_bytes(data)

    def cut(folder: Path) -> None:
        os.truncate(folder / "data" / "actors.sqlite", 5000)

    def noise(folder: Path) -> None:
        (folder / "data" / "actors.sqlite").write_bytes(b"\xff" * 20_000)

    def blob(folder: Path) -> None:
        for path in (folder / "artefacts").rglob("*"):
            if path.is_file():
                path.write_bytes(b"damaged")

    def moved(folder: Path) -> None:
        (folder / "artefacts").rename(folder / "elsewhere")

    lines = (["actor", "list"], ["actor", "show", ACTOR], ["actor", "erase", ACTOR])
    bad = frozenset({EXIT_WRONG, "exit 11"})
    return [
        *(broken(damage.__name__, line, damage, bad, "actors.sqlite") for line in lines for damage in (page, cut, noise)),
        *(broken(damage.__name__, ["doctor"], damage, frozenset({"exit 1"})) for damage in (page, cut, noise)),
        broken("every blob damaged", ["actor", "list"], blob, OK),
        broken("the store is gone", ["actor", "list"], moved, TOLD),
        Case("store", "actors.sqlite may be read by its owner alone", _private, OK),
        resumed_case(Random("cut"), _cut_half, "faces.bin"),
        resumed_case(Random("bits"), damaged, "faces.bin"),
        resumed_case(Random("empty"), journal_entry("{}"), "windows/*"),
        resumed_case(Random("no json"), journal_entry("no journal entry"), "windows/*"),
        resumed_case(Random("done"), journal_entry("{}"), "*.done"),
    ]


def _cut_half(path: Path, _: Random) -> str:
    os.truncate(path, path.stat().st_size // 3)
    return "cut short"


def _private(world: World) -> Outcome:
    mode = stat.S_IMODE((world.servers.data / "actors.sqlite").stat().st_mode)
    return Outcome(EXIT_OK, "", (Fault("path", f"actors.sqlite has mode {mode:o}"),) if mode & 0o077 else ())


def _endings() -> list[Case]:
    """How a dub ends: told to, with longer speech, without any dubbed frame."""

    def told_to_end(world: World) -> Outcome:
        from tests.hostile.children import dubstage

        folder = world.sandbox()
        _with_good(world, folder, "footage.mp4")
        line = _dub("footage.mp4", "../out/film.mp4")
        outcome = dubstage(line, folder, world.servers.environment(), stop_after_s=2.0)
        names = [path.name for path in (folder / "out").iterdir() if path.name != "film.mp4"]
        faults = tuple(Fault("leftover", f"after SIGTERM: {name}") for name in names)
        return Outcome(EXIT_OK, outcome.said, (*outcome.faults, *faults))

    def longer_speech(rate: int, frames: int) -> Case:
        def act(world: World) -> Outcome:
            folder = world.sandbox()
            make_clip(folder / "cwd" / "clip.mkv", Clip(pts=tuple(range(0, frames * 512, 512))))
            (folder / "cwd" / "speech.wav").write_bytes(wav(samples=16384 * 3, rate=rate, fill=0.05))
            outcome = run(world, folder, _dub("clip.mkv", "../out/film.mkv"), output=folder / "out" / "film.mkv")
            silent = "speech" not in outcome.said.replace("speech.wav", "")
            return Outcome(outcome.code, outcome.said, (*outcome.faults, *([Fault("message", "longer speech is cut without a word")] if silent else ())))

        return Case("media", f"longer speech at {rate} Hz, {frames} frames", act, OK)

    def unmarked(world: World) -> Outcome:
        folder = world.sandbox()
        _with_good(world, folder)
        output = folder / "out" / "film.mp4"
        outcome = run(world, folder, _dub("clip.mp4"), output=output)
        said = ""
        if outcome.code == EXIT_OK:
            with av.open(str(output)) as film:
                said = film.metadata.get("comment", "")
        synthetic = "mouth in this film is synthetic" in said
        return Outcome(outcome.code, outcome.said, (*outcome.faults, *([Fault("message", f"no frame is dubbed, and the film says: {said}")] if synthetic else ())))

    return [
        Case("command", "a dub that is told to end leaves no hidden file", told_to_end, OK),
        *(longer_speech(rate, frames) for rate, frames in ((16000, 25), (48000, 8), (48000, 16))),
        Case("media", "a film without any dubbed frame is not marked", unmarked, OK),
    ]


KNOWN_FILES: tuple[Case, ...] = (
    *_playlists(), *_sounds(), *_films(), *_names(), *_overwritten(), *_escapes(), *_options(), *_stores(), *_endings(),
)  # fmt: skip
