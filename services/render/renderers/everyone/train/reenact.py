"""Ways to draw a clip with `everyone`: still mouth, texture alone, prior, personalised, and without speech."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import numpy as np

from services.common.array_types import Float32
from services.render.renderer import PersonalizeJob
from services.render.renderers.everyone.actor_state import unpacked
from services.render.renderers.everyone.personalize import personalize_everyone
from services.render.renderers.everyone.train.held_out import Looks, read_windows
from services.render.renderers.everyone.train.speech import read_speech
from services.render.renderers.everyone.train.surfaces import surface_of
from services.render.train.identities import read_drawing
from services.render.train.people import Stretch
from services.render.train.reenactment import PERSONALISED, Reenactment, Rows
from services.render.train.shown import Shown, base_faces, still_mouth

_NAME = "everyone"


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title.

    Raises:
        InvalidRequest: the training set has no identity of the person.
    """
    drawing = read_drawing(task.clip.data, task.clip.row.speaker)
    surface = surface_of(drawing)
    bank = read_windows(task.clip, 2, surface).bank
    speech = read_speech(task.clip.data, [Stretch(task.clip.row, 0, bank.num_frames)])
    job = PersonalizeJob(bank=replace(bank, speech=speech), drawing=drawing, weights=task.weights, num_threads=task.threads)

    def actor(*, train: bool) -> tuple[Float32, Looks]:
        started = time.monotonic()
        reports = list(personalize_everyone(replace(job, train=train)))
        losses = ", ".join(f"{report.loss:.2f}" for report in reports)
        print(
            f"{task.clip.row.name}: personalised in {time.monotonic() - started:.0f} s; error in grey levels {losses}", flush=True
        )
        style, reference = unpacked(reports[-1].state)
        assert reports[-1].texture is not None
        return style, Looks(reports[-1].texture, reference)

    @cache
    def personalised() -> tuple[Float32, Looks]:
        return actor(train=True)

    def drawn(style: Float32, looks: Looks, *, silent: bool = False) -> Shown:
        clip = read_windows(task.clip, 0, surface, looks, silent=silent).first(task.frames)
        return Shown(clip, task.draw(_NAME, style, clip.pairs))

    def texture_alone(looks: Looks) -> Shown:
        return base_faces(read_windows(task.clip, 0, surface, looks).first(task.frames))

    first_style, first = actor(train=False)
    return {
        "still mouth": lambda: still_mouth(read_windows(task.clip, 0, surface, first).first(task.frames)),
        "first texture alone": lambda: texture_alone(first),
        "prior": lambda: drawn(first_style, first),
        PERSONALISED: lambda: drawn(*personalised()),
        "personalised, silent": lambda: drawn(*personalised(), silent=True),
        "texture alone": lambda: texture_alone(personalised()[1]),
        "no offset of W": lambda: drawn(np.zeros_like(first_style), personalised()[1]),
    }
