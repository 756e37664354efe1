"""The surface of timelines and dubbing scripts: damaged and lying files for `dubstage batch from-timeline`."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Final

import opentimelineio as otio

from tests.hostile.case import TOLD, Case, Outcome
from tests.hostile.commands import run
from tests.hostile.shelf import MediaShelf
from tests.hostile.world import World

RATE: Final = 25
CLIP: Final = "talking.mp4"
_EDL: Final = """TITLE: night
FCM: NON-DROP FRAME

001  TALKING  V     C        00:00:00:00 00:00:01:00 01:00:00:00 01:00:01:00
* FROM CLIP NAME: talking.mp4
002  TALKING  V     C        00:00:01:00 00:00:02:00 01:00:01:00 01:00:02:00
* FROM CLIP NAME: talking.mp4
"""
_FCPXML: Final = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.9"><resources><format id="r1" frameDuration="100/2500s"/>
<asset id="r2" name="talking" start="0s" duration="70/25s" format="r1"><media-rep src="file:///m/talking.mp4"/></asset>
</resources><library><event><project name="night"><sequence format="r1" tcStart="3600s" tcFormat="NDF"><spine>
<asset-clip ref="r2" name="a" offset="3600s" start="0s" duration="1s"/>
<asset-clip ref="r2" name="b" offset="3601s" start="1s" duration="1s"/>
</spine></sequence></project></event></library></fcpxml>
"""
_CSV: Final = """start,language,id,speaker,face,speech,text
01:00:00:05,de,one,ADA,largest,speech.wav,Hallo
01:00:01:00,de,two,ADA,largest,speech.wav,Und?
"""
_SRT: Final = """1
00:00:00,200 --> 00:00:00,800
ADA: Hallo

2
00:00:01,000 --> 00:00:01,400
ADA: Und?
"""
_DAPT: Final = """<?xml version="1.0"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttm="http://www.w3.org/ns/ttml#metadata" xml:lang="de"
    xmlns:ttp="http://www.w3.org/ns/ttml#parameter" ttp:frameRate="25" ttp:timeBase="media"
    xmlns:daptm="http://www.w3.org/ns/ttml/profile/dapt#metadata" daptm:scriptType="dubbing"
    daptm:scriptRepresents="audio.dialogue">
<head><metadata><ttm:agent type="character" xml:id="c1"><ttm:name type="alias">ADA</ttm:name></ttm:agent></metadata></head>
<body><div xml:id="e1" begin="0.2s" end="0.8s" ttm:agent="c1">
<p xml:lang="de"><audio src="speech.wav" type="audio/wave"/>Hallo</p></div>
</body></tt>
"""
SCRIPTS: Final[Mapping[str, str]] = {"script.csv": _CSV, "script.srt": _SRT, "script.ttml": _DAPT}
_NUMBERS: Final = ("-1", "0", "1e999", "nan", "Infinity", "99999999999999999999999", "1/0", "0/0", "-1/25", "00:00:99:99",
                   "25:61:61:77",                    "01:00:00;00", "", "0x10", "1_000", "\u0661\u0662", "1.5.2")  # fmt: skip
_STRANGE: Final = ("", "../../etc/passwd", "\0", "\u202e", "x" * 100_000, "[bold]", "%s%n", "{language}", "/dev/zero", "\u00e9")
_ENTITIES: Final = "".join(f'<!ENTITY {chr(99 + n)} "{f"&{chr(98 + n)};" * 10}">' for n in range(9))
_BOMB: Final = f'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">{_ENTITIES}]>'
_OUTSIDE: Final = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'


def _otio_text() -> str:
    """Return a timeline of two clips as OpenTimelineIO writes it."""

    def time(frames: int) -> otio.opentime.RationalTime:
        return otio.opentime.RationalTime(frames, RATE)

    timeline = otio.schema.Timeline("night", global_start_time=time(3600 * RATE))
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    for number in range(2):
        media = otio.schema.ExternalReference(f"file:///m/{CLIP}", otio.opentime.TimeRange(time(0), time(70)))
        track.append(otio.schema.Clip(f"c{number}", media, otio.opentime.TimeRange(time(number * RATE), time(RATE))))
    timeline.tracks.append(track)
    return str(otio.adapters.write_to_string(timeline, "otio_json"))


TIMELINES: Final[Mapping[str, Callable[[], str]]] = {
    "cut.otio": _otio_text,
    "cut.edl": lambda: _EDL,
    "cut.fcpxml": lambda: _FCPXML,
    "cut.aaf": lambda: "",
}


