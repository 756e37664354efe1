"""Image sequences: a shot as one file per frame (OpenEXR, DPX, TIFF, PNG), read as a video and written back frame by frame.

A sequence is dubbed as a lossless video of the pictures that a display shows (`write_video`). Afterwards `write_frames` reads that
video and its dub side by side, and changes in the files only the pixels in which both differ. All other pixels, all other channels,
the windows and the metadata of each file come back as they were. Every written file is read again and compared.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.media.background import blank_picture
from gateway.media.choices import OcioSettings
from gateway.media.encoders import WriteSettings
from gateway.media.opening import MAX_FRAMES, MAX_RATE, MAX_SIDE, MAX_STILL_PIXELS, MAX_STILL_SIDE, MIN_SIDE
from gateway.media.output import (
    OutputFile,
    commit_with,
    existing_file,
    identity_of,
    left_folders,
    output_error,
    partial_folder,
    refuse_input,
)
from gateway.media.parts import PART_SUFFIX
from gateway.media.pixels import ColourTags, pixel_format
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.scene_colour import LinearRec709, OcioColour, SceneColour, not_installed
from gateway.media.sequence_names import NUMBER, SUFFIXES, is_sequence, listing_file, sound_file
from gateway.media.sound import SoundReader, write_sound_from
from gateway.media.types import DecodedFrame, MediaInfo, VideoInfo, orientation
from gateway.media.writer import VideoSigner, VideoWriter
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError, MediaUnsupportedError, StorageFullError
from services.common.files import digest_and_size, translating_full_disk
from services.common.texts import Option, Text

Samples = npt.NDArray[Any]
"""Samples of a file, [rows, columns, channels]: uint8, uint16, float16 or float32."""
OnFrame = Callable[[int, int], None]
"""Called with the number of finished frames and the number of all frames."""

_PIXELS: Final = {10: "gbrp10le", 12: "gbrp12le", 16: "gbrp16le"}
"""Pixel formats of the video by its depth. FFV1 has no planes of 8 bits in RGB."""
_DISPLAY_BITS: Final = 16
"""Depth of the video of a sequence whose colour is transformed, or that has 8 bits."""
_PLANES: Final = (1, 2, 0)
"""Channels of RGB in the order of the video's planes: G, B, R."""
_SRGB: Final = ColourTags(matrix=0, color_range=2, primaries=1, transfer=13)
_FILL_8: Final = 257
"""Code value of 16 bits of one step of 8 bits."""
_DEPTHS: Final = (8, 10, 12, 16)
"""Bits per sample of files with integers."""
_MOST_DIGITS: Final = 12
_LOSSY: Final = ("dwaa", "dwab", "b44", "b44a", "pxr24")
"""Compressions of OpenEXR that would change pixels a second time. Such files are written with the compression zip."""
_DATED: Final = (".exr", ".tif", ".tiff")
"""Endings of files in which OpenImageIO writes a date if they have none."""
_DPX_NAME: Final = range(36, 136)
"""Bytes of a DPX file that hold its name (SMPTE ST 268-1)."""
_NOT_DISPLAYED: Final = ("Printing density", "Logarithmic", "Linear")
"""Transfer characteristics in DPX headers whose code values no display shows as they are."""
_EXACT_RATES: Final = tuple(Fraction(whole * 1000, 1001) for whole in (24, 30, 48, 60, 120))
_FACTS: Final = ("the display window is", "the bits per sample are", "the channels are", "the shape of the pixels is")


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSettings:
    """Choice of a user for a sequence.

    Attributes:
        rate: frames per second; None: the rate that the headers of the files state.
        sound: sound file of the sequence; sample 0 sounds with the first frame. None: there is no sound.
        colour: colour of the files.
    """

    rate: Fraction | None = None
    sound: Path | None = None
    colour: OcioSettings = OcioSettings()


@dataclass(frozen=True, slots=True)
class FrameSequence:
    """The files of a sequence, whose headers fit together. `open_sequence` makes it.

    Attributes:
        pattern: the pattern as the user wrote it.
        files: files in the order of their frame numbers.
        numbers: frame numbers.
        width, height: size of the display window, pixels: the size of the picture.
        bits: bits per sample of files with integers, 8, 10, 12 or 16; 0: floating point.
        pixel_aspect: width over height of a pixel.
        rate: frames per second.
        transfer: transfer characteristic that the header of a DPX file states; empty: none.
        timecode: timecode of the first frame, HH:MM:SS:FF; empty: the header states none.
    """

    pattern: Path
    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    width: int
    height: int
    bits: int
    pixel_aspect: Fraction
    rate: Fraction
    transfer: str
    timecode: str


def open_sequence(pattern: Path, rate: Fraction | None = None) -> FrameSequence:
    """Return the files of a pattern. The headers of all files are read. Blocks.

    Args:
        pattern: path with %04d, #### or @@@@ for the frame number, and maybe a range before it: `shot.1001-1250####.dpx`.
        rate: frames per second; None: what the first header states.

    Raises:
        InvalidRequestError: the pattern is none, a package is missing, or no rate is known.
        MediaUnsupportedError: there is no such file, a frame is missing, a file cannot be read, or files do not fit together. The
            message names the file.
    """
    numbers, files = sequence_files(pattern)
    first = _header(files[0])
    for file in files[1:]:
        other = _header(file)
        for what, mine, its in zip(_FACTS, first.facts, other.facts, strict=True):
            if mine != its:
                raise _unsupported(f"{file}: {what} {its}, and the first frame {files[0].name} has {mine}")
    width, height = first.window[2], first.window[3]
    if not MIN_SIDE <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise _unsupported(f"{files[0]}: pictures of {width} x {height}; sides of {MIN_SIDE} to {MAX_SIDE} pixels are accepted")
    rate = rate or first.rate
    if rate is None:
        raise InvalidRequestError(
            Text(
                "{pattern}: the headers state no frame rate; give {rate}, such as 24 or 24000/1001",
                pattern=pattern,
                rate=Option("rate"),
            ),
            field="rate",
        )
    return FrameSequence(
        pattern, tuple(files), tuple(numbers), width, height, first.bits, first.pixel_aspect, rate, first.transfer, first.timecode
    )


