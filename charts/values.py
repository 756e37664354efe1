"""What each value of the chart may be; charts/schema.py makes Helm's schemas of it."""

from __future__ import annotations

from typing import Final

from charts.rules import (
    ANY,
    CRON_DURATION,
    DNS_LABEL,
    DURATION,
    OBJECT_NAME,
    PEERS,
    Schema,
    autoscaling,
    closed,
    flag,
    gpu,
    image,
    labels,
    many,
    models,
    port,
    probe,
    quantity,
    resources,
    secret,
    spread,
    text,
    toleration,
    volume,
    when,
    whole,
    word,
)

GATEWAY: Final = ("replicas",)
"""Values that the gateway has rules of its own for."""
_NOT_OF_THE_GATEWAY: Final = ("autoscaling", "strategy", "models", "replicas", "service")


def component_properties(name: str) -> Schema:
    """Rules of the values that every component may have."""
    # The face stage's image has no client of an object store.
    sources = ("image", "claim", "hostPath", *(("objectStore",) if name != "face" else ()))
    ids = {kind: {"type": ["integer", "null"], "minimum": 1} for kind in ("runAsUser", "runAsGroup", "fsGroup")}
    rolling = {
        kind: {"type": ["integer", "string"], "pattern": "^[0-9]+%$", "minimum": 0} for kind in ("maxUnavailable", "maxSurge")
    }
    properties = {
        "replicas": whole("pods, where nothing scales them", 0, 1000),
        "strategy": closed({"type": word("", "RollingUpdate", "Recreate"), "rollingUpdate": closed(rolling)}),
        "progressDeadlineSeconds": whole("for a rollout to get on", 1),
        "listenAddress": text("what servers listen on; :: in a cluster of IPv6", r"^[0-9a-fA-F:.]+$"),
        "metricsPort": port("Prometheus"),
        "healthPort": port("health in plain text for probes, open where TLS is on"),
        "drainGraceSeconds": whole("for running calls after SIGTERM; the pod gets 15 s more", 0, 7200),
        "image": image(),
        "resources": resources(),
        "gpu": gpu(),
        "nodeSelector": labels("labels of nodes"),
        "tolerations": many("taints that pods bear", toleration()),
        "affinity": closed(dict.fromkeys(("nodeAffinity", "podAffinity", "podAntiAffinity"), ANY), "of pods"),
        "topologySpreadConstraints": many("how pods spread", spread()),
        "priorityClassName": text("of pods", OBJECT_NAME),
        "runtimeClassName": text("such as nvidia", OBJECT_NAME),
        "hostNetwork": flag("pods share the node's network; breaks the Pod Security Standard, for `podman kube play`"),
        "podLabels": labels("further labels of pods"),
        "podAnnotations": labels("annotations of pods"),
        "serviceAccount": closed(
            {
                "create": flag("make one"),
                "name": text("empty: the component's name", OBJECT_NAME),
                "annotations": labels("of it, for a cloud's identity"),
            }
        ),
        "securityContext": closed(ids, "ids; null leaves one to the cluster"),
        "probes": closed(
            {
                "type": word("the kubelet's gRPC probes, or a command in the container", "grpc", "exec"),
                **{k: probe() for k in ("startup", "readiness", "liveness")},
            }
        ),
        "autoscaling": autoscaling(),
        "podDisruptionBudget": closed(
            {
                "enabled": flag("make one"),
                "maxUnavailable": {
                    "type": ["integer", "string"],
                    "pattern": "^[0-9]+%$",
                    "minimum": 1,
                    "description": "pods that a drain may take at once",
                },
            }
        ),
        "networkPolicy": closed(
            {"ingressFrom": many(f"who else may call it ({PEERS})", ANY), "egress": many("further egress rules", ANY)}
        ),
        "service": closed({"type": word("", "Headless", "ClusterIP"), "annotations": labels("of the Service")}),
        "models": models(*sources),
        "tmpSize": quantity("of /tmp"),
        "extraEnv": many("further variables", ANY),
        "extraVolumes": many("further volumes", ANY),
        "extraVolumeMounts": many("further mounts", ANY),
    }
    left_out = _NOT_OF_THE_GATEWAY if name == "gateway" else ()
    return {key: schema for key, schema in properties.items() if key not in left_out}


def own_properties(name: str) -> Schema:
    """Rules of the values that one component alone has."""
    if name == "render":
        return {"triton": _triton()}
    if name != "gateway":
        return {}
    stages = ("audio", "face", "motion", "texture", "render")
    database = closed(
        {
            "url": text("SQLAlchemy url without a password", r"^([a-z0-9]+(\+[a-z0-9]+)?://.*)?$"),
            "urlSecret": secret("Secret with the url", key="key of the url"),
        }
    )
    return {
        "replicas": whole("1, or 0 to put it to rest: one gateway works in a data folder", 0, 1),
        "requireConsent": flag("refuse to enrol or dub a person without a consent record"),
        "endpoints": closed({stage: text("gRPC target; empty: this release's stage") for stage in stages}),
        "database": database,
        "data": volume("claim", "hostPath", "emptyDir"),
        "media": volume("claim", "hostPath", "emptyDir"),
        "tokensSecret": secret("Secret with the tokens that the gateway accepts; empty: no tokens", key="key of the tokens"),
        "requireClientCertificate": flag("callers must show a certificate of the authority; needs global.tls.enabled"),
        "service": closed({"type": word("", "ClusterIP", "NodePort", "LoadBalancer"), "annotations": labels("of the Service")}),
        "ingress": closed(
            {
                "enabled": flag("make one"),
                "className": text("of the controller", OBJECT_NAME),
                "annotations": labels("such as the one that says gRPC"),
                "host": text("name that callers use"),
                "tlsSecretName": text("Secret with the host's certificate", OBJECT_NAME),
            }
        ),
    }