def damaged_text(text: str, rng: Random) -> bytes:
    """Return the bytes of a text file that is damaged, lies, or is larger and deeper than any program writes."""
    data = text.encode()
    kind = rng.choice(
        ("bytes", "cut", "number", "number", "number", "line", "twice", "field", "encoding", "noise", "long", "deep", "xml")
    )
    match kind:
        case "bytes":
            changed = bytearray(data or b"x")
            for _ in range(rng.choice((1, 5, 100))):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
        case "cut":
            return data[: rng.randrange(len(data) + 1)]
        case "number":
            found = list(re.finditer(r"-?\d+(?:[.:;/,]\d+)*", text))
            for one in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 3)))), key=lambda match: -match.start()):
                text = text[: one.start()] + rng.choice(_NUMBERS) + text[one.end() :]
            return text.encode()
        case "line":
            lines = text.splitlines(keepends=True)
            rng.shuffle(lines) if rng.random() < 0.5 else lines.pop(rng.randrange(len(lines))) if lines else None
            return "".join(lines).encode()
        case "twice":
            return data + data
        case "field":
            words = list(re.finditer(r"\w{3,}", text))
            if not words:
                return b"\0"
            one = rng.choice(words)
            strange = rng.choice(_STRANGE)
            return (text[: one.start()] + strange + text[one.end() :]).encode()
        case "encoding":
            encoded = (text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + data, b"\xff\xfe" + data)
            return rng.choice((*encoded, data.replace(b"\n", b"\r")))
        case "noise":
            return rng.randbytes(rng.choice((0, 1, 100, 100_000)))
        case "long":
            return data + rng.choice((b"\n", b" ", b"x", b"\0", b",", b'"')) * rng.choice((100_000, 3_000_000))
        case "deep":
            depth = rng.choice((500, 100_000))
            return rng.choice(
                (b"[" * depth, b'{"a":' * depth, b"<a>" * depth, data.replace(b"<spine>", b"<spine>" * min(depth, 5000)))
            )
        case _:
            declared = rng.choice((_BOMB, _OUTSIDE))
            entity = "&k;" if declared is _BOMB else "&b;"
            return (
                re.sub(r"^(<\?xml[^>]*>)?\s*(<!DOCTYPE[^>]*>)?", lambda found: (found[1] or "") + declared, text)
                .replace("ADA", entity)
                .encode()
            )


def timeline_case(rng: Random) -> Case:
    """A damaged timeline, or a damaged script of a good timeline."""
    timeline, script = rng.choice(tuple(TIMELINES)), rng.choice(tuple(SCRIPTS))
    seed = rng.getrandbits(64)
    wrong = timeline if timeline == "cut.aaf" or rng.random() < 0.5 else script
    return Case("timeline", f"{wrong} in {timeline} and {script}, seed {seed}", from_timeline(timeline, script, wrong, seed), TOLD)


def from_timeline(timeline: str, script: str, wrong: str, seed: int | None) -> Callable[[World], Outcome]:
    """Return an act that makes a manifest from a timeline and a script, of which one is damaged.

    Args:
        timeline: name of the timeline.
        script: name of the script.
        wrong: name of the damaged file.
        seed: seed of the damage; None: neither file is damaged.
    """

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        place = folder / "cwd"
        texts = {timeline: TIMELINES[timeline](), script: SCRIPTS[script]}
        for name, text in texts.items():
            damage = name == wrong and seed is not None
            (place / name).write_bytes(damaged_text(text, Random(seed)) if damage else text.encode())
        _media(world.shelf, place)
        output = folder / "out" / "night"
        line = [
            "batch",
            "from-timeline",
            timeline,
            f"--output={output}",
            f"--script=de={script}",
            f"--media={place}",
            f"--rate={RATE}",
        ]
        line += ["--speech=speech.wav", "--face=largest"]
        return run(world, folder, line, output=output, kept=[output])

    return act


def _media(shelf: MediaShelf, folder: Path) -> None:
    for name in (CLIP, "speech.wav"):
        shelf.copy(name, folder)


KNOWN_TIMELINES: tuple[Case, ...] = tuple(
    Case("timeline", f"{timeline} and {script} as they should be", from_timeline(timeline, script, "", None), frozenset({"exit 0"}))
    for timeline, script in (("cut.otio", "script.csv"), ("cut.edl", "script.srt"), ("cut.fcpxml", "script.ttml"))
)
"""Good files, so that damaged ones come as far as they can."""