def parse_rate(text: str) -> Fraction:
    """Return the exact rate of a text such as 24, 23.976 or 24000/1001, frames per second.

    Raises:
        InvalidRequestError: the text is no rate.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 1 <= rate <= MAX_RATE:
        raise InvalidRequestError(
            f"{text[:40]!r}: give frames per second from 1 to {MAX_RATE}, such as 24 or 24000/1001", field="rate", named=True
        )
    return _exact(rate)


def _exact(rate: Fraction) -> Fraction:
    return next((exact for exact in _EXACT_RATES if abs(exact - rate) < Fraction(1, 200)), rate.limit_denominator(1001))


def sequence_files(pattern: Path) -> tuple[list[int], list[Path]]:
    """Return frame numbers and files of a pattern. No file is opened. Blocks.

    Raises:
        InvalidRequestError, MediaUnsupportedError: as `open_sequence`, as far as the names tell.
    """
    sequence = _fileseq(pattern)
    if sequence.frameSet() is None:
        sequence = _listed(pattern)
    if len(sequence.frameSet()) > MAX_FRAMES:
        raise _unsupported(f"{pattern}: more than {MAX_FRAMES} frames; cut the shot into parts")
    numbers = list(sequence.frameSet())
    files = [Path(sequence.frame(number)) for number in numbers]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        before = next(number for number, after in zip(numbers, numbers[1:], strict=False) if after != number + 1)
        missing = Path(sequence.frame(before + 1))
        raise _unsupported(f"{missing}: this frame is missing between {numbers[0]} and {numbers[-1]}; a shot has every frame")
    if len(numbers) < 2:
        raise _unsupported(f"{pattern}: one frame alone; a sequence has at least two")
    gone = next((file for file in files if not file.is_file()), None)
    if gone is not None:
        raise _unsupported(f"{gone}: this frame is missing")
    return numbers, files


def _fileseq(pattern: Path) -> Any:
    """Return fileseq's description of a pattern."""
    try:
        # The whole package first: of two threads that import its modules at the same time, one would get half a module.
        import fileseq  # noqa: F401
        from fileseq.exceptions import FileSeqException
        from fileseq.filesequence import FileSequence
    except ModuleNotFoundError as problem:
        raise not_installed("fileseq") from problem
    signs = list(NUMBER.finditer(pattern.name))
    if len(signs) != 1:
        raise InvalidRequestError(
            f"{pattern}: a sequence has one place for the frame number, such as %04d or ####", field="footage"
        )
    sign = signs[0]
    # A single # means four digits, and several mean one digit each, as in Nuke. In fileseq, @ is one digit.
    digits = int(sign[1] or 1) if sign[0].startswith("%") else 4 if sign[0] == "#" else len(sign[0])
    if digits > _MOST_DIGITS:
        raise InvalidRequestError(f"{pattern}: frame numbers have at most {_MOST_DIGITS} digits", field="footage")
    name = f"{pattern.name[: sign.start()]}{'@' * digits}{pattern.name[sign.end() :]}"
    try:
        # fileseq gets only the file's name: it would take signs in the names of folders for signs of a pattern.
        sequence = FileSequence(name)
    except (FileSeqException, ValueError) as problem:
        raise InvalidRequestError(f"{pattern}: not a pattern of an image sequence ({problem})", field="footage") from problem
    sequence.setDirname(f"{pattern.parent}{os.sep}")
    return sequence


def _listed(pattern: Path) -> Any:
    """Return fileseq's description of the files of a pattern without a range."""
    wanted = _fileseq(pattern)
    from fileseq.filesequence import FileSequence

    if not pattern.parent.is_dir():
        raise _unsupported(f"{pattern}: the folder {pattern.parent} does not exist")
    try:
        listed = sorted(os.listdir(pattern.parent))
    except OSError as problem:
        raise _unsupported(f"{pattern}: the folder {pattern.parent} cannot be read: {problem.strerror}") from problem
    # fileseq takes the names for frames of the sequence without a look at the files.
    own = re.compile(rf"{re.escape(wanted.basename())}-?\d+{re.escape(wanted.extension())}")
    names = [name for name in listed if own.fullmatch(name)]
    named = FileSequence(f"{wanted.basename()}{wanted.padding()}{wanted.extension()}")
    for sequence in FileSequence.yield_sequences_in_list(names, using=named):
        if sequence.zfill() == wanted.zfill() or wanted.zfill() == 1:
            sequence.setDirname(wanted.dirname())
            return sequence
    raise _unsupported(f"{pattern}: the folder {pattern.parent} has no file of this sequence")


def read_listing(listing: Path) -> dict[str, str]:
    """Return the SHA-256 of the files of a dubbed sequence, hexadecimal, by name. Lines that are none of a list are left out.

    Raises:
        OSError: the list is missing or cannot be read.
    """
    lines = (line.split("  ", 1) for line in listing.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2}


