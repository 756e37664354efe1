"""The gateway's server: the chassis, and around it the stages, and the rooms of the tenants whose servicers answer the calls."""

from __future__ import annotations

from prometheus_client import Gauge

from gateway.api.opened_stages import OpenedStages
from gateway.api.registration import SERVICES, add_servicers
from gateway.api.rooms import Rooms
from gateway.api.shared import Shared
from gateway.live.metrics import LiveMetrics
from gateway.settings import GatewaySettings
from gateway.signatures.installation import TOKEN_FINGERPRINTS, signing_key
from gateway.tenants.long_calls import most_calls_of_tenant
from services.common.chassis.caller import DEFAULT_TENANT
from services.common.chassis.server import StageServer
from services.common.errors import InvalidRequest


class GatewayServer(StageServer):
    """Server of one gateway process. The warm-up opens the stages. A drain stops the operations; another process resumes them.

    Args:
        settings: settings of the process.

    Raises:
        InvalidRequest: another gateway works in the data folder or with the SQLite file, or a file of the settings cannot be used.
        StorageRefused: the signing key of the data folder cannot be used.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        if settings.tenant != DEFAULT_TENANT:
            raise InvalidRequest(
                "DUBSTAGE_TENANT is for commands: a gateway serves every tenant of its token file; unset it",
                field="DUBSTAGE_TENANT",
            )
        self._stages = OpenedStages(settings)
        shared = Shared.of(settings, self._stages)
        self._rooms = rooms = Rooms(shared)
        super().__init__(
            "gateway",
            settings,
            register=lambda server: add_servicers(server, rooms),
            services=SERVICES,
            # Without tokens there is one tenant alone.
            most_calls_of_tenant=most_calls_of_tenant(settings.max_concurrent_rpcs) if settings.auth_token_file else None,
            fingerprint_key=_fingerprint_key(settings) if settings.auth_token_file else None,
        )
        unfinished = Gauge("dubstage_operations", "Operations and batches that run here, or wait", registry=self.metrics.registry)
        unfinished.set_function(lambda: rooms.unfinished)
        self.metrics.registry.register(LiveMetrics(shared.live))

    @property
    def busy(self) -> bool:
        """Whether a stage in this process still computes. After `drain()`, the results of such work are dropped."""
        return super().busy or self._stages.busy

    async def warm_up(self) -> None:
        """Open the stages, resume interrupted operations and batches, then admit calls and report SERVING.

        Raises:
            DubstageError: a stage cannot be reached, or does not warm up.
        """
        self._rooms.default.watch()
        await self._stages.open()
        await self._rooms.start(self.tracer)
        await super().warm_up()

    async def drain(self, grace_s: float | None = None) -> None:
        """Stop the operations and batches where they are, let running calls end, stop, and close what was opened."""
        await self._rooms.stop()
        await super().drain(grace_s)
        await self._rooms.close_batches()
        await self._stages.close()
        await self._rooms.close()


def _fingerprint_key(settings: GatewaySettings) -> bytes:
    return signing_key(settings.data_dir, settings.signing_key_file).derived(TOKEN_FINGERPRINTS)
