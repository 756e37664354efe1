"""Tests of the share of frames with a face, which an estimate measures in a few pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.job.estimate import sampled_face
from gateway.media.opening import open_input
from gateway.media.probe import probe
from research.stage_host import StageHost
from services.common.errors import MediaUnsupportedError


def damaged(source: Path, target: Path, first: int) -> Path:
    """Copy a video, with noise in place of its key frames from the key frame `first` on."""
    with open_input(source) as container:
        keys = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.is_keyframe and packet.size]
    content = bytearray(source.read_bytes())
    for begin, size in keys[first:]:
        assert begin is not None
        content[begin : begin + size] = np.random.default_rng(0).bytes(size)
    target.write_bytes(content)
    return target


def test_damaged_packets_leave_an_estimate(clips: Any, carphone: Path, host: StageHost, tmp_path: Path) -> None:
    """The face is found in the samples that can be decoded. If none can, the file is refused."""
    source = clips.path("video/hp_31.mp4")
    partly = probe(damaged(source, tmp_path / "partly.mp4", 1))
    assert host.run(sampled_face(host.stages, partly)) == host.run(sampled_face(host.stages, probe(source)))
    # The file is damaged after it was inspected: an inspection refuses a video without any frame.
    broken = replace(probe(carphone), path=damaged(carphone, tmp_path / "all.mp4", 0))
    with pytest.raises(MediaUnsupportedError, match="no picture can be decoded"):
        host.run(sampled_face(host.stages, broken))
