from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
from structlog.testing import capture_logs

from services.audio.settings import AudioSettings
from services.common.errors import InvalidRequestError, UnauthenticatedError
from services.common.server.auth import TokenCheck, read_tokens
from services.common.server.settings import StageSettings, load_settings
from services.face.settings import FaceSettings
from services.motion.settings import MotionSettings
from services.render.settings import RenderSettings
from services.texture.settings import TextureSettings


def test_command_line_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read and the command line wins."""
    monkeypatch.setenv("DUBSTAGE_PORT", "50055")
    monkeypatch.setenv("DUBSTAGE_MAX_CONCURRENT_RPCS", "3")
    monkeypatch.setenv("DUBSTAGE_AUTH_TOKEN_FILE", "")
    settings = load_settings(StageSettings, port=7, host=None)
    assert (settings.port, settings.host, settings.max_concurrent_rpcs) == (7, "127.0.0.1", 3)
    assert settings.auth_token_file is None


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError):
        StageSettings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"DUBSTAGE_PORT": "70000"}, "DUBSTAGE_PORT"),
        ({"DUBSTAGE_MAX_MESSAGE_BYTES": "many", "DUBSTAGE_LOG_LEVEL": "loud"}, "DUBSTAGE_LOG_LEVEL"),
        ({"DUBSTAGE_AUTH_TOKEN_FILE": "/nowhere/tokens"}, "/nowhere/tokens"),
        ({"DUBSTAGE_TLS_KEY_FILE": "/nowhere/key"}, "together"),
        ({"DUBSTAGE_REQUIRE_CLIENT_CERTIFICATE": "true"}, "needs tls_client_ca_file"),
        ({"DUBSTAGE_DEFAULT_DEADLINE_S": "9000"}, "over max_deadline_s"),
        ({"DUBSTAGE_COMPUTE_THREADS": "100000"}, "DUBSTAGE_COMPUTE_THREADS: Input should be"),
        ({"DUBSTAGE_WORKER_THREADS": "65"}, "DUBSTAGE_WORKER_THREADS: Input should be"),
        ({"DUBSTAGE_MAX_CALL_MEMORY_BYTES": "0"}, "DUBSTAGE_MAX_CALL_MEMORY_BYTES: Input should be"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequestError, match=named) as caught:
        load_settings(StageSettings)
    assert all(name in str(caught.value) for name in variables) or "DUBSTAGE" not in named


@pytest.mark.parametrize("kind", [FaceSettings, TextureSettings, RenderSettings])
@pytest.mark.parametrize(("name", "said"), [("nope", "is missing"), ("a-file", "is no folder")])
def test_missing_face_models_end_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[StageSettings], name: str, said: str
) -> None:
    """A folder of face models that is not there ends the start."""
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("DUBSTAGE_MORPHABLE_MODELS", str(tmp_path / name))
    with pytest.raises(InvalidRequestError, match=f"DUBSTAGE_MORPHABLE_MODELS: {tmp_path / name} {said}: give an existing folder"):
        load_settings(kind)


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "three plain words\n", "ünicode\n"])
def test_unusable_token_file_refused(tmp_path: Path, text: str) -> None:
    """A token file without a usable token is refused."""
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(InvalidRequestError, match="tokens"):
        read_tokens(tmp_path / "tokens")


def test_scheme_ignores_case(tmp_path: Path) -> None:
    """The scheme is read in any case and the token in its own."""
    (tmp_path / "tokens").write_text("Abc\n")
    check = TokenCheck(tmp_path / "tokens")
    check.check("Bearer Abc")
    check.check("bearer Abc")
    for wrong in ("", "Abc", "Basic Abc", "Bearer abc", "Bearer ", "Bearer Abc ", "Bearer ü"):
        with pytest.raises(UnauthenticatedError):
            check.check(wrong)


@pytest.mark.parametrize(
    "spoil", [lambda file: file.unlink(), lambda file: file.write_text(""), lambda file: file.write_bytes(b"\xff")]
)
def test_lost_token_file_refuses_calls(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """While the token file is away or empty, every call is refused, and one line says so."""
    file = tmp_path / "tokens"
    file.write_text("Abc\n")
    check = TokenCheck(file)
    check.check("Bearer Abc")
    spoil(file)
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(UnauthenticatedError, match="no token now"):
                check.check("Bearer Abc")
        file.write_text("Abc\n")
        check.check("Bearer Abc")
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("token_file_unusable", "error"),
        ("token_file_usable_again", "info"),
    ]
    assert str(file) in lines[0]["message"]
    assert "Errno" not in lines[0]["message"]


@pytest.mark.parametrize("kind", [StageSettings, AudioSettings, FaceSettings, MotionSettings, TextureSettings, RenderSettings])
def test_every_number_has_maximum(kind: type[StageSettings]) -> None:
    """Every number among the settings has a largest value."""
    schema = kind.model_json_schema()["properties"]
    numbers = {name for name, rule in schema.items() if rule.get("type") in ("integer", "number")}
    assert numbers > {"port", "compute_threads", "max_idle_s"}
    unbounded = {name for name in numbers if "maximum" not in schema[name]}
    assert unbounded == set()
