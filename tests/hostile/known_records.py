"""Receipts, audit logs and keys that a person is asked to check: changed, endless, deep, or no such file at all."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.provenance.credential import KEY_FILE
from gateway.signatures import KEY_FILE as SIGNING
from tests.hostile.bases import ACTOR
from tests.hostile.case import NOT_DONE, Case, Fault, Outcome
from tests.hostile.commands import run
from tests.hostile.lines import OK, WRONG, command_line
from tests.hostile.records import AUDIT_LINES, CHANGED, PLACES, RECORDS, damaged_log, good_receipt, hostile_record
from tests.hostile.world import World

VERIFY = (["receipt", "verify"], ["audit", "verify"])
NOT_SOUND = CHANGED | WRONG
Put = Callable[[Path], object]
NO_FILES = ("huge", "an empty folder", "a pipe", "an endless device", "a loop of links")
_DIFFERENT = ("of another installation", "a folder of other keys")


def _records() -> list[Case]:
    """Receipts and exported logs that are none."""

    def case(line: list[str], kind: str) -> Case:
        def put(world: World, folder: Path) -> list[str]:
            good_receipt(folder)
            return [*line, str(hostile_record(folder / "cwd" / "record", kind, Random(kind))), "--key", "public.pem"]

        return command_line(f"{' '.join(line)}: {kind}", put, WRONG if kind in PLACES else NOT_SOUND)

    return [case(line, kind) for line in VERIFY for kind in (*RECORDS, *PLACES)]


def _pem_public(key: object) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _pem_private(password: bytes = b"") -> bytes:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


def _many(folder: Path) -> None:
    folder.mkdir()
    for number in range(50):
        (folder / f"{number}.pem").write_bytes(_pem_public(Ed25519PrivateKey.generate()))


def _huge(file: Path) -> None:
    file.touch()
    os.truncate(file, 5 << 30)


def _folder_with_pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "key.pem")


KEYS: dict[str, Put] = {
    "of another installation": lambda file: file.write_bytes(_pem_public(Ed25519PrivateKey.generate())),
    "a folder of other keys": _many,
    "a private key": lambda file: file.write_bytes(_pem_private()),
    "encrypted": lambda file: file.write_bytes(_pem_private(b"secret")),
    "an RSA key": lambda file: file.write_bytes(_pem_public(generate_private_key(65537, 2048))),
    "text": lambda file: file.write_text("no key\n"),
    "empty": lambda file: file.touch(),
    "noise": lambda file: file.write_bytes(Random(1).randbytes(5000)),
    "a block of nothing": lambda file: file.write_text("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"),
    "huge": _huge,
    "an empty folder": lambda file: file.mkdir(),
    "a folder with a pipe": _folder_with_pipe,
    "a pipe": os.mkfifo,
    "an endless device": lambda file: file.symlink_to("/dev/zero"),
    "a loop of links": lambda file: file.symlink_to(file.name),
    "a link to nowhere": lambda file: file.symlink_to("nowhere"),
}
"""Keys to check with, or files in the place of a key of the installation."""


def _keys() -> list[Case]:
    def check(kind: str) -> Case:
        def put(world: World, folder: Path) -> list[str]:
            good_receipt(folder)
            KEYS[kind](folder / "cwd" / "key")
            return ["receipt", "verify", "record.json", "--key", "key"]

        return command_line(f"receipt verify, the key is {kind}", put, CHANGED if kind in _DIFFERENT else WRONG, "key")

    def own(line: Sequence[str], name: str, kind: str) -> Case:
        def put(world: World, folder: Path) -> list[str]:
            KEYS[kind](folder / "data" / name)
            world.shelf.copy("clip.mp4", folder / "cwd")
            (folder / "cwd" / "record.json").write_text(json.dumps({"subject": "Ann"}))
            return list(line)

        return command_line(f"{' '.join(line)}, {name} is {kind}", put, NOT_DONE, name, surface="store")

    def signer(kind: str) -> Case:
        def put(world: World, folder: Path) -> list[str]:
            record = {"subject": "A", "granted_by": "A", "scope": "s", "date": "2026-02-01", "reference": "r"}
            (folder / "cwd" / "record.json").write_text(json.dumps(record))
            KEYS[kind](folder / "cwd" / "key")
            return ["consent", "sign", "record.json", "--key", "key", "-o", "../out/signed.json"]

        return command_line(f"consent sign, the key is {kind}", put, WRONG, "key")

    damaged = ("empty", "noise", "an RSA key", "encrypted", *NO_FILES)
    return [
        *(check(kind) for kind in KEYS),
        *(own(["receipt", "key"], SIGNING, kind) for kind in damaged),
        *(own(["audit", "export", "log.jsonl"], SIGNING, kind) for kind in ("a pipe", "empty")),
        *(own(["inspect", "clip.mp4"], KEY_FILE, kind) for kind in damaged),
        *(signer(kind) for kind in ("an RSA key", "encrypted", *NO_FILES)),
    ]


def _outputs() -> list[Case]:
    """Places where a key or an exported log cannot be written, and may not replace what lies there."""
    names = ("taken", "folder", "loop", "dangling", "pipe", "taken/x", "/dev/null", "/dev/full/x", "/proc/x", "x" * 300)

    def case(name: str, line: list[str]) -> Case:
        def act(world: World) -> Outcome:
            folder = world.sandbox()
            place = folder / "cwd"
            (place / "taken").write_text("somebody's work")
            (place / "folder").mkdir()
            (place / "loop").symlink_to("loop")
            (place / "dangling").symlink_to("nowhere")
            os.mkfifo(place / "pipe")
            before = sorted(place.iterdir())
            outcome = run(world, folder, line)
            if (place / "taken").read_text() != "somebody's work" or sorted(place.iterdir()) != before:
                return outcome.adding([Fault("outside", f"the folder was changed: {sorted(place.iterdir())}")])
            return outcome

        return Case("command", f"{' '.join(line):.60}", act, NOT_DONE, (name[:20],))

    lines = (["receipt", "key", "-o"], ["audit", "export"])
    replaced = [case(name, ["audit", "export", name, "--overwrite"]) for name in ("folder", "loop", "dangling", "pipe")]
    return [*(case(name, [*line, name]) for name in names for line in lines), *replaced]


FIELDS_OF_LOG = ("sequence", "previous", "time", "event", "by", "work", "face", "consents", "outputs", "details")


def _logs() -> list[Case]:
    """Damaged entries in the database: told, by `verify` with the number of the entry, and never in the way of other work."""
    texts: dict[str, object] = {
        "no JSON": "no entry",
        "deep": "[" * 100_000,
        "another object": "{}",
        "a list": "[]",
        "fields of other types": json.dumps(dict.fromkeys(FIELDS_OF_LOG, 7)),
        "huge": "x" * 5_000_000,
        "bytes": b"\xff\xfe",
        "empty": "",
    }
    told = dict.fromkeys(("audit list", "audit list --json"), OK)

    def case(line: Sequence[str], name: str, change: str, value: object) -> Case:
        bytes_are_told = NOT_DONE  # SQLite holds bytes where a text belongs: the whole database counts as damaged
        allowed = bytes_are_told if isinstance(value, bytes) else told.get(" ".join(line), CHANGED)
        return damaged_log(line, change, value, f"{' '.join(line)}: {name}", allowed)

    gone = [
        damaged_log(line, "delete from audit_log where sequence = 1", None, f"{' '.join(line)}: the first entry is gone", allowed)
        for line, allowed in ((["audit", "verify"], CHANGED), (["audit", "list"], OK))
    ]
    return [
        *(
            case(line, name, "update audit_log set line = ? where sequence = 1", value)
            for line in AUDIT_LINES
            for name, value in texts.items()
            if "--json" not in line or name in ("deep", "fields of other types")
        ),
        *gone,
        *(
            damaged_log(["actor", "erase", ACTOR], change, value, f"actor erase: {name}", OK | NOT_DONE)
            for name, change, value in (
                ("every entry is no JSON", "update audit_log set line = ?", "no entry"),
                ("every digest is bytes", "update audit_log set digest = ?", b"\xff"),
                ("the table is gone", "drop table audit_log", None),
            )
        ),
    ]


KNOWN_RECORDS: tuple[Case, ...] = (*_records(), *_keys(), *_outputs(), *_logs())
