"""Schemas of the chart's custom resources, after their operators' references: the fields that it uses, and no other."""

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string", "minLength": 1}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
GATEWAY_DURATION: Schema = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def closed(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def listed(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def resource(api: str, kind: str, spec: Schema) -> Schema:
    metadata = closed(("name", "namespace"), name=STRING, namespace=STRING, labels=LABELS, annotations=LABELS)
    return closed(
        ("apiVersion", "kind", "metadata", "spec"), apiVersion={"const": api}, kind={"const": kind}, metadata=metadata, spec=spec
    )


SELECTOR = closed(matchLabels=LABELS)
ISSUER_REF = closed(("name",), name=STRING, kind={"enum": ["Issuer", "ClusterIssuer"]}, group=STRING)

CERTIFICATE = closed(
    ("secretName", "issuerRef"),
    secretName=STRING,
    commonName={"type": "string", "maxLength": 64},
    dnsNames=listed(STRING),
    duration=DURATION,
    renewBefore=DURATION,
    isCA={"type": "boolean"},
    usages=listed({"enum": ["digital signature", "key encipherment", "server auth", "client auth"]}),
    privateKey=closed(
        algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]},
        size={"enum": [256, 384, 521]},
        rotationPolicy={"enum": ["Never", "Always"]},
    ),
    issuerRef=ISSUER_REF,
)

SERVICE_MONITOR = closed(
    ("selector", "endpoints"),
    jobLabel=STRING,
    selector=SELECTOR,
    endpoints=listed(closed(("port",), port=STRING, interval=DURATION, path=STRING)),
)

RULE = closed(
    ("alert", "expr", "labels", "annotations"), alert=STRING, expr=STRING, labels=LABELS, annotations=LABELS, **{"for": DURATION}
)
PROMETHEUS_RULE = closed(("groups",), groups=listed(closed(("name", "rules"), name=STRING, rules=listed(RULE))))

TRIGGER = closed(
    ("type", "metadata"),
    type={"const": "prometheus"},
    name=STRING,
    metricType={"enum": ["AverageValue", "Value"]},
    metadata=closed(
        ("serverAddress", "query", "threshold"),
        serverAddress={"type": "string", "pattern": "^https?://"},
        query=STRING,
        threshold={"type": "string", "pattern": r"^[0-9.]+$"},
        activationThreshold={"type": "string", "pattern": r"^[0-9.]+$"},
    ),
)
SCALED_OBJECT = closed(
    ("scaleTargetRef", "triggers"),
    scaleTargetRef=closed(("name",), apiVersion=STRING, kind=STRING, name=STRING),
    minReplicaCount={"type": "integer", "minimum": 0},
    maxReplicaCount={"type": "integer", "minimum": 1},
    pollingInterval={"type": "integer", "minimum": 1},
    cooldownPeriod={"type": "integer", "minimum": 0},
    advanced=closed(horizontalPodAutoscalerConfig=closed(behavior={"type": "object"})),
    triggers=listed(TRIGGER),
)

PARENT = closed(("name",), group=STRING, kind=STRING, namespace=STRING, name=STRING, sectionName=STRING, port={"type": "integer"})
BACKENDS = listed(closed(("name", "port"), name=STRING, port={"type": "integer", "minimum": 1, "maximum": 65535}))


def route(**rule: Schema) -> Schema:
    rules = listed(closed(("backendRefs",), backendRefs=BACKENDS, **rule))
    return closed(("parentRefs", "rules"), parentRefs=listed(PARENT), hostnames=listed(STRING), rules=rules)


SCHEMAS: dict[str, Schema] = {
    "GRPCRoute": resource("gateway.networking.k8s.io/v1", "GRPCRoute", route()),
    "HTTPRoute": resource(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        route(timeouts=closed(request=GATEWAY_DURATION, backendRequest=GATEWAY_DURATION)),
    ),
    "Certificate": resource("cert-manager.io/v1", "Certificate", CERTIFICATE),
    "Issuer": resource("cert-manager.io/v1", "Issuer", closed(selfSigned=closed(), ca=closed(("secretName",), secretName=STRING))),
    "ServiceMonitor": resource("monitoring.coreos.com/v1", "ServiceMonitor", SERVICE_MONITOR),
    "PrometheusRule": resource("monitoring.coreos.com/v1", "PrometheusRule", PROMETHEUS_RULE),
    "ScaledObject": resource("keda.sh/v1alpha1", "ScaledObject", SCALED_OBJECT),
}
