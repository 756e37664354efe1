// The page of live streams: sound goes to the gateway, frames come back, and both are shown at the same time.
import { Refusal, api, at, capitalised, element, lastPart, pageOf, refused, say, secondsOf } from "./page.js";

const FRAME_S = 0.04;
/** Silence before a file: while it lasts, the delay of the sound is found. */
const LEAD_S = 1;
/** Silence after a file, in which the mouth comes to rest. */
const TAIL_S = 0.4;
/** Delay of the sound until the first frames have come, and the longest delay. */
const FIRST_DELAY_S = 0.5;
const MOST_DELAY_S = 5;
/** Frames after which the delay is set, and the frames that it follows from. */
const FIRST_FRAMES = 10;
const LOOKED_BACK = 75;
/** Time from when nearly all frames are ready to when they are shown. */
const MARGIN_S = 0.02;
/** The delay grows at once. It shrinks only if it is too long by this. */
const SLACK_S = 0.08;
/** Frames that are later than this are left out by the gateway. */
const LATEST = "1s";
/** Pictures that wait for their time, as a page behind others draws none; and pictures that are decoded at the same time. */
const MOST_WAITING = 25;
const MOST_DECODING = 5;
/** Seconds of sound that wait for the network. */
const MOST_UNSENT_S = 3;
const LARGEST_FILE = 200e6;
/** Time from one line of figures to the next. */
const TOLD_S = 0.5;
const MOST_ACTORS = 1000;
const chosen = () => document.querySelector("[name=sound]:checked").value;
let stream = null;

/** One stream, from `begin` to `end`. */
class Stream {
  constructor(config) {
    this.config = config;
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.delay = new DelayNode(this.context, { delayTime: FIRST_DELAY_S, maxDelayTime: MOST_DELAY_S });
    this.volume = new GainNode(this.context, { gain: at("play").checked ? 1 : 0 });
    this.waiting = [];
    this.lags = [];
    this.delays = [];
    this.first = null;
    this.last = -1;
    this.shown = 0;
    this.target = null;
    this.nextTold = 0;
    this.decoding = 0;
    this.ended = false;
  }

