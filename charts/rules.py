"""JSON Schema of shapes that several values of the chart have. charts/values.py uses these shapes."""

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
ANY: Final[Schema] = {"type": "object"}
PEERS: Final = "NetworkPolicyPeers"


def closed(properties: Schema, description: str = "") -> Schema:
    """Return the schema of an object with these keys and no others."""
    named = {"description": description} if description else {}
    return {"type": "object", **named, "additionalProperties": False, "properties": properties}


def text(description: str, pattern: str = "") -> Schema:
    """Return the schema of a string."""
    return {"type": "string", "description": description} | ({"pattern": pattern} if pattern else {})


def whole(description: str, minimum: int = 0, maximum: int | None = None) -> Schema:
    """Return the schema of an integer."""
    return {"type": "integer", "description": description, "minimum": minimum} | ({} if maximum is None else {"maximum": maximum})


def flag(description: str) -> Schema:
    """Return the schema of a boolean."""
    return {"type": "boolean", "description": description}


def word(description: str, *words: str) -> Schema:
    """Return the schema of a string that is one of `words`."""
    return {"type": "string", "description": description, "enum": list(words)}


def many(description: str, items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "description": description, "items": items}


def labels(description: str) -> Schema:
    """Return the schema of a map from names to strings."""
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


def port(description: str) -> Schema:
    """Return the schema of a TCP port that a process without privileges may open."""
    return whole(description, 1024, 65535)


def quantity(description: str) -> Schema:
    """Return the schema of an amount of a Kubernetes resource."""
    return {"type": ["string", "number", "null"], "description": description, "pattern": QUANTITY, "minimum": 0}


def secret(description: str, **keys: str) -> Schema:
    """Return the schema of a Secret: its name, and keys in the Secret."""
    return closed({"name": text(description, OBJECT_NAME), **{key: text(what, SECRET_KEY) for key, what in keys.items()}})


def image() -> Schema:
    """Return the schema of an image: its name and version."""
    return closed(
        {
            "repository": text("name of the image after global.image.registry", r"^[a-z0-9]([-a-z0-9._/]*[a-z0-9])?$"),
            "tag": text("tag of the image; empty: global.image.tag", r"^[A-Za-z0-9_.-]*$"),
            "digest": text("digest of the image; used instead of the tag", r"^(sha256:[0-9a-f]{64})?$"),
        }
    )


def resources() -> Schema:
    """Return the schema of the requests and limits of a container."""
    amounts: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: quantity(f"amount of {name}") for name in ("cpu", "memory", "ephemeral-storage")},
    }
    return closed(
        {
            "requests": amounts | {"description": "resources that the container requests"},
            "limits": amounts | {"description": "resource limits of the container"},
        },
        "requests and limits",
    )


def gpu() -> Schema:
    """Return the schema of devices of one kind."""
    return closed(
        {
            "resource": text("kind of the devices: nvidia.com/gpu, nvidia.com/mig-1g.10gb, nvidia.com/gpu.shared, ...", RESOURCE),
            "count": whole("devices per replica; 0: none", 0, 16),
        }
    )


def volume(what: str, *types: str, shared: bool = False) -> Schema:
    """Return the schema of a volume: a claim that the chart makes, an existing claim, or a folder of the node.

    Args:
        what: content of the volume, for descriptions.
        types: types of volume that are allowed.
        shared: whether several pods mount the volume.
    """
    modes = ("ReadWriteOnce", "ReadWriteMany", *(() if shared else ("ReadWriteOncePod",)))
    schema = closed(
        {
            "type": word(f"type of the volume of {what}", *types),
            "existingClaim": text("existing PersistentVolumeClaim; empty: the chart makes a claim", OBJECT_NAME),
            "storageClassName": text(
                "storage class of the claim that the chart makes; empty: the default of the cluster", OBJECT_NAME
            ),
            "accessMode": word("access mode of the claim that the chart makes", *modes),
            "size": quantity("size of the claim that the chart makes"),
            "hostPath": text("folder of the node, for type hostPath", r"^(/.*)?$"),
        }
    )
    return schema | when({"type": "hostPath"}, {"existingClaim": {"maxLength": 0}})


def when(given: dict[str, str], then: Schema) -> Schema:
    """Return a rule: if the properties have the values `given`, they must also match `then`."""
    condition = {"required": list(given), "properties": {name: {"const": value} for name, value in given.items()}}
    return {"if": condition, "then": {"properties": then}}


def probe() -> Schema:
    """Return the schema of the times of one probe."""
    return closed(
        {
            "periodSeconds": whole("seconds between two probes", 1),
            "timeoutSeconds": whole("seconds that an answer may take", 1),
            "failureThreshold": whole("number of failures in a row after which the probe has failed", 1),
        }
    )


def toleration() -> Schema:
    """Return the schema of a toleration: a taint that pods tolerate."""
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
    """Return the schema of a rule that spreads pods over nodes or zones."""
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


def placement(affinity: Schema) -> Schema:
    """Return the rules of what a pod takes of a node, and of the nodes that it may run on.

    Args:
        affinity: rule of the pod's affinity.
    """
    return {
        "resources": resources(),
        "gpu": gpu(),
        "nodeSelector": labels("labels that a node must have"),
        "tolerations": many("taints that the pods tolerate", toleration()),
        "affinity": affinity,
        "topologySpreadConstraints": many("how the pods spread over nodes and zones", spread()),
        "priorityClassName": text("priority class of the pods", OBJECT_NAME),
        "runtimeClassName": text("runtime class of the pods, such as nvidia", OBJECT_NAME),
    }


def autoscaling(metric: str, description: str) -> Schema:
    """Return the schema of autoscaling: which autoscaler sets the number of replicas, and by which metric.

    Args:
        metric: name of the value that is the metric's threshold.
        description: what the threshold says.
    """
    keda = closed(
        {
            "prometheusAddress": text("address of Prometheus for KEDA", r"^(https?://.+)?$"),
            "pollingIntervalSeconds": whole("seconds between two queries", 1),
            "cooldownSeconds": whole("seconds without work after which the last replica is removed", 0),
        }
    )
    schema = closed(
        {
            "type": word("autoscaler", "none", "hpa", "keda"),
            "minReplicas": whole("smallest number of replicas; 0 needs keda"),
            "maxReplicas": whole("largest number of replicas", 1, 1000),
            metric: {"type": "number", "exclusiveMinimum": 0, "description": description},
            "behavior": {**ANY, "description": "scaling behaviour as in autoscaling/v2"},
            "keda": keda,
        }
    )
    return schema | when(
        {"type": "hpa"}, {"keda": {"properties": {"prometheusAddress": {"maxLength": 0}}}, "minReplicas": {"minimum": 1}}
    )


def models(*sources: str) -> Schema:
    """Return the schema of where the models come from."""
    return closed(
        {
            "source": word("where the models come from", *sources),
            "claimName": text("PersistentVolumeClaim with the models, for source claim", OBJECT_NAME),
            "subPath": text("folder in the claim"),
            "hostPath": text("folder of the node with the models, for source hostPath", r"^(/.*)?$"),
            "url": text("url of the models, for source objectStore, such as s3://bucket/models/render", r"^([a-z0-9]+://.+)?$"),
            "size": quantity("space for fetched models"),
        }
    )
