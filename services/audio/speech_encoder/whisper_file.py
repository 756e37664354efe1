"""Reading of Whisper's weights from a file of CTranslate2 (`model.bin`), the form in which packages ship Whisper.

The file, little-endian: version u32, name of the model, revision u32, number of variables u32; for each variable: name, rank u8,
one u32 for each dimension, type u8, bytes u32, data; then aliases, which are not read. A string is its length u16, with the final 0
counted, and its bytes. Nothing in the file is executed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from services.audio.speech_encoder.network import EncoderConfig, SpeechEncoder
from services.common.array_types import Array
from services.common.errors import InvalidRequest

TINY_EN: Final = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"""SHA-256 of the file with tiny.en that the committed network was converted from (docs/models/speech_encoder.md)."""
_MEMBER: Final = "model.bin"
_TYPES: Final = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_BLOCK_PARTS: Final = {
    "attention_norm": "self_attention/layer_norm",
    "mixed": "self_attention/linear_0",
    "joined": "self_attention/linear_1",
    "feed_norm": "ffn/layer_norm",
    "wide": "ffn/linear_0",
    "narrow": "ffn/linear_1",
}
"""Layers of a block, and their names in the file."""
_NORMS: Final = frozenset({"attention_norm", "feed_norm"})


def read_variables(file: Path, sha256: str = TINY_EN) -> dict[str, Array]:
    """Return the variables of a model by name.

    Args:
        file: the model.bin, or a wheel (a zip archive) that holds one model.bin.
        sha256: expected SHA-256 of the model.bin, hexadecimal.

    Raises:
        InvalidRequest: the file cannot be read, has another SHA-256, or is no model of CTranslate2.
    """
    content = _model_bin(file)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InvalidRequest(
            f"{file}: the SHA-256 of {_MEMBER} is {found}, expected {sha256}; give the digest of the file that you trust",
            field="file",
        )
    try:
        return dict(_variables(content))
    except (struct.error, KeyError, ValueError, UnicodeDecodeError) as problem:
        raise InvalidRequest(f"{file}: {_MEMBER} is no model of CTranslate2 ({problem})", field="file") from problem


def _model_bin(file: Path) -> bytes:
    try:
        if file.suffix not in {".whl", ".zip"}:
            return file.read_bytes()
        with ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == _MEMBER]
            if len(names) != 1:
                raise InvalidRequest(f"{file}: expected one {_MEMBER} in the archive, found {len(names)}", field="file")
            return archive.read(names[0])
    except (OSError, BadZipFile) as problem:
        raise InvalidRequest(f"{file}: cannot be read: {problem}", field="file") from problem


def _variables(content: bytes) -> Iterator[tuple[str, Array]]:
    place = 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", content, place)
        place += struct.calcsize(form)
        return int(value)

    def string() -> str:
        nonlocal place
        length = number("H")
        place += length
        return content[place - length : place].rstrip(b"\0").decode()

    number("I"), string(), number("I")
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = np.dtype(_TYPES[number("B")]), number("I")
        values = np.frombuffer(content, kind, size // kind.itemsize, place).reshape(shape)
        place += size
        yield name, values


def encoder_of(variables: Mapping[str, Array], config: EncoderConfig) -> SpeechEncoder:
    """Return the encoder with the file's stem and first blocks; the projections are random.

    Raises:
        InvalidRequest: the model has no such encoder, or has other sizes.
    """
    network = SpeechEncoder(config)
    wanted = {f"{layer}.{part}": f"{name}/{part}" for layer, name in (("first", "conv1"), ("second", "conv2")) for part in _PARTS}
    for block in range(config.blocks):
        for layer, name in _BLOCK_PARTS.items():
            named = ("gamma", "beta") if layer in _NORMS else _PARTS
            for part, theirs in zip(_PARTS, named, strict=True):
                wanted[f"blocks.{block}.{layer}.{part}"] = f"layer_{block}/{name}/{theirs}"
    state = network.state_dict()
    for ours, theirs in wanted.items():
        values = variables.get(f"encoder/{theirs}")
        if values is None or values.shape != tuple(state[ours].shape):
            shape = "missing" if values is None else f"of shape {list(values.shape)}"
            raise InvalidRequest(f"the variable encoder/{theirs} is {shape}, expected {list(state[ours].shape)}", field="file")
        state[ours] = torch.from_numpy(values.astype(np.float32))
    network.load_state_dict(state)
    return network.eval()


_PARTS: Final = ("weight", "bias")
