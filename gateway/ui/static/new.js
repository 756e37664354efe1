// The page of a new dub: uploads, faces, options, plan, and the begin of the dub.
import { Refusal, api, during, element, lastPart, pageOf, refused, say, secondsOf, showBar, shownName, sized, spoken, withUsersNames } from "./page.js";
import { dubOf, ended, mediaUrl } from "./operations.js";
import { plainName, random, upload } from "./upload.js";

const LONGEST_RECORD_BYTES = 64 << 10;
const QUIET_MS = 500;
/** Matches names of pictures, which are dubbed with the method for stills unless another one is chosen. */
const PICTURE = /\.(avif|bmp|gif|hei[cf]|jpe?g|png|tiff?|webp)$/i;
/** People in the list: an installation may have a million. */
const MOST_ACTORS = 1000;
/** Difference of two lengths that nobody notices, seconds. */
const ALIKE_S = 0.1;
const at = (id) => document.querySelector(`#${id}`);
const form = at("dub");
const chosen = { footage: "", speech: "", consent: null, face: null, footageName: "" };
const shownUrls = {};

/** Show footage or a sound in its player. A browser cannot play every file that the gateway reads. */
function preview(kind, url) {
  const player = at(`${kind}-preview`);
  URL.revokeObjectURL(shownUrls[kind] ?? "");
  shownUrls[kind] = url;
  player.hidden = false;
  player.onerror = player.onloadedmetadata = () => {
    // Of a video whose codec is unknown, a browser may play the sound alone.
    player.hidden = Boolean(player.error) || player.videoWidth === 0;
  };
  player.src = url;
}

async function take(kind, file) {
  refused("");
  const place = at(`${kind}-progress`);
  const state = at(`${kind}-state`);
  place.hidden = false;
  chosen[kind] = "";
  plan();
  preview(kind, URL.createObjectURL(file));
  try {
    const began = performance.now();
    let before = null;
    const name = await upload(file, (bytes) => {
      before ??= bytes;
      const seconds = (performance.now() - began) / 1000;
      const pace = (bytes - before) / Math.max(seconds, 0.1);
      const left = pace > 0 && seconds > 2 ? `, ${spoken((file.size - bytes) / pace)} left` : "";
      state.textContent = `${file.name}: ${sized(bytes)} of ${sized(file.size)}${left}`;
      showBar(place, bytes / file.size);
    });
    state.textContent = `${file.name}, ${sized(file.size)}`;
    showBar(place, 1);
    say(`${file.name} is uploaded.`);
    settle(kind, name, file.name);
  } catch (problem) {
    state.textContent = `${file.name} was not uploaded. Choose the file again to go on.`;
    refused(problem);
  }
}

/** Note a file that the gateway has. */
function settle(kind, uri, name) {
  chosen[kind] = uri;
  if (kind === "footage") {
    chosen.footageName = name;
    showFit();
    chosen.face = null;
    findFaces(uri);
  }
  plan();
}

for (const kind of ["footage", "speech"]) {
  const drop = at(`${kind}-drop`);
  at(`${kind}-file`).addEventListener("change", (event) => event.target.files[0] && take(kind, event.target.files[0]));
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) take(kind, event.dataTransfer.files[0]);
  });
}

// A file that misses the place to drop must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

let recorder = null;
let clock = 0;
at("record").addEventListener("click", async () => {
  if (recorder) {
    recorder.stop();
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    const began = Date.now();
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      for (const track of stream.getTracks()) track.stop();
      clearInterval(clock);
      const kind = recorder.mimeType.includes("mp4") ? "m4a" : recorder.mimeType.includes("ogg") ? "ogg" : "webm";
      recorder = null;
      at("record").textContent = "Record again";
      at("record-time").textContent = "";
      take("speech", new File(parts, `recording.${kind}`, { type: parts[0]?.type, lastModified: began }));
    };
    recorder.start(1000);
    at("record").textContent = "Stop and use the recording";
    clock = setInterval(() => {
      at("record-time").textContent = `recording, ${spoken((Date.now() - began) / 1000)}`;
    }, 250);
  } catch {
    recorder = null;
    refused("The microphone cannot be used: allow it in the browser, or choose a sound file.");
  }
});
if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) at("record-row").hidden = true;

let search = 0;
async function findFaces(uri) {
  search += 1;
  const mine = search;
  at("faces-card").hidden = false;
  at("faces").hidden = true;
  at("faces-progress").hidden = false;
  at("faces-state").textContent = "Looking for faces …";
  showBar(at("faces-progress"), 0);
  try {
    const begun = await api("POST", "/v1/faces:detect", { footageUri: uri });
    const operation = await ended(begun.name, (now) => {
      if (mine !== search) return;
      const { fraction = 0, remaining } = now.metadata ?? {};
      at("faces-state").textContent = remaining ? `Looking for faces, ${spoken(secondsOf(remaining))} left` : "Looking for faces …";
      showBar(at("faces-progress"), Math.min(fraction, 0.99));
    });
    if (mine !== search) return;
    if (operation.error) throw new Refusal(withUsersNames(operation.error.message), 400, "");
    showFaces(operation.response);
  } catch (problem) {
    if (mine !== search) return;
    at("faces-state").textContent = "The faces are not known: the face that speaks is dubbed, or the largest.";
    showBar(at("faces-progress"), 1);
    refused(problem);
  }
}

