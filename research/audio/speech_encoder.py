"""Conversion of Whisper's encoder: `python -m research.audio.speech_encoder FILE --data SET --output WEIGHTS/audio`.

FILE is a model.bin of CTranslate2, or the wheel that ships the file (docs/models/speech_encoder.md names both); it is read and
never executed. The command cuts the stem and the first blocks out, finds the principal components of the tapped blocks' states on
the speech of the training set's split `train`, folds them into the network, stores the weights as int8 with one scale a channel,
and compares the result with PyTorch.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast
from zipfile import BadZipFile, ZipFile

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from research.audio.recordings import scaled
from research.training.command import command_line
from research.training.trainset import TrainSet
from services.audio.spectral import WINDOW_LEAD_SAMPLES
from services.audio.speech_encoder import FILES, MODEL_FILE, SILENCE, EncoderNetwork, log_mel
from services.audio.types import NUM_MELS, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Array, Float32, Float64, Floating
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.files import write_whole

_LOUDEST_BELOW: Final = 8.0
"""Decades of power below the window's loudest band to which the log mel is cut."""
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
_PARTS: Final = ("weight", "bias")
_OPSET: Final = 17
_SMALLEST: Final = 4096
"""Numbers from which a tensor of weights is stored as int8."""
_LEVELS: Final = 127
LEAST_COSINE: Final = 0.99
LARGEST_ROUNDING: Final = 2e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Sizes of the encoder. The defaults are those of tiny.en."""

    width: int = 384
    heads: int = 6
    blocks: int = 3
    tapped: tuple[int, ...] = (2, 3)
    """Blocks whose states are answered, counted from 1, in increasing order. The last is `blocks`."""
    projected: int = 96
    """Numbers of a tapped block's projected state."""


