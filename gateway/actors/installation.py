"""The stores and stages of commands and workers, opened the same way by each.

Modules of dubs, stages and signatures of videos are imported in functions: commands that only read the stores start without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.actors.store import ActorStore
from gateway.settings import GatewaySettings
from services.common.store.artefacts import ArtefactStore

if TYPE_CHECKING:
    from gateway.provenance.seal import Sealer
    from gateway.stages.interface import Stages


@dataclass(frozen=True, slots=True)
class Installation:
    """Open stores of a command or of a worker.

    Attributes:
        settings: settings of the process.
        actors: store of actors.
        artefacts: artefact store of the stages.
    """

    settings: GatewaySettings
    actors: ActorStore
    artefacts: ArtefactStore

    def sealer(self) -> Sealer:
        """Return what signs the videos of this installation (`open_sealer`). Blocks."""
        from gateway.provenance.installation import open_sealer

        return open_sealer(self.settings)

    def stages(self, *, warm_up: bool = False) -> AbstractAsyncContextManager[Stages]:
        """Return the context of the opened stages (`open_stages`, which also explains `warm_up`)."""
        from gateway.stages.opening import open_stages

        return open_stages(self.settings, warm_up=warm_up)


@contextmanager
def open_installation(settings: GatewaySettings, *, claim_artefacts: bool = True) -> Iterator[Installation]:
    """Open the stores that the settings name, and close the database at the end.

    Args:
        settings: settings of the process.
        claim_artefacts: as for ActorStore.

    Raises:
        StorageRefusedError: the data folder, the database or the artefact store cannot be used, or the artefact store belongs to
            another database.
        BackendUnavailableError: the database or the artefact store does not answer.
    """
    with ActorStore(settings, claim_artefacts=claim_artefacts) as actors:
        yield Installation(settings, actors, ArtefactStore(settings.artefacts_url))
