"""The page of live streams in a real Chromium: a sound file, a microphone, refusals, and sound and picture at the same time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile

from dubstage.client import gateway as gateway_client
from gateway.api.live_socket import FRAME_HEAD
from tests.contract.ports import free_port
from tests.integration.servers import LoopThread, RunningGateway, StartGateway
from tests.integration.test_live import Samples, pieces, with_the_actors_of
from tests.integration.test_ui import BROWSER, TOKEN, Site, serious, shown, signed_in, sync_api, until
from tests.integration.videos import Media

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")

PROBE = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    const probe = new AnalyserNode(this.context, { fftSize: 256 });
    connect.call(this, probe);
    window.seen = [];
    const samples = new Float32Array(256);
    const look = () => {
      requestAnimationFrame(look);
      probe.getFloatTimeDomainData(samples);
      const loud = Math.max(...samples.map(Math.abs));
      const [red] = document.querySelector("#picture").getContext("2d").getImageData(8, 8, 1, 1).data;
      window.seen.push([this.context.currentTime - 128 / this.context.sampleRate, this.context.outputLatency || 0, loud, red]);
    };
    // After the page's own loop, so that a look sees what the page has drawn.
    setTimeout(look, 500);
  }
  return connect.call(this, target, ...rest);
};
"""
"""Notes loudness of the sound that leaves the page, and the picture, at each refresh of the screen."""
LATENCY_FRAMES = 5