class Block(nn.Module):
    """One transformer block: attention over all states of the window, then a feed-forward layer of four times the width."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.width)
        self.mixed = nn.Linear(config.width, 3 * config.width)
        self.joined = nn.Linear(config.width, config.width)
        self.feed_norm = nn.LayerNorm(config.width)
        self.wide = nn.Linear(config.width, 4 * config.width)
        self.narrow = nn.Linear(4 * config.width, config.width)

    def attended(self, x: Tensor) -> Tensor:
        """Return x + attention(norm(x)): [N, T, D] -> [N, T, D]."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mixed(self.attention_norm(x)).chunk(3, dim=-1)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
        joined: Tensor = x + self.joined((weights @ value).transpose(1, 2).flatten(2))
        return joined

    def widened(self, x: Tensor) -> Tensor:
        """Return the hidden layer of the feed-forward part: [N, T, D] -> [N, T, 4 D]."""
        return functional.gelu(self.wide(self.feed_norm(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: [N, T, D] -> [N, T, D]."""
        x = self.attended(x)
        fed: Tensor = x + self.narrow(self.widened(x))
        return fed


def positions(count: int, width: int) -> Tensor:
    """Return the sine positions of states, float32 [count, width]: sines first, then cosines."""
    rates = torch.exp(-torch.log(torch.tensor(10_000.0)) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(count)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class SpeechEncoder(nn.Module):
    """Stem, blocks and projections."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv1d(NUM_MELS, config.width, 3, padding=1)
        self.second = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.projections = nn.ModuleList(nn.Linear(config.width, config.projected) for _ in config.tapped)

    def every_block(self) -> list[Block]:
        """Return the blocks in order."""
        return [cast("Block", block) for block in self.blocks]

    def every_projection(self) -> list[nn.Linear]:
        """Return the projections of the tapped blocks in order."""
        return [cast("nn.Linear", project) for project in self.projections]

    def stem(self, log_mel: Tensor) -> Tensor:
        """Return the input of block 1: [N, R, 80] -> [N, R / 2, D]. The log mel is cut and scaled by the window's loudest band."""
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        scaled = (torch.maximum(log_mel, loudest - _LOUDEST_BELOW) + 4.0) / 4.0
        x = functional.gelu(self.first(scaled.transpose(1, 2)))
        x = functional.gelu(self.second(x)).transpose(1, 2)
        return x + positions(x.shape[1], x.shape[2])

    def states(self, log_mel: Tensor) -> list[Tensor]:
        """Return the full states of the tapped blocks, each [N, R / 2, D].

        Args:
            log_mel: [N, R, 80], log10 of mel band power.
        """
        x = self.stem(log_mel)
        states = []
        for number, block in enumerate(self.every_block(), start=1):
            x = block(x)
            if number in self.config.tapped:
                states.append(x)
        return states

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return the projected states of the tapped blocks side by side: [N, R, 80] -> [N, R / 2, len(tapped) * projected]."""
        return torch.cat([project(x) for project, x in zip(self.every_projection(), self.states(log_mel), strict=True)], dim=-1)


def read_variables(file: Path, sha256: str = TINY_EN) -> dict[str, Array]:
    """Return the variables of a model by name.

    Args:
        file: the model.bin, or a wheel (a zip archive) that holds one model.bin.
        sha256: expected SHA-256 of the model.bin, hexadecimal.

    Raises:
        InvalidRequestError: the file cannot be read, has another SHA-256, or is no model of CTranslate2.
    """
    content = _model_bin(file)
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise InvalidRequestError(
            f"{file}: the SHA-256 of {_MEMBER} is {digest}, expected {sha256}; give the digest of the file that you trust",
            field="file",
        )
    try:
        return dict(_variables(content))
    except (struct.error, KeyError, ValueError, UnicodeDecodeError) as problem:
        raise InvalidRequestError(f"{file}: {_MEMBER} is no model of CTranslate2 ({problem})", field="file") from problem


def _model_bin(file: Path) -> bytes:
    try:
        if file.suffix not in {".whl", ".zip"}:
            return file.read_bytes()
        with ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == _MEMBER]
            if len(names) != 1:
                raise InvalidRequestError(f"{file}: expected one {_MEMBER} in the archive, found {len(names)}", field="file")
            return archive.read(names[0])
    except (OSError, BadZipFile) as problem:
        raise InvalidRequestError(f"{file}: cannot be read: {problem}", field="file") from problem


def _variables(content: bytes) -> Iterator[tuple[str, Array]]:
    offset = 0

    def number(form: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from(f"<{form}", content, offset)
        offset += struct.calcsize(form)
        return int(value)

    def string() -> str:
        nonlocal offset
        length = number("H")
        offset += length
        return content[offset - length : offset].rstrip(b"\0").decode()

    number("I"), string(), number("I")
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = np.dtype(_TYPES[number("B")]), number("I")
        values = np.frombuffer(content, kind, size // kind.itemsize, offset).reshape(shape)
        offset += size
        yield name, values


def encoder_of(variables: Mapping[str, Array], config: EncoderConfig) -> SpeechEncoder:
    """Return the encoder with the file's stem and first blocks; the projections are random.

    Raises:
        InvalidRequestError: the model has no such encoder, or has other sizes.
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
            raise InvalidRequestError(f"the variable encoder/{theirs} is {shape}, expected {list(state[ours].shape)}", field="file")
        state[ours] = torch.from_numpy(values.astype(np.float32))
    network.load_state_dict(state)
    return network.eval()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Differences of the converted network from PyTorch, over windows of speech.

    Attributes:
        cosine: mean cosine of states about their mean, of the int8 network with the float32 network.
        rounding: largest difference of a number from PyTorch with the same int8 weights.
    """

    cosine: float
    rounding: float


class ServedEncoder(nn.Module):
    """The encoder for export: the last block's projection is folded into the layers before it.

    P (x + W h + b) + p = P x + (P W) h + (P b + p): the wide output of the last block is never made.
    """

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        last, project = encoder.every_block()[-1], encoder.every_projection()[-1]
        self.direct = nn.Linear(project.in_features, project.out_features)
        self.folded = nn.Linear(last.narrow.in_features, project.out_features, bias=False)
        with torch.no_grad():
            self.direct.weight.copy_(project.weight)
            self.direct.bias.copy_(project.weight @ last.narrow.bias + project.bias)
            self.folded.weight.copy_(project.weight @ last.narrow.weight)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return the projected states: [1, R, 80] -> [1, R / 2, taps * projected]."""
        encoder = self.encoder
        *blocks, last = encoder.every_block()
        projections = encoder.every_projection()
        x = encoder.stem(log_mel)
        states: list[Tensor] = []
        for number, block in enumerate(blocks, start=1):
            x = block(x)
            if number in encoder.config.tapped:
                states.append(projections[len(states)](x))
        attended = last.attended(x)
        states.append(self.direct(attended) + self.folded(last.widened(attended)))
        return torch.cat(states, dim=-1)


def speech_windows(data: TrainSet) -> Iterator[Float32]:
    """Yield windows of the clips of the split `train`, float32 [R, 80], as files are read: each begins and ends within its clip.

    Raises:
        InvalidRequestError: there is no clip, or a clip cannot be read.
    """
    margin = np.zeros(WINDOW_LEAD_SAMPLES, np.float32)
    for row in data.of("train"):
        samples = scaled(data.arrays(row, "sound", ["samples"])["samples"])
        rows = log_mel(np.concatenate([margin, samples, margin]))
        for start in range(0, len(rows), FILES.rows):
            window = rows[start : start + FILES.rows]
            yield np.pad(window, ((0, FILES.rows - len(window)), (0, 0)), constant_values=SILENCE)


def fit_projections(encoder: SpeechEncoder, windows: Iterable[Float32]) -> None:
    """Set the projections to the principal components of the tapped blocks' states on windows of speech.

    Projected states are measured from the mean state of a window of digital silence, so that 0 stands for silence.
    """
    with torch.inference_mode():
        quiet = [x.mean(dim=1)[0] for x in encoder.states(torch.full((1, FILES.rows, NUM_MELS), SILENCE))]
    sums: list[tuple[Float64, Float64, int]] = []
    for window in windows:
        with torch.inference_mode():
            states = [x[0].numpy().astype(np.float64) for x in encoder.states(torch.from_numpy(window)[None])]
        fresh = [(x.T @ x, x.sum(axis=0), len(x)) for x in states]
        sums = [(g + a, t + b, n + m) for (g, t, n), (a, b, m) in zip(sums, fresh, strict=True)] if sums else fresh
    for project, silent, (gram, total, count) in zip(encoder.every_projection(), quiet, sums, strict=True):
        mean = total / count
        _, vectors = np.linalg.eigh(gram / count - np.outer(mean, mean))
        components = np.ascontiguousarray(vectors[:, ::-1][:, : project.out_features].T)
        # The sign of a component is arbitrary: the largest number is positive, so that every machine writes the same file.
        largest = np.abs(components).argmax(axis=1)
        components *= np.sign(np.take_along_axis(components, largest[:, None], axis=1))
        with torch.no_grad():
            project.weight.copy_(torch.from_numpy(components))
            project.bias.copy_(-project.weight @ silent)


def quantised(weight: Floating, axis: int) -> tuple[np.ndarray, Float32]:
    """Return a weight as int8 and one scale for each index of `axis`, of the weight's rank."""
    others = tuple(each for each in range(weight.ndim) if each != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12).astype(np.float32) / np.float32(_LEVELS)
    return np.round(weight / scale).astype(np.int8), scale


def with_int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with large weights stored as int8.

    A cast and a product make float32 of a stored weight. ONNX Runtime runs both once, when it loads the file, so the network
    computes in float32: the bits do not depend on the integer instructions of a processor.
    """
    graph = model.graph
    outputs_first = {name for node in graph.node if node.op_type == "Conv" for name in node.input}
    kept, nodes = [], []
    for tensor in graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.dtype != np.float32 or weight.ndim < 2 or weight.size < _SMALLEST:
            kept.append(tensor)
            continue
        stored, scale = quantised(weight, 0 if tensor.name in outputs_first else weight.ndim - 1)
        names = [f"{tensor.name}.{part}" for part in ("int8", "scale", "float")]
        kept += [numpy_helper.from_array(stored, names[0]), numpy_helper.from_array(scale, names[1])]
        nodes += [
            helper.make_node("Cast", [names[0]], [names[2]], to=TensorProto.FLOAT),
            helper.make_node("Mul", [names[2], names[1]], [tensor.name]),
        ]
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def exported(encoder: SpeechEncoder) -> bytes:
    """Return the ONNX file of an encoder."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / MODEL_FILE
        with warnings.catch_warnings():
            # The exporter warns of its age and of constants that it traces: the parity is measured.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                ServedEncoder(encoder).eval(),
                (torch.zeros(1, FILES.rows, NUM_MELS),),
                str(path),
                input_names=["log_mel"],
                output_names=["states"],
                dynamic_axes={"log_mel": {1: "rows"}, "states": {1: "states"}},
                opset_version=_OPSET,
                dynamo=False,
            )
        content: bytes = with_int8_weights(onnx.load(path)).SerializeToString()
    return content


def measure_parity(encoder: SpeechEncoder, content: bytes, windows: Sequence[Float32]) -> Parity:
    """Compare an exported network with its source on windows of speech."""
    rounded = _rounded(encoder)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / MODEL_FILE
        path.write_bytes(content)
        network = EncoderNetwork(path)
        served = np.concatenate([network.run(window) for window in windows])
    with torch.inference_mode():
        given = [torch.from_numpy(window)[None] for window in windows]
        exact, same = (np.concatenate([net(each)[0].numpy() for each in given]) for net in (ServedEncoder(encoder), rounded))
    a, b = served - served.mean(axis=0), exact - exact.mean(axis=0)
    cosines = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)
    return Parity(cosine=float(cosines.mean()), rounding=float(np.abs(served - same).max()))


def _rounded(encoder: SpeechEncoder) -> ServedEncoder:
    """Return the served encoder with weights that went through int8."""
    served = ServedEncoder(encoder)
    with torch.no_grad():
        for weight in served.parameters():
            if weight.ndim >= 2 and weight.numel() >= _SMALLEST:
                stored, scale = quantised(weight.numpy(), 0)
                weight.copy_(torch.from_numpy(stored.astype(np.float32) * scale))
    return served


def convert(file: Path, data: TrainSet, folder: Path, sha256: str = TINY_EN, config: EncoderConfig | None = None) -> Parity:
    """Write `folder`/speech_encoder.onnx and speech_encoder.json, and return the parity.

    Args:
        file: model.bin, or a wheel that holds the file.
        data: training set whose split `train` the principal components are computed on.
        folder: folder of weights.
        sha256: expected SHA-256 of model.bin.
        config: sizes of the encoder; None: those of tiny.en.

    Raises:
        InvalidRequestError: the file is another one or cannot be used, or the set has no clip.
        ContractBrokenError: the converted network differs from its source. Then nothing is written.
    """
    encoder = encoder_of(read_variables(file, sha256), config or EncoderConfig())
    windows = list(speech_windows(data))
    fit_projections(encoder, windows)
    content = exported(encoder)
    parity = measure_parity(encoder, content, windows[:: max(1, len(windows) // 16)])
    if not (parity.cosine >= LEAST_COSINE and parity.rounding <= LARGEST_ROUNDING):
        raise ContractBrokenError(
            f"{file}: conversion refused: int8 states have a cosine of {parity.cosine:.4f} with float32 "
            f"(at least {LEAST_COSINE} is allowed), and ONNX Runtime differs from PyTorch by {parity.rounding:.2g} "
            f"(at most {LARGEST_ROUNDING:.2g})"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MODEL_FILE, content)
    facts = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "source_sha256": sha256,
        "encoder": dataclasses.asdict(encoder.config),
        "speech_seconds": round(sum(map(len, windows)) / ROWS_PER_VIDEO_FRAME / 25),
        "parity": dataclasses.asdict(parity),
    }
    write_whole((folder / MODEL_FILE).with_suffix(".json"), (json.dumps(facts, indent=1) + "\n").encode())
    return parity


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="model.bin of CTranslate2, or the wheel that ships model.bin")
    parser.add_argument("--data", type=Path, required=True, help="training set, made by `dubstage trainset`")
    parser.add_argument("--output", type=Path, required=True, help="folder of the audio stage's weights")
    parser.add_argument("--sha256", default=TINY_EN, help="SHA-256 of model.bin; the default is tiny.en's")
    sizes = EncoderConfig()
    parser.add_argument("--width", type=int, default=sizes.width, help="width of the encoder (tiny.en: 384, base.en: 512)")
    parser.add_argument("--heads", type=int, default=sizes.heads, help="attention heads (tiny.en: 6, base.en: 8)")
    arguments = parser.parse_args()
    config = dataclasses.replace(sizes, width=arguments.width, heads=arguments.heads)
    parity = convert(arguments.file, TrainSet(arguments.data), arguments.output, arguments.sha256, config)
    print(f"cosine with float32 {parity.cosine:.4f}, largest difference from PyTorch {parity.rounding:.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
