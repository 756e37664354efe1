"""Costs of a dub: time and memory by measured figures, corrected by the earlier dubs of this machine."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict

from gateway.dub.state.records import read_note, write_note
from gateway.stages.timing import StageTimes
from services.common.errors import DubstageError
from services.common.methods import method_named

PACED_FRAMES: Final = 50
"""Least number of rendered frames of a dub whose time says something about the machine."""
_RATIOS: Final = 20
"""Number of earlier dubs that correct an estimate."""
_FIGURES: Final = Path(__file__).with_name("costs.toml")


class CostFigures(BaseModel):
    """Measured figures (costs.toml). Times are processor time of all threads, unless stated.

    Attributes:
        start_s: a dub of any length: first inference of each network, inspection, manifest.
        frame_ms: decoding, tracking, speech, blending and encoding of a frame, apart from what grows with the picture.
        megapixel_ms: decoding twice, colours, moved jaw and encoding, per million pixels of a frame, up to the first million.
        further_megapixel_ms: the same beyond the first million: tracking sees smaller pictures, and x264 has faster parameters.
        detail_ms: fine detail of a rendered frame, at 1 to 4 footage pixels per box pixel.
        background_megapixel_ms: background video of a dub with its own timeline, per million pixels of a frame.
        personalize_s: adapting the networks to the person.
        processors: processors that a dub keeps busy in the mean.
        memory_mb, personalize_mb: largest memory of the process: at least, and for personalising.
        megapixel_mb, further_megapixel_mb: more memory per million pixels of a frame, up to the first million and beyond.
        bank_frame_kb: artefacts of an enrolled person on the disk, per frame of the bank.
        render_ms: textures and renderer of a rendered frame, by renderer. A renderer without a figure costs the most.
        written_ms: wall-clock time of a rendered and written frame, apart from what grows with the picture; by renderer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_s: float
    frame_ms: float
    megapixel_ms: float
    further_megapixel_ms: float
    detail_ms: tuple[float, float, float, float]
    background_megapixel_ms: float
    personalize_s: float
    processors: float
    memory_mb: float
    megapixel_mb: float
    further_megapixel_mb: float
    personalize_mb: float
    bank_frame_kb: float
    render_ms: dict[str, float]
    written_ms: dict[str, float]


@lru_cache(maxsize=1)
def figures() -> CostFigures:
    """Return the figures of costs.toml."""
    return CostFigures.model_validate(tomllib.loads(_FIGURES.read_text(encoding="utf-8")))


@dataclass(frozen=True, kw_only=True, slots=True)
class DubWork:
    """Work of a dub that its costs follow from.

    Attributes:
        method: name of the method.
        pixels: pixels of a frame.
        footage_frames: frames that are tracked; 0: an earlier dub has kept the analysis of the footage.
        frames: frames of the video.
        rendered: mouths that are rendered.
        scale: native pixels per box pixel of the face, 1 to 4; 0: the mouths get no fine detail.
        own_timeline: whether a background video is written.
        personalized: people to whom the networks are adapted.
    """

    method: str
    pixels: int
    footage_frames: int
    frames: int
    rendered: int
    scale: int
    own_timeline: bool
    personalized: int

    @property
    def processor_s(self) -> float:
        """Processor seconds of all threads, only by the figures. The start of the stages is not part of a dub."""
        cost, megapixels = figures(), self.pixels / 1e6
        # Methods of several parts, such as MOTION+RENDERER, cost what their renderer costs.
        render = cost.render_ms.get(method_named(self.method).renderer.name, max(cost.render_ms.values()))
        frame_ms = cost.frame_ms + self._of_pixels(cost.megapixel_ms, cost.further_megapixel_ms)
        tracked, written = self.footage_frames * frame_ms / 2, self.frames * frame_ms / 2
        background = self.frames * cost.background_megapixel_ms * megapixels if self.own_timeline else 0.0
        mouths = self.rendered * (render + (cost.detail_ms[self.scale - 1] if self.scale else 0.0))
        learned = cost.personalize_s * self.personalized
        return cost.start_s + learned + (tracked + written + background + mouths) / 1000

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds, only by the figures."""
        return self.processor_s / figures().processors

    @property
    def memory_bytes(self) -> int:
        """Largest resident memory of the process, with the stages in it."""
        cost = figures()
        learned = cost.personalize_mb if self.personalized else 0.0
        return int(1e6 * (cost.memory_mb + self._of_pixels(cost.megapixel_mb, cost.further_megapixel_mb) + learned))

    def _of_pixels(self, first: float, further: float) -> float:
        """Return what the pixels of a frame cost, by the costs per million of the first million and of further pixels."""
        megapixels = self.pixels / 1e6
        return first * min(1.0, megapixels) + further * max(0.0, megapixels - 1.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """Factors of this machine against the figures.

    Attributes:
        processor: median of measured over estimated processor time of earlier dubs; 1: none was measured.
        wall: the same of wall-clock time.
        num_dubs: number of earlier dubs that `wall` is the median of.
    """

    processor: float = 1.0
    wall: float = 1.0
    num_dubs: int = 0


class PaceFile:
    """Times of the last dubs of this machine, in `costs.json` of the data folder. Loss of the file or of an entry does no harm."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "costs.json"

    def read(self) -> Pace:
        """Return the factors of the last dubs. Blocks."""
        ratios = self._ratios()
        processor, wall = ratios["processor"], ratios["wall"]
        return Pace(median(processor or [1.0]), median(wall or [1.0]), len(wall))

    def add(self, work: DubWork, times: StageTimes, *, whole_process: bool) -> None:
        """Store the time of a dub. Blocks. A dub of less than PACED_FRAMES rendered frames is not stored.

        Args:
            whole_process: whether all stages ran in this process, so that its processor time is that of the dub.
        """
        if work.rendered < PACED_FRAMES:
            return
        ratios = self._ratios()
        ratios["wall"].append(times.total_s / work.wall_s)
        if whole_process:
            ratios["processor"].append(times.cpu_s / work.processor_s)
        # Work that needs the disk reports a full disk.
        with suppress(DubstageError, OSError):
            write_note(self._path, {name: values[-_RATIOS:] for name, values in ratios.items()})

    def _ratios(self) -> dict[str, list[float]]:
        """Return the ratios of measured to estimated times of earlier dubs, by the kind of time."""
        note = read_note(self._path) or {}
        ratios = {name: note.get(name) for name in ("processor", "wall")}
        return {
            name: [value for value in values if isinstance(value, float) and value > 0] if isinstance(values, list) else []
            for name, values in ratios.items()
        }
