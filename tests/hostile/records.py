"""Records that can be checked (receipts, exported audit logs, signed videos) and the commands that check them."""

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

from gateway.actors.receipts import ErasureReceipt, SweptPlace, signed
from gateway.provenance.credential import installation_credential
from gateway.signatures import installation_key
from tests.hostile.case import EXIT_OK, NOT_DONE, TOLD, Case, Outcome
from tests.hostile.commands import ANSWERS, run
from tests.hostile.media import hostile_file
from tests.hostile.stores import damaged, with_bad_database, wrong_column
from tests.hostile.world import World

CHANGED = frozenset({"exit 3"})
"""The file that was given to be checked was changed, cut or forged."""
UNSIGNED = frozenset({"exit 4"})
"""`inspect` of a video without a manifest."""
AUDIT_LINES: Sequence[Sequence[str]] = (
    *(["audit", "list"], ["audit", "list", "--json"], ["audit", "verify"], ["audit", "export", "log.jsonl"]),
)
RECEIPT_FIELDS = ("format", "actor_id", "erased_at", "erased", "kept", "looked_at", "out_of_reach", "key", "signature")
FORMAT = "dubstage erasure receipt 2"
PLACES = ("a pipe", "a folder", "a loop of links", "missing", "an endless device")
"""Paths that are no file with a record."""


def good_receipt(folder: Path) -> Path:
    """A receipt of the installation in a sandbox, and the installation's public key."""
    (folder / "cwd" / "public.pem").write_text(installation_key(folder / "data").public_pem)
    receipt: ErasureReceipt = signed(
        installation_key(folder / "data"),
        "ann",
        erased={"bank": ["0" * 64], "footage": [f"{number:064x}" for number in range(20)]},
        kept={},
        looked_at=[SweptPlace("artefact store", 4)],
        out_of_reach=["backups"],
    )
    file = folder / "cwd" / "record.json"
    file.write_text(receipt.to_json())
    return file


def _receipt(**fields: object) -> str:
    return json.dumps({**dict.fromkeys(RECEIPT_FIELDS, ""), "format": FORMAT, **fields})


def _nested_key(rng: Random) -> str:
    """A receipt whose key is a list in a list, as deep as JSON is read, or nearly so."""
    depth = rng.randrange(850, 1000)
    return _receipt(key="KEY").replace('"KEY"', "[" * depth + "]" * depth)


RECORDS: dict[str, Callable[[Random], str | bytes]] = {
    "deep": lambda rng: "[" * 100_000 + "]" * 100_000,
    "deep objects": lambda rng: '{"a":' * 50_000 + "1" + "}" * 50_000,
    "a deep key": _nested_key,
    "many empty objects": lambda rng: f"[{'{},' * 15_000_000}1]",
    "many fields": lambda rng: "{" + ",".join(f'"{number:x}":1' for number in range(3_000_000)) + "}",
    "a huge text": lambda rng: _receipt(actor_id="x" * 60_000_000),
    "many digests": lambda rng: _receipt(erased={"bank": [f"{number:064x}" for number in range(500_000)]}),
    "a huge number": lambda rng: _receipt(key="KEY").replace('"KEY"', "9" * 100_000),
    "a long number": lambda rng: _receipt(key="KEY").replace('"KEY"', "9" * 4_000),
    "nan": lambda rng: _receipt(looked_at="KEY").replace('"KEY"', "NaN"),
    "a field twice": lambda rng: _receipt().replace("{", '{"key": 1, ', 1),
    "an unpaired surrogate": lambda rng: _receipt(key="\ud800", signature="\udfff"),
    "escape codes": lambda rng: _receipt(key="\x1b[2J\x07[/]"),
    "an old receipt with a surrogate": lambda rng: json.dumps(
        {"actor_id": "a", "erased_sha256": [], "kept_sha256": [], "erased_at": "x", "signature": "\ud800"}
    ),
    "types": lambda rng: _receipt(**{rng.choice(RECEIPT_FIELDS): rng.choice((None, 1, [], {}, True, 1e308))}),
    "a list": lambda rng: "[]",
    "null": lambda rng: "null",
    "no text": lambda rng: b"\xff\xfe\x00",
    "a byte order mark": lambda rng: b"\xef\xbb\xbf{}",
    "zeros": lambda rng: bytes(100_000),
    "a head alone": lambda rng: '{"head":{"digest":"","exported_at":"","format":"","key":"","sequence":0},"signature":""}',
    "a head of nothing": lambda rng: '{"head":7,"signature":7}',
    "a head with a deep key": lambda rng: '{"head":{"key":' + "[" * 900 + "]" * 900 + "}}",
    "two heads": lambda rng: '{"head":{},"signature":""}\n{"head":{},"signature":""}\n',
    "line breaks": lambda rng: "\n" * 100_000,
    "a line without an end": lambda rng: '{"event":"' + "x" * 1_000_000,
}
"""Receipts and exported logs that are none, or hardly one. Each is given to both commands."""