def listed_frames(listing: Path) -> tuple[Path, int, int]:
    """Return the pattern of the frames of a dubbed sequence, with `%04d` for numbers of four digits, and the first and last number.

    Args:
        listing: list of the files.

    Raises:
        OSError: the list is missing or cannot be read.
        MediaUnsupportedError: the list names no frames.
    """
    names = [re.fullmatch(r"(.*?)(\d+)(\.\w+)", name) for name in read_listing(listing) if Path(name).suffix.lower() in SUFFIXES]
    frames = [name for name in names if name]
    if not frames:
        raise MediaUnsupportedError(f"{listing}: the list names no frames", field="output")
    numbers = [int(name[2]) for name in frames]
    widths = {len(name[2]) for name in frames}
    number = f"%0{widths.pop()}d" if len(widths) == 1 else "%d"
    return listing.with_name(f"{frames[0][1]}{number}{frames[0][3]}"), min(numbers), max(numbers)


def sequence_fault(listing: Path, sha256: str) -> str:
    """Return what became of a dubbed sequence: `was gone` or `was changed`; empty: its files are as they were written. Blocks.

    Args:
        listing: list of the files.
        sha256: digest of the list when it was written, hexadecimal.
    """
    try:
        if digest_and_size(listing)[0] != sha256:
            return "was changed"
        for name, digest in read_listing(listing).items():
            if digest_and_size(listing.with_name(name))[0] != digest:
                return "was changed"
    except FileNotFoundError:
        return "was gone"
    except OSError:
        return "was changed"
    return ""


def check_output_pattern(pattern: Path, footage: Path) -> None:
    """Check that the pattern of a dub fits the pattern of its footage. No file is looked at but one that has a pattern as its name.

    Raises:
        InvalidRequestError: the output is no pattern, or has another ending.
    """
    if not is_sequence(pattern):
        raise InvalidRequestError(
            f"{pattern}: the footage is an image sequence, so give the output as one too, such as "
            f"{pattern.with_suffix('').name}.%04d{footage.suffix}",
            field="output",
        )
    if pattern.suffix.lower() != footage.suffix.lower():
        raise InvalidRequestError(
            f"{pattern}: frames come back in their own format; give the output the ending {footage.suffix}", field="output"
        )


class FramesOutput:
    """Files of a dubbed sequence.

    Attributes:
        files: files of the frames, with the frame numbers of the sequence.
        sound: WAV file with the sound of the dub: the pattern without its frame number.
        listing: text file with the SHA-256 of the frames and of the sound, as `sha256sum --check` reads it.
    """

    def __init__(
        self,
        pattern: Path,
        sequence: FrameSequence,
        *,
        overwrite: bool = False,
        is_signed: Callable[[Path], bool] = lambda _: False,
    ) -> None:
        """Check before any work that the files can be written. Blocks.

        Args:
            pattern: pattern of the files.
            sequence: the footage.
            overwrite: whether any files are replaced. Otherwise only files that dubstage wrote and that are unchanged are.
            is_signed: returns whether a list of files has a manifest of dubstage beside it.

        Raises:
            InvalidRequestError: the pattern is none or has another ending than the sequence, its files are those of the sequence or
                may not be replaced, or the folder is missing or may not be written.
        """
        check_output_pattern(pattern, sequence.pattern)
        named, folder = _fileseq(pattern), pattern.parent
        self.files = [Path(named.frame(number)) for number in sequence.numbers]
        self.sound = sound_file(pattern)
        self.listing = listing_file(pattern)
        self.overwrite = overwrite
        if not folder.is_dir():
            raise InvalidRequestError(f"{pattern}: the folder {folder} does not exist; create it first", field="output")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidRequestError(f"{pattern}: the folder {folder} may not be written; choose another", field="output")
        if any(mine.exists() and mine.samefile(its) for mine, its in zip(self.files, sequence.files, strict=True)):
            raise InvalidRequestError(f"{pattern} is the footage itself; give another name to the output", field="output")
        facts = {file: existing_file(file) for file in (*self.files, self.sound, self.listing)}
        self._before = {file: identity_of(status) for file, status in facts.items()}
        there = {file: status for file, status in facts.items() if status is not None}
        own = self._own(is_signed) if there and not overwrite else {}
        for file, status in there.items():
            if not stat.S_ISREG(status.st_mode) or not (overwrite or _is_one_of(file, own)):
                raise InvalidRequestError(
                    Text(
                        "{file} exists, and dubstage did not write it as it is; give another name, or replace the frames with "
                        "{overwrite}",
                        file=file,
                        overwrite=Option("overwrite"),
                    ),
                    field="output",
                )

    def refuse_input(self, file: Path) -> None:
        """Raise InvalidRequestError if one of the files is a file that the dub reads."""
        name = file.resolve().name
        for mine in (self.sound, self.listing, *(frame for frame in self.files if frame.name == name)):
            refuse_input(mine, file, "read and would be replaced")

    def _own(self, is_signed: Callable[[Path], bool]) -> dict[str, set[str]]:
        """Return the digests of the files that dubstage has written here, by name: what the lists of this output say."""
        own: dict[str, set[str]] = {}
        # A run that was killed while it gave the files their names has its list in its folder.
        left = [file for folder in left_folders(self.listing) if (file := folder / self.listing.name).is_file()]
        for listing in (*left, *([self.listing] if left or is_signed(self.listing) else [])):
            with suppress(OSError):
                for name, digest in {**read_listing(listing), listing.name: digest_and_size(listing)[0]}.items():
                    own.setdefault(name, set()).add(digest)
        return own

    def check_again(self) -> None:
        """Check right before the files get their names that no other program has written one of them since.

        Raises:
            InvalidRequestError: a file appeared or was changed, and files may not be overwritten.
        """
        for file, before in self._before.items():
            if not self.overwrite and identity_of(existing_file(file)) != before:
                raise InvalidRequestError(f"{file} was written by another program meanwhile; give another name", field="output")


