"""The stores and the stages that commands and workers of batches work with, opened the same way by each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass

from gateway.actors.store import ActorStore
from gateway.provenance.opening import open_sealer
from gateway.provenance.seal import Sealer
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages
from services.common.store.artefacts import ArtefactStore


@dataclass(frozen=True, slots=True)
class Workplace:
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
        """Return what signs the films of this installation (`open_sealer`). Blocks."""
        return open_sealer(self.settings)

    def stages(self) -> AbstractAsyncContextManager[Stages]:
        """Return the context of the opened stages (`open_stages`)."""
        return open_stages(self.settings)


@contextmanager
def open_workplace(settings: GatewaySettings, *, claim_artefacts: bool = True) -> Iterator[Workplace]:
    """Open the stores that the settings name, and close the database at the end.

    Args:
        settings: settings of the process.
        claim_artefacts: as for ActorStore.

    Raises:
        StorageRefused: the data folder, the database or the artefact store cannot be used, or the artefact store belongs to another
            database.
        BackendUnavailable: the database or the artefact store does not answer.
    """
    with ActorStore(settings, claim_artefacts=claim_artefacts) as actors:
        yield Workplace(settings, actors, ArtefactStore(settings.artefacts_url))
