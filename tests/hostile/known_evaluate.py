"""Evaluations of footage that is none, and to places where nothing may be written."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import EXIT_PERSON, EXIT_USAGE, EXIT_WRONG, Case, Fault, Outcome
from tests.hostile.commands import run
from tests.hostile.lines import OK, WRONG
from tests.hostile.media import PLAYLISTS
from tests.hostile.world import World

USAGE = frozenset({EXIT_USAGE})
NO_VIDEO = frozenset({EXIT_WRONG, EXIT_PERSON})
Put = Callable[[Path], object]
"""Changes files of the folder in which the command runs."""


def evaluate_line(*more: str, clip: str = "clip.mp4") -> list[str]:
    return ["evaluate", "--no-personalize", *more, "--", clip]


def _case(name: str, line: list[str], allowed: frozenset[str], *says: str, put: Put = lambda place: None) -> Case:
    """An evaluation that must not change anything in its folder, and leave nothing in others."""

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        place = folder / "cwd"
        world.shelf.copy("talking.mp4", place, "clip.mp4")
        put(place)
        before = _contents(place)
        outcome = run(world, folder, line)
        changed = {path for path, data in (before.items() ^ _contents(place).items())}
        return outcome.adding(Fault("outside", f"{path} was changed") for path in changed)

    return Case("command", f"evaluate {name}", act, allowed, says)


def _contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"no file" for path in paths}


def _footage() -> list[Case]:
    """Footage that is no video, hardly one, or one that cannot be evaluated."""

    def hole(place: Path) -> None:
        data = bytearray((place / "clip.mp4").read_bytes())
        at = data.index(b"mdat") + 200
        data[at : at + 4000] = bytes(4000)
        (place / "clip.mp4").write_bytes(data)

    def playlist(place: Path, kind: str) -> None:
        (place / "secret.mp4").write_bytes((place / "clip.mp4").read_bytes())
        (place / "clip.mp4").write_text(PLAYLISTS[kind].format(name="secret.mp4"))

    def loop(place: Path) -> None:
        (place / "clip.mp4").unlink()
        (place / "clip.mp4").symlink_to("clip.mp4")

    return [
        _case("of text", evaluate_line(), WRONG, "clip.mp4", put=lambda place: (place / "clip.mp4").write_text("no video\n" * 50)),
        _case("of an empty file", evaluate_line(), WRONG, "clip.mp4", put=lambda place: os.truncate(place / "clip.mp4", 0)),
        _case("of half a video", evaluate_line(), WRONG, "clip.mp4", put=lambda place: _halved(place / "clip.mp4")),
        _case("of a video with a hole", evaluate_line("--variants=mean_mouth"), NO_VIDEO | OK, put=hole),
        _case("of a loop of symlinks", evaluate_line(), WRONG, "clip.mp4", put=loop),
        _case("of a device", evaluate_line(clip="/dev/zero"), WRONG, "/dev/zero"),
        _case("of a folder", evaluate_line(clip="."), WRONG),
        _case("of a good video and a bad one", [*evaluate_line(), "nowhere.mp4"], WRONG, "nowhere.mp4"),
        *(
            _case(f"of a playlist: {kind}", evaluate_line(), WRONG, "clip.mp4", put=lambda place, kind=kind: playlist(place, kind))
            for kind in ("m3u8", "concat", "mpd")
        ),
    ]


def _halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _options() -> list[Case]:
    """Options that are refused before the stages hear of the video."""

    def bad(allowed: frozenset[str], *more: str, says: str = "", put: Put = lambda place: None) -> Case:
        name = " ".join(f"{option:.40}" for option in more)
        return _case(name, evaluate_line(*more), allowed, *([says] if says else []), put=put)

    def text(place: Path) -> None:
        (place / "thesis").write_text("somebody's work")

    return [
        *(bad(WRONG | USAGE, f"--seed={seed}", says="seed") for seed in ("-1", "nan", str(2**64))),
        *(bad(WRONG | USAGE, f"--method={name}", says="method") for name in ("magic", "ugc+", "[/]", "")),
        *(bad(WRONG, f"--variants={names}", says="variants") for names in ("", ",", "full,magic", "[/]")),
        *(bad(USAGE, f"--wrong-count={count}", says="wrong-count") for count in ("-1", "9", "1001", "1e3")),
        *(
            bad(WRONG, f"--report={name}", says="report", put=text)
            for name in ("thesis", "thesis/x", "/proc/report", "/dev/null/x", "x" * 300, ".")
        ),
        *(
            bad(WRONG, f"--result={name}", says=name[:20], put=text)
            for name in ("clip.mp4", "thesis", "thesis/x", "/dev/null", "/proc/x.json", ".", "x" * 300)
        ),
        bad(WRONG, "--result=x/figures.json", "--report=x", says="report"),
        bad(WRONG, "--lpips-weights=thesis", says="thesis", put=text),
        *(bad(WRONG, f"--{which}-weights={'x' * 300}", says="do not exist") for which in ("lpips", "fid")),
    ]


KNOWN_EVALUATIONS: tuple[Case, ...] = (*_footage(), *_options())
