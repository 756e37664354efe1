"""Train the identity embedding: `python -m services.render.train.identity_embedding --data FOLDER --out FOLDER`.

Each step draws as many pictures of every person; colours, scale, place, mirror and sharpness change from picture to picture.
Prints how well people that were never trained on are told apart: area under the ROC curve of the cosine, over pairs of pictures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from services.common.crops import BOX_SIZE
from services.render.networks.identity_embedding import AngularMarginHead, IdentityEmbedding, IdentityEmbeddingConfig
from services.render.networks.weights import save_weights
from services.render.train.footage import Person, colour_mixing, colour_table, read_people, recolour
from services.render.train.trainer import to_tensor
from services.render.types import UInt8


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingRecipe:
    """How the committed embedding was trained.

    Attributes:
        steps: in all.
        pictures: of each person in a step.
        learning_rate: at the beginning (Adam), falling to a hundredth by half a cosine.
        average_decay: of the moving average of the weights, which is what is kept.
        max_clips: of one person.
        network: what is trained.
        seed: of everything.
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
        area: under the ROC curve, as filmed.
        area_recoloured: the same with colours, place and sharpness changed in every picture.
        same: mean cosine of pairs of the same person.
        different: likewise of two people.
    """

    area: float
    area_recoloured: float
    same: float
    different: float


def varied(picture: UInt8, rng: np.random.Generator) -> UInt8:
    """The same face in other colours, a little larger or smaller, moved, turned, blurred, perhaps mirrored."""
    scale, angle = np.exp(rng.normal(0.0, 0.06)), float(rng.normal(0.0, 3.0))
    affine = cv2.getRotationMatrix2D((BOX_SIZE / 2, BOX_SIZE / 2), angle, float(scale))
    affine[:, 2] = affine[:, 2] + rng.normal(0.0, 4.0, 2)
    moved = cv2.warpAffine(picture, affine, (BOX_SIZE, BOX_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        moved = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.4, 2.0)))
    table, mixing = colour_table(rng), colour_mixing(rng)
    made = recolour(np.asarray(moved, np.uint8), table, mixing)
    return np.ascontiguousarray(made[:, ::-1]) if rng.random() < 0.5 else made


def area_under_roc(same: npt.NDArray[np.floating], different: npt.NDArray[np.floating]) -> float:
    """Probability that a pair of the same person is more alike than a pair of two: 0.5 is chance.

    Args:
        same: likeness of pairs of the same person.
        different: likewise of two people.
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
    """Figures over all pairs of pictures, evenly spread over each person's footage."""
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
    """Train on people, one class a name; returns the averaged network.

    Args:
        people: with their pictures; those of one name are one person.
        recipe: all settings.
        held_out: people that are only reported on.
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
    """Command line."""
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
