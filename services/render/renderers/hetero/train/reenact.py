"""Ways to draw a clip with `hetero`: still mouth, reference picture, prior, and personalised from few frames and from all."""

from __future__ import annotations

from typing import Final

from services.render.renderer import PersonalizeJob
from services.render.renderers.hetero.personalize import personalize_hetero
from services.render.renderers.hetero.reference import unpacked
from services.render.renderers.hetero.train.held_out import read_composites
from services.render.train.reenactment import PERSONALISED, Reenactment, Rows
from services.render.train.shown import Shown, base_faces, still_mouth

_NAME: Final = "hetero"


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title."""
    bank = read_composites(task.clip, 2).bank

    def drawn(*, train: bool) -> Shown:
        job = PersonalizeJob(bank=bank, drawing=None, weights=task.weights, num_threads=task.threads, train=train)
        state, reference = unpacked(task.last_state(personalize_hetero(job)))
        clip = read_composites(task.clip, 0, reference).first(task.frames)
        return Shown(clip, task.draw(_NAME, state, clip.pairs))

    clip = read_composites(task.clip, 0).first(task.frames)
    return {
        "still mouth": lambda: still_mouth(clip),
        "reference picture": lambda: base_faces(clip),
        "prior": lambda: drawn(train=False),
        PERSONALISED: lambda: drawn(train=True),
    }
