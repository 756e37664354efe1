"""A gateway behind an OIDC proxy: users whom the proxy's headers name, in calls, decisions, the audit log and a real Chromium."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dubstage.client import batch
from dubstage.gateway.v1 import batch_pb2 as pb
from gateway.actors.store import ActorStore
from gateway.tenants.paths import settings_of
from tests.contract.ports import free_port
from tests.integration.client_calls import batch_ended
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.test_rest import Caller
from tests.integration.test_ui import BROWSER, browser, serious, shown, tab_of  # noqa: F401  # browser is a fixture
from tests.integration.videos import Media, write_short_clip

TOKEN, SECRET = "token-of-a-program", "secret-of-the-proxy"
ADA = {"X-Forwarded-Email": "Ada@example.com", "X-Dubstage-Proxy-Secret": SECRET, "Authorization": "Basic QWRhOg=="}
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
SHOT = "/v1/batches/proxied/shots/one"


@dataclass(frozen=True)
class Door:
    gateway: RunningGateway
    call: Caller
    users: Path


@pytest.fixture(scope="module")
def door(module_gateway: StartGateway, media: Media, carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Door:
    """A gateway with a batch of one shot that is done."""
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    files = {"tokens": f"{TOKEN}\n", "users": "default ada@example.com\nacme @dubbing\n", "secret": f"{SECRET}\n"}
    for name, content in files.items():
        (folder / name).write_text(content)
    write_short_clip(carphone, media.root / "proxied.mp4", 26, end=80)
    running = module_gateway(
        http_port=port,
        auth_token_file=folder / "tokens",
        proxy_user_header="X-Forwarded-Email",
        proxy_groups_header="X-Forwarded-Groups",
        proxy_users_file=folder / "users",
        proxy_networks="127.0.0.0/8",
        proxy_secret_file=folder / "secret",
    )
    with running.connect(token=TOKEN) as connection:
        row = batch.row("one", footage="proxied.mp4", speech="speech.wav", output="proxied_dub.mp4", personalize=False)
        assert batch_ended(connection, "proxied", [row]).progress.num_done == 1
    return Door(running, Caller(port), folder / "users")


def test_user_decides_and_is_logged(door: Door) -> None:
    """A decision has the name that the proxy gives, whatever the request says; the audit log has a fingerprint of the name."""
    body = {"state": "REVIEW_STATE_REJECTED", "note": "chin", "reviewer": "Eve"}
    status, shot = door.call("POST", f"{SHOT}:review", body, **ADA, **OWN_PAGE)
    assert (status, shot["review"]["reviewer"]) == (200, "Ada@example.com")
    caller = shot["review"]["caller"]
    assert caller.startswith("default ")
    with door.gateway.connect(token=TOKEN) as connection:
        by_token = batch.review(connection, "proxied", "one", state="approved", reviewer="a program").review
    assert (by_token.state, by_token.reviewer) == (pb.REVIEW_STATE_APPROVED, "a program")
    with ActorStore(door.gateway.settings, claim_artefacts=False) as actors:
        # Other tests decide about shots too.
        first, second = [entry for entry in actors.audit.newest(100) if entry["event"] == "shot.reviewed"][-2:]
        assert actors.audit.verify()
    assert f"default {first['by']['token']}" == caller != f"default {second['by']['token']}"
    assert "Ada" not in str(first)


def test_groups_choose_the_tenant(door: Door) -> None:
    """A member of a group works for the group's tenant, and sees nothing of another."""
    member = {**ADA, "X-Forwarded-Email": "ben@acme.example", "X-Forwarded-Groups": "staff,Dubbing", **OWN_PAGE}
    assert door.call("GET", "/v1/batches", **member) == (200, {"batches": [], "nextPageToken": ""})
    status, refusal = door.call("GET", SHOT, **member)
    assert (status, refusal["error"]["status"]) == (404, "NOT_FOUND")
    assert settings_of(door.gateway.settings, "acme").data_dir.is_dir()


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"X-Dubstage-Proxy-Secret": "another-secret-of-16", "Authorization": ""}, 401, "a bearer token is required"),
        ({"X-Forwarded-Email": "eve@example.com"}, 403, "eve@example.com is no user of this gateway"),
        ({"X-Forwarded-Email": "eve@example.com", "Authorization": f"Bearer {TOKEN}"}, 403, "eve@example.com is no user"),
        ({"Sec-Fetch-Site": "cross-site"}, 401, "a bearer token is required"),
        ({"Origin": "https://evil.example"}, 403, "a page of 'https://evil.example' may not call"),
        ({"X-Forwarded-Email": ""}, 403, "names no user"),
    ],
)
def test_strangers_are_refused(door: Door, changed: dict[str, str], status: int, said: str) -> None:
    """A header that is not the proxy's, an unknown user, and a page of another origin, which decides nothing."""
    before = door.call("GET", SHOT, **ADA, **OWN_PAGE)
    body = {"state": "REVIEW_STATE_APPROVED"}
    found, refusal = door.call("POST", f"{SHOT}:review", body, **{**ADA, **OWN_PAGE, **changed})
    assert (found, said in refusal["error"]["message"]) == (status, True), refusal
    assert door.call("GET", SHOT, **ADA, **OWN_PAGE) == before


def test_removed_user_is_refused_at_once(door: Door) -> None:
    content = door.users.read_text()
    door.users.write_text("default zoe@example.com\n")
    try:
        status, refusal = door.call("GET", SHOT, **ADA, **OWN_PAGE)
        assert (status, "Ada@example.com is no user" in refusal["error"]["message"]) == (403, True)
    finally:
        door.users.write_text(content)
    assert door.call("GET", SHOT, **ADA, **OWN_PAGE)[0] == 200


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
def test_pages_know_the_user(door: Door, browser: Any) -> None:  # noqa: F811
    """Without a sign-in, the pages show the user, who decides under the checked name; an unknown user sees a sentence."""
    address = f"http://127.0.0.1:{door.call.port}"
    headers = {name: value for name, value in ADA.items() if name != "Authorization"}
    with tab_of(browser, extra_http_headers=headers) as tab:
        page = tab.open(f"{address}/ui")
        assert page.url == f"{address}/ui/dubs"
        page = tab.open(f"{address}/ui/sign-in?next=/ui/batches/proxied/shots/one")
        assert page.url == f"{address}/ui/batches/proxied/shots/one"
        assert "Ada@example.com" in page.inner_text("header")
        assert "Sign out" not in page.inner_text("header")
        assert page.get_attribute("#reviewer", "readonly") is not None
        page.click("#reject")
        page.wait_for_selector("#decision:has-text('Rejected by Ada@example.com')")
        assert serious(page) == []
        shown(page, "proxied")
        assert tab.problems == []
    with tab_of(browser, extra_http_headers={**headers, "X-Forwarded-Email": "<b>eve</b>"}) as tab:
        page = tab.open(f"{address}/ui/batches")
        assert "<b>eve</b> is no user of this gateway" in page.inner_text("main")
