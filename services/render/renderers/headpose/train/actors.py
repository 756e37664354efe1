"""Actors of one clip, and the clip's pairs for them."""

from __future__ import annotations

from services.common.array_types import Float32
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.key_pictures import KeyPictures, unpacked
from services.render.renderer import PersonalizeJob
from services.render.renderers.headpose.personalize import personalize_headpose
from services.render.renderers.headpose.train.ablations import detailed_as_keys
from services.render.renderers.headpose.train.drawings import read_drawings
from services.render.renderers.headpose.train.held_out import read_drawn
from services.render.train.held_out import HeldOut
from services.render.train.reenactment import Reenactment
from services.render.train.shown import Shown

_NAME = "headpose"


class Actors:
    """Actors of one clip, and the clip's pairs for them.

    Args:
        task: the clip and the tools.
    """

    def __init__(self, task: Reenactment) -> None:
        self._task = task
        self._drawings = read_drawings(task.clip.data, task.clip.row.speaker)
        self.bank = self._read(None, detailed=False, num_frames=2).bank
        self.actor, keys = unpacked(task.last_state(personalize_headpose(self._job(self.bank, still=False))))
        self.clip, self.detailed = self._read(keys, detailed=False), self._read(keys, detailed=True)

    def still(self) -> Shown:
        """Return faces of an actor from the bank's first frame."""
        bank = self.bank
        picture = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
        actor, keys = unpacked(self._task.last_state(personalize_headpose(self._job(picture, still=True))))
        return self.served(actor, self._read(keys, detailed=True, still=True))

    def drawn(self, actor: Float32, clip: HeldOut) -> Shown:
        """Return faces as the network draws them for an actor's state without key pictures."""
        return Shown(clip, self._task.draw(_NAME, actor, clip.pairs))

    def served(self, actor: Float32, clip: HeldOut) -> Shown:
        """Return faces as the stream serves them: drawn, then with the strength of detail of the key pictures."""
        return detailed_as_keys(self.drawn(actor, clip))

    def _job(self, bank: MouthBank, *, still: bool) -> PersonalizeJob:
        drawing = self._drawings.still if still else self._drawings.film
        return PersonalizeJob(bank=bank, drawing=drawing, weights=self._task.weights, num_threads=self._task.threads)

    def _read(self, keys: KeyPictures | None, *, detailed: bool, still: bool = False, num_frames: int = 0) -> HeldOut:
        drawing = self._drawings.still if still else self._drawings.film
        return read_drawn(self._task.clip, num_frames, drawing, detailed=detailed, keys=keys).first(self._task.frames)