def _is_one_of(file: Path, own: Mapping[str, set[str]]) -> bool:
    with suppress(OSError):
        return file.name in own and digest_and_size(file)[0] in own[file.name]
    return False


def colour_of(sequence: FrameSequence, settings: OcioSettings) -> SceneColour | None:
    """Return the transform of a sequence's colour; None: its code values are shown as they are.

    Files with floating point values hold scene-linear light: without a configuration, of Rec. 709.

    Raises:
        InvalidRequestError: the settings contradict the files or each other, or the configuration cannot be used.
    """
    if settings.config:
        if sequence.bits and not settings.colourspace:
            raise InvalidRequestError(
                Text(
                    "{pattern}: the files hold integers, whose colour space {ocio} cannot know; give {space}",
                    pattern=sequence.pattern,
                    ocio=Option("ocio"),
                    space=Option("input_colourspace"),
                ),
                field="input_colourspace",
            )
        return OcioColour(settings)
    if settings != OcioSettings():
        raise without_config()
    if not sequence.bits:
        return LinearRec709()
    if sequence.transfer in _NOT_DISPLAYED:
        raise InvalidRequestError(
            Text(
                "{file}: the header says that the values are {transfer}, which no display shows as they are; give {ocio} and "
                "{space} (if the header is wrong: Raw for {space} and for {view})",
                file=sequence.files[0],
                transfer=sequence.transfer.lower(),
                ocio=Option("ocio"),
                space=Option("input_colourspace"),
                view=Option("view"),
            ),
            field="ocio",
        )
    return None


def without_config() -> InvalidRequestError:
    """Return the error for names of colour spaces or displays without a configuration."""
    names = {name: Option(name) for name in ("input_colourspace", "display", "view")}
    return InvalidRequestError(
        Text("{input_colourspace}, {display} and {view} need {ocio}", **names, ocio=Option("ocio", "CONFIG")), field="ocio"
    )


@dataclass(frozen=True, slots=True)
class _Header:
    """Facts in the header of a file: display window (x, y, width, height), bits per sample (0: floating point), channels."""

    window: tuple[int, int, int, int]
    bits: int
    channels: str
    pixel_aspect: Fraction
    rate: Fraction | None
    transfer: str
    timecode: str

    @property
    def facts(self) -> tuple[object, ...]:
        """Facts that must be the same in all frames of a sequence."""
        return self.window, self.bits, self.channels, self.pixel_aspect


@dataclass(frozen=True, slots=True)
class _Part:
    """One image of a file: OpenEXR and TIFF hold several. `spec` is OpenImageIO's description."""

    spec: Any
    samples: Samples


