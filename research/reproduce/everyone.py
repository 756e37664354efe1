"""Protocol of `everyone` (Saunders and Namboodiri, Sec. 5 and 7): pictures by frames of the actor, the prior, deletion, cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Final

import numpy as np

from research.evaluation.results import Configuration
from research.methods.everyone.few_frames import Reached, drawn_face
from research.methods.everyone.few_frames import measure as measure_prior
from research.methods.everyone.render import ActorAppearance, read_surface, read_windows
from research.render.held_out import Clip, DrawnClip, clip_metrics
from research.reproduce.claims import Claim, Figure, LeftOut, Level, Order
from research.reproduce.renderers import drawn_from_landmarks, held_out_clips, means_of
from research.reproduce.run import DubRow, Material, Measured, PaperProtocol, Protocol
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.renderers.everyone.network import WEIGHTS, load
from services.render.renderers.everyone.personalize import bank_texture
from services.render.renderers.everyone.renderer import reference_row

_METHOD: Final = Configuration(method="everyone")
_FEW: Final = "100 frames"
_ALL: Final = "all frames (1000 in the paper)"
_STEPS: Final = (14, 35, 70)
_FRAMES: Final = (10, 50, 100)
_QUICK_STEPS: Final = (14,)
_QUICK_FRAMES: Final = (10,)
_DRAWN: Final = 24
_SEED: Final = 0
_GREY: Final = 128

QUALITY: Final = Claim(
    name="quality",
    source="Table 1, HDTF",
    text="Four seconds (100 frames) of the actor are enough, and more frames give better pictures.",
    rows=(_FEW, _ALL),
    figures=(
        Figure(
            "face_psnr_db",
            "PSNR, dB",
            True,
            "partly",
            "HDTF in the paper; own clips, 256 px, at most 10 s of the actor; the movement learns from all frames",
        ),
        Figure("face_ssim", "SSIM", True, "partly", "as PSNR"),
        Figure("mouth_distance", "KID of the mouth", False, "no", "own features, in place of FID"),
    ),
    paper={_FEW: {"face_psnr_db": 29.10, "face_ssim": 0.899}, _ALL: {"face_psnr_db": 29.30, "face_ssim": 0.904}},
    checks=(
        Level("face_psnr_db", _FEW),
        Level("face_ssim", _FEW),
        Level("face_psnr_db", _ALL),
        Level("face_ssim", _ALL),
        Order("face_psnr_db", _ALL, _FEW),
        Order("face_ssim", _ALL, _FEW),
    ),
)


def _prior(frames: int) -> str:
    return f"{frames} frames, with the prior"


def _scratch(frames: int) -> str:
    return f"{frames} frames, without"


_MOUTH: Final = Figure("psnr_db", "PSNR of the mouth, dB", True, "no", "FID in the paper")
FEW: Final = Claim(
    name="few",
    source="Table 5, Fig. 7",
    text="With few frames of the actor, the prior gives much better pictures than a network that learns from them alone.",
    rows=tuple(row for frames in _FRAMES for row in (_prior(frames), _scratch(frames))),
    figures=(Figure("fid", "FID", False, "no", "FID needs a pretrained network"), _MOUTH),
    paper={_prior(100): {"fid": 11.37}, _scratch(100): {"fid": 17.71}},
    checks=tuple(Order("psnr_db", _prior(frames), _scratch(frames)) for frames in _FRAMES),
)


def _quick_prior(steps: int) -> str:
    return f"prior, {steps} steps"


def _slow_scratch(steps: int) -> str:
    return f"no prior, {5 * steps} steps"


SPEED: Final = Claim(
    name="speed",
    source="Table 3",
    text="The prior needs a tenth to a twenty-fifth of the steps for the same PSNR (checked: a fifth).",
    rows=tuple(row for steps in _STEPS for row in (_quick_prior(steps), _slow_scratch(steps))),
    figures=(
        Figure("psnr_db", "PSNR of the mouth, dB", True, "no", "steps to 25 to 30 dB in the paper: 200 to 1600, 2200 to 40,000"),
    ),
    paper={},
    checks=tuple(Order("psnr_db", _quick_prior(steps), _slow_scratch(steps)) for steps in _STEPS),
)
_KEPT: Final = "the actor's texture"
_DELETED: Final = "texture deleted (random, no reference)"
DELETION: Final = Claim(
    name="deletion",
    source="7, Privacy",
    text="Without the neural texture, the network does not draw the person.",
    rows=(_KEPT, _DELETED),
    figures=(
        Figure("psnr_db", "PSNR of the mouth, dB", True, "no", "no figure in the paper"),
        Figure("ssim", "SSIM of the mouth", True, "no", "no figure in the paper"),
    ),
    paper={},
    checks=(Order("psnr_db", _KEPT, _DELETED), Order("ssim", _KEPT, _DELETED)),
)
COST: Final = Claim(
    name="cost",
    source="5.5",
    text="Without reconstruction, five frames a second are drawn.",
    rows=(_ALL,),
    figures=(
        Figure(
            "ms_per_frame",
            "frame, ms of wall time",
            False,
            "partly",
            "this machine's processor, an L4 in the paper; 160 px, not 256",
        ),
    ),
    paper={_ALL: {"ms_per_frame": 200.0}},
    checks=(Level("ms_per_frame", _ALL),),
)


def measure_few(material: Material) -> Measured:
    """Adapt actors of few frames with the prior and without.

    Raises:
        InvalidRequestError: the training set has no held-out clip, or no identity of a person.
    """
    frames = _QUICK_FRAMES if material.quick else _FRAMES
    steps = _QUICK_STEPS if material.quick else _STEPS[-1:]
    clips = held_out_clips(material)
    reached = _reached(material, clips, frames, steps)
    last = [each for each in reached if each.steps]
    rows = {name(count): _mean(last, count, prior) for count in frames for name, prior in ((_prior, True), (_scratch, False))}
    return drawn_from_landmarks(rows, clips)


def measure_speed(material: Material) -> Measured:
    """Adapt actors of all frames, and measure them after some steps with the prior, and five times as many without.

    Raises:
        InvalidRequestError: the training set has no held-out clip, or no identity of a person.
    """
    steps = _QUICK_STEPS if material.quick else _STEPS
    clips = held_out_clips(material)
    reached = _reached(material, clips, (0,), steps)
    rows = {}
    for count in steps:
        rows[_quick_prior(count)] = {"psnr_db": fmean(each.psnr_db for each in reached if each.prior and each.steps == count)}
        rows[_slow_scratch(count)] = {
            "psnr_db": fmean(each.psnr_db for each in reached if not each.prior and each.steps == 5 * count)
        }
    return drawn_from_landmarks(rows, clips)


def _reached(material: Material, clips: Sequence[Clip], frames: Sequence[int], steps: Sequence[int]) -> list[Reached]:
    return [reached for clip in material.each(clips) for reached in measure_prior(clip, WEIGHTS_FOLDER, frames, steps)]


def _mean(reached: Sequence[Reached], frames: int, prior: bool) -> dict[str, float]:
    values = [each.psnr_db for each in reached if each.prior == prior and each.frames == frames]
    return {"psnr_db": fmean(values)} if values else {}


def measure_deletion(material: Material) -> Measured:
    """Draw people with their own texture and reference, and with a random texture and no reference.

    Raises:
        InvalidRequestError: the training set has no held-out clip, or no identity of a person.
    """
    network = load(WEIGHTS_FOLDER / WEIGHTS)
    style = network.default_state().numpy()
    clips = held_out_clips(material)
    by_row: dict[str, list[dict[str, float]]] = {_KEPT: [], _DELETED: []}
    for clip in material.each(clips):
        surface = read_surface(clip.data, clip.row.speaker)
        bank = read_windows(clip, 2, surface).bank
        own = ActorAppearance(bank_texture(bank, surface, _SEED), bank.boxes[reference_row(bank)].copy())
        noise = np.random.default_rng(_SEED).integers(0, 256, own.texture.shape, np.uint8)
        for row, looks in ((_KEPT, own), (_DELETED, ActorAppearance(noise, np.full_like(own.reference, _GREY)))):
            held = read_windows(clip, _DRAWN, surface, looks)
            metrics = clip_metrics(DrawnClip(held, [drawn_face(network, pair.picture, style) for pair in held.pairs]))
            by_row[row].append({"psnr_db": metrics.psnr_db, "ssim": metrics.ssim})
    return drawn_from_landmarks(means_of(by_row), clips)


PAPER: Final = PaperProtocol(
    name="everyone",
    title="Saunders and Namboodiri: *Dubbing for Everyone: Cost and Data-Efficient Visual Dubbing using Neural Rendering Priors*",
    splits=("dev", "dev_people"),
    protocols=(
        Protocol(
            claim=QUALITY,
            dubs=(DubRow(row=_FEW, of=Configuration(method="everyone", enrol_frames=100)), DubRow(row=_ALL, of=_METHOD)),
        ),
        Protocol(claim=FEW, measure=measure_few),
        Protocol(claim=SPEED, measure=measure_speed),
        Protocol(claim=DELETION, measure=measure_deletion),
        Protocol(claim=COST, dubs=(DubRow(row=_ALL, of=_METHOD),)),
    ),
    left_out=(
        LeftOut("HDTF and CelebV-HQ", "the corpora are not among the clips"),
        LeftOut("FID and FVD", "they need pretrained networks that are not part of dubstage"),
        LeftOut("without border post-processing, without mixed data (Table 4)", "served actors learn a texture, not the network"),
        LeftOut("250, 500 and 1000 frames (Table 5)", "not measured yet"),
        LeftOut("other systems (Table 1)", "their code and results are not part of dubstage"),
        LeftOut("user studies (Tables 1, 2 and 4)", "they need people"),
    ),
)
