from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from services.common.auth import TokenCheck, read_tokens
from services.common.errors import InvalidRequest, Unauthenticated
from services.common.settings import StageSettings, load_settings


def test_the_environment_is_read_and_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
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
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest, match=named) as caught:
        load_settings(StageSettings)
    assert all(name in str(caught.value) for name in variables) or "DUBSTAGE" not in named


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "two words\n", "ünicode\n"])
def test_a_token_file_without_a_usable_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(InvalidRequest, match="tokens"):
        read_tokens(tmp_path / "tokens")


def test_the_scheme_is_read_in_any_case_and_the_token_in_its_own(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("Abc\n")
    check = TokenCheck(tmp_path / "tokens")
    check.check("Bearer Abc")
    check.check("bearer Abc")
    for wrong in ("", "Abc", "Basic Abc", "Bearer abc", "Bearer ", "Bearer Abc ", "Bearer ü"):
        with pytest.raises(Unauthenticated):
            check.check(wrong)


def test_the_last_tokens_stay_valid_while_the_file_is_away(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("Abc\n")
    check = TokenCheck(tmp_path / "tokens")
    (tmp_path / "tokens").unlink()
    check.check("Bearer Abc")
