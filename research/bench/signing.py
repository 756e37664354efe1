"""`python -m research.bench.signing`: cost of a signed manifest, per frame and per MB, and of c2pa's own signing.

Every turn writes the packets of a video to a new video three times: without a manifest, with dubstage's manifest, and without one
and then by c2pa, which copies the video. The processor time includes that of the process that signs.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from gateway.media.mp4 import BUFFER_BYTES
from gateway.media.output import OutputFile, commit_with
from gateway.media.writer import VideoSigner
from gateway.provenance.binding import embedded_type
from gateway.provenance.claim import Claim, SourceFile, definition
from gateway.provenance.credential import installation_credential
from gateway.provenance.seal import Sealer
from gateway.provenance.signer import Credential
from gateway.provenance.verdict import ManifestState, verdict_of

WIDTH: Final = 1280
HEIGHT: Final = 720
CODECS: Final = {"prores_ks": ("mov", "yuv422p10le", {"profile": "3"}), "libx264": ("mp4", "yuv420p", {"preset": "veryfast"})}


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a task: seconds on the clock, and seconds of processors."""

    wall_s: float
    cpu_s: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cost_of(work: Callable[[], None]) -> Cost:
    """Return what some work took."""
    wall, cpu = time.perf_counter(), _cpu_s()
    work()
    return Cost(time.perf_counter() - wall, _cpu_s() - cpu)


def make_video(video: Path, codec: str, frames: int) -> None:
    """Write a video of noise that moves."""
    _, pixels, options = CODECS[codec]
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT + 300, WIDTH, 3), dtype=np.uint8)
    noise += np.linspace(0, 180, WIDTH).astype(np.uint8)[None, :, None]
    with av.open(str(video), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for index in range(frames):
            first = index % 300
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[first : first + HEIGHT]), format="rgb24")
            output.mux(stream.encode(picture.reformat(format=pixels)))
        output.mux(stream.encode(None))


def write(packets: Path, video: Path, seal: VideoSigner | None) -> None:
    """Write the packets of a video to another video, as a dub writes its video, and sign the video."""
    file = OutputFile(video, overwrite=True)
    target = file.target(seal.padding if seal is not None else 0)
    with av.open(str(packets)) as source, av.open(target, "w", format=video.suffix[1:], buffer_size=BUFFER_BYTES) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    file.settle()
    commit_with(file, seal)


def claim_of(footage: Path, frames: int) -> Claim:
    """Return the claim of a video whose frames are all dubbed. The digest of the footage is known, as in a dub."""
    return Claim(
        version="bench",
        description="bench",
        synthetic=True,
        method="bench",
        models=(),
        num_frames=frames,
        frame_rate=Fraction(25),
        dubbed=(range(frames),),
        sources=(SourceFile("footage", footage, "0" * 64),),
    )


def sign_by_c2pa(video: Path, signed: Path, claim: Claim, credential: Credential) -> None:
    """Sign a video by c2pa alone; c2pa reads the video and writes copies."""
    import c2pa

    info = c2pa.C2paSignerInfo(credential.algorithm.encode(), credential.chain, credential.key, None)
    manifest = definition(claim, {"footage": "0" * 64}, {})
    manifest["assertions"] = manifest["assertions"][1:-1]
    settings = {"core": {"backing_store_memory_threshold_in_mb": 8}, "verify": {"verify_after_sign": False}}
    media_type = embedded_type(video) or ""
    with c2pa.Context.from_dict(settings) as context, c2pa.Builder(manifest, context=context) as builder:
        builder.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.EMPTY)
        with video.open("rb") as source, signed.open("w+b") as target, c2pa.Signer.from_info(info) as signer:
            builder.sign(signer, media_type, source, target)


def measure(codec: str, frames: int, turns: int, folder: Path) -> None:
    """Measure one codec, and print the medians of the turns."""
    tempfile.tempdir = str(folder)
    suffix = CODECS[codec][0]
    packets, plain, video = (folder / f"{name}.{suffix}" for name in ("packets", "plain", "video"))
    make_video(packets, codec, frames)
    sealer = Sealer(installation_credential(folder / "data"))
    claim = claim_of(packets, frames)
    ours, theirs = [], []
    for _ in range(turns):
        without = cost_of(lambda: write(packets, plain, None))
        ours.append(cost_of(lambda: write(packets, video, sealer.seal(claim, video))) - without)
        theirs.append(cost_of(lambda: sign_by_c2pa(plain, folder / f"c2pa.{suffix}", claim, sealer.credential)))
    assert verdict_of(video).state is ManifestState.VALID
    megabytes = plain.stat().st_size / 1e6
    print(f"{codec}: {frames} frames, {megabytes:.0f} MB, {megabytes / frames:.2f} MB a frame, {turns} turns")
    for name, costs in (("dubstage", ours), ("c2pa alone", theirs)):
        wall, cpu = (statistics.median(getattr(cost, kind) for cost in costs) for kind in ("wall_s", "cpu_s"))
        print(
            f"  {name}: {1e3 * wall / frames:.2f} ms a frame on the clock, {1e3 * cpu / frames:.2f} ms of processor time; "
            f"{1e3 * cpu / megabytes:.2f} ms a MB; {cpu:.2f} s in all"
        )


def main() -> None:
    """Measure all codecs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=500, help="Frames of each video.")
    parser.add_argument("--turns", type=int, default=5, help="Turns, of which the median counts.")
    parser.add_argument("--folder", type=Path, default=None, help="Folder for the videos. Default: a temporary one.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        for codec in CODECS:
            folder = Path(work) / codec
            folder.mkdir()
            measure(codec, arguments.frames, arguments.turns, folder)


if __name__ == "__main__":
    main()
