"""Train the identity embedding: `python -m services.render.renderers.headpose.train.identity_embedding --data FOLDER --out FOLDER`.

Each step draws the same number of pictures of every person. Colours, scale, place, mirror and sharpness change from picture to
picture. The command prints how well the embedding tells people apart that were never trained on: area under the ROC curve of the
cosine, over pairs of pictures.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.common.array_types import UInt8
from services.common.face.crops import BOX_SIZE
from services.render.networks.tensors import to_tensor
from services.render.networks.weights import save_weights
from services.render.renderers.headpose.identity_embedding import IdentityEmbedding, IdentityEmbeddingConfig
from services.render.train.colours import random_colours
from services.render.train.footage import Person, read_people


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingRecipe:
    """How the committed embedding was trained.

    Attributes:
        steps: number of steps.
        pictures: pictures of each person per step.
        learning_rate: learning rate at the beginning (Adam). It falls to a hundredth by half a cosine.
        average_decay: decay of the moving average of the weights. The average is the result.
        max_clips: largest number of clips of one person.
        network: shape of the network.
        seed: random seed of the whole training.
        report_every: steps between lines of the log.
    """

    steps: int = 700
    pictures: int = 4
    learning_rate: float = 1.5e-3
    average_decay: float = 0.99
    max_clips: int = 16
    network: IdentityEmbeddingConfig = field(default_factory=IdentityEmbeddingConfig)
    seed: int = 20268
    report_every: int = 50


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


class AngularMarginHead(nn.Module):
    """Additive angular margin (Deng et al. 2019, Eq. 3): logits s cos(theta + m) for the right class, s cos(theta) for the others.

    Args:
        size: numbers of a feature.
        num_classes: number of people.
        margin: m, radians.
        scale: s.
    """

    def __init__(self, size: int, num_classes: int, *, margin: float = 0.3, scale: float = 16.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.empty(num_classes, size))
        nn.init.xavier_normal_(self.centres)
        self.margin, self.scale = margin, scale

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return logits, float [B, C], of unit features, float [B, size], with their classes, int64 [B]."""
        cosine = features @ F.normalize(self.centres, dim=1).T
        right = F.one_hot(labels, len(self.centres)).to(cosine.dtype)
        own = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        moved = own * math.cos(self.margin) - (1.0 - own.square()).sqrt() * math.sin(self.margin)
        # Beyond pi - m the cosine of the sum would grow again: there the cosine is lowered by a constant, as the authors do.
        moved = torch.where(own > math.cos(math.pi - self.margin), moved, own - self.margin * math.sin(self.margin))
        return (right * moved + (1.0 - right) * cosine) * self.scale


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
def verify(network: IdentityEmbedding, people: Sequence[Person], *, pictures: int = 24, seed: int = 0) -> Verification:
    """Return figures over all pairs of pictures, which are evenly spread over each person's footage.

    Args:
        network: the embedding.
        people: the people to tell apart.
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
    plain = network(to_tensor(shown)).numpy()
    other = network(to_tensor(np.stack([varied(picture, rng) for picture in shown]))).numpy()
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


def train(people: Sequence[Person], recipe: EmbeddingRecipe, held_out: Sequence[Person]) -> IdentityEmbedding:
    """Train on people, one class per name; return the averaged network.

    Args:
        people: people with their pictures. All entries of one name are one person.
        recipe: all settings.
        held_out: people that the log reports on and that are not trained on.
    """
    torch.manual_seed(recipe.seed)
    names = sorted({person.name for person in people})
    footage = [np.concatenate([person.bank.boxes for person in people if person.name == name]) for name in names]
    network = IdentityEmbedding(recipe.network)
    average = IdentityEmbedding(recipe.network).requires_grad_(False)
    average.load_state_dict(network.state_dict())
    head = AngularMarginHead(recipe.network.size, len(names))
    optimiser = torch.optim.Adam([*network.parameters(), *head.parameters()], recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps, recipe.learning_rate * 0.01)
    labels = torch.arange(len(names)).repeat_interleave(recipe.pictures)
    started = time.monotonic()
    for step in range(1, recipe.steps + 1):
        rng = np.random.default_rng((recipe.seed, step))
        pictures = [varied(boxes[rng.integers(len(boxes))], rng) for boxes in footage for _ in range(recipe.pictures)]
        logits = head(network(to_tensor(np.stack(pictures))), labels)
        loss = F.cross_entropy(logits, labels)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1.0 - min(recipe.average_decay, (1.0 + step) / (10.0 + step)))
        if step % recipe.report_every == 0 or step == recipe.steps:
            found = verify(average, held_out) if held_out else ""
            print(
                f"step {step}: loss {float(loss.detach()):.3f}  minutes {(time.monotonic() - started) / 60:.1f}  {found}",
                flush=True,
            )
    return average


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--out", type=Path, default=Path("build/identity_embedding"), help="folder of the run")
    parser.add_argument("--steps", type=int, default=EmbeddingRecipe().steps)
    parser.add_argument("--held-out", action="append", default=[], metavar="NAME", help="part of the names of val clips")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    recipe = EmbeddingRecipe(steps=given.steps)
    people = read_people(given.data, use="train", max_clips=recipe.max_clips, sharp_marks=())
    held_out = read_people(given.data, use="val", max_clips=2, sharp_marks=(), only=given.held_out) if given.held_out else []
    network = train(people, recipe, held_out)
    facts = {"steps": str(recipe.steps), "seed": str(recipe.seed)}
    save_weights(given.out / "identity_embedding.safetensors", network, recipe.network.to_metadata(), **facts)


if __name__ == "__main__":
    main()
