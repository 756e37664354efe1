"""Wrong values are refused before anything is installed, and the message names the value."""

import pytest

from tests.charts.rendering import template

POSTGRES = "gateway.database.urlSecret.name=database"
KEYS = ("gateway.signingKeySecret.name=signing", "global.provenance.secret.name=studio")
ARTEFACTS = "global.artefacts.volume.accessMode=ReadWriteMany"

ROUTE = ("gateway.route.enabled=true", "gateway.route.parentRefs[0].name=public")

IN_A_SCHEMA = {
    "a word for a number of replicas": (["audio.replicas=two"], "audio:\n- replicas: Invalid type. Expected: integer"),
    "fewer than no replicas": (["audio.replicas=-1"], "audio:\n- replicas: Must be greater than or equal to 0"),
    "a misspelt key": (["render.replica=2"], "render:\n- (root): Additional property replica is not allowed"),
    "a misspelt stage": (["rendr.replicas=2"], "(root): Additional property rendr is not allowed"),
    "a pull policy that does not exist": (
        ["global.image.pullPolicy=Sometimes"],
        'global.image.pullPolicy must be one of the following: "Always"',
    ),
    "a backend that does not exist": (
        ["render.settings.backend=tensorrt"],
        'settings.backend must be one of the following: "onnxruntime"',
    ),
    "a precision that the backend does not compute in": (
        ["render.settings.backend=openvino", "render.settings.precision=int8"],
        'settings.precision must be one of the following: "float32", "bfloat16"',
    ),
    "a port out of range": (["motion.metricsPort=99999"], "motion:\n- metricsPort: Must be less than or equal to 65535"),
    "a unit that Kubernetes does not know": (
        ["face.resources.limits.memory=2GB"],
        "face:\n- resources.limits.memory: Does not match pattern",
    ),
    "an unknown field of a GPU": (["render.gpu.vendor=nvidia"], "render:\n- gpu: Additional property vendor is not allowed"),
    "a GPU without its vendor's domain": (["render.gpu.resource=gpu"], "render:\n- gpu.resource: Does not match pattern"),
    "a claim and S3 at once": (
        ["global.artefacts.store=s3", "global.artefacts.s3.url=s3://b/p", "global.artefacts.volume.existingClaim=claim"],
        "global.artefacts.volume.existingClaim: String length must be less than or equal to 0",
    ),
    "S3 without saying so": (
        ["global.artefacts.s3.url=s3://b/p"],
        "global.artefacts.s3.url: String length must be less than or equal to 0",
    ),
    "S3 without a bucket": (
        ["global.artefacts.store=s3"],
        "global.artefacts.s3.url: String length must be greater than or equal to 1",
    ),
    "HPA and KEDA at once": (
        ["audio.autoscaling.type=hpa", "audio.autoscaling.keda.prometheusAddress=http://p"],
        "audio:\n- autoscaling: Must validate",
    ),
    "an HPA to zero": (
        ["global.defaults.autoscaling.type=hpa", "global.defaults.autoscaling.minReplicas=0"],
        "global.defaults.autoscaling.minReplicas: Must be greater than or equal to 1",
    ),
    "resources for all, where each has its own": (
        ["global.defaults.resources.limits.cpu=1"],
        "global.defaults: Additional property resources is not allowed",
    ),
    "a misspelt setting": (
        ["audio.settings.max_concurent_rpcs=2"],
        "settings: Additional property max_concurent_rpcs is not allowed",
    ),
    "a setting out of range": (
        ["audio.settings.max_concurrent_rpcs=0"],
        "settings.max_concurrent_rpcs: Must be greater than or equal to 1",
    ),
    "a setting of another stage": (
        ["audio.settings.batch_size=8"],
        "audio:\n- settings: Additional property batch_size is not allowed",
    ),
    "a setting that the chart makes": (["audio.settings.port=1"], "audio:\n- settings: Additional property port is not allowed"),
    "a database's host for its url": (["gateway.database.url=db.example.com"], "gateway:\n- database.url: Does not match pattern"),
    "a word for required consent": (["gateway.requireConsent=always"], "gateway:\n- requireConsent: requireConsent must be one of"),
    "yes for true": (["global.tls.enabled=yes"], "global.tls.enabled: Invalid type. Expected: boolean, given: string"),
    "an effect that taints do not have": (
        ["global.defaults.tolerations[0].effect=NoRun"],
        'global.defaults.tolerations.0.effect must be one of the following: "NoSchedule"',
    ),
    "a probe without a period": (
        ["audio.probes.liveness.periodSeconds=0"],
        "probes.liveness.periodSeconds: Must be greater than or equal to 1",
    ),
}

