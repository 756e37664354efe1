"""JSON Schema of the shapes that values have in several places; charts/values.py says where."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
DNS_LABEL: Final = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
OBJECT_NAME: Final = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
SECRET_KEY: Final = r"^[-._a-zA-Z0-9]+$"
RESOURCE: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$"
DURATION: Final = r"^([0-9]+(h|m|s))+$"
CRON_DURATION: Final = r"^[0-9]+(ms|s|m|h)$"


def closed(properties: Schema, description: str = "") -> Schema:
    """An object with these keys and no other."""
    named = {"description": description} if description else {}
    return {"type": "object", **named, "additionalProperties": False, "properties": properties}


def text(description: str, pattern: str = "") -> Schema:
    """A string."""
    return {"type": "string", "description": description} | ({"pattern": pattern} if pattern else {})


def whole(description: str, minimum: int = 0, maximum: int | None = None) -> Schema:
    """An integer."""
    return {"type": "integer", "description": description, "minimum": minimum} | ({} if maximum is None else {"maximum": maximum})


def flag(description: str) -> Schema:
    """A boolean."""
    return {"type": "boolean", "description": description}


def word(description: str, *words: str) -> Schema:
    """One of some strings."""
    return {"type": "string", "description": description, "enum": list(words)}


def many(description: str, items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "description": description, "items": items}


def labels(description: str) -> Schema:
    """A map from names to strings."""
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


def port(description: str) -> Schema:
    """A TCP port that a process without privileges may open."""
    return whole(description, 1024, 65535)


def quantity(description: str) -> Schema:
    """An amount of a Kubernetes resource."""
    return {"type": ["string", "number", "null"], "description": description, "pattern": QUANTITY, "minimum": 0}


def secret(description: str, **keys: str) -> Schema:
    """A Secret by name, and keys in it."""
    return closed({"name": text(description, OBJECT_NAME), **{key: text(what, SECRET_KEY) for key, what in keys.items()}})


ANY: Final[Schema] = {"type": "object"}
PEERS: Final = "NetworkPolicyPeers"


def image() -> Schema:
    """An image's name and version."""
    return closed(
        {
            "repository": text("name after global.image.registry", r"^[a-z0-9]([-a-z0-9._/]*[a-z0-9])?$"),
            "tag": text("empty: global.image.tag", r"^[A-Za-z0-9_.-]*$"),
            "digest": text("wins over the tag", r"^(sha256:[0-9a-f]{64})?$"),
        }
    )


def resources() -> Schema:
    """Requests and limits of a container."""
    amounts: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: quantity(f"of {name}") for name in ("cpu", "memory", "ephemeral-storage")},
    }
    return closed({"requests": amounts, "limits": amounts}, "requests and limits")


def gpu() -> Schema:
    """Devices of one kind."""
    return closed(
        {
            "resource": text("nvidia.com/gpu, nvidia.com/mig-1g.10gb, nvidia.com/gpu.shared, ...", RESOURCE),
            "count": whole("devices a replica; 0: none", 0, 16),
        }
    )


def volume(*types: str, shared: bool = False) -> Schema:
    """A volume: a claim of the chart's, a claim that exists, or a folder of the node; `shared` by several pods."""
    modes = ("ReadWriteOnce", "ReadWriteMany", *(() if shared else ("ReadWriteOncePod",)))
    schema = closed(
        {
            "type": word("what it is", *types),
            "existingClaim": text("a PersistentVolumeClaim of your own; empty: the chart makes one", OBJECT_NAME),
            "storageClassName": text("of the claim that the chart makes; empty: the cluster's default", OBJECT_NAME),
            "accessMode": word("of the volume", *modes),
            "size": quantity("of the claim that the chart makes"),
            "hostPath": text("folder of the node, for type hostPath", r"^(/.*)?$"),
        }
    )
    return schema | when({"type": "hostPath"}, {"existingClaim": {"maxLength": 0}})


def when(given: dict[str, str], then: Schema) -> Schema:
    """A rule that holds where properties have these values; inside of `then` stands what must be so."""
    condition = {"required": list(given), "properties": {name: {"const": value} for name, value in given.items()}}
    return {"if": condition, "then": {"properties": then}}


def probe() -> Schema:
    """Times of one probe."""
    return closed(
        {
            "periodSeconds": whole("between two probes", 1),
            "timeoutSeconds": whole("for an answer", 1),
            "failureThreshold": whole("failures in a row that count", 1),
        }
    )


def toleration() -> Schema:
    """A taint that pods bear."""
    return closed(
        {
            "key": text("of the taint"),
            "operator": word("", "Exists", "Equal"),
            "value": text("of the taint"),
            "effect": word("", "NoSchedule", "PreferNoSchedule", "NoExecute"),
            "tolerationSeconds": whole("before the pod is evicted"),
        }
    )


def spread() -> Schema:
    """How pods spread over nodes or zones."""
    return closed(
        {
            "maxSkew": whole("most difference", 1),
            "minDomains": whole("fewest domains", 1),
            "topologyKey": text("label of nodes"),
            "whenUnsatisfiable": word("", "ScheduleAnyway", "DoNotSchedule"),
            "labelSelector": {**ANY, "description": "default: the component's own pods"},
            "matchLabelKeys": many("", {"type": "string"}),
            "nodeAffinityPolicy": word("", "Honor", "Ignore"),
            "nodeTaintsPolicy": word("", "Honor", "Ignore"),
        }
    )


def autoscaling() -> Schema:
    """Who changes the number of replicas, and by what."""
    keda = closed(
        {
            "prometheusAddress": text("where KEDA finds Prometheus", r"^(https?://.+)?$"),
            "pollingIntervalSeconds": whole("between two looks", 1),
            "cooldownSeconds": whole("without work before the last replica goes", 0),
        }
    )
    schema = closed(
        {
            "type": word("who scales", "none", "hpa", "keda"),
            "minReplicas": whole("fewest; 0 with keda only"),
            "maxReplicas": whole("most", 1, 1000),
            "queueToCompute": {
                "type": "number",
                "exclusiveMinimum": 0,
                "description": "seconds queued a second computed, above which replicas are added",
            },
            "behavior": {**ANY, "description": "of autoscaling/v2"},
            "keda": keda,
        }
    )
    return schema | when(
        {"type": "hpa"}, {"keda": {"properties": {"prometheusAddress": {"maxLength": 0}}}, "minReplicas": {"minimum": 1}}
    )


def models(*sources: str) -> Schema:
    """Where models come from."""
    return closed(
        {
            "source": word("where models come from", *sources),
            "claimName": text("PersistentVolumeClaim, for source claim", OBJECT_NAME),
            "subPath": text("folder in it"),
            "hostPath": text("folder of the node, for source hostPath", r"^(/.*)?$"),
            "url": text("for source objectStore, such as s3://bucket/models/render", r"^([a-z0-9]+://.+)?$"),
            "size": quantity("room for fetched models"),
        }
    )
