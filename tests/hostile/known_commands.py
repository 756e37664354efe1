"""Command lines and stores that once overwrote, escaped, hung, or ended in "this should not happen"."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

from services.common.store.artefacts import OWNER
from tests.hostile.bases import ACTOR
from tests.hostile.case import ANSWERED, EXIT_OK, EXIT_PERSON, EXIT_WRONG, NOT_DONE, TOLD, Case, Fault, Outcome
from tests.hostile.children import SHARES_THE_STORE
from tests.hostile.commands import ANSWERS, CONSENTS, consent_file, run
from tests.hostile.lines import OK, WRONG, Prepare, command_line, dub_line, good_files
from tests.hostile.shelf import MediaShelf
from tests.hostile.stores import damaged, journal_entry, resumed_case
from tests.hostile.videos import over_the_api
from tests.hostile.world import World


def _overwritten() -> list[Case]:
    """Files that lie at the path of the output."""

    def case(name: str, arguments: Callable[[World, Path], list[str]], kept: str, says: str) -> Case:
        def act(world: World) -> Outcome:
            folder = world.sandbox()
            place = good_files(world, folder)
            (place / "thesis.mp4").write_text("somebody's work")
            os.symlink("loop.mp4", place / "loop.mp4")
            before = (place / kept).read_bytes() if kept != "loop.mp4" else b""
            outcome = run(world, folder, arguments(world, place))
            if kept == "loop.mp4" and not (place / kept).is_symlink():
                return outcome.adding([Fault("outside", "the loop of symlinks was replaced")])
            if kept != "loop.mp4" and (place / kept).read_bytes() != before:
                return outcome.adding([Fault("outside", f"{kept} was overwritten")])
            return outcome

        return Case("command", name, act, WRONG, (says,))

    def live(world: World, folder: Path) -> list[str]:
        gateway = world.servers.addresses["gateway"]
        return ["live", ACTOR, "--audio", "speech.wav", "-o", "speech.wav", "--fast", "--gateway", gateway]

    def dub(output: str) -> Callable[[World, Path], list[str]]:
        return lambda world, folder: dub_line("clip.mp4", output)

    return [
        case("dub -o the speech", dub("speech.wav"), "speech.wav", "speech.wav"),
        case("dub -o the speech by another name", dub("../cwd/./speech.wav"), "speech.wav", "speech.wav"),
        case("dub -o the footage", dub("clip.mp4"), "clip.mp4", "clip.mp4"),
        case("live -o the speech", live, "speech.wav", "speech.wav"),
        case("dub -o a file that is no video", dub("thesis.mp4"), "thesis.mp4", "--overwrite"),
        case("dub -o a loop of symlinks", dub("loop.mp4"), "loop.mp4", "loop.mp4"),
    ]


def _escapes() -> list[Case]:
    """Symbolic links in the media folder that lead out of it."""

    def partial(world: World) -> Outcome:
        def recipe(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
            for name in (".dubbed.partial.mkv", "..dubbed.mkv.partial", ".dubbed.mkv.partial"):
                (folder / name).symlink_to(outside)
            return shelf.copy("clip.mp4", folder)

        outside = world.sandbox() / "outside"
        outside.write_bytes(b"somebody's work")
        outcome = over_the_api(world, Random("partial"), recipe, speech=False)
        changed = outside.read_bytes() != b"somebody's work"
        return outcome.adding([Fault("outside", "written through a symbolic link")] if changed else [])

    def link(name: str, uri: str, field: str) -> Case:
        def act(world: World) -> Outcome:
            from tests.hostile.bases import dubbing
            from tests.hostile.rpcs import send

            folder, place = world.sandbox(), world.servers.media / f"case-{name}"
            world.shelf.copy("clip.mp4", folder / "out")
            place.mkdir()
            try:
                (place / "out").symlink_to(folder / "out")
                (place / "video.mp4").symlink_to(folder / "out" / "clip.mp4")
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
        link("through-a-folder", "out/video.mp4", "output_uri"),
        link("to-a-video", "video.mp4", "output_uri"),
        link("a-loop", "loop.mp4", "output_uri"),
        link("footage-elsewhere", "video.mp4", "footage_uri"),
    ]


def _options() -> list[Case]:
    def good(*more: str, output: str = "../out/video.mp4") -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            good_files(world, folder)
            return dub_line("clip.mp4", output, *more)

        return put

    def consent(kind: str) -> Prepare:
        def put(world: World, folder: Path) -> list[str]:
            place = good_files(world, folder)
            record = consent_file(place / "consent.json", kind, Random(kind))
            return dub_line("nowhere.mp4", "../out/video.mp4", f"--consent={record}")

        return put

    def lines(*line: str) -> Prepare:
        return lambda world, folder: list(line)

    reports = ("x" * 300, "clip.mp4", "/proc/report", "/dev/null/x", "clip.mp4/x")
    consents = (*(kind for kind in CONSENTS if kind not in ("markup", "escape codes")), "fifo", "folder", "/dev/zero", "loop")
    return [
        *(command_line(f"a report: {name!r:.20}", good(f"--report={name}"), WRONG, "report") for name in reports),
        *(command_line(f"--seed {seed}", good(f"--seed={seed}"), NOT_DONE) for seed in (-1, 2**63, 2**64, 10**40)),
        *(case for name in NO_FOLDERS for case in _data_folder(name, good())),
        *(command_line(f"{count} threads", good(), ANSWERS, DUBSTAGE_COMPUTE_THREADS=count) for count in ("100000", "-1", "0")),
        *(command_line(f"a consent file: {kind}", consent(kind), WRONG, "consent") for kind in consents),
        command_line("live to sound", lines("live", "nobody", "--audio", "nowhere.wav", "-o", "x.wav"), NOT_DONE),
        command_line("a store of another database", good(), NOT_DONE, "belongs to another database", **{SHARES_THE_STORE: ""}),
        command_line("an endpoint as host", lines("dub", "clip.mp4", "-o", "video.mp4", "--stages", "localhost:51051"), ANSWERS),
    ]


NO_FOLDERS = ("/dev/null", "/proc/x", "/dev/full/x", "/etc/passwd", "x" * 300)


def _data_folder(name: str, dub: Prepare) -> list[Case]:
    """Commands with a data folder that is none."""
    setting = "DUBSTAGE_DATA_DIR"
    lines: list[tuple[str, Prepare, frozenset[str], tuple[str, ...]]] = [
        ("dub", dub, NOT_DONE, (setting,)),
        ("actor list", lambda world, folder: ["actor", "list"], NOT_DONE, (setting,)),
        ("doctor", lambda world, folder: ["doctor"], frozenset({"exit 1"}), ()),
        ("jobs list", lambda world, folder: ["jobs", "list"], NOT_DONE | OK, (setting,)),
    ]
    place = {setting: name}
    return [command_line(f"{line} with data folder {name:.20}", put, ends, *says, **place) for line, put, ends, says in lines]


def _stores() -> list[Case]:
    def broken(name: str, line: list[str], damage: Callable[[Path], None], allowed: frozenset[str], *says: str) -> Case:
        def act(world: World) -> Outcome:
            folder = world.kept.copy(world, world.sandbox())
            damage(folder)
            return run(world, folder, line, DUBSTAGE_ARTEFACTS_URL=str(folder / "artefacts"))

        return Case("store", f"{' '.join(line)}: {name}", act, allowed, says)

    def page(folder: Path) -> None:
        file = folder / "data" / "actors.sqlite"
        with closing(sqlite3.connect(file)) as database:
            (root,) = database.execute("select rootpage from sqlite_master where name = 'actors'").fetchone()
        data = bytearray(file.read_bytes())
        data[(root - 1) * 4096 : root * 4096] = bytes(4096)
        file.write_bytes(data)

    def cut(folder: Path) -> None:
        os.truncate(folder / "data" / "actors.sqlite", 5000)

    def noise(folder: Path) -> None:
        (folder / "data" / "actors.sqlite").write_bytes(b"\xff" * 20_000)

    def bytes_as_id(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "data" / "actors.sqlite")) as database, database:
            database.execute("update actors set actor_id = ?", (b"\xff\xfe",))

    def empty_revision(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "data" / "actors.sqlite")) as database, database:
            database.execute("update alembic_version set version_num = ''")

    def blob(folder: Path) -> None:
        for path in (folder / "artefacts").rglob("*"):
            if path.is_file() and path.name != OWNER:
                path.write_bytes(b"damaged")

    def moved(folder: Path) -> None:
        (folder / "artefacts").rename(folder / "elsewhere")

    lines = (["actor", "list"], ["actor", "show", ACTOR], ["actor", "erase", ACTOR])
    bad = frozenset({EXIT_WRONG, EXIT_PERSON})
    return [
        *(broken(damage.__name__, line, damage, bad, "actors.sqlite") for line in lines for damage in (page, cut, noise)),
        *(broken(damage.__name__, ["doctor"], damage, frozenset({"exit 1"})) for damage in (page, cut, noise)),
        broken("an id of bytes", ["actor", "list"], bytes_as_id, bad | OK),
        broken("an empty revision", ["actor", "list"], empty_revision, bad, "actors.sqlite"),
        broken("every blob damaged", ["actor", "list"], blob, OK),
        broken("the store is gone", ["actor", "list"], moved, TOLD),
        Case("store", "actors.sqlite may be read by its owner alone", _private, OK),
        resumed_case(Random("cut"), _cut_half, "faces.bin"),
        resumed_case(Random("bits"), damaged, "faces.bin"),
        resumed_case(Random("empty"), journal_entry("{}"), "journal/*"),
        resumed_case(Random("no json"), journal_entry("no journal entry"), "journal/*"),
        resumed_case(Random("done"), journal_entry("{}"), "*.done"),
    ]


def _cut_half(path: Path, _: Random) -> str:
    os.truncate(path, path.stat().st_size // 3)
    return "cut short"


def _private(world: World) -> Outcome:
    mode = stat.S_IMODE((world.servers.data / "actors.sqlite").stat().st_mode)
    return Outcome(EXIT_OK, "", (Fault("path", f"actors.sqlite has mode {mode:o}"),) if mode & 0o077 else ())


KNOWN_COMMANDS: tuple[Case, ...] = (*_overwritten(), *_escapes(), *_options(), *_stores())
