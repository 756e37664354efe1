"""The command line surface: hostile names, options, settings and consent files. Hardly any of it gets as far as a computation."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tests.hostile.case import NOT_DONE, TOLD, WRITTEN, Case, Fault, Outcome
from tests.hostile.children import dubstage, files_below, leftovers
from tests.hostile.media import NAMES
from tests.hostile.world import World

CONSENT = {"subject": "Ann", "granted_by": "Ann", "scope": "one video", "date": "2026-02-01", "reference": "folder 3"}
VALUES = (
    "", " ", "-1", "0", "nan", "1e999", "9" * 400, "dubstage", "magic", "largest", "1,2", "-5,1e9", "nan,nan", "[bold]x[/]", "[/]",
    "-", "../../etc", "/dev/null", "/proc/self/mem", "x" * 300, "ü\u202e", "a\nb", "%s%n", "--help", "http://127.0.0.1:9",
    "localhost:51051", "a:b:c", "portrait+dubstage",
)  # fmt: skip
"""Values for any option."""
OPTIONS = {
    "dub": (
        *("--audio", "--method", "--motion", "--renderer", "--actor", "--face", "--codec", "--report", "--consent", "--project"),
        *("--language", "--seed", "--stages"),
    ),
    "actor create": ("--method", "--motion", "--renderer", "--face", "--consent", "--project", "--seed", "--stages"),
    "audit list": ("--actor", "--event", "--limit"),
    "audit verify": ("--key", "--since"),
    "receipt verify": ("--key",),
    "inspect": ("--trust",),
    "live": ("--audio", "--output", "--gateway", "--project", "--language", "--stages"),
    "evaluate": (
        *("--method", "--motion", "--renderer", "--seed", "--result", "--report", "--variants", "--wrong-count"),
        *("--lpips-weights", "--fid-weights", "--stages"),
    ),
}
SETTINGS = {
    "DUBSTAGE_PORT": ("-1", "65536", "x", "", "99999999999999999999"),
    "DUBSTAGE_COMPUTE_THREADS": ("0", "-1", "100000", "x", "1e3", "9" * 30),
    "DUBSTAGE_DATA_DIR": ("/dev/null", "/proc/x", "/dev/full/x", "", "x" * 300, "/etc/passwd", "[bold]"),
    "DUBSTAGE_ARTEFACTS_URL": ("/dev/null", "/proc/x", "http://127.0.0.1:9/x", "file://[x", "nowhere://x", "s3://", "x" * 5000, "memory://x"),
    "DUBSTAGE_DATABASE_URL": ("x", "sqlite:////dev/null", "sqlite:////proc/x.db", "postgresql://127.0.0.1:9/x", "[/]", "nowhere://x"),
    "DUBSTAGE_MEDIA_DIR": ("/dev/null", "/nowhere", "x" * 5000),
    "DUBSTAGE_REQUIRE_CONSENT": ("maybe", "2", "[red]"),
    "DUBSTAGE_STAGES_HOST": ("127.0.0.1:51051", "[x", "a b", "x" * 300, "http://x", "-"),
    "DUBSTAGE_AUDIO_ENDPOINT": ("127.0.0.1:99999", "[x", ":", "x", "unix:/nowhere", "127.0.0.1:9"),
    "DUBSTAGE_WATERMARK": ("maybe", "2", ""),
    "DUBSTAGE_PROVENANCE_CERTIFICATE_FILE": ("/nowhere", "/dev/null", "/dev/zero"),
    "DUBSTAGE_MAX_MESSAGE_BYTES": ("0", "-1", "1", "x"),
    "DUBSTAGE_LOG_LEVEL": ("loud", "[red]"),
    "DUBSTAGE_AUTH_TOKEN_FILE": ("/dev/null", "/nowhere", "/proc/self/mem"),
    "DUBSTAGE_TLS_KEY_FILE": ("/nowhere", "/dev/null"),
    "DUBSTAGE_STAGE_DEADLINE_S": ("nan", "inf", "0", "-1", "1e400"),
    "DUBSTAGE_STAGES_TOKEN_FILE": ("/nowhere", "/dev/null"),
    "HOME": ("", "/nowhere", "/dev/null"),
    "TMPDIR": ("/nowhere",),
    "LANG": ("C", "x" * 300),
    "COLUMNS": ("0", "x", "1", "99999999"),
}  # fmt: skip
"""Hostile values of the environment."""
BESIDE, SOMEBODYS = "beside", b"somebody's work"
"""Folder of each sandbox in which no command has anything to write, and the content of its file."""
OWN_NAMES = frozenset({"cwd", "home", "tmp", "out", "data", "artefacts", BESIDE, "stdout", "stderr", "result"})
"""Names in a sandbox: no other case writes there."""
ANSWERS = TOLD | {"exit 1", "exit 20"}
"""`doctor` ends with 1 where a dub would fail; a stage or a store that is not there is worth another try (20)."""


CHECKED = frozenset({"exit 3", "exit 4"})
"""`inspect`, `audit verify` and `receipt verify` of what was changed, and `inspect` of what is not signed."""
LINES: tuple[Sequence[str], ...] = (
    ["doctor"], ["actor", "list"], ["actor", "show", "ann"], ["actor", "erase", "ann"], ["dub", "text.mp4", "-o", "x.mp4"],
    ["jobs", "list"], ["serve", "nothing"], ["--version"], ["trainset", "--help"], ["evaluate", "--help"],
    ["live", "ann", "--audio", "text.mp4", "-o", "x.mp4"], ["audit", "list"], ["audit", "verify"], ["audit", "export", "log.jsonl"],
    ["receipt", "key"], ["receipt", "verify", "text.mp4"], ["inspect", "text.mp4"],
)  # fmt: skip
OUTPUTS = ("x.mp4", "x.mov", "x.mkv", "x.avi", "x.wav", "x", "x.txt", "x.m3u8", "x.png", ".mp4", "sub/x.mp4", *NAMES)


def run(
    world: World,
    folder: Path,
    arguments: Sequence[str],
    *,
    output: Path | None = None,
    kept: Sequence[Path] = (),
    **environment: str,
) -> Outcome:
    """A command line with the campaign's stages in a sandbox, and what it left there."""
    beside = folder / BESIDE
    beside.mkdir(exist_ok=True)
    (beside / "video.mp4").write_bytes(SOMEBODYS)
    named = {Path(value).relative_to(folder).parts[0] for value in environment.values() if Path(value).is_relative_to(folder)}
    known = {path.name for path in folder.iterdir()} | named | OWN_NAMES
    outcome = dubstage(arguments, folder, {**world.servers.environment(), **environment})
    faults = [*outcome.faults, *leftovers(folder, outcome, output=output, kept=kept)]
    found = {str(path.relative_to(beside)): path.read_bytes() for path in files_below(beside)}
    if found != {"video.mp4": SOMEBODYS}:
        faults.append(Fault("outside", f"a folder beside those of the command was changed: {sorted(found)}"))
    if strange := sorted({path.name for path in folder.iterdir()} - known):
        faults.append(Fault("outside", f"new files beside the folders of the command: {strange}"))
    if output is not None and outcome.code in WRITTEN and not os.path.lexists(output):
        faults.append(Fault("message", "it says that it succeeded, and wrote nothing"))
    return Outcome(outcome.code, outcome.said, tuple(faults))


