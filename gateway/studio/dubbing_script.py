"""Dubbing scripts: which line begins when on a timeline, in which language, who speaks it, and which sound file has its speech.

| file            | times                                                                     | languages               |
|-----------------|---------------------------------------------------------------------------|-------------------------|
| `.csv`          | column `start`: timecode of the timeline, or seconds from its first frame | column `language`       |
| `.srt`, `.vtt`  | time from the first frame of the timeline                                 | LANGUAGE=FILE           |
| `.ttml`, `.xml` | DAPT and TTML: time from the first frame of the timeline                  | `xml:lang` of each text |

ttconv reads the times of TTML. It leaves out who speaks and the recorded sound of DAPT, which are read beside it.

Programs write SRT in many ways: with points in the times, without hours, with empty lines in a text, without numbers, and as
WebVTT. All are read. Times with an arrow begin a subtitle, and the subtitle's text ends where the next one begins.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from gateway.consent.record import use_of
from gateway.studio.reading_process import read_in_process
from gateway.studio.timeline import Timeline, encoding_of, path_of_url, timecode_frames
from services.common.errors import InvalidRequestError
from services.common.texts import Text

COLUMNS: Final = ("start", "language", "id", "speaker", "actor", "face", "speech", "text")
"""Columns of a script in CSV. Only `start` is required."""
_MOST_BYTES: Final = 32 << 20
"""Largest script, bytes."""
_TTML: Final = "{http://www.w3.org/ns/ttml}"
_TTM: Final = "{http://www.w3.org/ns/ttml#metadata}"
_DAPTM: Final = "{http://www.w3.org/ns/ttml/profile/dapt#metadata}"
_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
_SPEAKER: Final = re.compile(r"\s*([^\W\d_a-z][^:a-z]{0,39}?)\s*:\s+")
"""Name before a line of a subtitle, in capital letters: `ADA: Good morning`."""
_ARROW: Final = r"(?:-{1,2}>|[–—]>|→)"
_OTHER_HEAD: Final = re.compile(rf"\s*\W{{0,4}}\d{{1,3}}\s*:\s*\d\d.{{0,40}}?{_ARROW}\s*\W{{0,4}}\d{{1,3}}\s*:")
"""Row that is meant to be a line of times, with another arrow than `-->`. Words may have such arrows: `3 -> 2`."""
_CUE: Final = re.compile(rf"\s*(?:(\d{{1,3}}):)?(\d{{1,2}}):(\d{{1,2}})(?:[.,](\d{{1,3}}))?\s*{_ARROW}\s*\d", re.ASCII)
"""Line of times of a subtitle. The first time is taken."""
_TIMES_HINT: Final = "expected 00:00:01,500 --> 00:00:02,750"
_SEPARATOR: Final = re.compile(r'"?sep=(.)"?[ \t;,]*(?:\r\n|\r|\n)', re.IGNORECASE)
"""First line of a CSV file in which Excel names the separator."""
_CLOCK: Final = re.compile(r"(\d{1,3}):(\d\d):(\d\d)[.,](\d{3,9})", re.ASCII)
_UNSEEN: Final = {**dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")), 0xA0: " "}
"""Marks of the direction of text, which are left out of lines of times, and the blank that does not break."""
_VOICE: Final = re.compile(r"<v(?:\.[^ >]*)?\s+([^>]+)>")
"""Speaker of a subtitle in WebVTT."""
_MARKS: Final = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}|\{/?[biu]\}")
"""Styles in subtitles: tags of SRT and WebVTT, times within a text, and {\\an8}."""
_BLOCKS: Final = ("NOTE", "STYLE", "REGION", "WEBVTT")
"""First words of blocks of WebVTT that are no subtitles."""


@dataclass(frozen=True, slots=True)
class ScriptLine:
    """One line of a dubbing script.

    Attributes:
        where: the line as messages name it, such as `de.srt: line 12`.
        line_id: id of the line: that of the script, otherwise its number.
        start: frame of the timeline at which the line begins, from its first frame; may be negative.
        language: language of the speech (BCP 47).
        speaker: name of the speaker; empty: not named.
        actor: enrolled actor; empty: none is named.
        face: face of the clip, as a manifest writes it; empty: the default.
        speech: sound file; None: the script names none.
    """

    where: str
    line_id: str
    start: int
    language: str
    speaker: str = ""
    actor: str = ""
    face: str = ""
    speech: Path | None = None


@dataclass(frozen=True, slots=True)
class _Times:
    """Frame rate of the timeline of a script, and frames from 00:00:00:00 to the timecode of its first frame."""

    rate: Fraction
    start: int


def read_script(path: Path, language: str | None, timeline: Timeline) -> list[ScriptLine]:
    """Read a dubbing script in a process with bounds on memory and time. Blocks.

    Lines that are spoken off screen (DAPT: `onScreen` OFF) are left out.

    Args:
        language: language of all lines; None: the script names the language of each line.
        timeline: the timeline of the script.

    Raises:
        InvalidRequestError: the file cannot be read, is no script, or a line has a mistake; or a package is not installed. The
            message names file and line.
    """
    if path.suffix.lower() not in _READERS:
        raise InvalidRequestError(f"{path}: a dubbing script ends in {', '.join(_READERS)}", field="script")
    question = {"path": str(path), "language": language, "rate": str(timeline.rate), "start": timeline.start}
    facts = read_in_process("script", path, question, most_bytes=_MOST_BYTES)
    return [ScriptLine(**{**line, "speech": None if line["speech"] is None else Path(line["speech"])}) for line in facts["lines"]]


def script_facts(handle: int, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lines of the script of a descriptor, as JSON values. For the process that reads the file.

    Args:
        handle: descriptor of the file.
        question: path of the file, for messages and its ending, language, and rate and start of the timeline, as `read_script`
            sends them.

    Raises:
        InvalidRequestError: as `read_script`.
    """
    path = Path(question["path"])
    with open(handle, "rb", closefd=False) as stream:
        content = stream.read()
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError as problem:
        raise InvalidRequestError(f"{path}: not a text in UTF-8 or UTF-16; save it as UTF-8", field="script") from problem
    times = _Times(Fraction(question["rate"]), question["start"])
    lines = list(_READERS[path.suffix.lower()](path, text, question["language"], times))
    if not lines:
        hint = f"; {_TIMES_HINT}" if path.suffix.lower() in (".srt", ".vtt") else ""
        raise InvalidRequestError(f"{path}: the script has no line{hint}", field="script")
    for line in lines:
        check_language(line.language, where=line.where, field="script")
    return {"lines": [{**asdict(line), "speech": None if line.speech is None else str(line.speech)} for line in lines]}