function showFaces(found) {
  showBar(at("faces-progress"), 1);
  if (!found.faces.length) {
    at("faces-state").textContent = "The footage shows no face: the video would keep its pictures and get the new sound.";
    return;
  }
  const named = found.faces.some((face) => face.faceId === chosen.face) ? chosen.face : (found.speakerFaceId ?? found.faces[0].faceId);
  chosen.face = named;
  at("faces-state").textContent = found.faces.length === 1 ? "One face is found." : `${found.faces.length} faces are found. Choose who says the new words.`;
  const cards = found.faces.map((face, place) => {
    const words = [
      place === 0 && found.faces.length > 1 ? "largest" : "",
      face.faceId === found.speakerFaceId && found.faces.length > 1 ? "speaks in the footage" : "",
    ].filter(Boolean);
    const share = Math.round((100 * Number(face.numUsableFrames)) / Math.max(1, Number(found.numFrames)));
    return element(
      "label",
      { className: "face" },
      element("img", { src: `data:image/jpeg;base64,${face.picture}`, alt: `Face ${face.faceId}` }),
      element("input", { type: "radio", name: "face", value: face.faceId, checked: face.faceId === named, onchange: () => chooseFace(face.faceId) }),
      `Face ${face.faceId}`,
      element("span", { className: "small soft" }, element("br"), [...words, `can be dubbed in ${share} % of the footage`].join(", ")),
    );
  });
  at("faces").replaceChildren(at("faces").firstElementChild, ...cards);
  at("faces").hidden = false;
  plan();
}

function chooseFace(id) {
  chosen.face = id;
  plan();
}

at("consent-file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  chosen.consent = null;
  at("consent-state").textContent = "";
  if (file) {
    try {
      if (file.size > LONGEST_RECORD_BYTES) throw new SyntaxError("too large");
      const record = JSON.parse(await file.text());
      if (record === null || typeof record !== "object" || Array.isArray(record)) throw new SyntaxError("no object");
      chosen.consent = record;
      at("consent-state").textContent = `Record of ${record.subject}, given by ${record.granted_by ?? record.grantedBy} on ${record.date}.`;
    } catch {
      at("consent-state").textContent = `${file.name} is no consent record: choose the JSON file with the record of the person.`;
    }
  }
  plan();
});

const output = random(10);
/** Controls whose names are fields of DubSpec. */
const controls = [...at("options").querySelectorAll("[name]")];
const valueOf = (control) =>
  control.type === "checkbox" ? control.checked : control.type === "range" ? Number(control.value) : control.value.trim();
/** Return whether the dub is with a method that moves the head, whose videos are as long as the speech. It refuses a fit. */
function movesHead() {
  const { value, dataset } = at("method").selectedOptions[0];
  if (value) return dataset.own === "1";
  const { method } = at("actor").selectedOptions[0].dataset;
  return method ? [...at("method").options].some((option) => option.value === method && option.dataset.own === "1") : PICTURE.test(chosen.footageName);
}

function showFit() {
  at("fit").disabled = movesHead();
}

/** Return the DubSpec of the form. Names are those of the contract. */
function request() {
  const made = {
    footageUri: chosen.footage,
    speechUri: chosen.speech,
    outputUri: `${plainName(chosen.footageName)[0].slice(0, 80)}-dub-${output}.mp4`,
    ...Object.fromEntries(controls.map((control) => [control.name, valueOf(control)])),
  };
  if (movesHead()) delete made.fit;
  if (made.actor) delete made.skipPersonalization;
  if (chosen.face !== null) made.faceId = chosen.face;
  if (chosen.consent) made.consent = chosen.consent;
  return made;
}

/** Return what a speech of another length than the footage means, as a sentence; empty: the lengths are alike, or not known here. */
function lengths() {
  const [footage, speech] = [at("footage-preview").duration, at("speech-preview").duration];
  // A recording that has just been made has no duration.
  if (movesHead() || !Number.isFinite(speech - footage) || Math.abs(speech - footage) <= ALIKE_S) return "";
  const both = `The speech (${speech.toFixed(1)} s) is ${speech > footage ? "longer" : "shorter"} than the footage (${footage.toFixed(1)} s)`;
  const meaning = { FIT_CUT: speech > footage ? "the speech is cut there" : "the mouth rests after the speech", FIT_SLOW: "the footage gets another speed" }[at("fit").value];
  return meaning ? `${both}: ${meaning}. "Length" offers other ways.` : `${both}.`;
}