def _some(rng: Random, options: Sequence[str]) -> list[str]:
    """One to three of the options."""
    return rng.sample(options, min(len(options), rng.choice((1, 1, 2, 3))))


def option_case(rng: Random) -> Case:
    """Good files, and one to three options with hostile values."""
    command = rng.choice(tuple(OPTIONS))
    given = [(option, rng.choice(VALUES)) for option in _some(rng, OPTIONS[command])]
    # At least one thing is wrong in every line, so that nothing is computed: the footage is missing, or is no video.
    footage = rng.choice(("nowhere.mp4", "text.mp4", "text.mp4"))

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        (folder / "cwd" / "text.mp4").write_text("no video\n" * 50)
        extra = [part for pair in given for part in pair]
        out = folder / "out" / "video.mp4"
        line = {
            "dub": ["dub", footage, "-o", str(out), *extra],
            "actor create": ["actor", "create", "ann", footage, *extra],
            "live": ["live", "nobody", "--audio", footage, "-o", str(out), *extra],
            "evaluate": ["evaluate", footage, *extra],
            "audit list": ["audit", "list", *extra],
            "audit verify": ["audit", "verify", footage, *extra],
            "receipt verify": ["receipt", "verify", footage, *extra],
            "inspect": ["inspect", footage, *extra],
        }[command]
        return run(world, folder, line)

    said = " ".join(f"{option} {value!r:.40}" for option, value in given)
    return Case("command", f"{command} {footage} {said}", act, allowed=ANSWERS | CHECKED)


def setting_case(rng: Random) -> Case:
    """A command that reads settings, with hostile ones."""
    names = rng.sample(tuple(SETTINGS), rng.choice((1, 1, 2)))
    environment = {name: rng.choice(SETTINGS[name]) for name in names}
    line = list(rng.choice(LINES))

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        (folder / "cwd" / "text.mp4").write_text("no video\n" * 50)
        return run(world, folder, line, **environment)

    said = " ".join(f"{name}={value!r:.40}" for name, value in environment.items())
    return Case("command", f"{' '.join(line)} {said}", act, allowed=ANSWERS | CHECKED)


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def _with_wrong(rng: Random, fields: Sequence[str], values: Sequence[object]) -> str:
    return json.dumps({**CONSENT, rng.choice(fields): rng.choice(values)})


