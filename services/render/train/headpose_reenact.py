"""What `headpose` draws from true landmarks: `python -m services.render.train.headpose_reenact --data SET --identities FOLDER ...`.

For each clip an actor is made from the first 60 % and frames of the rest are drawn. Prints mouth PSNR, SSIM, sharpness and flicker
of a still mouth (the bank's medoid), of the rendered frame alone, and of `headpose`: prior and personalised with either albedo, as
from a single still picture, and with the paper's ablations (no memory: the mean identity feature; no identity feature). With
--others also of `ugc` and `everybody`, personalised. Writes contact sheets, attention masks below.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch

from services.common.mouth_bank import make_bank
from services.render.adapt.everybody import personalize_everybody
from services.render.adapt.headpose import personalize_headpose
from services.render.adapt.pairs import Pair
from services.render.adapt.personalize import PersonalizeModels, personalize
from services.render.backends.base import Backend
from services.render.backends.registry import WEIGHTS_FOLDER, ModelFile
from services.render.detail import with_detail
from services.render.drawn_face import RENDERED, keys_shown_in
from services.render.features import match_colour
from services.render.key_pictures import KeyPictures, unpacked
from services.render.models import load_models, make_backend
from services.render.networks.headpose import HeadposeNetwork, Masks, refined
from services.render.train.everybody_held_out import read_windows
from services.render.train.everybody_reenact import Faces, draw, figures
from services.render.train.headpose_footage import Drawings, read_drawings
from services.render.train.headpose_held_out import read_drawn
from services.render.train.held_out import HeldOut, blended, read_held_out
from services.render.train.run_folder import RunFolder
from services.render.train.trainer import to_tensor
from services.render.types import Float32, UInt8

_SHOWN: Final = ("still mouth", "rendered frame", "prior", "personalised", "still picture")


@dataclass(frozen=True, slots=True)
class Clip:
    """Where a clip and its identities are.

    Attributes:
        data: training set.
        name: part of the clip's file name.
        use: of it.
        drawings: of its person, fitted on the first part.
        frames: to draw, consecutive.
    """

    data: Path
    name: str
    use: str
    drawings: Drawings
    frames: int

    def drawn(self, keys: KeyPictures | None = None, *, detailed: bool, still: bool = False, every: bool = True) -> HeldOut:
        """The clip's pairs; `every`: consecutive frames, otherwise two, for the bank's sake."""
        drawing = self.drawings.still if still else self.drawings.film
        clip = read_drawn(
            self.data, self.name, use=self.use, num_frames=0 if every else 2, drawing=drawing, detailed=detailed, keys=keys
        )
        return first_of(clip, self.frames)


@torch.no_grad()
def masks_of(network: HeadposeNetwork, pair: Pair, actor: Float32, identity: torch.Tensor | None = None) -> Masks:
    """C and A of a pair for an actor's state without key pictures; `identity`: [1, D] instead of what the memory recalls."""
    pictures, state = to_tensor(pair.picture[None]), torch.from_numpy(actor[None])
    recalled = network.identity_of(pictures, state) if identity is None else identity
    return network.masks(pictures, state[:, : network.film_size], recalled)


def draw_with(network: HeadposeNetwork, pairs: Sequence[Pair], actor: Float32, identity: torch.Tensor) -> Faces:
    """Faces with an identity feature that the memory has nothing to do with: uint8 [160, 160, 3] each."""
    faces = []
    for pair in pairs:
        made = refined(to_tensor(pair.picture[None])[:, RENDERED], masks_of(network, pair, actor, identity))
        faces.append(np.clip(np.rint(made[0].permute(1, 2, 0).numpy() * 255.0), 0, 255).astype(np.uint8))
    return faces


def served(backend: Backend, model: ModelFile, actor: Float32, clip: HeldOut) -> tuple[HeldOut, Faces]:
    """A clip and its faces as the stream gives them: drawn by a loaded model, then with the key pictures' strength of detail."""
    return clip, detailed_as_keys(clip, draw(backend, model, actor, clip.pairs))


def detailed_as_keys(clip: HeldOut, faces: Faces) -> Faces:
    """Drawn faces with the strength of detail of their key pictures."""
    return [
        with_detail(face, keys_shown_in(pair.picture), pair.picture[..., 6]) for pair, face in zip(clip.pairs, faces, strict=True)
    ]