def check_language(tag: str, *, where: str, field: str) -> None:
    """Check that a language is a tag of BCP 47. Folders and files are named after languages.

    Args:
        where: position of the tag, for errors, such as `de.csv: line 12`.
        field: option at fault, for errors.

    Raises:
        InvalidRequestError: the text is no such tag.
    """
    try:
        use_of("", tag)
    except InvalidRequestError as problem:
        raise InvalidRequestError(Text("{where}: {problem}", where=where, problem=problem), field=field) from None


def _wrong(where: object, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{where}: {problem}", field="script")


def _csv_lines(path: Path, text: str, language: str | None, times: _Times) -> Iterator[ScriptLine]:
    stated = _SEPARATOR.match(text)
    skipped = 1 if stated else 0
    text = text[stated.end() :] if stated else text
    head = text.lstrip().partition("\n")[0]
    # Spreadsheets of countries with decimal commas write semicolons.
    separator = stated[1] if stated else next((mark for mark in ",;\t" if mark in head), ",")
    # Every kind of line end counts: some programs write a carriage return alone.
    reader = csv.DictReader(io.StringIO(text, newline=None), delimiter=separator)
    try:
        columns = [column.strip().lower() for column in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = [(reader.line_num + skipped, row) for row in reader]
    except csv.Error as problem:
        raise _wrong(
            f"{path}: line {reader.line_num + 1 + skipped}",
            f"no CSV ({problem}); expected fields of at most {csv.field_size_limit() >> 10} KiB, and texts with quotes in quotes",
        ) from problem
    unknown = [column for column in columns if column not in COLUMNS]
    twice = [column for column in COLUMNS if columns.count(column) > 1]
    if "start" not in columns or unknown or twice:
        wrong = f"unknown column {unknown[0][:80]!r}" if unknown else "no column `start`"
        if twice:
            wrong = f"the column `{twice[0]}` stands twice"
        raise _wrong(path, f"{wrong}; the first line names columns out of {', '.join(COLUMNS)}")
    for number, row in rows:
        where = f"{path}: line {number}"
        if None in row:
            raise _wrong(where, f"has more than {len(columns)} fields")
        values = {column: (row.get(column) or "").strip() for column in COLUMNS}
        if not any(values.values()):
            continue
        spoken = values["language"] or language
        if not spoken:
            raise _wrong(where, "names no language: fill the column `language`, or give the script as LANGUAGE=FILE")
        yield ScriptLine(
            where=where,
            line_id=values["id"] or str(number - 1 - skipped),
            start=_frame_of(values["start"], times, where),
            language=spoken,
            speaker=values["speaker"],
            actor=values["actor"],
            face=values["face"],
            speech=path.parent / values["speech"] if values["speech"] else None,
        )


def _frame_of(text: str, times: _Times, where: str) -> int:
    """Return the frame of a time: a timecode of the timeline, or seconds from its first frame."""
    if re.fullmatch(r"\d{1,6}([.,]\d{1,9})?", text, re.ASCII):
        return round(Fraction(text.replace(",", ".")) * times.rate)
    if clock := _CLOCK.fullmatch(text):
        seconds = 3600 * int(clock[1]) + 60 * int(clock[2]) + int(clock[3])
        raise _wrong(
            where,
            f"start: {text} has parts of a second, and a timecode has frames; give HH:MM:SS:FF of the timeline, or seconds from "
            f"its first frame ({seconds}.{clock[4]})",
        )
    try:
        return timecode_frames(text, times.rate) - times.start
    except ValueError as problem:
        raise _wrong(where, f"start: {problem}; give a timecode of the timeline, or seconds from its first frame") from None


def _model(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as problem:
        # ttconv raises errors of every kind for what it does not understand.
        raise _wrong(path, f"ttconv cannot read it ({type(problem).__name__}: {str(problem)[:200]})") from problem


def _ttconv(module: str) -> Any:
    try:
        import importlib

        return importlib.import_module(f"ttconv.{module}")
    except ModuleNotFoundError as problem:
        raise InvalidRequestError(
            f"scripts in TTML need the package {problem.name}, which is not installed here: pip install "
            "'dubstage-suite[timelines]', or give a script in CSV or SRT",
            field="script",
        ) from problem


def _begins(model: Any) -> list[Fraction | None]:
    """Return the time at which each paragraph of a text begins, in their order, seconds; None: it has none."""
    if (body := model.get_body()) is None:
        return []
    paragraph = _ttconv("model").P
    begins: list[Fraction | None] = []
    for element in body.dfs_iterator():
        if not isinstance(element, paragraph):
            continue
        # A begin counts from the begin of the element around it.
        begin, timed, around = Fraction(0), False, element
        while around is not None:
            timed = timed or around.get_begin() is not None
            begin += around.get_begin() or 0
            around = around.parent()
        begins.append(begin if timed else None)
    return begins


def _srt_lines(path: Path, text: str, language: str | None, times: _Times) -> Iterator[ScriptLine]:
    if not language:
        raise _wrong(path, "SRT names no language: give the script as LANGUAGE=FILE")
    for number, (begin, content) in enumerate(_subtitles(path, text), 1):
        voice = _VOICE.search(content)
        words = " ".join(html.unescape(_MARKS.sub("", content)).split())
        named = _SPEAKER.match(words)
        yield ScriptLine(
            where=f"{path}: line {number}",
            line_id=str(number),
            start=round(begin * times.rate),
            language=language,
            speaker=voice[1].strip() if voice else named[1] if named else "",
        )


def _subtitles(path: Path, text: str) -> Iterator[tuple[Fraction, str]]:
    """Yield the begin of each subtitle that has a text, seconds, and the text as the file has it."""
    rows = text.splitlines()
    seen = [row.translate(_UNSEEN) for row in rows]
    heads = [index for index, row in enumerate(seen) if _is_head(row)]
    for head, following in zip_longest(heads, heads[1:]):
        cue = _CUE.match(seen[head])
        if cue is None:
            raise _wrong(f"{path}: row {head + 1}", f"{rows[head][:80]!r} are no times; {_TIMES_HINT}")
        content = rows[head + 1 : following]
        if following is not None and content and _is_name(content, webvtt=text.startswith("WEBVTT")):
            content = content[:-1]
        words = "\n".join(_without_blocks(content))
        if words.strip():
            hours, minutes, seconds, part = (cue[group] or "0" for group in range(1, 5))
            yield 3600 * int(hours) + 60 * int(minutes) + int(seconds) + Fraction(f"0.{part}"), words


def _is_head(row: str) -> bool:
    """Return whether a row is meant to be the line of times of a subtitle."""
    return ("-->" in row and row.lstrip(" \t-+\u2212")[:1].isdecimal()) or _OTHER_HEAD.match(row) is not None


def _is_name(content: Sequence[str], *, webvtt: bool) -> bool:
    """Return whether the last row before the times of a subtitle is the subtitle's number, or its name in WebVTT."""
    alone = len(content) == 1 or not content[-2].strip()
    return content[-1].strip().isdecimal() or (webvtt and alone and bool(content[-1].strip()))


def _without_blocks(content: Sequence[str]) -> Iterator[str]:
    """Yield the rows of a subtitle without the notes and styles of WebVTT behind it."""
    inside, before = False, "text"
    for row in content:
        inside = (inside and bool(row.strip())) or (not before.strip() and _begins_block(row))
        before = row
        if not inside:
            yield row


def _begins_block(row: str) -> bool:
    return any(row.strip() == word or row.startswith(f"{word} ") for word in _BLOCKS)


def _ttml_lines(path: Path, text: str, language: str | None, times: _Times) -> Iterator[ScriptLine]:
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        raise _wrong(path, f"not XML: {problem}") from problem
    if root.tag != f"{_TTML}tt":
        raise _wrong(path, "no TTML: its root element is not tt of http://www.w3.org/ns/ttml")
    reader = _ttconv("imsc.reader")
    begins = _begins(_model(path, lambda: reader.to_model(ElementTree.ElementTree(root))))
    written = list(_written(root))
    if len(written) != len(begins):
        raise _wrong(path, f"{len(written)} texts, of which ttconv reads {len(begins)}")
    names = {agent.get(f"{_XML}id", ""): _agent_name(agent) for agent in root.iter(f"{_TTM}agent")}
    for number, (begin, (element, around)) in enumerate(zip(begins, written, strict=True), 1):
        where = f"{path}: text {number}"
        event = next((one for one in around if one.get(f"{_XML}id")), None)
        spoken = language or _inherited(around, f"{_XML}lang")
        if _inherited(around, f"{_DAPTM}onScreen") == "OFF":
            continue
        if language and _inherited(around, f"{_XML}lang") not in (language, ""):
            continue
        if not spoken:
            raise _wrong(where, "names no language (xml:lang): give the script as LANGUAGE=FILE")
        if begin is None:
            raise _wrong(where, "has no begin, and neither has an element around it")
        agents = [names.get(agent, agent) for agent in _inherited(around, f"{_TTM}agent").split()]
        sound = next(iter(element.iter(f"{_TTML}audio")), None)
        yield ScriptLine(
            where=where,
            line_id=(event.get(f"{_XML}id") if event is not None else None) or str(number),
            start=round(begin * times.rate),
            language=spoken,
            speaker=" and ".join(agents),
            speech=path.parent / path_of_url(file) if (file := _sound_file(sound)) else None,
        )


def _written(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, Sequence[ElementTree.Element]]]:
    """Yield each `p` of the body with the elements around it, itself first."""
    body = root.find(f"{_TTML}body")
    stack: list[tuple[ElementTree.Element, tuple[ElementTree.Element, ...]]] = [] if body is None else [(body, (root,))]
    while stack:
        element, above = stack.pop()
        if element.tag == f"{_TTML}p":
            yield element, (element, *above)
            continue
        stack += [(child, (element, *above)) for child in reversed(element)]


def _inherited(around: Sequence[ElementTree.Element], name: str) -> str:
    return next((value for element in around if (value := element.get(name)) is not None), "")


def _agent_name(agent: ElementTree.Element) -> str:
    names = [" ".join((name.text or "").split()) for name in agent.iter(f"{_TTM}name")]
    return next((name for name in names if name), agent.get(f"{_XML}id", ""))


def _sound_file(sound: ElementTree.Element | None) -> str:
    """Return the file of a DAPT `audio` element: its `src`, or that of a `source` in it; empty: none."""
    if sound is None:
        return ""
    sources = [sound.get("src"), *(source.get("src") for source in sound.iter(f"{_TTML}source"))]
    return next((source for source in sources if source and not source.startswith("#")), "")


_Reader = Callable[[Path, str, str | None, _Times], Iterator[ScriptLine]]
_READERS: Final[dict[str, _Reader]] = {
    ".csv": _csv_lines,
    ".srt": _srt_lines,
    ".vtt": _srt_lines,
    ".ttml": _ttml_lines,
    ".dfxp": _ttml_lines,
    ".xml": _ttml_lines,
}
