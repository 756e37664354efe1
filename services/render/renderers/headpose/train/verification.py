"""How well an identity embedding tells people apart: area under the ROC curve of the cosine, over pairs of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from services.common.array_types import UInt8
from services.common.face.crops import BOX_SIZE
from services.render.networks.tensors import to_tensor
from services.render.train.colours import random_colours
from services.render.train.people import Person


@dataclass(frozen=True, slots=True)
class Verification:
    """How well pairs of the same person are told from pairs of two people.

    Attributes:
        area: area under the ROC curve, pictures as filmed.
        area_recoloured: area under the ROC curve with colours, place and sharpness changed in every picture.
        same: mean cosine of pairs of the same person.
        different: mean cosine of pairs of two people.
    """

    area: float
    area_recoloured: float
    same: float
    different: float


def varied(picture: UInt8, rng: np.random.Generator) -> UInt8:
    """Return a face in other colours, a little larger or smaller, moved, turned, blurred, perhaps mirrored: uint8 [160, 160, 3]."""
    scale, angle = np.exp(rng.normal(0.0, 0.06)), float(rng.normal(0.0, 3.0))
    affine = cv2.getRotationMatrix2D((BOX_SIZE / 2, BOX_SIZE / 2), angle, float(scale))
    affine[:, 2] = affine[:, 2] + rng.normal(0.0, 4.0, 2)
    moved = cv2.warpAffine(picture, affine, (BOX_SIZE, BOX_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        moved = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.4, 2.0)))
    made = random_colours(rng).of(np.asarray(moved, np.uint8))
    return np.ascontiguousarray(made[:, ::-1]) if rng.random() < 0.5 else made


def area_under_roc(same: npt.NDArray[np.floating], different: npt.NDArray[np.floating]) -> float:
    """Return the probability that a pair of the same person is more alike than a pair of two people: 0.5 is chance.

    Args:
        same: float [N], likeness of pairs of the same person.
        different: float [M], likeness of pairs of two people.
    """
    both = np.concatenate([same, different])
    ranks = np.empty(len(both), np.float64)
    order = np.argsort(both, kind="stable")
    ranks[order] = np.arange(1, len(both) + 1)
    # Equal values share their mean rank.
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    shared = (np.bincount(inverse, ranks) / counts)[inverse]
    wins = shared[: len(same)].sum() - len(same) * (len(same) + 1) / 2
    return float(wins / (len(same) * len(different)))


@torch.no_grad()
def verify(network: nn.Module, people: Sequence[Person], *, pictures: int = 24, seed: int = 0) -> Verification:
    """Return figures over all pairs of pictures, which are evenly spread over each person's footage.

    Args:
        network: the embedding.
        people: the people to tell apart, two or more.
        pictures: pictures of each person.
        seed: random seed of the changed pictures.
    """
    rng = np.random.default_rng(seed)
    boxes: list[UInt8] = []
    owners: list[int] = []
    for label, person in enumerate(people):
        rows = np.unique(np.linspace(0, person.bank.num_frames - 1, pictures).round().astype(int))
        boxes.append(person.bank.boxes[rows])
        owners.extend([label] * len(rows))
    shown, owner = np.concatenate(boxes), np.array(owners)
    place = next(network.parameters()).device
    plain = network(to_tensor(shown, place)).cpu().numpy()
    other = network(to_tensor(np.stack([varied(picture, rng) for picture in shown]), place)).cpu().numpy()
    first, second = np.triu_indices(len(owner), 1)
    same = owner[first] == owner[second]
    alike = (plain @ plain.T)[first, second]
    recoloured = (other @ other.T)[first, second]
    return Verification(
        area_under_roc(alike[same], alike[~same]),
        area_under_roc(recoloured[same], recoloured[~same]),
        float(alike[same].mean()),
        float(alike[~same].mean()),
    )