IN_A_TEMPLATE = {
    "a token in plain text": (
        ["global.auth.stagesTokenSecret.name=token"],
        "global.auth.stagesTokenSecret: a token is never sent in plain text",
    ),
    "a command that signs with the key of no certificate": (
        ["global.provenance.signerCommand=sign"],
        "global.provenance.signerCommand: a command signs with the key of a certificate; set global.provenance.secret.name",
    ),
    "a stage that is nowhere": (["render.enabled=false"], "gateway.endpoints.render: the gateway needs all five stages"),
    "secrets for TLS that are not named": (["global.tls.enabled=true", "global.tls.source=secrets"], "global.tls.secrets."),
    "more replicas at least than at most": (
        ["audio.autoscaling.type=hpa", "audio.autoscaling.minReplicas=9"],
        "audio.autoscaling: minReplicas (9) is over maxReplicas (4)",
    ),
    "one stage to zero by an HPA": (
        ["global.defaults.autoscaling.type=hpa", "audio.autoscaling.minReplicas=0"],
        "audio.autoscaling.minReplicas: a HorizontalPodAutoscaler keeps at least 1",
    ),
    "KEDA without Prometheus": (
        ["audio.autoscaling.type=keda"],
        "autoscaling.keda.prometheusAddress: give the address of Prometheus",
    ),
    "workers of batches that call a stage which nothing starts": (
        [
            *("batch.enabled=true", POSTGRES, "render.autoscaling.type=keda", "render.autoscaling.minReplicas=0"),
            "render.autoscaling.keda.prometheusAddress=http://prometheus",
        ],
        "render.autoscaling.minReplicas: nothing starts a stage at 0 replicas for the workers of batches",
    ),
    "a gateway that its probe would end while it waits for its stages": (
        ["gateway.settings.stages_start_s=600"],
        "waits 600 s for its stages when it starts, and its startup probe ends it before: "
        "set gateway.probes.startup.failureThreshold to 207",
    ),
    "a name that no Service may have": (
        ["global.nameOverride=4k"],
        "global.nameOverride: names of Services begin with a letter, and 4k-gateway does not",
    ),
    "models of an object store without an address": (["render.models.source=objectStore"], "models.url: where the models lie"),
    "a folder without a path": (["gateway.media.type=hostPath"], "hostPath: a volume of type hostPath needs a path"),
    "signed consent without keys": (["gateway.requireConsent=signed"], "gateway.requireConsent: signed records need trusted keys"),
    "an autoscaler of gateways on SQLite": (
        ["gateway.autoscaling.type=hpa"],
        "gateway.autoscaling.maxReplicas: 4 gateways need PostgreSQL",
    ),
    "two gateways on SQLite": (["gateway.replicas=2"], "gateway.replicas: 2 gateways need PostgreSQL"),
    "two gateways on SQLite that is named": (
        ["gateway.replicas=2", "gateway.database.url=sqlite:////data/a.sqlite"],
        "gateway.replicas: 2 gateways need PostgreSQL",
    ),
    "two gateways and artefacts of one node": (
        ["gateway.replicas=2", POSTGRES],
        "only one node can mount a ReadWriteOnce volume: set global.artefacts.store to s3",
    ),
    "two gateways and jobs of one node": (
        ["gateway.replicas=2", POSTGRES, ARTEFACTS],
        "share the data volume, and only one node can mount a ReadWriteOnce volume: set gateway.data.accessMode to ReadWriteMany",
    ),
    "two gateways with receipts of two keys": (
        ["gateway.replicas=2", POSTGRES, ARTEFACTS, "gateway.data.type=emptyDir", "gateway.media.accessMode=ReadWriteMany"],
        "would sign receipts and audit logs with different keys: set gateway.signingKeySecret.name",
    ),
    "two gateways with videos of two keys": (
        [
            "gateway.replicas=2",
            POSTGRES,
            ARTEFACTS,
            "gateway.data.type=emptyDir",
            "gateway.media.accessMode=ReadWriteMany",
            KEYS[0],
        ],
        "would sign and watermark videos with different keys: set global.provenance.secret.name",
    ),
    "two gateways and media of one node": (
        ["gateway.replicas=2", POSTGRES, ARTEFACTS, "gateway.data.type=emptyDir", *KEYS],
        "share the media volume, and only one node can mount a ReadWriteOnce volume: set gateway.media.accessMode to ReadWriteMany",
    ),
    "two gateways with media of their own": (
        ["gateway.replicas=2", POSTGRES, ARTEFACTS, "gateway.data.type=emptyDir", *KEYS, "gateway.media.type=emptyDir"],
        "each pod would have a separate emptyDir",
    ),
    "a route without a host": ([*ROUTE], "gateway.route.grpcHost: a route needs the host name that callers use"),
    "a route without a Gateway": (
        ["gateway.route.enabled=true", "gateway.route.grpcHost=a.example.com"],
        "gateway.route.parentRefs: the Gateway that the route belongs to",
    ),
    "an HTTP route without HTTP": (
        [*ROUTE, "gateway.route.httpHost=a.example.com", "gateway.httpPort=0"],
        "gateway.route.httpHost: the gateway serves no HTTP/JSON: set gateway.httpPort",
    ),
    "one host for two routes": (
        [*ROUTE, "gateway.route.httpHost=a.example.com", "gateway.route.grpcHost=a.example.com", "gateway.httpPort=8443"],
        "gateway.route.httpHost: a listener accepts a GRPCRoute and an HTTPRoute for different host names alone",
    ),
}


@pytest.mark.parametrize("mistake", IN_A_SCHEMA)
def test_a_schema_refuses(mistake: str) -> None:
    sets, message = IN_A_SCHEMA[mistake]
    result = template(sets=sets, check=False)
    assert result.returncode
    assert "values don't meet the specifications of the schema(s)" in result.stderr
    assert message in result.stderr


def test_exclusive_values_are_named() -> None:
    """The value that is too much is named where two exclude each other."""
    sets, _ = IN_A_SCHEMA["HPA and KEDA at once"]
    assert "autoscaling.keda.prometheusAddress: String length" in template(sets=sets, check=False).stderr


@pytest.mark.parametrize("mistake", IN_A_TEMPLATE)
def test_a_template_refuses(mistake: str) -> None:
    sets, message = IN_A_TEMPLATE[mistake]
    result = template(sets=sets, check=False)
    assert result.returncode
    assert message in result.stderr
