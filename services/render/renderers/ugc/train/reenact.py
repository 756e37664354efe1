"""Ways to draw a clip with `ugc`: the texture alone, the prior, and the personalised renderer."""

from __future__ import annotations

import numpy as np

from services.render.renderer import PersonalizeJob
from services.render.renderers.ugc.personalize import personalize_ugc
from services.render.renderers.ugc.train.held_out import read_textured
from services.render.train.reenactment import PERSONALISED, Reenactment, Rows
from services.render.train.shown import Shown, base_faces

_NAME = "ugc"


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title."""
    clip = read_textured(task.clip, 0).first(task.frames)

    def prior() -> Shown:
        return Shown(clip, task.draw(_NAME, np.zeros(task.files[_NAME].state_size, np.float32), clip.pairs))

    def personalised() -> Shown:
        state = task.last_state(
            personalize_ugc(PersonalizeJob(bank=clip.bank, drawing=None, weights=task.weights, num_threads=task.threads))
        )
        return Shown(clip, task.draw(_NAME, state, clip.pairs))

    return {"texture": lambda: base_faces(clip), "prior": prior, PERSONALISED: personalised}