CONSENTS: dict[str, Callable[[Random], str | bytes]] = {
    "deep": lambda rng: _deep(rng.choice((2000, 100_000))),
    "deep objects": lambda rng: '{"a":' * 50_000 + "1" + "}" * 50_000,
    "huge": lambda rng: json.dumps({**CONSENT, "scope": "x" * 30_000_000}),
    "huge number": lambda rng: '{"subject": ' + "9" * 100_000 + "}",
    "markup": lambda rng: _with_wrong(rng, tuple(CONSENT), ("[bold]x[/]", "[/]", "[red", "[link=x]")),
    "markup as field": lambda rng: json.dumps({**CONSENT, "[/bold]": "x"}),
    "list": lambda rng: "[]",
    "number": lambda rng: "7",
    "null": lambda rng: "null",
    "nan": lambda rng: "NaN",
    "date": lambda rng: _with_wrong(rng, ("date",), ("0000-01-01", "9999-12-31", "2026-02-30", "nan", "-1", 7, [], None)),
    "types": lambda rng: _with_wrong(rng, tuple(CONSENT), (None, 1, [], {}, True, "", " " * 10, "\u0000")),
    "surrogates": lambda rng: json.dumps({**CONSENT, "subject": "\ud800"}),
    "no text": lambda rng: b"\xff\xfe\x00",
    "byte order mark": lambda rng: b"\xef\xbb\xbf{}",
    "escape codes": lambda rng: json.dumps({**CONSENT, "scope": "\x1b[2J\x07"}),
    "empty": lambda rng: "",
}  # fmt: skip
"""Consent records that are none, or hardly one."""


def consent_case(rng: Random) -> Case:
    """A hostile consent file; the footage is missing, so that nothing is computed."""
    kind = rng.choice((*CONSENTS, "fifo", "folder", "/dev/zero", "/dev/null", "loop"))
    seed = rng.getrandbits(32)
    command = rng.choice((["dub", "nowhere.mp4", "-o", "../out/video.mp4"], ["actor", "create", "ann", "nowhere.mp4"]))

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        path = consent_file(folder / "cwd" / "consent.json", kind, Random(seed))
        return run(world, folder, [*command, "--consent", str(path)])

    return Case("command", f"{command[0]} with a consent file: {kind}", act, allowed=NOT_DONE)


def consent_file(path: Path, kind: str, rng: Random) -> Path:
    """A hostile consent file of one of the kinds of CONSENTS, or one that is no file."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "/dev/zero" | "/dev/null":
            return Path(kind)
        case _:
            data = CONSENTS[kind](rng)
            path.write_bytes(data if isinstance(data, bytes) else data.encode(errors="surrogatepass"))
    return path


def output_case(rng: Random) -> Case:
    """Good footage without a face to outputs, reports and codecs that are hostile: few of them are written."""
    name = rng.choice(OUTPUTS)
    places = ("plain", "plain", "exists", "folder", "loop", "dangling", "to the footage", "to the speech")
    kind = rng.choice((*places, "report is a file", "fifo"))
    codec = rng.choice((None, None, "ffv1", "prores", "h264", "none", "libx264", "png", "[/]", "copy"))

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        footage = world.shelf.copy("clip.mp4", folder / "cwd")
        speech = world.shelf.copy("speech.wav", folder / "cwd")
        canary = {path: path.read_bytes() for path in (footage, speech)}
        output = folder / "out" / name
        kept = _prepared(output, kind, footage, speech)
        line = ["dub", f"./{footage.name}", "--audio", speech.name, f"--output={output}", "--no-personalize"]
        line += ["--codec", codec] if codec else []
        line += ["--report", str(footage)] if kind == "report is a file" else []
        outcome = run(world, folder, line, output=output, kept=kept)
        changed = [path.name for path, data in canary.items() if path.read_bytes() != data]
        return outcome.adding(Fault("outside", f"{name} was changed") for name in changed)

    return Case("command", f"dub -o {name!r:.60} ({kind}, codec {codec})", act, allowed=TOLD)


def _prepared(output: Path, kind: str, footage: Path, speech: Path) -> list[Path]:
    """Puts something where the output is to be written; what may stay there afterwards."""
    try:
        match kind:
            case "exists":
                output.write_bytes(b"somebody's work")
            case "folder":
                output.mkdir()
            case "loop":
                output.symlink_to(output.name)
            case "dangling":
                output.symlink_to("nowhere.mp4")
            case "to the footage":
                output.symlink_to(footage)
            case "to the speech":
                output.hardlink_to(speech)
            case "fifo":
                os.mkfifo(output)
            case _:
                return []
    except OSError:
        return []
    return [output]
