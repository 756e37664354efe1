"""Wrong values are refused before anything is installed, and the message names the value."""

import pytest

from tests.charts.rendering import template

POSTGRES = "gateway.database.urlSecret.name=database"
TWO = f"gateway.replicas=2,{POSTGRES}"
TWO_SHARED = f"{TWO},global.artefacts.volume.accessMode=ReadWriteMany"
"""Two gateways, and two that share artefacts."""
KEY = "gateway.signingKeySecret.name=signing"
KEYS = f"{KEY},global.provenance.secret.name=studio"
KEDA = "render.autoscaling.type=keda,render.autoscaling.minReplicas=0,render.autoscaling.keda.prometheusAddress=http://prometheus"
BATCH = f"batch.enabled=true,{POSTGRES}"
SENT = f"{BATCH},gateway.batchesOnKubernetes=true"
"""Batches, and batches that the gateway sends to Kubernetes."""
SENT_AND_READ = f"{SENT},gateway.media.accessMode=ReadWriteMany"
NO_DATABASE = "gateway.database: batches need PostgreSQL"
ROUTE = "gateway.route.enabled=true,gateway.route.parentRefs[0].name=public"

IN_A_SCHEMA = {
    "audio.replicas=two": "audio:\n- replicas: Invalid type. Expected: integer",
    "audio.replicas=-1": "audio:\n- replicas: Must be greater than or equal to 0",
    "render.replica=2": "render:\n- (root): Additional property replica is not allowed",
    "rendr.replicas=2": "(root): Additional property rendr is not allowed",
    "global.image.pullPolicy=Sometimes": 'global.image.pullPolicy must be one of the following: "Always"',
    "render.settings.backend=tensorrt": 'settings.backend must be one of the following: "onnxruntime"',
    "render.settings.backend=openvino,render.settings.precision=int8": (
        'settings.precision must be one of the following: "float32", "bfloat16"'
    ),
    "motion.metricsPort=99999": "motion:\n- metricsPort: Must be less than or equal to 65535",
    "face.resources.limits.memory=2GB": "face:\n- resources.limits.memory: Does not match pattern",
    "render.gpu.vendor=nvidia": "render:\n- gpu: Additional property vendor is not allowed",
    "render.gpu.resource=gpu": "render:\n- gpu.resource: Does not match pattern",
    "global.artefacts.store=s3,global.artefacts.s3.url=s3://b/p,global.artefacts.volume.existingClaim=claim": (
        "global.artefacts.volume.existingClaim: String length must be less than or equal to 0"
    ),
    "global.artefacts.s3.url=s3://b/p": "global.artefacts.s3.url: String length must be less than or equal to 0",
    "global.artefacts.store=s3": "global.artefacts.s3.url: String length must be greater than or equal to 1",
    "audio.autoscaling.type=hpa,audio.autoscaling.keda.prometheusAddress=http://p": "audio:\n- autoscaling: Must validate",
    "global.defaults.autoscaling.type=hpa,global.defaults.autoscaling.minReplicas=0": (
        "global.defaults.autoscaling.minReplicas: Must be greater than or equal to 1"
    ),
    "global.defaults.resources.limits.cpu=1": "global.defaults: Additional property resources is not allowed",
    "audio.settings.max_concurent_rpcs=2": "settings: Additional property max_concurent_rpcs is not allowed",
    "audio.settings.max_concurrent_rpcs=0": "settings.max_concurrent_rpcs: Must be greater than or equal to 1",
    "audio.settings.batch_size=8": "audio:\n- settings: Additional property batch_size is not allowed",
    "audio.settings.port=1": "audio:\n- settings: Additional property port is not allowed",
    "gateway.database.url=db.example.com": "gateway:\n- database.url: Does not match pattern",
    "gateway.requireConsent=always": "gateway:\n- requireConsent: requireConsent must be one of",
    "global.tls.enabled=yes": "global.tls.enabled: Invalid type. Expected: boolean, given: string",
    "global.defaults.tolerations[0].effect=NoRun": (
        'global.defaults.tolerations.0.effect must be one of the following: "NoSchedule"'
    ),
    "audio.probes.liveness.periodSeconds=0": "probes.liveness.periodSeconds: Must be greater than or equal to 1",
    "gateway.tenantLimits.every.concurent_dubs=1": "tenantLimits",
    "gateway.tenantLimits.tenants.acme.live_streams=-1": "tenantLimits",
    "gateway.tenantLimits.tenants.Acme.live_streams=1": "tenantLimits",
    f"{BATCH},batch.profiles.cpu.gpus=1": "batch.profiles.cpu: Additional property gpus is not allowed",
    f"{SENT_AND_READ},gateway.settings.batch_config_map=other": "Additional property batch_config_map is not allowed",
    f"{SENT_AND_READ},global.networkPolicy.kubernetesApi.ports={{0}}": (
        "kubernetesApi.ports.0: Must be greater than or equal to 1"
    ),
}
"""Values that a schema refuses, and the message."""

