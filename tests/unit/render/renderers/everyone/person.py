"""The drawn person of conftest.py with a neural texture, and small networks of `everyone`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from services.common.array_types import UInt8
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import SPEECH_SHAPE, MouthBank
from services.common.face.neural_texture import NeuralSurface, sample
from services.common.geometry.morphable_model import default_model
from services.render.networks.weights import save_weights
from services.render.renderers.everyone.network import WEIGHTS, EveryoneConfig, EveryoneNetwork
from services.render.types import RenderFrame
from tests.unit.render.drawn_person import person

UPRIGHT = HeadPose(1.0, np.eye(3), np.zeros(3))
CONFIG = EveryoneConfig(widths=(8, 8, 8, 8), face_size=4, audio_size=4, audio_widths=(4, 4, 4))


def surface() -> NeuralSurface:
    """The person's surface."""
    return NeuralSurface(person(), default_model())


def speaking(bank: MouthBank) -> MouthBank:
    """The bank with speech."""
    speech = np.random.default_rng(4).random((bank.num_frames, *SPEECH_SHAPE), np.float32)
    return replace(bank, speech=speech)


def shown_frames(bank: MouthBank, mask: UInt8, texture: UInt8, num_frames: int) -> list[RenderFrame]:
    """The bank's first frames as a renderer gets them, with a texture on the surface."""
    drawn, spoken = surface(), speaking(bank)
    assert spoken.speech is not None
    return [
        RenderFrame(
            frame_index=row,
            background=bank.boxes[row],
            texture=None,
            mask=mask,
            box_landmarks=bank.box_landmarks[row],
            speech_features=spoken.speech[row],
            neural_features=sample(texture, drawn.uv_of(drawn.expression_of(bank.mouth[row]), UPRIGHT)),
        )
        for row in range(num_frames)
    ]


def small_network(config: EveryoneConfig = CONFIG, *, seed: int = 6) -> EveryoneNetwork:
    """A small network whose last layers are not zero."""
    torch.manual_seed(seed)
    network = EveryoneNetwork(config)
    for layer in (network.head, network.neighbours):
        torch.nn.init.normal_(layer.conv.weight, std=0.05)
    return network.eval().requires_grad_(False)


def write_weights(small_weights: Path, folder: Path) -> Path:
    """Write the weights that a personalisation needs; return the folder."""
    shutil.copytree(small_weights, folder)
    network = small_network()
    save_weights(folder / WEIGHTS, network, network.config.to_metadata())
    return folder
