"""Every process that writes videos signs them with the certificate of the values."""

from typing import Any

from charts.schema import COMPONENTS
from tests.charts.rendering import Rendered, pod_spec, render
from tests.charts.test_batch import environment, worker

SECRET = "global.provenance.secret.name=studio"
FILES = {
    "DUBSTAGE_PROVENANCE_CERTIFICATE_FILE": "/etc/dubstage/provenance/chain.pem",
    "DUBSTAGE_PROVENANCE_KEY_FILE": "/etc/dubstage/provenance/key.pem",
}


def of_provenance(variables: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if name.startswith("DUBSTAGE_PROVENANCE_")}


def mounted(spec: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """The Secret that a container finds at /etc/dubstage/provenance."""
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == "/etc/dubstage/provenance"]
    assert mount["readOnly"] is True
    (volume,) = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    secret: dict[str, Any] = volume["secret"]
    assert secret["defaultMode"] == 0o440
    return {item["path"]: (secret["secretName"], item["key"]) for item in secret["items"]}


def gateway(rendered: Rendered) -> dict[str, Any]:
    return mounted(pod_spec(rendered.deployment("gateway")), rendered.container("gateway"))


def test_only_signers_mount_certificate() -> None:
    """Gateway and workers have the certificate and the stages have not."""
    rendered = render("batch", SECRET, "global.provenance.secret.privateKeyKey=secret.pem")
    expected = {"chain.pem": ("studio", "tls.crt"), "key.pem": ("studio", "secret.pem")}
    assert gateway(rendered) == expected
    assert of_provenance(rendered.environment("gateway")) == FILES
    for profile in range(2):
        (container,) = worker(rendered, profile)["containers"]
        assert mounted(worker(rendered, profile), container) == expected
        assert of_provenance(environment(rendered, profile)) == FILES
    for stage in set(COMPONENTS) - {"gateway"}:
        assert of_provenance(rendered.environment(stage)) == {}
        assert "provenance" not in {volume["name"] for volume in pod_spec(rendered.deployment(stage))["volumes"]}


def test_signer_command_and_watermark_key() -> None:
    """A command signs in place of the key and the watermark has a key of its own."""
    rendered = render("batch", SECRET, "global.provenance.signerCommand=kms-sign --key videos")
    told = {
        "DUBSTAGE_PROVENANCE_CERTIFICATE_FILE": "/etc/dubstage/provenance/chain.pem",
        "DUBSTAGE_PROVENANCE_SIGNER_COMMAND": "kms-sign --key videos",
    }
    assert gateway(rendered) == {"chain.pem": ("studio", "tls.crt"), "watermark.key": ("studio", "watermark.key")}
    for variables in (rendered.environment("gateway"), environment(rendered)):
        assert of_provenance(variables) == told
        assert variables["DUBSTAGE_WATERMARK_KEY_FILE"] == "/etc/dubstage/provenance/watermark.key"


def test_certificate_is_for_production() -> None:
    """Without a secret, an installation makes a key of its own; production names a certificate."""
    rendered = render("batch", "global.provenance.timeStampUrl=http://tsa.example.com")
    stamped = {"DUBSTAGE_PROVENANCE_TIME_STAMP_URL": "http://tsa.example.com"}
    assert of_provenance(rendered.environment("gateway")) == of_provenance(environment(rendered)) == stamped
    assert of_provenance(render("batch").environment("gateway")) == {}
    assert gateway(render("production")) == {
        "chain.pem": ("dubstage-provenance", "tls.crt"),
        "key.pem": ("dubstage-provenance", "tls.key"),
    }


def test_receipt_key_from_secret() -> None:
    rendered = render("default", "gateway.signingKeySecret.name=signing", "gateway.signingKeySecret.key=ed25519")
    assert rendered.environment("gateway")["DUBSTAGE_SIGNING_KEY_FILE"] == "/etc/dubstage/signing-key/signing.pem"
    (mount,) = [one for one in rendered.container("gateway")["volumeMounts"] if one["mountPath"] == "/etc/dubstage/signing-key"]
    assert mount["readOnly"] is True
    (volume,) = [one for one in pod_spec(rendered.deployment("gateway"))["volumes"] if one["name"] == mount["name"]]
    expected = {"secretName": "signing", "defaultMode": 0o440, "items": [{"key": "ed25519", "path": "signing.pem"}]}
    assert volume["secret"] == expected
    assert "DUBSTAGE_SIGNING_KEY_FILE" not in render("default").environment("gateway")
