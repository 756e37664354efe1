"""Ways to draw a clip with `everybody`: still mouth, key picture, prior, personalised, with teeth proxy, and with deflicker."""

from __future__ import annotations

from functools import cache

import numpy as np

from services.common.array_types import Float32
from services.render.key_pictures import unpacked
from services.render.pairs import BASE
from services.render.renderer import PersonalizeJob
from services.render.renderers.everybody.personalize import personalize_everybody
from services.render.renderers.everybody.train.deflicker import deflickered, warped_by_flow
from services.render.renderers.everybody.train.held_out import read_windows
from services.render.renderers.everybody.train.teeth_proxy import collect_teeth, with_teeth
from services.render.train.contact_sheet import draw_sheet
from services.render.train.held_out import HeldOut, blended
from services.render.train.reenactment import PERSONALISED, Reenactment, Rows
from services.render.train.shown import Faces, Shown, base_faces, still_mouth

_NAME = "everybody"


def deflicker_clip(clip: HeldOut, faces: Faces) -> Faces:
    """Return faces after Eq. 7, applied to differences from the first key picture, which follows the light of the footage."""
    made: Faces = []
    before: Float32 = np.zeros((1, 1, 3), np.float32)
    for place, (pair, face) in enumerate(zip(clip.pairs, faces, strict=True)):
        first = pair.picture[..., BASE].astype(np.float32)
        difference = face - first
        if place:
            moved = float(np.linalg.norm((clip.landmarks[place] - clip.landmarks[place - 1])[:40].mean(axis=0)))
            difference = deflickered(difference, warped_by_flow(before, faces[place - 1], face), moved)
        before = difference.astype(np.float32)
        made.append(np.clip(np.rint(first + difference), 0, 255).astype(np.uint8))
    return made


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title."""
    bank = read_windows(task.clip, 2).bank
    job = PersonalizeJob(bank=bank, drawing=None, weights=task.weights, num_threads=task.threads)
    film, keys = unpacked(task.last_state(personalize_everybody(job)))
    clip = read_windows(task.clip, 0, keys).first(task.frames)

    @cache
    def personalised() -> Shown:
        return Shown(clip, task.draw(_NAME, film, clip.pairs))

    def with_proxy() -> Shown:
        teeth = collect_teeth(clip.bank.boxes, clip.bank.box_landmarks)
        return Shown(
            clip, [with_teeth(face, points, teeth) for face, points in zip(personalised().faces, clip.landmarks, strict=True)]
        )

    def without_flicker() -> Shown:
        shown = Shown(clip, deflicker_clip(clip, personalised().faces))
        # A strip of consecutive frames: flicker is not seen in single frames.
        begin = len(clip.pairs) // 2
        columns = [
            [*(blended(pair, face.astype(np.float32)) for face in faces), pair.target]
            for pair, *faces in list(zip(clip.pairs, personalised().faces, shown.faces, strict=True))[begin : begin + 10]
        ]
        draw_sheet(task.folder / f"deflicker_{clip.name}.png", columns)
        return shown

    return {
        "still mouth": lambda: still_mouth(clip),
        "first key picture": lambda: base_faces(clip),
        "prior": lambda: Shown(clip, task.draw(_NAME, np.zeros_like(film), clip.pairs)),
        PERSONALISED: personalised,
        "teeth proxy": with_proxy,
        "deflicker": without_flicker,
    }