def compare(given: Clip, weights: Path, folder: RunFolder, backend: Backend, *, threads: int, others: bool) -> None:
    """Print the table of one clip and write its pictures."""
    files, models = load_models(weights, backend).files, PersonalizeModels(weights)
    network, name = models.headpose(), given.name
    bank = given.drawn(detailed=False, every=False).bank
    started = time.monotonic()
    reports = list(personalize_headpose(bank, given.drawings.film, models, num_threads=threads))
    print(f"{name}: personalised in {time.monotonic() - started:.0f} s; {', '.join(f'{report.loss:.2f}' for report in reports)}")
    actor, keys = unpacked(reports[-1].state)
    prior = np.concatenate([np.zeros(network.film_size, np.float32), actor[network.film_size :]])
    nobody = np.zeros_like(actor)
    clip, detailed = given.drawn(keys, detailed=False), given.drawn(keys, detailed=True)
    picture = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
    still, still_keys = unpacked(list(personalize_headpose(picture, given.drawings.still, models))[-1].state)
    one = given.drawn(still_keys, detailed=True, still=True)
    mean = torch.from_numpy(models.identity_features().of(bank.boxes[:: max(1, bank.num_frames // 24)])).mean(dim=0, keepdim=True)
    rows: dict[str, tuple[HeldOut, Faces]] = {
        "still mouth": (
            clip,
            [match_colour(bank.boxes[bank.medoid], pair.target, pair.picture[..., 6]) for pair in clip.pairs],
        ),
        "rendered frame": (clip, [pair.picture[..., RENDERED] for pair in clip.pairs]),
        "rendered, detailed": (detailed, [pair.picture[..., RENDERED] for pair in detailed.pairs]),
        "prior": served(backend, files["headpose"], prior, clip),
        "prior, detailed": served(backend, files["headpose"], prior, detailed),
        "personalised": served(backend, files["headpose"], actor, clip),
        "personalised, detailed": served(backend, files["headpose"], actor, detailed),
        "as the network drew it": (clip, draw(backend, files["headpose"], actor, clip.pairs)),
        "still picture": served(backend, files["headpose"], still, one),
        "no actor's items": served(backend, files["headpose"], nobody, clip),
        "no memory": (clip, detailed_as_keys(clip, draw_with(network, clip.pairs, prior, mean))),
        "no identity feature": (clip, detailed_as_keys(clip, draw_with(network, clip.pairs, prior, torch.zeros_like(mean)))),
    }
    if others:
        state = list(personalize_everybody(bank, models, num_threads=threads))[-1].state
        film, window_keys = unpacked(state)
        windows = first_of(read_windows(given.data, name, use=given.use, num_frames=0, keys=window_keys), given.frames)
        rows["everybody"] = (windows, draw(backend, files["everybody"], film, windows.pairs))
        retrieved = first_of(read_held_out(given.data, name, use=given.use, num_frames=0), given.frames)
        refine = list(personalize(bank, models, num_threads=threads))[-1].state
        rows["ugc"] = (retrieved, draw(backend, files["ugc"], refine, retrieved.pairs))
    for title, (shown, faces) in rows.items():
        print(f"{name}: {title:22s} {figures(shown, faces)}", flush=True)
    places = range(0, len(clip.pairs), max(1, len(clip.pairs) // 8))
    attention = [_grey(masks_of(network, clip.pairs[at], actor).attention) for at in places]
    columns = [
        [
            *(blended(rows[title][0].pairs[at], rows[title][1][at].astype(np.float32)) for title in _SHOWN),
            clip.pairs[at].target,
            attention[number],
        ]
        for number, at in enumerate(places)
    ]
    folder.draw_grid(f"headpose_{name}", columns)


def first_of(clip: HeldOut, count: int) -> HeldOut:
    """A clip's first pairs; 0: all."""
    end = count or len(clip.pairs)
    return HeldOut(clip.name, clip.bank, clip.pairs[:end], clip.landmarks[:end])


def _grey(attention: torch.Tensor) -> UInt8:
    return np.repeat(np.rint(attention[0].permute(1, 2, 0).numpy() * 255.0).astype(np.uint8), 3, axis=2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--identities", type=Path, required=True, help="folder of services.face.train.identities --clip")
    parser.add_argument("--clip", nargs=2, action="append", required=True, metavar=("NAME", "USE"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER)
    parser.add_argument("--out", type=Path, default=Path("build/reenact"))
    parser.add_argument("--frames", type=int, default=120, help="consecutive frames of each clip; 0: all")
    parser.add_argument("--others", action="store_true", help="ugc and everybody too")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=given.threads)
    for name, use in given.clip:
        clip = Clip(given.data, name, use, read_drawings(given.identities, name), given.frames)
        compare(clip, given.weights, RunFolder(given.out), backend, threads=given.threads, others=given.others)


if __name__ == "__main__":
    main()
