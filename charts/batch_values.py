"""Rules of the chart's values for batches."""

from __future__ import annotations

from typing import Final

from charts.rules import (
    ANY,
    OBJECT_NAME,
    PEERS,
    Schema,
    closed,
    flag,
    image,
    labels,
    many,
    placement,
    quantity,
    text,
    whole,
    word,
)

_PROFILE: Final = closed(
    {
        **placement({**ANY, "description": "affinity of the pods"}),
        "extraEnv": many("environment variables of this profile", ANY),
    }
)

_IMAGE: Final[Schema] = image()
_IMAGE["properties"]["repository"] = text(
    "name of the image after global.image.registry; empty: gateway with stages release, suite with stages own",
    r"^([a-z0-9]([-a-z0-9._/]*[a-z0-9])?)?$",
)

BATCH: Final[Schema] = closed(
    {
        "enabled": flag(
            "whether the release has what `dubstage batch --engine kubernetes` needs; needs PostgreSQL in gateway.database"
        ),
        "url": text(
            "store of batches for workers and people who submit, such as s3://bucket/batches; empty: gateway.settings.batches_url",
            r"^(([a-z0-9]+:/)?/.+)?$",
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
