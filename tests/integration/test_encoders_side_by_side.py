"""Several videos encoded at once in one process, as a gateway with several jobs does it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.writer import VideoWriter

ROUNDS = 12
SIDE_BY_SIDE = 3


def test_concurrent_encoders_same_bytes(carphone: Path, tmp_path: Path) -> None:
    """Videos encoded side by side have the same bytes."""
    info = probe(carphone)

    def encode(number: int) -> str:
        output = tmp_path / f"{number}.mp4"
        with VideoWriter(output, info, settings=WriteSettings(codec="h264", threads=1)) as writer, VideoReader(info) as reader:
            for frame in reader:
                writer.write(frame)
        return hashlib.sha256(output.read_bytes()).hexdigest()

    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        digests = set(threads.map(encode, range(ROUNDS * SIDE_BY_SIDE)))
    assert len(digests) == 1
