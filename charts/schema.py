"""Writer of every values.schema.json and of docs/reference/chart-values.md, from the rules in charts/values.py and charts/rules.py.

    python -m charts.schema            # write the files; a test compares them with the committed files

Helm reports a wrong value with the path of its property and the broken rule. So the rules are simple: a type, a range, a pattern
or a list of words. If two values exclude each other, an `if` names the value that must not be set. The rules of `settings` come
from the settings classes of the services.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

from charts.rules import Schema, closed, when
from charts.values import BATCH, GATEWAY, GLOBAL, component_properties, own_properties
from gateway.settings import GatewaySettings
from services.audio.settings import AudioSettings
from services.common.server.settings import StageSettings
from services.face.settings import FaceSettings
from services.motion.settings import MotionSettings
from services.render.backends.base import BACKEND_CHOICES, precisions_of
from services.render.settings import RenderSettings
from services.texture.settings import TextureSettings

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts" / "dubstage"
REFERENCE: Final = ROOT / "docs" / "reference" / "chart-values.md"

SETTINGS: Final[dict[str, type[StageSettings]]] = {
    "audio": AudioSettings,
    "face": FaceSettings,
    "motion": MotionSettings,
    "texture": TextureSettings,
    "render": RenderSettings,
    "gateway": GatewaySettings,
}
COMPONENTS: Final = tuple(SETTINGS)

SET_BY_THE_CHART: Final = frozenset(
    {
        *(
            "host",
            "port",
            "http_port",
            "health_port",
            "metrics_port",
            "ready_file",
            "drain_grace_s",
            "log_level",
            "log_format",
            "otlp_endpoint",
        ),
        *("tls_certificate_file", "tls_key_file", "tls_client_ca_file", "require_client_certificate", "auth_token_file"),
        *(
            "artefacts_url",
            "audio_weights",
            "motion_weights",
            "texture_weights",
            "render_weights",
            "triton_url",
            "triton_shared_memory",
        ),
        *(
            "tenant",
            "tenant_limits_file",
            "proxy_users_file",
            "proxy_secret_file",
            "data_dir",
            "media_dir",
            "database_url",
            "require_consent",
            "consent_keys",
            "batch_config_map",
            "stages_host",
            "stages_tls",
            "stages_tls_ca_file",
        ),
        *("stages_tls_certificate_file", "stages_tls_key_file", "stages_token_file"),
        *(
            "provenance_certificate_file",
            "provenance_key_file",
            "provenance_signer_command",
            "provenance_time_stamp_url",
            "watermark_key_file",
        ),
        "signing_key_file",
        *("speech_command", "speech_deadline_s"),
        *(f"{stage}_endpoint" for stage in ("audio", "face", "motion", "texture", "render")),
    }
)
"""Settings that the chart sets from other values or not at all: ports, mounted files, and a command that no server calls."""

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def settings_schema(kind: type[StageSettings]) -> Schema:
    """Return the schema of a component's `settings`: the fields of its settings class that the chart does not set."""
    properties: Schema = {}
    for name, field in kind.model_json_schema()["properties"].items():
        if name in SET_BY_THE_CHART:
            continue
        chosen = field
        for option in field.get("anyOf", ()):
            if option.get("type") != "null":
                chosen = {**option, "description": field.get("description", "")}
        kept = ("type", "description", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "pattern")
        properties[name] = {key: chosen[key] for key in kept if chosen.get(key) not in (None, "")}
        if "$ref" in chosen:
            definition = kind.model_json_schema()["$defs"][chosen["$ref"].rpartition("/")[2]]
            properties[name] |= {key: definition[key] for key in ("type", "enum") if key in definition}
    return closed(properties, "settings of the process, by their names in settings.py")


def render_rules() -> Schema:
    """Return the rules of the render stage's `settings` that name two values: which backend computes in which precision."""
    backends = dict.fromkeys(choice.backend for choice in BACKEND_CHOICES)
    return {
        "allOf": [
            when({"backend": backend}, {"precision": {"enum": [str(precision) for precision in precisions_of(backend)]}})
            for backend in backends
        ]
    }


def component_schema(name: str) -> Schema:
    """Return values.schema.json of the chart of a component."""
    rules = render_rules() if name == "render" else {}
    properties = {
        "enabled": {"type": "boolean", "description": "whether the release installs the component"},
        "global": {"type": "object", "description": "see the umbrella chart"},
        **component_properties(name),
        **own_properties(name),
        "settings": settings_schema(SETTINGS[name]) | rules,
    }
    return {"$schema": _DRAFT, "title": f"Values of dubstage's {name} chart", **closed(properties)}


