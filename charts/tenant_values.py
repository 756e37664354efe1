"""Schema of the limits of tenants in the gateway's values."""

from __future__ import annotations

from typing import Final

from charts.rules import Schema, closed, whole

_TENANT: Final = r"^[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?$"
_LIMITS: Final = {
    "concurrent_dubs": whole(
        "dubs and enrolments that run or wait, and shots of batches that a gateway dubs, or that wait for nothing but one of its "
        "free slots"
    ),
    "live_streams": whole("live streams at once in a gateway"),
    "frames_per_minute": whole("frames of films and live streams that a gateway makes within a minute"),
    "storage_bytes": whole("size of the artefacts that the tenant's actors and jobs use, bytes"),
}

TENANT_LIMITS: Final[Schema] = closed(
    {
        "every": closed(_LIMITS, "limits of each tenant; a limit that is left out does not hold"),
        "tenants": {
            "type": "object",
            "description": "limits by name of the tenant, which win over `every`",
            "propertyNames": {"pattern": _TENANT},
            "additionalProperties": closed(_LIMITS),
        },
    }
)