IN_A_TEMPLATE = {
    "global.auth.stagesTokenSecret.name=token": "global.auth.stagesTokenSecret: a token is never sent in plain text",
    "global.provenance.signerCommand=sign": (
        "global.provenance.signerCommand: a command signs with the key of a certificate; set global.provenance.secret.name"
    ),
    "render.enabled=false": "gateway.endpoints.render: the gateway needs all five stages",
    "global.tls.enabled=true,global.tls.source=secrets": "global.tls.secrets.",
    "audio.autoscaling.type=hpa,audio.autoscaling.minReplicas=9": "audio.autoscaling: minReplicas (9) is over maxReplicas (4)",
    "global.defaults.autoscaling.type=hpa,audio.autoscaling.minReplicas=0": (
        "audio.autoscaling.minReplicas: a HorizontalPodAutoscaler keeps at least 1"
    ),
    "audio.autoscaling.type=keda": "autoscaling.keda.prometheusAddress: give the address of Prometheus",
    f"batch.enabled=true,{POSTGRES},{KEDA}": (
        "render.autoscaling.minReplicas: nothing starts a stage at 0 replicas for the workers of batches"
    ),
    "gateway.settings.stages_start_s=600": (
        "waits 600 s for its stages when it starts, and its startup probe ends it before: "
        "set gateway.probes.startup.failureThreshold to 207"
    ),
    "global.nameOverride=4k": "global.nameOverride: names of Services begin with a letter, and 4k-gateway does not",
    "render.models.source=objectStore": "models.url: where the models lie",
    "gateway.media.type=hostPath": "hostPath: a volume of type hostPath needs a path",
    "gateway.requireConsent=signed": "gateway.requireConsent: signed records need trusted keys",
    "gateway.autoscaling.type=hpa": "gateway.autoscaling.maxReplicas: 4 gateways need PostgreSQL",
    "gateway.replicas=2": "gateway.replicas: 2 gateways need PostgreSQL",
    "gateway.replicas=2,gateway.database.url=sqlite:////data/a.sqlite": "gateway.replicas: 2 gateways need PostgreSQL",
    TWO: "only one node can mount a ReadWriteOnce volume: set global.artefacts.store to s3",
    TWO_SHARED: (
        "share the data volume, and only one node can mount a ReadWriteOnce volume: set gateway.data.accessMode to ReadWriteMany"
    ),
    f"{TWO_SHARED},gateway.data.type=emptyDir,gateway.media.accessMode=ReadWriteMany": (
        "would sign receipts and audit logs with different keys: set gateway.signingKeySecret.name"
    ),
    f"{TWO_SHARED},gateway.data.type=hostPath,gateway.data.hostPath=/srv,gateway.media.accessMode=ReadWriteMany": (
        "would sign receipts and audit logs with different keys: set gateway.signingKeySecret.name"
    ),
    f"{TWO_SHARED},gateway.data.type=emptyDir,gateway.media.accessMode=ReadWriteMany,{KEY}": (
        "would sign and watermark videos with different keys: set global.provenance.secret.name"
    ),
    f"{TWO_SHARED},gateway.data.type=emptyDir,{KEYS}": (
        "share the media volume, and only one node can mount a ReadWriteOnce volume: set gateway.media.accessMode to ReadWriteMany"
    ),
    f"{TWO_SHARED},gateway.data.type=emptyDir,{KEYS},gateway.media.type=emptyDir": "each pod would have a separate emptyDir",
    ROUTE: "gateway.route.grpcHost: a route needs the host name that callers use",
    "gateway.route.enabled=true,gateway.route.grpcHost=a.example.com": (
        "gateway.route.parentRefs: the Gateway that the route belongs to"
    ),
    f"{ROUTE},gateway.route.httpHost=a.example.com,gateway.httpPort=0": (
        "gateway.route.httpHost: the gateway serves no HTTP/JSON: set gateway.httpPort"
    ),
    f"{ROUTE},gateway.route.httpHost=a.example.com,gateway.route.grpcHost=a.example.com,gateway.httpPort=8443": (
        "gateway.route.httpHost: a listener accepts a GRPCRoute and an HTTPRoute for different host names alone"
    ),
    "gateway.ingress.enabled=true,gateway.httpPort=8443": "gateway.ingress.host: an Ingress needs the host name",
    "gateway.ingress.enabled=true,gateway.ingress.host=a.example.com,gateway.httpPort=0": (
        "gateway.ingress: the gateway serves no pages and no HTTP/JSON: set gateway.httpPort"
    ),
    "gateway.ingress.enabled=true,gateway.ingress.host=a.example.com,gateway.httpPort=8443": (
        "gateway.tokensSecret.name: without tokens, whoever reaches the Ingress could call the gateway"
    ),
    "batch.enabled=true": NO_DATABASE,
    "batch.enabled=true,gateway.enabled=false,batch.stages=own": NO_DATABASE,
    "batch.enabled=true,gateway.database.url=sqlite:////data/actors.sqlite": NO_DATABASE,
    f"{BATCH},gateway.enabled=false,render.enabled=false": "gateway.endpoints.render",
    "gateway.batchesOnKubernetes=true": "gateway.batchesOnKubernetes: the gateway needs the settings and the Role of batches",
    SENT: "set gateway.media.accessMode to ReadWriteMany, or gateway.settings.media_url",
    f"{SENT_AND_READ},gateway.serviceAccount.create=false": (
        "gateway.serviceAccount: with batchesOnKubernetes the account of the gateway"
    ),
    f"{SENT_AND_READ},global.defaults.serviceAccount.name=shared": "audio has the account shared too",
}
"""Values that a template refuses, and the message."""


@pytest.mark.parametrize("values", IN_A_SCHEMA)
def test_a_schema_refuses(values: str) -> None:
    result = template(sets=[values], check=False)
    assert result.returncode
    assert "values don't meet the specifications of the schema(s)" in result.stderr
    assert IN_A_SCHEMA[values] in result.stderr


def test_exclusive_values_are_named() -> None:
    """The value that is too much is named where two exclude each other."""
    (values,) = [values for values in IN_A_SCHEMA if "type=hpa" in values and "keda" in values]
    assert "autoscaling.keda.prometheusAddress: String length" in template(sets=[values], check=False).stderr


@pytest.mark.parametrize("values", IN_A_TEMPLATE)
def test_a_template_refuses(values: str) -> None:
    result = template(sets=[values], check=False)
    assert result.returncode
    assert IN_A_TEMPLATE[values] in result.stderr