@pytest.fixture(scope="module")
def site(
    gateway: RunningGateway,
    actor: str,
    gateway_factory: StartGateway,
    loop_thread: LoopThread,
    media: Media,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A gateway that takes one stream at a time."""
    folder, port = tmp_path_factory.mktemp("live"), free_port()
    (folder / "tokens").write_text(f"{TOKEN}\n")
    data = with_the_actors_of(gateway, folder)
    running = gateway_factory(http_port=port, auth_token_file=folder / "tokens", max_live_streams=1, data_dir=data)
    yield Site(running, f"http://127.0.0.1:{port}", media.footage, media.speech)
    loop_thread.run(running.server.drain(grace_s=0))


@pytest.fixture(scope="module")
def browser(media: Media) -> Iterator[Any]:
    """A browser whose microphone hears the short speech."""
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        microphone = f"--use-file-for-fake-audio-capture={media.speech}"
        opened = playwright.chromium.launch(executable_path=BROWSER, args=[*options, microphone])
        yield opened
        opened.close()


def begin(site: Site, page: Any, file: Path | None = None) -> None:
    until(page, "!document.querySelector('#start').disabled")
    if file is not None:
        page.check("[value=file]")
        page.set_input_files("#file", file)
    page.click("#start")


def test_file_is_spoken(site: Site, browser: Any) -> None:
    """A sound file is spoken to its end; the page says its delay, and axe finds nothing serious."""
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/live")
        shown(page, "live-before")
        begin(site, page, site.speech)
        page.wait_for_selector("text=ms from sound to picture")
        assert serious(page) == []
        until(page, "!document.querySelector('#start').disabled")
        shown(page, "live")
        figures = re.fullmatch(r"\d+ ms from sound to picture · (\d+) of (\d+) frames dropped", page.inner_text("#figures"))
        assert figures is not None
        assert int(figures[1]) < int(figures[2]) <= 25 * 4
        print(figures[0])
        assert page.evaluate("document.querySelector('#picture').width") == 352
        assert page.is_hidden("#refusal")
        assert tab.problems == []


def test_microphone_is_spoken(site: Site, browser: Any) -> None:
    """What the microphone hears is spoken until Stop, at the width of a phone and by keyboard alone; the stream then ends."""
    with signed_in(browser, site, viewport={"width": 390, "height": 844}) as tab:
        page = tab.open(f"{site.address}/ui/live")
        until(page, "!document.querySelector('#start').disabled")
        page.focus("#start")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=ms from sound to picture")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(page) == []
        shown(page, "live-390")
        page.focus("#stop")
        page.keyboard.press("Enter")
        until(page, "!document.querySelector('#start').disabled")
        begin(site, page)
        page.wait_for_selector("#figures:has-text('ms from sound to picture')")
        assert tab.problems == []


def test_refusals_say_the_remedy(site: Site, browser: Any, actor: str, samples: Samples, tmp_path: Path) -> None:
    """A full gateway says when to start again; a file without sound is named; a session that has ended leads to the sign-in."""
    speech, rate = samples
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/live")
        with site.gateway.connect(token=TOKEN) as connection:
            other = gateway_client.live(connection, pieces(speech, rate), actor_id=actor, sample_rate_hz=rate)
            next(other)
            begin(site, page, site.speech)
            page.wait_for_selector("#refusal:has-text('live streams run already')")
            assert re.search(r"Start again in \d+ s\.$", page.inner_text("#refusal"))
            other.close()
        (tmp_path / "none.wav").write_bytes(b"no sound")
        begin(site, page, tmp_path / "none.wav")
        page.wait_for_selector("#refusal:has-text('cannot read the sound of none.wav')")
        page.context.clear_cookies()
        begin(site, page, site.speech)
        page.wait_for_url("**/ui/sign-in?next=*")


def onsets(times: Any, values: Any, least: float) -> Any:
    """Times at which values rise over a level after 0.2 s below."""
    high = values > least
    found = np.flatnonzero(high[1:] & ~high[:-1]) + 1
    return np.array([times[place] for place in found if not high[(times > times[place] - 0.2) & (times < times[place])].any()])


def lags(seen: list[list[float]]) -> Any:
    """Seconds from each sound to its picture, of what PROBE saw."""
    times, latency, loud, red = np.array(seen).reshape(-1, 4).T
    pictured, sounded = onsets(times, red, 128), onsets(times + latency, loud, 0.1)
    return np.array([pictured[np.abs(pictured - sound).argmin()] - sound for sound in sounded if len(pictured)])


def test_sound_and_picture_come_together(site: Site, browser: Any, tmp_path: Path) -> None:
    """White pictures of loud sound are on the screen when the loud sound leaves the page. A server of the test draws them."""
    rate = 48_000
    beeps = np.tile(np.r_[np.zeros(rate * 3 // 5), np.sin(np.arange(rate * 2 // 5) / 5)], 60)
    soundfile.write(tmp_path / "beeps.wav", beeps * 0.5, rate)
    pictures = [bytes(cv2.imencode(".jpg", np.full((16, 16, 3), level, np.uint8))[1]) for level in (0, 255)]
    heard, sent, step = bytearray(), 0, 0

    def answer(route: Any, message: str | bytes) -> None:
        nonlocal sent, step
        if isinstance(message, str):
            step = 2 * int(json.loads(message)["sampleRateHz"]) // 25
            route.send('{"ready": true}')
            return
        heard.extend(message)
        while len(heard) >= (sent + 1 + LATENCY_FRAMES) * step:
            loud = np.abs(np.frombuffer(bytes(heard[sent * step : (sent + 1) * step]), "<i2").astype(int)).max() > 3000
            route.send(FRAME_HEAD.pack(sent, 0) + pictures[int(loud)])
            sent += 1

    with signed_in(browser, site) as tab:
        tab.page.add_init_script(PROBE)
        tab.page.route_web_socket("**/v1/live", lambda route: route.on_message(lambda message: answer(route, message)))
        page = tab.open(f"{site.address}/ui/live")
        begin(site, page, tmp_path / "beeps.wav")
        # A browser that gets no time shows its pictures late: there is a minute for five sounds in a row.
        apart = lags([])
        while len(apart) < 5 or np.abs(apart[-5:]).max() > 0.045:
            page.wait_for_timeout(1000)
            assert page.is_enabled("#stop"), apart
            apart = lags(page.evaluate("window.seen ?? []"))
        delay = int(page.inner_text("#figures").partition(" ")[0])
        page.click("#stop")
    print(f"picture after sound: {np.round(1000 * apart)} ms; {delay} ms from sound to picture")
    assert delay > 40 * LATENCY_FRAMES
