"""Rules of each value of the chart. charts/schema.py turns the rules into Helm's schemas."""

from __future__ import annotations

from typing import Final

from charts.rules import (
    ANY,
    CRON_DURATION,
    DNS_LABEL,
    DURATION,
    OBJECT_NAME,
    PEERS,
    SECRET_KEY,
    Schema,
    autoscaling,
    closed,
    flag,
    gpu,
    image,
    labels,
    many,
    models,
    placement,
    port,
    probe,
    quantity,
    resources,
    secret,
    text,
    volume,
    when,
    whole,
    word,
)

_TENANT: Final = r"^[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?$"
_LIMITS: Final = {
    "concurrent_dubs": whole(
        "dubs and enrolments that run or wait, and shots of batches that a gateway dubs, or that wait for nothing but one of its "
        "free slots"
    ),
    "live_streams": whole("live streams at once in a gateway"),
    "frames_per_minute": whole("frames of videos and live streams that a gateway makes within a minute"),
    "storage_bytes": whole("size of the artefacts that the tenant's actors and jobs use, bytes"),
    "upload_bytes": whole("size of the tenant's uploads, bytes; a gateway counts the open signed URLs of its own alone"),
    "upload_files": whole("number of the tenant's uploads; counted as upload_bytes"),
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


GATEWAY: Final = ("replicas", "autoscaling")
"""Values that have different rules for the gateway."""
_NOT_OF_THE_GATEWAY: Final = ("autoscaling", "strategy", "models", "replicas", "service")
_S3: Final = closed(
    {
        "url": text("url of the store, such as s3://bucket/prefix", r"^(s3://[^/]+.*)?$"),
        "endpoint": text("endpoint of a store that is not Amazon's", r"^(https?://.+)?$"),
        "region": text("region of the bucket"),
        "credentialsSecret": secret(
            "Secret with the credentials; empty: the identity of the pods",
            accessKeyIdKey="key of the access key id in the Secret",
            secretAccessKeyKey="key of the secret access key in the Secret",
        ),
    }
)
_NO_CLAIM: Final = {"properties": {"existingClaim": {"maxLength": 0}}}
_PROFILE: Final = closed(
    {
        **placement({**ANY, "description": "affinity of the pods"}),
        "extraEnv": many("environment variables of this profile", ANY),
    }
)
_IMAGE: Final[Schema] = image()
BATCH: Final[Schema] = closed(
    {
        "enabled": flag(
            "whether the release has what `dubstage batch --engine kubernetes` needs; needs PostgreSQL in gateway.database"
        ),
        "image": _IMAGE,
        "stages": word(
            "own: each worker computes in its own process; release: the stages of this release compute", "own", "release"
        ),
        "parallelism": whole("pods of one batch at the same time, if the batch does not say how many", 1, 10_000),
        "shotSeconds": whole("longest time of one attempt of one shot", 1, 2_592_000),
        "graceSeconds": whole("time that a worker has to end", 0, 7200),
        "ttlSeconds": whole("time after which the cluster removes a Job that has ended", 0, 31_536_000),
        "scratchSize": quantity("largest size of the temporary files of one worker"),
        "queue": text("LocalQueue of Kueue that starts the Jobs; empty: the Jobs start at once", OBJECT_NAME),
        "profiles": {
            "type": "object",
            "description": "kinds of pods by name: `dubstage batch submit --profile NAME`",
            "minProperties": 1,
            "additionalProperties": _PROFILE,
        },
        "podLabels": labels("additional labels of the workers"),
        "podAnnotations": labels("annotations of the workers"),
        "serviceAccount": closed(
            {"annotations": labels("annotations of the workers' service account, such as the role of a cloud")}
        ),
        "subjects": many("users, groups and service accounts that may submit batches (subjects of the RoleBinding)", ANY),
        "networkPolicy": closed({"egress": many(f"further egress rules of the workers ({PEERS})", ANY)}),
        "extraEnv": many("additional environment variables", ANY),
        "extraVolumes": many("volumes that all workers mount, such as the one of the footage", ANY),
        "extraVolumeMounts": many("mounts of these volumes", ANY),
    }
)


def component_properties(name: str) -> Schema:
    """Return the rules of the values that every component may have."""
    sources = ("image", "claim", "hostPath", "objectStore")
    ids = {
        kind: {"type": ["integer", "null"], "minimum": 1, "description": f"{kind} of the pod; null: chosen by the cluster"}
        for kind in ("runAsUser", "runAsGroup", "fsGroup")
    }
    rolling = {
        kind: {"type": ["integer", "string"], "pattern": "^[0-9]+%$", "minimum": 0, "description": what}
        for kind, what in {
            "maxUnavailable": "pods that may be missing during a rollout",
            "maxSurge": "additional pods that may run during a rollout",
        }.items()
    }
    kinds = ("nodeAffinity", "podAffinity", "podAntiAffinity")
    affinity = closed({kind: {**ANY, "description": f"{kind} of the pods"} for kind in kinds}, "affinity of the pods")
    properties = {
        "replicas": whole("number of pods; ignored if an autoscaler sets the number", 0, 1000),
        "strategy": closed(
            {"type": word("how old pods are replaced by new pods", "RollingUpdate", "Recreate"), "rollingUpdate": closed(rolling)}
        ),
        "progressDeadlineSeconds": whole("seconds without progress after which a rollout has failed", 1),
        "listenAddress": text("address that servers listen on; :: in an IPv6 cluster", r"^[0-9a-fA-F:.]+$"),
        "metricsPort": port("port of the Prometheus metrics"),
        "healthPort": port("port of the health service without TLS and tokens, for probes; open only with TLS or tokens"),
        "drainGraceSeconds": whole("seconds that running calls have after SIGTERM; the pod has 15 s more", 0, 7200),
        "image": image(),
        **placement(affinity),
        "hostNetwork": flag(
            "whether the pods use the network of the node; violates the Pod Security Standard; for `podman kube play`"
        ),
        "podLabels": labels("additional labels of the pods"),
        "podAnnotations": labels("annotations of the pods"),
        "serviceAccount": closed(
            {
                "create": flag("whether the chart creates a service account"),
                "name": text("name of the service account; empty: the name of the component", OBJECT_NAME),
                "annotations": labels("annotations of the service account, such as the role of a cloud"),
            }
        ),
        "securityContext": closed(ids, "user and group ids; null: chosen by the cluster"),
        "probes": closed(
            {
                "type": word("grpc: gRPC probes of the kubelet; exec: a command in the container", "grpc", "exec"),
                **{k: probe() for k in ("startup", "readiness", "liveness")},
            }
        ),
        "autoscaling": autoscaling(
            "queueToCompute", "queue-to-compute ratio above which replicas are added: seconds queued per second computed"
        ),
        "podDisruptionBudget": closed(
            {
                "enabled": flag("whether the chart makes a PodDisruptionBudget"),
                "maxUnavailable": {
                    "type": ["integer", "string"],
                    "pattern": "^[0-9]+%$",
                    "minimum": 1,
                    "description": "pods that a drain of nodes may evict at the same time",
                },
            }
        ),
        "networkPolicy": closed(
            {
                "ingressFrom": many(f"further peers that may call the component ({PEERS})", ANY),
                "egress": many("further egress rules", ANY),
            }
        ),
        "service": closed(
            {
                "type": word("Headless: callers see every replica; ClusterIP: callers see one address", "Headless", "ClusterIP"),
                "annotations": labels("annotations of the Service"),
            }
        ),
        "models": models(*sources),
        "tmpSize": quantity("size of /tmp"),
        "extraEnv": many("additional environment variables", ANY),
        "extraVolumes": many("additional volumes", ANY),
        "extraVolumeMounts": many("additional volume mounts", ANY),
    }
    left_out = _NOT_OF_THE_GATEWAY if name == "gateway" else ()
    return {key: schema for key, schema in properties.items() if key not in left_out}


def own_properties(name: str) -> Schema:
    """Return the rules of the values that only one component has."""
    if name == "render":
        return {"triton": _triton()}
    if name != "gateway":
        return {}
    stages = ("audio", "face", "motion", "texture", "render")
    database = closed(
        {
            "url": text(
                "SQLAlchemy url of the database, without a password; empty: SQLite on the data volume",
                r"^([a-z0-9]+(\+[a-z0-9]+)?://.*)?$",
            ),
            "urlSecret": secret("Secret with the url of the database; empty: none", key="key of the url in the Secret"),
        }
    )
    return {
        "replicas": whole("number of gateways; several need PostgreSQL, and volumes that pods of several nodes mount", 0, 100),
        "autoscaling": autoscaling("load", "filled share of a gateway's slots above which gateways are added"),
        "httpPort": whole("port of the same calls over HTTP/JSON; 0: off", 0, 65535),
        "preStopSeconds": whole(
            "of several gateways: seconds in which a gateway that ends still takes calls, while the Service forgets the pod", 0, 600
        ),
        "requireConsent": {
            "enum": [True, False, "signed"],
            "description": "whether a person without a consent record is refused; signed: without a signed record",
        },
        "signingKeySecret": secret(
            "Secret with the Ed25519 key (PEM) that receipts and audit logs are signed with; empty: each data folder gets a key",
            key="key of the PEM file in the Secret",
        ),
        "consentKeysSecret": secret("Secret whose keys are PEM files with the public keys of signed consent records; empty: none"),
        "endpoints": closed({stage: text("gRPC target of the stage; empty: the stage of this release") for stage in stages}),
        "database": database,
        "data": volume("data", "claim", "hostPath", "emptyDir"),
        "media": volume("media", "claim", "hostPath", "emptyDir"),
        "tokensSecret": secret(
            "Secret with the tokens that the gateway accepts; empty: no tokens", key="key of the tokens in the Secret"
        ),
        "proxySecret": closed(
            {
                "name": text(
                    "Secret with the users of an OIDC proxy, whose headers and networks are settings; empty: there is none",
                    OBJECT_NAME,
                ),
                "usersKey": text("key of the users in the Secret", SECRET_KEY),
                "secretKey": text(
                    "key of the secret that the proxy sends; empty: settings.proxy_networks alone tells the proxy",
                    r"^[-._a-zA-Z0-9]*$",
                ),
            }
        ),
        "tenantLimits": TENANT_LIMITS,
        "requireClientCertificate": flag("whether callers need a certificate of the authority; needs global.tls.enabled"),
        "service": closed(
            {
                "type": word("type of the Service", "ClusterIP", "NodePort", "LoadBalancer"),
                "annotations": labels("annotations of the Service"),
            }
        ),
        "batchesOnKubernetes": flag("whether the gateway may send batches to Kubernetes; needs batch.enabled"),
        "route": closed(
            {
                "enabled": flag("whether the chart makes routes of the Gateway API"),
                "parentRefs": many("Gateways that the routes belong to (ParentReferences)", ANY),
                "grpcHost": text("host name of a GRPCRoute to the gRPC port; empty: none"),
                "httpHost": text("host name of an HTTPRoute to httpPort, another name than grpcHost; empty: none"),
                "httpTimeout": text("longest HTTP request; 0s: no limit", r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"),
                "annotations": labels("annotations of the routes"),
            }
        ),
        "ingress": closed(
            {
                "enabled": flag("whether the chart makes an Ingress to httpPort, for pages and HTTP/JSON"),
                "className": text("IngressClass; empty: the default of the cluster", OBJECT_NAME),
                "host": text("host name that browsers use", OBJECT_NAME),
                "tls": closed(
                    {
                        "enabled": flag("whether the Ingress ends TLS"),
                        "secretName": text(
                            "Secret with the certificate of the host; empty: the default certificate of the controller", OBJECT_NAME
                        ),
                    }
                ),
                "annotations": labels("annotations of the Ingress"),
            }
        ),
    }


def _triton() -> Schema:
    repository = closed(
        {
            "source": word("where the model repository comes from", "image", "claim", "hostPath"),
            "claimName": text("PersistentVolumeClaim with the model repository, for source claim", OBJECT_NAME),
            "hostPath": text("folder of the node with the model repository, for source hostPath", r"^(/.*)?$"),
        }
    )
    return closed(
        {
            "enabled": flag("whether networks run on a Triton server in the same pod"),
            "image": image(),
            "command": many("command of the container; empty: the command of the image", {"type": "string"}),
            "args": many("arguments of the container; empty: the arguments of the image", {"type": "string"}),
            "precision": word("precision of the networks", "", "float32", "bfloat16", "int8"),
            "modelRepository": repository,
            "sharedMemory": closed({"enabled": flag("whether frames go through /dev/shm"), "size": quantity("size of /dev/shm")}),
            "gpu": gpu(),
            "resources": resources(),
            "probeCommand": many(
                "command of the liveness probe; the address of Triton's liveness is its last argument", {"type": "string"}
            ),
            "extraEnv": many("additional environment variables", ANY),
        }
    )


def _egress(what: str) -> Schema:
    return closed(
        {
            "to": many(f"allowed addresses ({PEERS}); empty: any address", ANY),
            "ports": many(f"TCP ports of {what}", whole("", 1, 65535)),
        }
    )


GLOBAL: Final[Schema] = {
    "nameOverride": text("prefix of object names; empty: the name of the release", DNS_LABEL),
    "clusterDomain": text("domain of the cluster's DNS"),
    "image": closed(
        {
            "registry": text("registry of the images; an image is REGISTRY/COMPONENT:TAG"),
            "tag": text("tag of the images; empty: the chart's appVersion", r"^[A-Za-z0-9_.-]*$"),
            "pullPolicy": word("when images are pulled", "Always", "IfNotPresent", "Never"),
            "pullSecrets": many("Secrets for pulling images", text("", OBJECT_NAME)),
        }
    ),
    "artefacts": {
        **closed(
            {
                "store": word("kind of the artefact store", "volume", "s3"),
                "volume": volume("artefacts", "claim", "hostPath", shared=True),
                "s3": _S3,
            }
        ),
        "allOf": [
            when({"store": "volume"}, {"s3": {"properties": {"url": {"maxLength": 0}}}}),
            when({"store": "s3"}, {"s3": {"properties": {"url": {"minLength": 1}}}, "volume": _NO_CLAIM}),
        ],
    },
    "tls": closed(
        {
            "enabled": flag("whether the gateway and the stages use mutual TLS, and the gateway serves TLS"),
            "source": word("source of the certificates", "certManager", "secrets"),
            "certManager": closed(
                {
                    "issuerRef": closed(
                        {
                            "name": text("name of the issuer; empty: the chart makes an authority for the release", OBJECT_NAME),
                            "kind": word("kind of the issuer", "Issuer", "ClusterIssuer"),
                            "group": text("API group of the issuer"),
                        }
                    ),
                    "duration": text("validity of a certificate", DURATION),
                    "renewBefore": text("time before the end of the validity when a certificate is renewed", DURATION),
                    "gatewayNames": many("additional host names in the certificate of the gateway", {"type": "string"}),
                }
            ),
            "secrets": closed(
                {
                    name: text(
                        f"Secret with tls.crt, tls.key and ca.crt for {'components without their own' if name == 'all' else name}",
                        OBJECT_NAME,
                    )
                    for name in ("all", "audio", "face", "motion", "texture", "render", "gateway")
                }
            ),
        }
    ),
    "auth": closed(
        {
            "stagesTokenSecret": secret(
                "Secret with the bearer token between gateway and stages; empty: no token", key="key of the token in the Secret"
            )
        }
    ),
    "provenance": closed(
        {
            "secret": secret(
                "Secret with the certificate that videos are signed with; empty: each data folder gets a self-signed one",
                certificateKey="key of the PEM chain in the Secret",
                privateKeyKey="key of the PEM private key in the Secret",
                watermarkKeyKey="key of the secret that watermarks follow from, beside a signerCommand",
            ),
            "signerCommand": text("program with arguments that signs in place of the Secret's private key; empty: the key signs"),
            "timeStampUrl": text("time stamp authority that dates manifests; empty: manifests have no time", r"^(https?://.+)?$"),
        }
    ),
    "telemetry": closed(
        {
            "logLevel": word("log level of every process", "debug", "info", "warning", "error"),
            "logFormat": word("log format of every process", "json", "console"),
            "otlpEndpoint": text("address of the OpenTelemetry collector (gRPC); empty: no traces", r"^(https?://.+)?$"),
        }
    ),
    "monitoring": closed(
        {
            "serviceMonitor": closed(
                {
                    "enabled": flag("whether the chart makes ServiceMonitors"),
                    "interval": text("time between two scrapes", CRON_DURATION),
                    "labels": labels("labels that Prometheus selects ServiceMonitors by"),
                }
            ),
            "prometheusRule": closed(
                {
                    "enabled": flag("whether the chart makes alerts"),
                    "labels": labels("labels that Prometheus selects rules by"),
                    **{
                        name: {"type": "number", "exclusiveMinimum": 0, "description": what}
                        for name, what in {
                            "errorRatio": "share of failed calls above which DubstageErrors fires",
                            "refusedPerMinute": "refused calls per minute above which DubstageQueueFull fires",
                            "latencySeconds": "seconds of a render window above which DubstageSlow fires",
                            "queueToCompute": "queue-to-compute ratio above which DubstageQueueGrows fires",
                        }.items()
                    },
                }
            ),
            "dashboard": closed(
                {
                    "enabled": flag("whether the chart makes a ConfigMap with the Grafana dashboard"),
                    "labels": labels("labels that Grafana's sidecar looks for"),
                }
            ),
        }
    ),
    "networkPolicy": closed(
        {
            "enabled": flag("whether the chart makes network policies"),
            "metricsFrom": many(f"peers that may scrape metrics ({PEERS})", ANY),
            "dns": _egress("DNS; the same UDP ports are allowed"),
            "objectStore": _egress("the object store"),
            "database": _egress("the database"),
            "otlp": _egress("the OpenTelemetry collector"),
            "kubernetesApi": _egress("the Kubernetes API, for gateway.batchesOnKubernetes"),
        }
    ),
    "tests": closed({"enabled": flag("whether the chart makes the pod of `helm test`")}),
}


_IMAGE["properties"]["repository"] = text(
    "name of the image after global.image.registry; empty: gateway with stages release, suite with stages own",
    r"^([a-z0-9]([-a-z0-9._/]*[a-z0-9])?)?$",
)
