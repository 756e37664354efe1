"""Ways in which people and platforms encode a film again."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, cast

import av
from av.filter import Graph


@dataclass(frozen=True, slots=True)
class Recoding:
    """One way of encoding a film again.

    Attributes:
        filters: chain of FFmpeg's filters, each with its arguments.
        encoder: name of FFmpeg's encoder.
        options: options of the encoder.
    """

    filters: tuple[tuple[str, str], ...] = ()
    encoder: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("crf", "23"),)
    ending: str = "mp4"


_HALF: Final = ("scale", "trunc(iw/4)*2:trunc(ih/4)*2")
_CRF_28: Final = (("crf", "28"),)
RECODINGS: Final = {
    "H.264 crf 28": Recoding(options=_CRF_28),
    "half scale": Recoding((_HALF,)),
    "10 % crop": Recoding((("crop", "trunc(iw*0.45)*2:trunc(ih*0.45)*2"),)),
    "30 frames/s": Recoding((("fps", "30"),)),
    "blur and gamma": Recoding((("gblur", "sigma=1.2"), ("lutyuv", "y=gammaval(0.8)"))),
    "WebM (VP9)": Recoding((), "libvpx-vp9", (("crf", "33"), ("b", "0"), ("cpu-used", "4")), "webm"),
    "half scale, crf 28": Recoding((_HALF,), options=_CRF_28),
}
"""By name. The last one is harder than what the watermark is made for."""


def recoded(film: Path, target: Path, how: Recoding) -> Path:
    """Write the pictures of a film, filtered and encoded again; return the file.

    Raises:
        ValueError: the film has no pictures.
    """
    with av.open(str(film)) as source, av.open(str(target), "w") as output:
        old = source.streams.video[0]
        graph = Graph()
        filters = (*how.filters, ("format", "yuv420p"))
        chain = [graph.add_buffer(template=old), *(graph.add(name, text) for name, text in filters), graph.add("buffersink")]
        graph.link_nodes(*chain).configure()
        asked = [text for name, text in how.filters if name == "fps"]
        new: av.VideoStream | None = None
        for pushed in (*source.decode(old), None):
            graph.push(pushed)
            while True:
                try:
                    picture = graph.vpull()
                except (av.BlockingIOError, av.EOFError):
                    break
                if new is None:
                    rate = Fraction(asked[0]) if asked else old.average_rate
                    new = cast(av.VideoStream, output.add_stream(how.encoder, rate=rate, options=dict(how.options)))
                    new.width, new.height, new.pix_fmt = picture.width, picture.height, "yuv420p"
                    new.codec_context.time_base = cast(Fraction, picture.time_base)
                picture.pict_type = av.video.frame.PictureType.NONE
                output.mux(new.encode(picture))
        if new is None:
            raise ValueError(f"{film} has no pictures")
        output.mux(new.encode())
    return target