  /** Open the sound and the socket. Throws a Refusal. Resolves when the stream has ended. */
  async begin(kind, file) {
    if (!this.context.audioWorklet) throw new Refusal("Live streams need HTTPS, or a gateway on this machine: open the page by such an address.", 0, "");
    await this.context.audioWorklet.addModule("/ui/static/live_sound.js");
    this.source = kind === "file" ? await this.#fileSource(file) : await this.#microphone();
    if (this.ended) return;
    this.recorder = new AudioWorkletNode(this.context, "live-sound", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.recorder.port.onmessage = ({ data }) => (data instanceof ArrayBuffer ? this.#send(data) : this.#begun(data.begun));
    this.source.connect(this.recorder);
    this.source.connect(this.delay).connect(this.volume).connect(this.context.destination);
    await this.context.resume();
    await this.#run();
  }

  /** Release the microphone, the socket and the sound. */
  end() {
    this.ended = true;
    for (const track of this.tracks ?? []) track.stop();
    this.socket?.close(1000);
    for (const { picture } of this.waiting) picture.close();
    this.waiting = [];
    if (this.context.state !== "closed") this.context.close();
    this.resolve?.();
  }

  async #microphone() {
    try {
      const given = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
      this.tracks = given.getTracks();
      // The user may have pressed Stop meanwhile.
      if (this.ended) this.end();
      return new MediaStreamAudioSourceNode(this.context, { mediaStream: given });
    } catch (problem) {
      const none = problem.name === "NotFoundError";
      throw new Refusal(none ? "There is no microphone: connect one, or choose a sound file." : "The microphone cannot be used: allow it in the browser, or choose a sound file.", 0, "");
    }
  }

  async #fileSource(file) {
    if (!file) throw new Refusal("Choose a sound file.", 0, "");
    if (file.size > LARGEST_FILE) throw new Refusal(`${file.name} has more than 200 MB: choose a shorter sound.`, 0, "");
    try {
      const source = new AudioBufferSourceNode(this.context, { buffer: await this.context.decodeAudioData(await file.arrayBuffer()) });
      source.addEventListener("ended", () => setTimeout(() => this.#finish(), 1000 * TAIL_S));
      return source;
    } catch {
      throw new Refusal(`The browser cannot read the sound of ${file.name}: choose a WAV, MP3, M4A, FLAC or Ogg file.`, 0, "");
    }
  }

  #run() {
    let opened = false;
    let error = null;
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/live`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      opened = true;
      socket.send(JSON.stringify({ ...this.config, sampleRateHz: this.context.sampleRate, channels: 1, maxLateness: LATEST }));
    };
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) {
        this.#take(data);
        return;
      }
      const said = JSON.parse(data);
      error = said.error ?? error;
      if (said.ready) this.recorder.port.postMessage("begin");
    };
    return new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
      socket.onclose = async ({ code }) => {
        if (this.ended) return;
        if (code === 1000 && this.finished) setTimeout(() => this.end(), 1000 * (this.delay.delayTime.value + (this.context.outputLatency || 0)));
        else reject(error ? refusalOf(error) : await unexplained(opened));
      };
    });
  }

  #begun(time) {
    this.began = time;
    if (this.source.start) this.source.start(time + LEAD_S);
    requestAnimationFrame(() => this.#draw());
  }

  #send(samples) {
    if (this.finished || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount > 2 * MOST_UNSENT_S * this.context.sampleRate) {
      this.reject(new Refusal("The network is too slow for the sound: use a faster one.", 0, ""));
      return;
    }
    this.socket.send(samples);
  }

  /** End the sound. The last frames follow. */
  #finish() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(new ArrayBuffer(0));
    this.finished = true;
  }

  /** Take a frame: its number, its reason, and a JPEG. */
  async #take(data) {
    const number = new DataView(data).getUint32(0, true);
    this.first ??= number;
    // A browser that decodes too slowly leaves frames out.
    if (this.decoding >= MOST_DECODING) return;
    this.decoding += 1;
    const picture = await createImageBitmap(new Blob([new Uint8Array(data, 8)], { type: "image/jpeg" })).finally(() => {
      this.decoding -= 1;
    });
    if (this.ended || number <= this.last) {
      picture.close();
      return;
    }
    this.waiting.push({ number, picture });
    this.waiting.sort((one, other) => one.number - other.number);
    while (this.waiting.length > MOST_WAITING) this.waiting.shift().picture.close();
    this.lags.push(this.#now() - this.began - number * FRAME_S);
    if (this.lags.length > LOOKED_BACK) this.lags.shift();
    if (this.lags.length >= FIRST_FRAMES) this.#adapt();
  }

  /** Return the time of the sound that is heard now, without the delay. */
  #now() {
    return this.context.currentTime - (this.context.outputLatency || 0);
  }

  /** Delay the sound so that nearly all frames are ready in time. */
  #adapt() {
    const inOrder = [...this.lags].sort((one, other) => one - other);
    const needed = Math.min(MOST_DELAY_S, Math.max(0, inOrder[Math.floor(0.96 * (inOrder.length - 1))] + MARGIN_S));
    if (this.target !== null && needed <= this.target && needed > this.target - SLACK_S) return;
    // Nothing is heard yet of a file when its delay is set first.
    const seconds = this.target === null ? 0.05 : needed > this.target ? 0.3 : 2;
    this.target = needed;
    const time = this.delay.delayTime;
    time.cancelScheduledValues(this.context.currentTime);
    time.setValueAtTime(time.value, this.context.currentTime);
    time.linearRampToValueAtTime(needed, this.context.currentTime + seconds);
  }

  /** Draw the newest frame whose sound is heard now. */
  #draw() {
    if (this.ended) return;
    requestAnimationFrame(() => this.#draw());
    const soundTime = this.#now() - this.began - this.delay.delayTime.value;
    let due = null;
    while (this.waiting.length && this.waiting[0].number * FRAME_S <= soundTime) {
      due?.picture.close();
      due = this.waiting.shift();
    }
    if (!due) return;
    const canvas = at("picture");
    if (canvas.width !== due.picture.width || canvas.height !== due.picture.height) [canvas.width, canvas.height] = [due.picture.width, due.picture.height];
    canvas.getContext("2d").drawImage(due.picture, 0, 0);
    due.picture.close();
    this.last = due.number;
    this.shown += 1;
    this.delays.push(this.context.currentTime - this.began - due.number * FRAME_S);
    if (this.delays.length > LOOKED_BACK) this.delays.shift();
    if (this.context.currentTime >= this.nextTold) this.#tell();
  }

  #tell() {
    this.nextTold = this.context.currentTime + TOLD_S;
    const all = this.last - this.first + 1;
    const middle = [...this.delays].sort((one, other) => one - other)[this.delays.length >> 1];
    at("figures").textContent = `${Math.round(1000 * middle)} ms from sound to picture · ${all - this.shown} of ${all} frames dropped`;
  }
}

/** Return the refusal of an error of the gateway, with the time to wait. */
function refusalOf(error) {
  const wait = (error.details ?? []).map((detail) => detail.retryDelay).find(Boolean);
  return new Refusal(`${capitalised(error.message)}.${wait ? ` Start again in ${Math.ceil(secondsOf(wait))} s.` : ""}`.replace("..", "."), error.code, "");
}

/** Return why a socket closed without a word. A session that has ended leads to the sign-in. */
async function unexplained(opened) {
  if (opened) return new Refusal("The stream broke: the gateway has stopped, or the network. Start again.", 0, "");
  try {
    await api("GET", "/healthz");
  } catch (problem) {
    return problem;
  }
  return new Refusal("The gateway refuses the stream: let a proxy before the gateway pass WebSockets and the header Host on.", 0, "");
}

const showSound = () => {
  at("file-row").hidden = chosen() !== "file";
};
for (const choice of document.querySelectorAll("[name=sound]")) choice.addEventListener("change", showSound);
// A page that is loaded again keeps its choices.
showSound();
at("play").addEventListener("change", () => {
  if (stream) stream.volume.gain.value = at("play").checked ? 1 : 0;
});
at("stop").addEventListener("click", () => stream?.end());

at("live").addEventListener("submit", async (event) => {
  event.preventDefault();
  refused("");
  at("start").disabled = true;
  at("stop").disabled = false;
  const text = (id) => at(id).value.trim();
  at("figures").textContent = "The stream begins …";
  try {
    stream = new Stream({ actor: at("actor").value, project: text("project"), language: text("language"), label: text("label") });
    say("The stream begins.");
    await stream.begin(chosen(), at("file").files[0]);
    say("The stream has ended.");
  } catch (problem) {
    // Of a stream that the user has stopped, nothing more matters.
    if (!stream?.ended) refused(problem);
  } finally {
    stream?.end();
    stream = null;
    at("start").disabled = false;
    at("stop").disabled = true;
  }
});

try {
  const methods = at("live").dataset.methods.split(" ");
  const { entries, token } = await pageOf("/v1/actors", "actors", { pageSize: MOST_ACTORS });
  const option = (actor) => {
    const why = actor.consentProblem ? "work not allowed" : methods.includes(actor.method) ? "" : `not live: enrolled for ${actor.method}`;
    return element("option", { value: actor.name, disabled: Boolean(why) }, `${actor.consent?.subject ?? lastPart(actor.name)}${why ? ` (${why})` : ""}`);
  };
  at("actor").append(...entries.map(option));
  if (token) at("actor").append(element("option", { disabled: true }, `${MOST_ACTORS} people are listed; show others with the client or the command`));
  if (!entries.length) refused("Nobody is enrolled: the page People enrols a person.");
  at("start").disabled = !at("actor").value;
} catch (problem) {
  refused(problem);
}
