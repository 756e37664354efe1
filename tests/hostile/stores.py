"""Stores that went bad: damaged databases, blobs, job folders and journals, and the commands that read them."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

from gateway.provenance.binding import sidecar_of
from services.common.store.artefacts import OWNER
from tests.hostile.bases import ACTOR
from tests.hostile.case import EXIT_OK, TOLD, Case, Fault, Outcome
from tests.hostile.children import dubstage
from tests.hostile.commands import ANSWERS, run
from tests.hostile.world import World

ACTOR_LINES: Sequence[Sequence[str]] = (
    *(["actor", "list"], ["actor", "show", ACTOR], ["actor", "erase", ACTOR], ["doctor"], ["jobs", "list"]),
)
RESUMED = "resumed"
STOPS = 10
"""Dubs of which at least one can be stopped in the middle."""


class Kept:
    """A data folder with an enrolled person, an artefact store, and a dub that was stopped in the middle: made once, then copied.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frames: bytes = b""
        """The video that the dub makes where nothing is damaged."""

    def make(self, world: World) -> None:
        """Enrol, dub, and stop a second dub in the middle."""
        for name in ("cwd", "home", "tmp", "out", "data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        footage = world.shelf.folder / "footage.mp4"
        enrolled = dubstage(["actor", "create", ACTOR, str(footage), "--no-personalize"], self.folder, environment(world))
        done = dubstage(self.dub(world, self.folder), self.folder, environment(world))
        if (enrolled.code, done.code) != (EXIT_OK, EXIT_OK):
            raise RuntimeError(f"nothing to damage could be made: {enrolled} {done}")
        video = self.folder / "out" / "video.mkv"
        self.frames = video.read_bytes()
        video.unlink()
        sidecar_of(video).unlink()

        def far_enough() -> bool:
            return any((self.folder / "data" / "jobs").glob("*/journal/*"))

        # On a machine that pauses, the dub may end before its signal comes: then the next one is stopped.
        for _ in range(STOPS):
            video.unlink(missing_ok=True)
            dubstage(self.dub(world, self.folder), self.folder, environment(world), stop_when=far_enough)
            if far_enough() and not video.exists():
                break
        else:
            raise RuntimeError("no dub could be stopped in the middle")
        shutil.copytree(world.servers.store, self.folder / "artefacts", ignore=shutil.ignore_patterns(OWNER))

    @staticmethod
    def dub(world: World, folder: Path) -> list[str]:
        """The dub that is stopped, and gone on with."""
        good = world.shelf.folder
        output = folder / "out" / "video.mkv"
        line = ["dub", str(good / "footage.mp4"), "--audio", str(good / "speech.wav"), "--no-personalize", "--codec", "ffv1"]
        return [*line, f"--output={output}"]

    def copy(self, world: World, folder: Path) -> Path:
        """A copy of the data folder and the store in a case's sandbox, without the stopped dub; its database names these."""
        shutil.copytree(self.folder / "data", folder / "data", dirs_exist_ok=True, ignore=shutil.ignore_patterns("jobs"))
        shutil.copytree(self.folder / "artefacts", folder / "artefacts")
        with closing(sqlite3.connect(folder / "data" / "actors.sqlite")) as database, database:
            for table, columns in columns_of(database).items():
                for column in columns:
                    change = f'update "{table}" set "{column}" = replace("{column}", ?, ?) where typeof("{column}") = \'text\''
                    database.execute(change, (str(world.servers.store), str(folder / "artefacts")))
        return folder

    def copy_stopped(self, world: World, folder: Path) -> Path:
        """A copy of the data folder with the stopped dub in a case's sandbox, whose store is that of the stages."""
        shutil.copytree(self.folder / "data", folder / "data", dirs_exist_ok=True)
        # A dub that has ended takes its windows with it: those of the stopped one are put back.
        shutil.copytree(self.folder / "artefacts", world.servers.store, dirs_exist_ok=True)
        return folder


def columns_of(database: sqlite3.Connection) -> dict[str, list[str]]:
    """Columns by table."""
    tables = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
    names = [name for (name,) in database.execute(tables)]
    return {name: [row[1] for row in database.execute(f'pragma table_info("{name}")')] for name in names}


def environment(world: World) -> dict[str, str]:
    """The campaign's stages and their store."""
    return world.servers.environment()


def damaged(path: Path, rng: Random) -> str:
    """Damage one file; says how."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(("bits", "cut", "hole", "empty", "noise", "longer", "head", "json", "text"))
    at = rng.randrange(len(data)) if data else 0
    match kind:
        case "bits":
            for _ in range(rng.choice((1, 8, 200)) if data else 0):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "cut":
            del data[at:]
        case "hole":
            page = at // 4096 * 4096
            data[page : page + 4096] = bytes(len(data[page : page + 4096]))
        case "empty":
            data.clear()
        case "noise":
            data[:] = rng.randbytes(max(1, len(data)))
        case "longer":
            data += rng.randbytes(100)
        case "head":
            data[:100] = bytes(len(data[:100]))
        case "json":
            data[:] = rng.choice(
                (b"{}", b"[]", b"null", b"7", b'{"uri": 7, "sha256": [], "size_bytes": "x"}', b'{"num_frames": -1}', _nested())
            )
        case _:
            data[:] = b"\xff\xfe not a record\n"
    path.write_bytes(data)
    return kind


def _nested() -> bytes:
    return b"[" * 50_000 + b"]" * 50_000


def database_case(rng: Random) -> Case:
    """A damaged actors.sqlite, or wrong columns in it, then a command that reads it."""
    line = list(rng.choice(ACTOR_LINES))
    seed = rng.getrandbits(64)

    def damage(file: Path, own: Random) -> str:
        return damaged(file, own) if own.random() < 0.5 else wrong_column(file, own)

    name = f"{' '.join(line)} after damage to the database, seed {seed}"
    return Case("store", name, with_bad_database(line, seed, damage), allowed=ANSWERS)


def with_bad_database(line: list[str], seed: int, damage: Callable[[Path, Random], str]) -> Callable[[World], Outcome]:
    """Return an act that runs a command beside a damaged actors.sqlite.

    Args:
        line: the command.
        seed: seed of the damage.
        damage: damages the file, and says what was done.
    """

    def act(world: World) -> Outcome:
        folder = world.kept.copy(world, world.sandbox())
        what = damage(folder / "data" / "actors.sqlite", Random(seed))
        outcome = run(world, folder, line, DUBSTAGE_ARTEFACTS_URL=str(folder / "artefacts"))
        return Outcome(outcome.code, f"{what}: {outcome.said}", outcome.faults)

    return act


def wrong_column(file: Path, rng: Random, table: str = "") -> str:
    """Put a value that is none into a column of a table (empty: of any table), or drop the column or the table."""
    with closing(sqlite3.connect(file)) as database, database:
        columns = columns_of(database)
        table = table or rng.choice(tuple(columns))
        column = rng.choice(columns[table])
        value = rng.choice((None, "", "{}", "[]", '{"a":' * 5000, -1, 2**62, b"\xff\xfe", "[/bold]", "x" * 100_000, "nan"))
        change = rng.choice(
            (f'update "{table}" set "{column}" = ?',) * 6
            + (f'drop table "{table}"', f'alter table "{table}" rename column "{column}" to "other"')
        )
        try:
            database.execute("pragma foreign_keys = off")
            database.execute(change, (value,) if "?" in change else ())
        except sqlite3.Error as problem:
            return f"{change} refused: {problem}"
    return f"{change} {value!r:.40}"


def blob_case(rng: Random) -> Case:
    """Damaged or missing blobs of an enrolment, then a command that reads them. The store is a copy of its own."""
    line = list(rng.choice(ACTOR_LINES))
    seed = rng.getrandbits(64)

    def act(world: World) -> Outcome:
        own = Random(seed)
        folder = world.kept.copy(world, world.sandbox())
        store = folder / "artefacts"
        blobs = sorted(path for path in store.rglob("*") if path.is_file())
        for path in own.sample(blobs, min(len(blobs), own.choice((1, 5, 1000)))):
            if own.random() < 0.3:
                path.unlink()
            else:
                damaged(path, own)
        return run(world, folder, line, DUBSTAGE_ARTEFACTS_URL=str(store))

    return Case("store", f"{' '.join(line)} after damage to blobs, seed {seed}", act, allowed=ANSWERS)


def moved_case(rng: Random) -> Case:
    """A store that moved: the database names blobs of another."""
    line = list(rng.choice(ACTOR_LINES))

    def act(world: World) -> Outcome:
        folder = world.kept.copy(world, world.sandbox())
        return run(world, folder, line, DUBSTAGE_ARTEFACTS_URL=str(folder / "elsewhere"))

    return Case("store", f"{' '.join(line)} after the store moved", act, allowed=ANSWERS)


def resumed_case(rng: Random, damage: Callable[[Path, Random], str] = damaged, pattern: str = "") -> Case:
    """A stopped dub of which a record or a journal entry is damaged, gone on with: the same video, or a sentence."""
    seed = rng.getrandbits(64)

    def act(world: World) -> Outcome:
        own = Random(seed)
        folder = world.kept.copy_stopped(world, world.sandbox())
        files = sorted(path for path in (folder / "data" / "jobs").rglob(pattern or "*") if path.is_file() and path.name != "lock")
        chosen = own.choice(files)
        what = f"{chosen.name[:20]} {damage(chosen, own)}"
        outcome = run(world, folder, Kept.dub(world, folder), output=folder / "out" / "video.mkv")
        faults = list(outcome.faults)
        video = folder / "out" / "video.mkv"
        if outcome.code == EXIT_OK and video.exists() and video.read_bytes() != world.kept.frames:
            faults.append(Fault("message", f"another video after {what}, in silence: {outcome.said[-300:]}"))
        return Outcome(outcome.code, f"{what}: {outcome.said}", tuple(faults))

    return Case("store", f"{RESUMED} dub after damage to {pattern or 'a record'}, seed {seed}", act, allowed=TOLD)


def journal_entry(text: str) -> Callable[[Path, Random], str]:
    """A damage that replaces a file's whole text."""

    def replaced(path: Path, _: Random) -> str:
        path.write_text(text)
        return json.dumps(text)[:40]

    return replaced


def store_case(rng: Random) -> Case:
    """A store that went bad."""
    kinds: Sequence[Callable[[Random], Case]] = (database_case, blob_case, moved_case, resumed_case)
    return rng.choices(kinds, (5.0, 2.0, 0.3, 1.0))[0](rng)