def umbrella_schema() -> Schema:
    """Return values.schema.json of the umbrella chart. The chart of each component checks the values under its name."""
    # Every component sets its own image and resources, so defaults for them would have no effect.
    shared_by_all = {key: rule for key, rule in component_properties("audio").items() if key not in ("image", "resources")}
    defaults = {**shared_by_all, "settings": settings_schema(StageSettings)}
    shared = {**GLOBAL, "defaults": closed(defaults, "defaults of every component")}
    properties: Schema = {"global": closed(shared, "values of the whole release")}
    for name in COMPONENTS:
        properties[name] = {"type": "object", "description": f"values of the {name} chart"}
    properties["batch"] = BATCH
    properties["library"] = {"type": "object", "description": "made by Helm; the library chart has no values"}
    return {"$schema": _DRAFT, "title": "Values of dubstage", **closed(properties)}


def schemas() -> dict[Path, str]:
    """Return the path and the text of every values.schema.json."""
    by_path = {CHART / "values.schema.json": umbrella_schema()}
    by_path |= {CHART / "charts" / name / "values.schema.json": component_schema(name) for name in COMPONENTS}
    return {path: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for path, schema in by_path.items()}


def _rule(schema: Schema) -> str:
    kinds = schema.get("type", "")
    text = " or ".join(kind for kind in kinds if kind != "null") if isinstance(kinds, list) else str(kinds)
    if "enum" in schema:
        words = [word if isinstance(word, str) else json.dumps(word) for word in schema["enum"]]
        text = ", ".join(f"`{word}`" if word != "" else "empty" for word in words)
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    if low is not None:
        text += f" from {low}" if high is None else f" {low} to {high}"
    elif above is not None:
        text += f" over {above:g}"
    return text


def _rows(schema: Schema, values: Any, path: str) -> list[str]:
    rows: list[str] = []
    for name, entry in schema.get("properties", {}).items():
        at = f"{path}.{name}" if path else name
        if at.endswith((".global", "library")) or (not path and name in COMPONENTS):
            continue
        value = values.get(name) if isinstance(values, dict) else None
        if entry.get("properties") and name not in ("requests", "limits"):
            rows += _rows(entry, value, at)
            continue
        default = "" if value is None or value == "" else f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"
        rows.append(
            f"| `{at}` | {_rule(entry)} | {default if len(default) < 60 else 'see values.yaml'} | {entry.get('description', '')} |"
        )
    return rows


def reference() -> str:
    """Return the text of docs/reference/chart-values.md."""
    head = ["| value | allowed values | default | meaning |", "|---|---|---|---|"]
    umbrella = umbrella_schema()
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines = [
        "# Values of the chart",
        "",
        "`python -m docs.generate.reference` writes this page from the schemas that Helm checks values with.",
        "[kubernetes.md](../kubernetes.md) explains how the values work together.",
        "",
        "Every value under `global.defaults` may also be set under a component (`audio`, `face`, `motion`, `texture`, `render` or",
        "`gateway`). The value of the component is used instead of the default. The gateway has no `strategy` and",
        "`models`.",
        "",
        "## The whole release",
        "",
        *head,
        *_rows(umbrella, values, ""),
    ]
    shared = set(component_properties("audio")) | {"settings", "global"}
    for name in COMPONENTS:
        schema = component_schema(name)
        own = yaml.safe_load((CHART / "charts" / name / "values.yaml").read_text(encoding="utf-8"))
        kept = {key: entry for key, entry in schema["properties"].items() if key not in shared or key in ("image", "resources")}
        if name == "gateway":
            kept |= {key: schema["properties"][key] for key in GATEWAY if key in schema["properties"]}
        lines += ["", f"## {name}", "", *head, *_rows({"properties": kept}, own, name)]
        common = set(settings_schema(StageSettings)["properties"])
        settings = {key: entry for key, entry in schema["properties"]["settings"]["properties"].items() if key not in common}
        lines += _rows({"properties": settings}, {}, f"{name}.settings")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the schemas, then the page."""
    for path, text in schemas().items():
        path.write_text(text, encoding="utf-8")
    REFERENCE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
