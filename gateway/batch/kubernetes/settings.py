"""Settings of the Jobs of batches: the JSON document `settings.json` of a ConfigMap, which the chart writes (`batch.enabled`)."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common.errors import InvalidRequestError

KEY: Final = "settings.json"
"""Key of the document in the ConfigMap."""

Object = dict[str, Any]
"""Part of an object of Kubernetes, as JSON."""
Placement = Literal["nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName", "runtimeClassName"]
PodId = Literal["runAsUser", "runAsGroup", "fsGroup"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Profile(_Strict):
    """Kind of pod that a batch may ask for, such as `cpu` or `gpu`.

    Attributes:
        resources: requests and limits of the worker, with its GPUs.
        placement: fields of the pod that choose its node.
        env: environment variables of this profile (EnvVar).
    """

    resources: Object = {}
    placement: dict[Placement, Any] = {}
    env: tuple[Object, ...] = ()


class JobSettings(_Strict):
    """Settings of the Jobs of batches. The security context of the pods is not among them: dubstage sets it, and it is strict.

    Attributes:
        instance: value of the label app.kubernetes.io/instance, by which network policies select the pods.
        image: image of the workers.
        image_pull_policy: when the image is pulled.
        image_pull_secrets: names of Secrets for pulling the image.
        command: program of the image that runs `dubstage`.
        service_account: service account of the workers. It needs no role, and the pods get no token.
        env: environment variables of the workers (EnvVar), such as those of the database and the artefact store.
        volumes: further volumes of the pods.
        volume_mounts: mounts of these volumes.
        pod_labels: further labels of the pods.
        pod_annotations: annotations of the pods.
        pod_ids: user and groups of the pods. An absent id is chosen by the cluster.
        scratch_size: largest size of the temporary files of one worker.
        parallelism: pods of one batch at the same time, if the batch does not say how many.
        shot_seconds: longest time of one attempt of one shot, seconds. The image needs the program `timeout`.
        grace_seconds: time that a worker has to end, seconds.
        ttl_seconds: time after which the cluster removes a Job that has ended, seconds.
        queue: LocalQueue of Kueue; empty: the Jobs start at once.
        profiles: kinds of pods by name.
    """

    instance: str = "dubstage"
    image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    command: tuple[str, ...] = ("/opt/dubstage/bin/dubstage",)
    service_account: str = Field(min_length=1)
    env: tuple[Object, ...] = ()
    volumes: tuple[Object, ...] = ()
    volume_mounts: tuple[Object, ...] = ()
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    pod_ids: dict[PodId, int] = {}
    scratch_size: str = "20Gi"
    parallelism: int = Field(4, ge=1, le=10_000)
    shot_seconds: int = Field(21_600, ge=1, le=2_592_000)
    grace_seconds: int = Field(60, ge=0, le=7200)
    ttl_seconds: int = Field(86_400, ge=0, le=31_536_000)
    queue: str = ""
    profiles: dict[str, Profile] = Field(min_length=1)

    def profile(self, name: str) -> Profile:
        """Return the profile of this name.

        Raises:
            InvalidRequestError: there is no such profile; the message lists those that exist.
        """
        if name not in self.profiles:
            raise InvalidRequestError(
                f"{name!r} is not among the profiles of this cluster ({', '.join(sorted(self.profiles))}): "
                "choose one of them, or add it to batch.profiles of the chart",
                field="profile",
                named=True,
            )
        return self.profiles[name]


def read_settings(data: dict[str, str], where: str) -> JobSettings:
    """Return the settings in the `data` of a ConfigMap.

    Args:
        data: texts of the ConfigMap by key.
        where: name of the ConfigMap, for messages.

    Raises:
        InvalidRequestError: the document is missing or wrong; the message names the field.
    """
    if KEY not in data:
        raise InvalidRequestError(
            f"the ConfigMap {where} has no key {KEY}: name the ConfigMap that the chart writes", field="config_map"
        )
    try:
        return JobSettings.model_validate_json(data[KEY])
    except ValidationError as wrong:
        first = wrong.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidRequestError(
            f"the ConfigMap {where}, {KEY}: {at}: {first['msg']}: use the chart and the command line of the same version",
            field="config_map",
        ) from None