def _triton() -> Schema:
    repository = closed(
        {
            "source": word("where the model repository comes from", "image", "claim", "hostPath"),
            "claimName": text("PersistentVolumeClaim, for source claim", OBJECT_NAME),
            "hostPath": text("folder of the node, for source hostPath", r"^(/.*)?$"),
        }
    )
    return closed(
        {
            "enabled": flag("compute on a Triton server in the same pod"),
            "image": image(),
            "command": many("empty: the image's", {"type": "string"}),
            "args": many("empty: the image's", {"type": "string"}),
            "precision": word("of the network", "", "float32", "bfloat16", "int8"),
            "modelRepository": repository,
            "sharedMemory": closed({"enabled": flag("frames go by /dev/shm"), "size": quantity("of /dev/shm")}),
            "gpu": gpu(),
            "resources": resources(),
            "probeCommand": many("run in the container with the address of Triton's liveness after it", {"type": "string"}),
            "extraEnv": many("further variables", ANY),
        }
    )


def _egress(what: str) -> Schema:
    return closed({"to": many(f"{PEERS}; empty: any address", ANY), "ports": many(f"TCP ports of {what}", whole("", 1, 65535))})


_S3: Final = closed(
    {
        "url": text("s3://bucket/prefix", r"^(s3://[^/]+.*)?$"),
        "endpoint": text("of a store that is not Amazon's", r"^(https?://.+)?$"),
        "region": text("of the bucket"),
        "credentialsSecret": secret("empty: the pods' own identity", accessKeyIdKey="key in it", secretAccessKeyKey="key in it"),
    }
)

_NO_CLAIM: Final = {"properties": {"existingClaim": {"maxLength": 0}}}

GLOBAL: Final[Schema] = {
    "nameOverride": text("what names begin with instead of the release", DNS_LABEL),
    "clusterDomain": text("of the cluster's DNS"),
    "image": closed(
        {
            "registry": text("images are REGISTRY/COMPONENT:TAG"),
            "tag": text("empty: the chart's appVersion", r"^[A-Za-z0-9_.-]*$"),
            "pullPolicy": word("when images are pulled", "Always", "IfNotPresent", "Never"),
            "pullSecrets": many("names of Secrets", text("", OBJECT_NAME)),
        }
    ),
    "artefacts": {
        **closed(
            {"store": word("where artefacts lie", "volume", "s3"), "volume": volume("claim", "hostPath", shared=True), "s3": _S3}
        ),
        "allOf": [
            when({"store": "volume"}, {"s3": {"properties": {"url": {"maxLength": 0}}}}),
            when({"store": "s3"}, {"s3": {"properties": {"url": {"minLength": 1}}}, "volume": _NO_CLAIM}),
        ],
    },
    "tls": closed(
        {
            "enabled": flag("mutual TLS to the stages, TLS on the gateway"),
            "source": word("where certificates come from", "certManager", "secrets"),
            "certManager": closed(
                {
                    "issuerRef": closed(
                        {
                            "name": text("empty: an authority of the release's own", OBJECT_NAME),
                            "kind": word("", "Issuer", "ClusterIssuer"),
                            "group": text("of the issuer"),
                        }
                    ),
                    "duration": text("of a certificate", DURATION),
                    "renewBefore": text("its end", DURATION),
                    "gatewayNames": many("further names of the gateway", {"type": "string"}),
                }
            ),
            "secrets": closed(
                {
                    name: text("Secret with tls.crt, tls.key, ca.crt", OBJECT_NAME)
                    for name in ("all", "audio", "face", "motion", "texture", "render", "gateway")
                }
            ),
        }
    ),
    "auth": closed({"stagesTokenSecret": secret("bearer token between gateway and stages; empty: none", key="key of the token")}),
    "telemetry": closed(
        {
            "logLevel": word("of every process", "debug", "info", "warning", "error"),
            "logFormat": word("of every process", "json", "console"),
            "otlpEndpoint": text("OpenTelemetry collector, gRPC; empty: no traces", r"^(https?://.+)?$"),
        }
    ),
    "monitoring": closed(
        {
            "serviceMonitor": closed(
                {
                    "enabled": flag("make them"),
                    "interval": text("between scrapes", CRON_DURATION),
                    "labels": labels("that Prometheus selects by"),
                }
            ),
            "prometheusRule": closed(
                {
                    "enabled": flag("make alerts"),
                    "labels": labels("that Prometheus selects by"),
                    **{
                        name: {"type": "number", "exclusiveMinimum": 0, "description": what}
                        for name, what in {
                            "errorRatio": "DubstageErrors above it",
                            "refusedPerMinute": "DubstageQueueFull above it",
                            "latencySeconds": "DubstageSlow above it",
                            "queueToCompute": "DubstageQueueGrows above it",
                        }.items()
                    },
                }
            ),
            "dashboard": closed(
                {"enabled": flag("make a ConfigMap for Grafana"), "labels": labels("that Grafana's sidecar looks for")}
            ),
        }
    ),
    "networkPolicy": closed(
        {
            "enabled": flag("make them"),
            "metricsFrom": many(f"who may scrape ({PEERS})", ANY),
            "dns": _egress("DNS, UDP too"),
            "objectStore": _egress("the object store"),
            "database": _egress("the database"),
            "otlp": _egress("the collector"),
        }
    ),
    "tests": closed({"enabled": flag("make the pod of `helm test`")}),
}
