"""What the tenants of one gateway process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gateway.api.opened_stages import OpenedStages
from gateway.live.admission import LiveAdmission
from gateway.operations.slots import Slots
from gateway.settings import GatewaySettings
from gateway.tenants.fair_slots import FairSlots
from gateway.tenants.limits import Limits
from gateway.tenants.long_calls import LongCalls


@dataclass(frozen=True, slots=True)
class Shared:
    """What the tenants of one gateway process share.

    Attributes:
        settings: settings of the process, with the places of the default tenant.
        stages: the stages of the process.
        jobs: slots of dubs and enrolments.
        shots: slots of shots of batches.
        live: decides which live streams run.
        long_calls: calls that wait, watch or send reports.
        limits: limits of all tenants.
    """

    settings: GatewaySettings
    stages: OpenedStages
    jobs: Slots
    shots: FairSlots
    live: LiveAdmission
    long_calls: LongCalls
    limits: Limits

    @classmethod
    def of(cls, settings: GatewaySettings, stages: OpenedStages) -> Self:
        """Return what the settings of a process allow to all tenants together.

        Raises:
            InvalidRequest: the file of limits cannot be used.
        """
        return cls(
            settings,
            stages,
            jobs=Slots(settings.max_concurrent_jobs),
            shots=FairSlots(settings.max_batch_shots),
            live=LiveAdmission(settings.max_live_streams, settings.max_live_frame_ms / 1000),
            long_calls=LongCalls(settings.max_concurrent_rpcs),
            limits=Limits(settings.tenant_limits_file),
        )
