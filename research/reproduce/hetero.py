"""Protocol of `hetero` (Xie et al. 2021, Sec. 4): pictures and landmarks of dubs, fine-tuning, heterogeneous data."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from research.evaluation.results import Configuration
from research.reproduce.claims import Claim, Figure, LeftOut, Level, Order
from research.reproduce.left_out import left_out
from research.reproduce.run import DubRow, Material, Measured, PaperProtocol, Protocol
from research.training.networks import network_named

_METHOD: Final = Configuration(method="hetero")
_PLAIN: Final = Configuration(method="hetero", personalize=False)
_LRS2: Final = "fine-tuned (LRS2 in the paper)"
_LRW: Final = "fine-tuned (LRW in the paper)"
_NME: Final = Figure("nme", "NME", False, "partly", "own clips; 216 points of another list")
_SSIM: Final = Figure("face_ssim", "SSIM", True, "partly", "own clips; crop of 256 px")
_PSNR: Final = Figure("face_psnr_db", "PSNR, dB", True, "partly", "own clips; crop of 256 px")

QUALITY: Final = Claim(
    name="quality",
    source="Table 1, paired",
    text="Dubs with the clips' own sound are near the real video.",
    rows=(_LRS2, _LRW),
    figures=(_NME, _SSIM, _PSNR),
    paper={
        _LRS2: {"nme": 0.0136, "face_ssim": 0.9298, "face_psnr_db": 33.08},
        _LRW: {"nme": 0.0098, "face_ssim": 0.9372, "face_psnr_db": 32.79},
    },
    checks=tuple(Level(figure, row) for row in (_LRS2, _LRW) for figure in ("nme", "face_ssim", "face_psnr_db")),
)
_TUNED: Final = "with fine-tuning"
_UNTUNED: Final = "without fine-tuning"
TUNING: Final = Claim(
    name="tuning",
    source="Table 2, Fig. 5",
    text="Fine-tuning makes the person more alike, and keeps pictures and sync.",
    rows=(_UNTUNED, _TUNED),
    figures=(
        Figure("identity", "likeness, 1 to 5", True, "no", "graded by people"),
        Figure("face_distance", "distance of face embeddings", False, "no", "not in the paper"),
        Figure("mouth_psnr_db", "PSNR of the mouth, dB", True, "no", "not in the paper"),
        Figure("sync_distance", "sync distance", False, "no", "own sync network"),
    ),
    paper={_UNTUNED: {"identity": 3.700}, _TUNED: {"identity": 3.945}},
    checks=(
        Order("face_distance", _TUNED, _UNTUNED),
        Order("mouth_psnr_db", _TUNED, _UNTUNED),
        Order("sync_distance", _TUNED, _UNTUNED),
    ),
)
_ALONE: Final = "clips with pictures only"
_MORE: Final = "and speech that has no pictures"
SOURCES: Final = Claim(
    name="sources",
    source="Table 3, stage I",
    text="More data for the landmark generator alone makes its landmarks better.",
    rows=(_ALONE, _MORE),
    figures=(
        Figure("nme", "NME", False, "no", "50 % and 100 % of LRS2 in the paper; ours adds speech without pictures"),
        Figure("lmd_ratio", "LMD / LMD of the mean mouth", False, "no", "not in the paper"),
        Figure("r_opening", "r of the opening", True, "no", "not in the paper"),
    ),
    paper={_ALONE: {"nme": 0.0181}, _MORE: {"nme": 0.0071}},
    checks=(Order("lmd_ratio", _MORE, _ALONE), Order("r_opening", _MORE, _ALONE)),
)


def measure_sources(material: Material) -> Measured:
    """Train the landmark generator with and without speech that has no pictures, and score it on speakers who are left out."""
    config = network_named("hetero_motion").configs["default"]
    alone = replace(config, batches=replace(config.batches, heard=0))
    return left_out(material, "hetero_motion", {_ALONE: (alone, material.data), _MORE: (config, material.data)})


PAPER: Final = PaperProtocol(
    name="hetero",
    title="Xie et al.: *Towards Realistic Visual Dubbing with Heterogeneous Sources* (ACM Multimedia 2021)",
    splits=("dev", "dev_people"),
    protocols=(
        Protocol(claim=QUALITY, dubs=(DubRow(row=_LRS2, of=_METHOD), DubRow(row=_LRW, of=_METHOD))),
        Protocol(claim=TUNING, dubs=(DubRow(row=_UNTUNED, of=_PLAIN), DubRow(row=_TUNED, of=_METHOD))),
        Protocol(claim=SOURCES, measure=measure_sources),
    ),
    left_out=(
        LeftOut("LRS2 and LRW", "the corpora are not among the clips"),
        LeftOut("FID and LPIPS (Tables 1, 3 and 4)", "they need pretrained networks that are not part of dubstage"),
        LeftOut("comparison with other systems (Tables 1 and 2)", "their code and results are not part of dubstage"),
        LeftOut("more data for the landmark translator (Table 3, stage II)", "two trainings of the renderer of hours each"),
        LeftOut("no temporal discriminator (Table 4)", "a training of the renderer of hours"),
        LeftOut(
            "no gated convolutions, no VGGFace loss (Table 4)", "the code has no network without the former or with the latter"
        ),
        LeftOut("appearance transfer (4.5.2)", "pictures without figures; docs/methods/hetero.md shows ours"),
        LeftOut("people's grades (Table 2)", "they need people"),
    ),
)
