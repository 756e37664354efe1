"""A server whose token file is emptied, damaged or taken away while it runs refuses every call, and says why."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from dubstage.client.connection import bearer
from tests.hostile.case import Case, Fault, Outcome
from tests.hostile.children import dubstage
from tests.hostile.commands import run
from tests.hostile.lines import WRONG
from tests.hostile.machine import MACHINE
from tests.hostile.rpcs import send
from tests.hostile.world import UNLIMITED, World

STAGE = "texture"
"""Starts sooner than the others."""
METHODS = ("texture.MatchBackgrounds", "texture.BuildBank", "texture.RetrieveWarp")
"""One of each kind: a message for a message, a stream for a message, a stream for a stream."""
START_S = 180.0
TOKEN, NEXT = "the-first-token", "the-second-token"
EMPTY = "token file is empty or cannot be read"
REFUSED = "UNAUTHENTICATED"
WITHOUT_TOKENS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: os.truncate(file, 0),
    "blank": lambda file: file.write_text(" \n\n\t\n"),
    "comments only": lambda file: file.write_text(f"# {TOKEN}\n"),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "not plain ASCII": lambda file: file.write_text(f"{TOKEN} ü\n"),
    "gone": lambda file: file.unlink(),
    "a folder": lambda file: file.mkdir(),
}
"""Changes of the file, in this order; then no token is accepted."""


def emptied_while_it_serves(world: World) -> Outcome:
    """A stage of its own refuses its token while the file holds none, and accepts a new one without a restart."""
    folder = world.sandbox()
    file, ready = folder / "home" / "tokens", folder / "home" / "ready"
    file.write_text(f"{TOKEN}\n")
    over = threading.Event()
    ended: list[Outcome] = []
    environment = {
        "DUBSTAGE_PORT": "0",
        "DUBSTAGE_AUTH_TOKEN_FILE": str(file),
        "DUBSTAGE_READY_FILE": str(ready),
        "DUBSTAGE_DRAIN_GRACE_S": "0",
        "DUBSTAGE_ARTEFACTS_URL": str(world.servers.store),
    }

    def serve() -> None:
        ended.append(dubstage(["serve", STAGE], folder, environment, stop_when=over.is_set))

    server = threading.Thread(target=serve)
    server.start()
    try:
        begun = time.monotonic()
        while not ready.exists():
            if not server.is_alive() or time.monotonic() - begun > MACHINE.bound(START_S, since=begun):
                break
            time.sleep(0.05)
        if not ready.exists():
            return Outcome("not started", "", (Fault("campaign", "the stage with a token did not start"),))
        with grpc.insecure_channel(ready.read_text().strip(), [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]) as channel:
            refused = _refusals(world, channel, file)
    finally:
        over.set()
        server.join()
    faults = [*refused.faults, *ended[0].faults]
    if ended[0].code != "exit 0":
        faults.append(Fault("crash", f"the stage ended with {ended[0].code}: {ended[0].said[-300:]}"))
    for token in (TOKEN, NEXT):
        if token in ended[0].said:
            faults.append(Fault("message", f"a token is in the log: {ended[0].said[-300:]}"))
    return Outcome(refused.code, refused.said, tuple(faults))


def _refusals(world: World, channel: grpc.Channel, file: Path) -> Outcome:
    """Check the answers of a server while its token file holds tokens, holds none, and holds one again."""
    faults: list[Fault] = []

    def ask(when: str, token: str, names: Sequence[str], code: str, says: str = "") -> Outcome:
        for name in names:
            data = [message.SerializeToString() for message in world.bases[name][0]]
            outcome = send(world, world.rpcs[name], data, channel=channel, metadata=[bearer(token)])
            faults.extend(outcome.faults)
            if outcome.code != code or says not in outcome.said:
                faults.append(Fault("code", f"{name}, {when}: {outcome.code}, not {code} {says!r}: {outcome.said[:300]}"))
            if str(file) in outcome.said:
                faults.append(Fault("path", outcome.said[:300]))
        return outcome

    ask("with its token", TOKEN, METHODS, "OK")
    for when, change in WITHOUT_TOKENS.items():
        change(file)
        refused = ask(when, TOKEN, METHODS, REFUSED, EMPTY)
    ask("without a token file", TOKEN, ["Health.Check"], REFUSED, EMPTY)
    file.rmdir()
    file.write_text(f"{NEXT}\n")
    health = world.rpcs["Health.Check"].callable(channel)(b"", timeout=MACHINE.bound(START_S), metadata=[bearer(NEXT)])
    if health.status != health_pb2.HealthCheckResponse.SERVING:
        faults.append(Fault("code", "the stage does not serve any more"))
    ask("after a new token", NEXT, METHODS, "OK")
    ask("after a new token", TOKEN, METHODS[:1], REFUSED, "not one that this server accepts")
    return Outcome(refused.code, refused.said, tuple(faults))


def empty_from_the_start(variable: str, *line: str) -> Case:
    """A command that reads an empty token file says so before it does anything."""

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        (folder / "cwd" / "tokens").touch()
        world.shelf.copy("talking.mp4", folder / "cwd", "clip.mp4")
        return run(world, folder, line, DUBSTAGE_PORT="0", **{variable: "tokens"})

    return Case("command", f"{' '.join(line[:2])} with an empty {variable}", act, WRONG, ("tokens", "holds no token"))


KNOWN_TOKENS: tuple[Case, ...] = (
    Case("rpc", "the emptied token file", emptied_while_it_serves, frozenset({REFUSED}), (REFUSED, "authorization", EMPTY)),
    empty_from_the_start("DUBSTAGE_AUTH_TOKEN_FILE", "serve", STAGE),
    empty_from_the_start("DUBSTAGE_STAGES_TOKEN_FILE", "evaluate", "clip.mp4", "--no-personalize"),
)