@dataclass(frozen=True, slots=True)
class _Frame:
    """A file that was read whole.

    Attributes:
        parts: all images of the file.
        coloured: index of the image with R, G and B.
        rgb: channels of R, G and B in that image.
    """

    parts: list[_Part]
    coloured: int
    rgb: list[int]

    @property
    def picture(self) -> Samples:
        """R, G and B of the data window, [rows, columns, 3], a copy."""
        return np.ascontiguousarray(self.parts[self.coloured].samples[..., self.rgb])

    def crop(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the pixels that data window and display window share: in the picture that is shown, and in the file."""
        spec = self.parts[self.coloured].spec
        shown, stored = [], []
        for begin, size, full, whole in (
            (spec.y, spec.height, spec.full_y, spec.full_height),
            (spec.x, spec.width, spec.full_x, spec.full_width),
        ):
            first, last = max(begin, full), max(min(begin + size, full + whole), begin, full)
            shown.append(slice(first - full, last - full))
            stored.append(slice(first - begin, last - begin))
        return (shown[0], shown[1]), (stored[0], stored[1])


@cache
def openimageio() -> Any:
    """Return the module `OpenImageIO`.

    Raises:
        InvalidRequestError: the package is not installed.
    """
    try:
        import OpenImageIO
    except ModuleNotFoundError as problem:
        raise not_installed("openimageio") from problem
    # At the end of a process, the library prints what it still knows of. `skip_last_collection` would leave everything.
    atexit.register(gc.unfreeze)
    return OpenImageIO


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Give a file open for reading, as OpenImageIO's ImageInput. Stored values are read as they are."""
    oiio = openimageio()
    wanted = oiio.ImageSpec()
    wanted.attribute("oiio:RawColor", 1)
    wanted.attribute("oiio:UnassociatedAlpha", 1)
    opened = oiio.ImageInput.open(str(file), wanted)
    if opened is None:
        raise _unreadable(file, oiio.geterror())
    try:
        yield opened
    finally:
        opened.close()


def _header(file: Path) -> _Header:
    with _opened(file) as opened:
        specs = _specs(opened, file)
        spec = specs[_coloured(specs, file)]
        rate = spec.getattribute("FramesPerSecond") or spec.getattribute("dpx:FrameRate")
        transfer = str(spec.getattribute("dpx:Transfer") or "")
        timecode = _stated_timecode(spec.getattribute("smpte:TimeCode"))
        aspect = Fraction(spec.get_float_attribute("PixelAspectRatio", 1.0) or 1.0).limit_denominator(100)
        window = (spec.full_x, spec.full_y, spec.full_width, spec.full_height)
        channels = " ".join(f"{name}:{kind}" for spec in specs for name, kind in zip(spec.channelnames, _kinds(spec), strict=True))
    return _Header(window, _bits(spec, file), channels, aspect, _stated_rate(rate), transfer, timecode)


def _stated_rate(stated: Any) -> Fraction | None:
    """Return the rate that a header states, a number or a pair of numerator and denominator; None: none, or no possible rate."""
    try:
        rate = Fraction(*stated) if isinstance(stated, tuple) else Fraction(stated or 0)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return _exact(rate) if 1 <= rate <= MAX_RATE else None


def _stated_timecode(stated: Any) -> str:
    """Return the timecode of a header, which holds two binary-coded digits in each byte (SMPTE ST 12); empty: there is none."""
    if not isinstance(stated, tuple) or not stated:
        return ""
    word = int(stated[0])
    drop = bool(word & 0x40)
    digits = [f"{word >> shift & mask:02x}" for shift, mask in ((24, 0x3F), (16, 0x7F), (8, 0x7F), (0, 0x3F))]
    if not all(part.isdigit() for part in digits):
        return ""
    return f"{':'.join(digits[:3])}{';' if drop else ':'}{digits[3]}"


def _specs(opened: Any, file: Path) -> list[Any]:
    """Return the descriptions of all images of a file."""
    specs: list[Any] = []
    while opened.seek_subimage(len(specs), 0):
        spec = opened.spec()
        if max(spec.width, spec.height) > MAX_STILL_SIDE or spec.width * spec.height > MAX_STILL_PIXELS:
            raise _unsupported(f"{file}: the data window has {spec.width} x {spec.height} pixels; {MAX_STILL_PIXELS} are accepted")
        if spec.deep:
            raise _unsupported(f"{file}: deep pixels cannot be dubbed; flatten the frames first")
        if spec.get_int_attribute("Orientation", 1) != 1:
            raise _unsupported(f"{file}: the header turns the picture; write the frames upright first")
        if not str(spec.getattribute("dpx:ImageDescriptor") or "RGB").startswith("RGB"):
            raise _unsupported(f"{file}: the samples are no RGB ({spec.getattribute('dpx:ImageDescriptor')}); convert the frames")
        if opened.seek_subimage(len(specs), 1):
            raise _unsupported(f"{file}: pictures in several resolutions (mipmaps) cannot be dubbed; write the largest one alone")
        specs.append(spec)
    if not specs:
        raise _unreadable(file, opened.geterror())
    return specs


def _coloured(specs: list[Any], file: Path) -> int:
    for index, spec in enumerate(specs):
        if {"R", "G", "B"} <= set(spec.channelnames):
            return index
    channels = ", ".join(name for spec in specs for name in spec.channelnames)
    raise _unsupported(f"{file}: the channels are {channels}; R, G and B are expected")


def _kinds(spec: Any) -> list[str]:
    return [str(kind) for kind in spec.channelformats] or [str(spec.format)] * spec.nchannels


def _kind(spec: Any, file: Path) -> str:
    """Return the type that holds the samples of all channels of an image exactly."""
    kinds = set(_kinds(spec))
    if kinds == {"half", "float"}:
        return "float"
    if len(kinds) > 1 or not kinds <= {"half", "float", "uint8", "uint16", "uint"}:
        raise _unsupported(f"{file}: samples of {', '.join(sorted(kinds))} in one image cannot be kept exactly")
    return kinds.pop()


def _bits(spec: Any, file: Path) -> int:
    """Return the bits per sample of R, G and B; 0: floating point."""
    kinds = set(_kinds(spec))
    if kinds <= {"half", "float"}:
        return 0
    bits = spec.get_int_attribute("oiio:BitsPerSample", 0) or {"uint8": 8, "uint16": 16}.get(str(spec.format), 0)
    if len(kinds) > 1 or bits not in _DEPTHS:
        raise _unsupported(
            f"{file}: samples of {', '.join(sorted(kinds))} with {bits} bits; half, float, or integers of 8, 10, 12 or 16 bits are "
            "expected"
        )
    return bits


def _read(file: Path) -> _Frame:
    """Read a file whole."""
    oiio = openimageio()
    with _opened(file) as opened:
        specs = _specs(opened, file)
        parts = []
        for index, spec in enumerate(specs):
            samples = opened.read_image(index, 0, 0, spec.nchannels, oiio.TypeDesc(_kind(spec, file)))
            if samples is None:
                raise _unreadable(file, opened.geterror())
            parts.append(_Part(spec, samples.reshape(spec.height, spec.width, spec.nchannels)))
    coloured = _coloured(specs, file)
    return _Frame(parts, coloured, [specs[coloured].channelnames.index(name) for name in "RGB"])


def _written_spec(spec: Any, file: Path, date: str) -> Any:
    """Return the description of an image as it is written: as it was read, and never with a lossy compression."""
    written = openimageio().ImageSpec(spec)
    if str(spec.getattribute("compression") or "").partition(":")[0] in _LOSSY:
        written.attribute("compression", "zip")
    if spec.alpha_channel >= 0 and file.suffix.lower() == ".png":
        written.attribute("oiio:UnassociatedAlpha", 1)
    if not spec.getattribute("DateTime") and file.suffix.lower() in _DATED:
        # Otherwise OpenImageIO writes the present time, and a second dub has other bytes.
        written.attribute("DateTime", date)
    return written


def _write(frame: _Frame, file: Path, source: Path) -> None:
    """Write a file, whose frame was read from a source, and read it again.

    Raises:
        InvalidRequestError: the file cannot be written, or its format did not keep every sample.
    """
    oiio = openimageio()
    date = time.strftime("%Y:%m:%d %H:%M:%S", time.gmtime(source.stat().st_mtime))
    specs = [_written_spec(part.spec, file, date) for part in frame.parts]
    writer = oiio.ImageOutput.create(str(file))
    if writer is None:
        raise InvalidRequestError(f"{file} cannot be written: {oiio.geterror()}", field="output")
    with translating_full_disk(f"no space left to write {file}; free some space, or choose another folder", file.parent):
        good = writer.open(str(file), tuple(specs)) if len(specs) > 1 else writer.open(str(file), specs[0])
        for index, part in enumerate(frame.parts):
            if index:
                good = good and writer.open(str(file), specs[index], "AppendSubimage")
            good = good and writer.write_image(part.samples)
        problem = "" if good else _sentence(writer.geterror())
        writer.close()
        if problem:
            if shutil.disk_usage(file.parent).free < sum(part.samples.nbytes for part in frame.parts):
                raise StorageFullError(f"no space left to write {file}; free some space", subject=str(file.parent))
            raise InvalidRequestError(f"{file} cannot be written: {problem}", field="output")
    if file.suffix.lower() == ".dpx":
        _name_in_header(file)
    again = _read(file)
    for wrote, stored in zip(frame.parts, again.parts, strict=True):
        if wrote.samples.tobytes() != stored.samples.tobytes():
            raise InvalidRequestError(f"{file}: the format did not keep every sample of this file", field="output")


def _name_in_header(file: Path) -> None:
    """Write the name of a DPX file into its header, in place of the path of the temporary folder, which OpenImageIO writes."""
    with open(file, "r+b") as opened:
        opened.seek(_DPX_NAME.start)
        opened.write(os.fsencode(file.name)[: len(_DPX_NAME) - 1].ljust(len(_DPX_NAME), b"\0"))


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".") or "the file is damaged"