let asking = null;
let quiet = 0;
/** Ask what the dub would take, when the form has not changed for a moment. */
function plan() {
  clearTimeout(quiet);
  asking?.abort();
  for (const id of ["create", "preview"]) at(id).disabled = true;
  const missing = chosen.footage ? (chosen.speech ? "" : "the new speech is") : chosen.speech ? "the footage is" : "the footage and the speech are";
  if (missing) {
    at("plan").replaceChildren(element("p", { className: "soft" }, `The plan follows when ${missing} uploaded.`));
    return;
  }
  at("plan").replaceChildren(element("p", { className: "soft" }, "The gateway looks at the footage …"));
  quiet = setTimeout(estimate, QUIET_MS);
}

async function estimate() {
  const mine = new AbortController();
  asking = mine;
  try {
    const found = await api("POST", "/v1/dubs:estimate", { dub: request() }, mine.signal);
    const tile = (value, text) => element("div", { className: "tile" }, element("b", {}, value), element("span", {}, text));
    const by = Number(found.numDubs) ? "by earlier dubs of this gateway" : "an estimate that the first dub here corrects";
    at("plan").replaceChildren(
      element(
        "div",
        { className: "tiles" },
        tile(`${found.numRendered} of ${found.numFrames}`, "frames get a new mouth"),
        tile(`about ${spoken(secondsOf(found.wallDuration))}`, `to the finished video, ${by}`),
        tile(sized(found.memoryBytes), "of memory"),
        tile(sized(found.diskBytes), "on disk while it runs"),
      ),
      element("p", {}, lengths()),
    );
    for (const id of ["create", "preview"]) at(id).disabled = false;
    refused("");
  } catch (problem) {
    if (problem.name === "AbortError") return;
    at("plan").replaceChildren(element("p", { className: "bad" }, problem.message));
    if (!(problem instanceof Refusal)) console.error(problem);
  }
}

for (const control of controls) {
  control.addEventListener("change", plan);
  if (control.type === "range") {
    control.addEventListener("input", () => {
      at(`${control.id}-value`).textContent = Number(control.value).toFixed(2).replace(/0$/, "");
    });
  }
}
for (const id of ["method", "actor"]) at(id).addEventListener("change", showFit);

at("preview").addEventListener("click", () =>
  during(at("preview"), async () => {
    const dub = request();
    dub.outputUri = dub.outputUri.replace(/-dub-\w+\.mp4$/, `-preview-${random(10)}.mp4`);
    const operation = await api("POST", "/v1/dubs", { dub: { ...dub, preview: true }, requestId: newId() });
    location.assign(`/ui/dubs/${lastPart(operation.name)}`);
    await new Promise(() => {});
  }),
);

/** Return an id of a request, a UUID: a call that broke and is sent again begins no second dub. */
function newId() {
  const hex = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, "$1-$2-4$3-a$4-$5");
}
/** A second click begins no second dub. */
const requestId = newId();

form.addEventListener("submit", (event) => {
  event.preventDefault();
  during(at("create"), async () => {
    const operation = await api("POST", "/v1/dubs", { dub: request(), requestId });
    location.assign(`/ui/dubs/${lastPart(operation.name)}`);
    await new Promise(() => {});
  });
});

const actorOption = (actor) => element("option", { value: actor.name, "data-method": actor.method }, `${actor.consent?.subject ?? lastPart(actor.name)} (${actor.method})`);

/** Fill the form with the request of an earlier dub. */
async function startFrom(id) {
  const earlier = dubOf(await api("GET", `/v1/operations/${encodeURIComponent(id)}`))?.request;
  if (!earlier) return;
  if (earlier.actor && ![...at("actor").options].some((option) => option.value === earlier.actor)) {
    // Behind the listed people, or erased since.
    const actor = await api("GET", `/v1/${earlier.actor}`).catch(() => null);
    if (actor) at("actor").append(actorOption(actor));
  }
  for (const control of controls) {
    const value = earlier[control.name];
    if (control.type === "checkbox") control.checked = value ?? false;
    // A control without an option of this value keeps its first one.
    else if (value !== undefined && (!control.options || [...control.options].some((option) => option.value === value))) control.value = value;
    control.dispatchEvent(new Event("input"));
  }
  at("options").open = true;
  for (const [kind, uri] of [["footage", earlier.footageUri], ["speech", earlier.speechUri]]) {
    if (!uri) continue;
    at(`${kind}-progress`).hidden = false;
    showBar(at(`${kind}-progress`), 1);
    at(`${kind}-state`).textContent = `${shownName(uri)}, as before`;
    preview(kind, mediaUrl(uri));
    settle(kind, uri, shownName(uri));
    if (kind === "footage") chosen.face = earlier.faceId ?? null;
  }
}

try {
  const { entries, token } = await pageOf("/v1/actors", "actors", { pageSize: MOST_ACTORS });
  at("actor").append(...entries.map(actorOption));
  if (token) at("actor").append(element("option", { disabled: true }, `${MOST_ACTORS} people are listed; dub others with the client or the command`));
  const from = new URLSearchParams(location.search).get("from");
  if (from) await startFrom(from);
} catch (problem) {
  refused(problem);
}
