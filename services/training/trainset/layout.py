"""Names of files in a training set, and the arrays that each file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

MANIFEST: Final = "manifest.jsonl"
REFUSED: Final = "refused.jsonl"
INCOMPLETE: Final = "incomplete.jsonl"
_IDENTITIES: Final = "identities"
FORMAT_VERSION: Final = "2"
CLIPS_A_SHARD: Final = 1000

Part = Literal["track", "sound", "speech", "phones", "expression"]
"""Files of a clip.

    track   landmarks float32 [T, 478, 3] (frame pixels); scale, rotation, translation float64 [T], [T, 3, 3], [T, 3];
            mouth_landmarks float32 [T, 59, 3] (head space); usable bool [T]; boxes uint8 [T, 160, 160, 3] (RGB, the render box). 25
            frames/s.
    sound   samples int16 [N] at 16 kHz, 32767 is full scale. Sample 0 belongs to the first frame. Metadata: `source`, `speaker`,
            `transcript`, `sha256`, `first_frame`, and `words` where times are known: a JSON list of [word, start in s, end in s].
    speech  mel float32 [T, 4, 80]; mfcc float32 [T, 4, 40]; posteriorgram float32 [T, 4, 40]; identity_removed float32 [T, 4, 20];
            speech_probability float32 [T]; speech_states, speech_states_live float32 [T, 192]. 25 frames/s.
    phones  labels uint8 [R], one class of services.common.wire.phones per row of 10 ms, 255 where unknown; heard uint8 [R], classes
            by free phone recognition, 255 where there was none. Metadata `origin`: aligned, recognised, allphone or network.
    expression  coefficients float32 [T, E] in units of the person's spread. SET/expression.safetensors has `shape` float32 [P, E]:
            the pixels by which a coefficient of one typical spread moves the P mouth coordinates.
"""


def shard_name(number: int) -> str:
    """Return the name of the shard of a clip.

    Args:
        number: number of the clip in the order in which clips were taken in, from 0.
    """
    return f"{number // CLIPS_A_SHARD:05d}"


def part_path(folder: Path, shard: str, name: str, part: Part) -> Path:
    """Return the path of one file of a clip."""
    return folder / "shards" / shard / f"{name}.{part}.safetensors"


def all_identities(folder: Path) -> list[Path]:
    """Return the paths of the identities that a training set holds."""
    return sorted((folder / _IDENTITIES).glob("*.safetensors"))


def identity_path(folder: Path, speaker: str, *, still: bool) -> Path:
    """Return the path of a person's identity, fitted to many frames or, as for a still picture, to one."""
    return folder / _IDENTITIES / f"{speaker.replace('/', '_')}{'.still' if still else ''}.safetensors"
