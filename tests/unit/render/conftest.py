"""A small person, drawn: a bank of frames whose mouth opens and shuts, and small networks written as real weight files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from services.common.face.actor_geometry import ANCHORS, lower_face_mask, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, head_template, head_to_box
from services.common.face.landmarks import LIPS_INNER, MOUTH_AREA, NUM_LIPS
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.losses import PatchDiscriminator
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.weights import save_weights
from services.render.renderers.ugc.network import UgcConfig, UgcNetwork
from services.render.types import RenderFrame
from tests.unit.render.zero_weights import fill_zero_weights

UPRIGHT = HeadPose(1.0, np.eye(3), np.zeros(3))


def open_mouth(opening_px: float) -> npt.NDArray[np.float32]:
    """Mouth-area landmarks of the mean head, the lower lip moved down: float32 [59, 3], head space."""
    mouth = head_template()[list(MOUTH_AREA)].copy()
    lower = np.r_[11:20, 31:40]
    mouth[lower, 1] += opening_px
    mouth[NUM_LIPS + 4 : NUM_LIPS + 13, 1] += 0.6 * opening_px
    return mouth.astype(np.float32)


def draw_face(mouth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A lower face of these landmarks: uint8 [160, 160, 3]."""
    rows, columns = np.mgrid[:BOX_SIZE, :BOX_SIZE]
    face = np.dstack([180 + 0.2 * columns - 0.1 * rows, 140 + 0.1 * columns, 120 - 0.1 * rows]).astype(np.float32)
    face += np.random.default_rng(5).normal(0.0, 3.0, face.shape)
    picture = np.clip(face, 0, 255).astype(np.uint8)
    points = head_to_box(mouth, UPRIGHT)
    lips = np.round(points[: NUM_LIPS - len(LIPS_INNER)]).astype(np.int32)
    inside = np.round(points[NUM_LIPS - len(LIPS_INNER) : NUM_LIPS]).astype(np.int32)
    cv2.fillPoly(picture, [lips], (150, 60, 70))
    cv2.fillPoly(picture, [inside], (40, 15, 15))
    return picture


@pytest.fixture(scope="session")
def bank() -> MouthBank:
    """48 frames, four openings and closings."""
    openings = 8.0 * (1.0 - np.cos(np.arange(48) * np.pi / 6.0))
    mouth = np.stack([open_mouth(float(opening)) for opening in openings])
    anchors = np.repeat(head_template()[list(ANCHORS)][None], len(mouth), axis=0)
    boxes = np.stack([draw_face(points) for points in mouth])
    rotation = np.repeat(np.eye(3)[None], len(mouth), axis=0)
    return make_bank(boxes, mouth, rotation, np.arange(len(mouth)), measure_geometry(mouth, anchors))


@pytest.fixture(scope="session")
def mask(bank: MouthBank) -> npt.NDArray[np.uint8]:
    """The drawn person's lower-face mask."""
    return lower_face_mask(bank.geometry, UPRIGHT)


@pytest.fixture(scope="session")
def frames(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Three frames to render."""
    return [RenderFrame(row, bank.boxes[row], bank.boxes[row + 6], mask, bank.box_landmarks[row + 6]) for row in (0, 3, 9)]


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three weight files of small networks."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    ugc = UgcNetwork(UgcConfig(widths=(8, 12, 16, 16), depths=(1, 1, 1, 1)))
    fill_zero_weights(ugc)
    save_weights(folder / "ugc.safetensors", ugc, ugc.config.to_metadata())
    perceptual = PerceptualNetwork(PerceptualConfig(widths=(4, 8, 8, 8)))
    save_weights(folder / "perceptual.safetensors", perceptual, perceptual.config.to_metadata())
    save_weights(folder / "frame_discriminator.safetensors", PatchDiscriminator(3), {"in_channels": 3})
    return folder