def _unreadable(file: Path, problem: str) -> MediaUnsupportedError:
    return _unsupported(f"{file}: the frame cannot be read: {_sentence(problem)}")


def _unsupported(problem: str) -> MediaUnsupportedError:
    return MediaUnsupportedError(problem, field="footage")


class _Codes:
    """Between the samples of files and the code values of the video.

    Args:
        sequence: the sequence.
        colour: transform of its colour; None: code values stay as they are.
    """

    def __init__(self, sequence: FrameSequence, colour: SceneColour | None) -> None:
        self._colour, self._stored_bits = colour, sequence.bits
        self.bits = _DISPLAY_BITS if colour is not None or sequence.bits == 8 else sequence.bits

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the pixel format of the video."""
        return _PIXELS[self.bits]

    def shown(self, samples: Samples) -> Samples:
        """Return code values of the video, [..., 3], for samples of a file, [..., 3]."""
        if self._colour is None:
            return self._code(samples) if samples.dtype == np.uint16 else samples.astype(np.uint16) * _FILL_8
        top = (1 << self.bits) - 1
        return np.round(self._colour.to_display(self._values(samples)) * top).astype(np.uint16)

    def stored(self, codes: Samples, dtype: np.dtype[Any]) -> Samples:
        """Return samples of a file, [n, 3], for code values of the video, [n, 3]."""
        if self._colour is None:
            own = codes if dtype == np.uint16 else np.round(codes / _FILL_8)
            return self._sample(own.astype(np.uint32), dtype)
        values = self._colour.to_scene((codes / ((1 << self.bits) - 1)).astype(np.float32))
        if not self._stored_bits:
            return values.astype(dtype)
        top = (1 << self._stored_bits) - 1
        return self._sample(np.round(np.clip(np.nan_to_num(values), 0, 1) * top).astype(np.uint32), dtype)

    def _values(self, samples: Samples) -> Float32:
        if not self._stored_bits:
            return samples.astype(np.float32)
        return (self._code(samples) / ((1 << self._stored_bits) - 1)).astype(np.float32)

    def _code(self, samples: Samples) -> Samples:
        return samples >> (16 - self._stored_bits) if samples.dtype == np.uint16 else samples

    def _sample(self, codes: npt.NDArray[np.uint32], dtype: np.dtype[Any]) -> Samples:
        """Return samples of a file for its code values. OpenImageIO fills 16 bits by repeating the highest bits."""
        if dtype != np.uint16:
            return codes.astype(dtype)
        bits = self._stored_bits
        return ((codes << (16 - bits)) | (codes >> (2 * bits - 16))).astype(dtype)


def video_info(sequence: FrameSequence, colour: SceneColour | None) -> MediaInfo:
    """Return the description of the video of a sequence.

    Args:
        colour: transform of the sequence's colour; None: its code values are shown as they are.
    """
    pixel = pixel_format(_Codes(sequence, colour).pixel_format)
    times = np.arange(len(sequence.files), dtype=np.int64)
    times.setflags(write=False)
    video = VideoInfo(
        index=0,
        codec="ffv1",
        stored_format=pixel.name,
        pixel=pixel,
        orientation=orientation(sequence.width, sequence.height, sequence.pixel_aspect, None),
        colour=_SRGB,
        time_base=1 / sequence.rate,
        average_rate=sequence.rate,
        pts=times,
        last_duration=1,
        field_order="progressive",
        metadata={"timecode": sequence.timecode} if sequence.timecode else {},
    )
    return MediaInfo(sequence.pattern, "image2", video, (), (), {})


def write_video(
    sequence: FrameSequence,
    colour: SceneColour | None,
    target: Path,
    *,
    sound: Path | None = None,
    overwrite: bool = False,
    threads: int = 2,
    on_frame: OnFrame = lambda *_: None,
) -> None:
    """Write the pictures of a sequence, as a display shows them, and its sound as a video without loss (FFV1). Blocks.

    Args:
        sequence: the sequence.
        colour: transform of its colour; None: its code values are shown as they are.
        target: video to write.
        sound: sound file; None: the video has no sound.
        overwrite: whether any file at `target` is replaced.
        threads: threads of the encoder.
        on_frame: called after each frame.

    Raises:
        InvalidRequestError: the video cannot be written.
        MediaUnsupportedError: a frame or the sound cannot be read. The message names the file.
        StorageFullError: no space is left.
    """
    codes, info = _Codes(sequence, colour), video_info(sequence, colour)
    speech = SoundReader(sound).speech() if sound is not None else None
    settings = WriteSettings(codec="ffv1", carry=False, overwrite=overwrite, threads=threads)
    read = [("the sound itself", sound)] if sound is not None else []
    with VideoWriter(target, info, speech=speech, inputs=read, settings=settings) as writer:
        for index, file in enumerate(sequence.files):
            shown = np.zeros((sequence.height, sequence.width, 3), np.uint16)
            frame = _read(file)
            inside, stored = frame.crop()
            shown[inside] = codes.shown(frame.picture[stored])
            picture = blank_picture(info.video)
            picture.pts, picture.time_base = index, info.video.time_base
            planes = tuple(np.ascontiguousarray(shown[..., channel]) for channel in _PLANES)
            writer.write(DecodedFrame(index, index, planes, picture, info.video), planes)
            on_frame(index + 1, len(sequence.files))


def write_frames(
    sequence: FrameSequence,
    colour: SceneColour | None,
    video: Path,
    dubbed: Path,
    output: FramesOutput,
    *,
    seal: VideoSigner | None = None,
    confirm: Callable[[], None] = lambda: None,
    on_frame: OnFrame = lambda *_: None,
) -> None:
    """Write the files of a sequence anew, with the pixels that a dub of its video has changed. Blocks.

    All files are written to a temporary folder beside the output, and then renamed. The next run with the same output removes the
    folder that a killed run left. After a day, every run that writes beside the folder does.

    Args:
        sequence: the sequence that `video` was written from.
        colour: transform that `video` was written with.
        video: video of the sequence.
        dubbed: dub of that video, without loss.
        output: files to write. The sound is written if the dub has sound.
        seal: signs the list of the files; None: nothing does.
        confirm: called when the list is signed, right before the files get their names. Raises an error if the dub may not be shown
            any more.
        on_frame: called after each frame.

    Raises:
        MediaUnsupportedError: a file cannot be read any more, or the dub has other frames than the sequence.
        InvalidRequestError: a file cannot be written, or another job is writing the same output.
        StorageFullError: no space is left.
        DubstageError: from `seal` and `confirm`.
    """
    codes = _Codes(sequence, colour)
    before, after = probe(video), probe(dubbed)
    expected = video_info(sequence, colour).video
    for file, actual in ((video, before.video), (dubbed, after.video)):
        mine, its = (_size_of(info) for info in (expected, actual))
        if mine != its:
            raise _unsupported(f"{file}: {its}; the video of {sequence.pattern} has {mine}")
    if after.video.codec != "ffv1":
        raise _unsupported(
            Text(
                "{dubbed}: pictures in {codec} differ everywhere from the frames; dub with {option} ffv1",
                dubbed=dubbed,
                codec=after.video.codec,
                option=Option("codec"),
            )
        )
    files = output.files
    with ExitStack() as stack:
        try:
            # FramesOutput has checked the list that is there.
            listing = OutputFile(output.listing, overwrite=True)
            stack.callback(listing.discard)
            folder = stack.enter_context(partial_folder(output.listing))
            plates, dubs = (stack.enter_context(VideoReader(info)) for info in (before, after))
            for source, target, old, new in zip(sequence.files, files, plates, dubs, strict=True):
                was, became = (np.stack([shown.planes[2], shown.planes[0], shown.planes[1]], axis=-1) for shown in (old, new))
                frame = _read(source)
                inside, stored = frame.crop()
                if old.index == 0 and not _alike(codes.shown(frame.picture[stored]), was[inside], codes.bits):
                    raise _unsupported(f"{video}: its first picture is not {source} with the given options for colour")
                _replace(frame, stored, was[inside], became[inside], codes)
                _write(frame, folder / target.name, source)
                on_frame(old.index + 1, len(files))
            if after.audio:
                write_sound_from(dubbed, 0, folder / output.sound.name)
                files = [*files, output.sound]

            def allowed() -> None:
                confirm()
                output.check_again()

            _give_names(files, folder, listing, seal, allowed)
        except OSError as problem:
            raise (output_error(problem, output.files[0], "frames") or problem) from problem


def _give_names(
    files: Sequence[Path],
    folder: Path,
    listing: OutputFile,
    seal: VideoSigner | None,
    confirm: Callable[[], None] = lambda: None,
) -> None:
    """Write the list of finished files, sign the list, and move the files from a folder to their paths.

    If the list cannot get its name, the files that were moved are removed.
    """
    moved: list[Path] = []

    def move() -> None:
        confirm()
        for file in files:
            os.replace(folder / file.name, file)
            moved.append(file)

    lines = [f"{digest_and_size(folder / file.name)[0]}  {file.name}\n".encode() for file in files]
    with listing.content() as content:
        content.writelines(lines)
    # If this run is killed while the files get their names, the next run knows them by this list.
    (folder / listing.output.name).write_bytes(b"".join(lines))
    try:
        commit_with(listing, seal, move)
    except BaseException:
        for file in moved:
            file.unlink(missing_ok=True)
        raise


def copy_sequence(listing: Path, target: Path, *, overwrite: bool = False, seal: VideoSigner | None = None) -> None:
    """Copy the files of a dubbed sequence and their list, all or none. Blocks.

    Args:
        listing: list of the files, which lie beside it.
        target: list to write. The copies get their names beside it.
        overwrite: whether files are replaced.
        seal: signs the new list; None: nothing does.

    Raises:
        InvalidRequestError: a file is there, and files are not replaced; or a file cannot be written.
        MediaUnsupportedError: a file is not as the list says.
        OSError: a file cannot be read or written.
        DubstageError: from `seal`.
    """
    with ExitStack() as stack:
        output = OutputFile(target, overwrite=overwrite)
        stack.callback(output.discard)
        folder = stack.enter_context(partial_folder(target))
        files = []
        for name, digest in read_listing(listing).items():
            file = target.with_name(name)
            if os.path.lexists(file) and not overwrite:
                raise InvalidRequestError(
                    Text("{file} exists; give another folder, or {overwrite}", file=file, overwrite=Option("overwrite")),
                    field="output",
                )
            shutil.copyfile(listing.with_name(name), folder / name)
            if digest_and_size(folder / name)[0] != digest:
                raise _unsupported(f"{listing.with_name(name)}: the file has changed since {listing.name} was written")
            files.append(file)
        _give_names(files, folder, output, seal)


def _replace(frame: _Frame, stored: tuple[slice, slice], was: Samples, became: Samples, codes: _Codes) -> None:
    """Change the pixels of a file in which two pictures of the display window differ.

    Args:
        stored: pixels of the file that the display window shows.
        was, became: code values before and after the dub, [rows, columns, 3].
    """
    changed = np.any(was != became, axis=-1)
    if not changed.any():
        return
    samples = frame.parts[frame.coloured].samples
    whole = samples[stored]  # a view
    drawn = codes.stored(became[changed], samples.dtype)
    pixels = whole[changed]
    pixels[:, frame.rgb] = drawn
    whole[changed] = pixels


def _size_of(video: VideoInfo) -> str:
    return f"{video.num_frames} frames of {video.width} x {video.height} in {video.pixel.name}"


def _alike(mine: Samples, its: Samples, bits: int) -> bool:
    """Return whether two pictures are equal up to rounding on another machine, code values of so many bits."""
    return bool((np.abs(mine.astype(np.int32) - its) <= max(1, (1 << bits) >> 10)).all())


class SequenceDub:
    """The dub of an image sequence: a video to dub, a path for its dub, and the frames that are written from both.

        dub = SequenceDub(footage, output, settings, folder)
        dub.read()
        ...  # dub.video is dubbed in place to dub.dubbed, without loss
        dub.write()

    Attributes:
        video: video of the sequence, written by `read`.
        dubbed: dub of that video, which `write` reads.
        is_written: whether `write` has given the frames their names.
    """

    def __init__(
        self,
        footage: Path,
        output: Path,
        settings: SequenceSettings,
        folder: Path,
        *,
        inputs: Collection[Path] = (),
        overwrite: bool = False,
        is_signed: Callable[[Path], bool] = lambda _: False,
    ) -> None:
        """Check everything that is known before a picture is read. Blocks.

        Args:
            footage, output: patterns of the sequence and of its dub.
            settings: what the user says about the sequence.
            folder: empty folder for the videos.
            inputs: other files that the dub reads, such as the speech. None of the files that are written may be one of them.
            overwrite, is_signed: as `FramesOutput`.

        Raises:
            InvalidRequestError, MediaUnsupportedError: as `open_sequence`, `colour_of` and `FramesOutput`.
        """
        self._sequence = open_sequence(footage, settings.rate)
        self._colour = colour_of(self._sequence, settings.colour)
        self._output = FramesOutput(output, self._sequence, overwrite=overwrite, is_signed=is_signed)
        self._sound = settings.sound
        for file in (*inputs, *([settings.sound] if settings.sound is not None else [])):
            self._output.refuse_input(file)
        self.video = folder / sound_file(footage).with_suffix(PART_SUFFIX).name
        self.dubbed = folder / f"{sound_file(output).stem}-dubbed{PART_SUFFIX}"
        self.is_written = False

    def read(self, *, threads: int = 2, on_frame: OnFrame = lambda *_: None) -> None:
        """Write the video. See `write_video`."""
        write_video(self._sequence, self._colour, self.video, sound=self._sound, threads=threads, on_frame=on_frame)

    @property
    def listing(self) -> Path:
        """File with the digests of the frames, which `write` signs."""
        return self._output.listing

    def write(
        self,
        *,
        seal: VideoSigner | None = None,
        confirm: Callable[[], None] = lambda: None,
        on_frame: OnFrame = lambda *_: None,
    ) -> None:
        """Write the frames. See `write_frames`."""
        write_frames(
            self._sequence,
            self._colour,
            self.video,
            self.dubbed,
            self._output,
            seal=seal,
            confirm=confirm,
            on_frame=on_frame,
        )
        self.is_written = True

    def remove(self) -> None:
        """Remove the frames, the sound and their list, if `write` has written them. Blocks.

        Raises:
            OSError: a file cannot be removed.
        """
        if self.is_written:
            for file in (self.listing, self._output.sound, *self._output.files):
                file.unlink(missing_ok=True)