def hostile_record(path: Path, kind: str, rng: Random) -> Path:
    """A hostile record of one of the kinds of RECORDS, or of PLACES."""
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "a loop of links":
            path.symlink_to(path.name)
        case "an endless device":
            path.symlink_to("/dev/zero")
        case "missing":
            pass
        case _:
            data = RECORDS[kind](rng)
            path.write_bytes(data if isinstance(data, bytes) else data.encode(errors="surrogatepass"))
    return path


def damaged_log(line: Sequence[str], change: str, value: object, name: str, allowed: frozenset[str]) -> Case:
    """A command at a database whose audit log was changed by a statement."""

    def act(world: World) -> Outcome:
        folder = world.kept.copy(world, world.sandbox())
        with closing(sqlite3.connect(folder / "data" / "actors.sqlite")) as database, database:
            database.execute(change, (value,) if "?" in change else ())
        return run(world, folder, line, DUBSTAGE_ARTEFACTS_URL=str(folder / "artefacts"))

    return Case("store", name, act, allowed)


def _changed_receipt(rng: Random) -> Case:
    seed = rng.getrandbits(64)

    def act(world: World) -> Outcome:
        own, folder = Random(seed), world.sandbox()
        file = good_receipt(folder)
        before = json.loads(file.read_bytes())
        what = damaged(file, own)
        try:
            same = json.loads(file.read_bytes()) == before
        except (ValueError, RecursionError):
            same = False
        outcome = run(world, folder, ["receipt", "verify", file.name, "--key", "public.pem"])
        ended = outcome.code if not same or outcome.code != EXIT_OK else "exit 3"  # spaces do not count
        return Outcome(ended, f"{what}: {outcome.said}", outcome.faults)

    return Case("command", f"receipt verify after damage, seed {seed}", act, CHANGED)


def _changed_log(rng: Random) -> Case:
    line = list(rng.choice(AUDIT_LINES))
    seed = rng.getrandbits(64)

    def damage(file: Path, own: Random) -> str:
        table = own.choice(("audit_log", "audit_people", "audit_faces"))
        return damaged(file, own) if own.random() < 0.2 else wrong_column(file, own, table)

    name = f"{' '.join(line)} after damage to the log, seed {seed}"
    return Case("store", name, with_bad_database(line, seed, damage), ANSWERS | CHANGED)


def _hostile_record(rng: Random) -> Case:
    line = rng.choice((["receipt", "verify"], ["audit", "verify"], ["audit", "verify", "--since"]))
    kind, seed = rng.choice((*RECORDS, *PLACES)), rng.getrandbits(32)

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        good_receipt(folder)
        file = hostile_record(folder / "cwd" / "record", kind, Random(seed))
        return run(world, folder, [*line, str(file), "--key", "public.pem"])

    return Case("command", f"{' '.join(line)} with {kind}, seed {seed}", act, NOT_DONE | CHANGED)


def _inspected(rng: Random) -> Case:
    seed, options = rng.getrandbits(64), rng.choice(([], ["--json"], ["--no-watermark"]))

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        # With a key of its own, the installation looks for its watermark in every face.
        installation_credential(folder / "data")
        file = hostile_file(world.shelf, folder / "cwd", Random(seed))
        return run(world, folder, ["inspect", *options, "--", os.fsdecode(os.path.join(".", file.name))])

    return Case("media", f"inspect {' '.join(options)} seed {seed}", act, TOLD | CHANGED | UNSIGNED)


def record_case(rng: Random) -> Case:
    """A receipt, a log or a video to be checked that is hostile."""
    kinds: Sequence[Callable[[Random], Case]] = (_inspected, _changed_log, _changed_receipt, _hostile_record)
    return rng.choices(kinds, (4.0, 2.0, 1.0, 1.0))[0](rng)
