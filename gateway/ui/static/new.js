// The page of a new dub: uploads, faces, options, plan, and the begin of the dub.
import { Refusal, api, at, during, element, inWordsOf, lastPart, marked, newRequestId, pageOf, refusalIn, refused, refusedAt, secondsOf, showBar, shownName, sized, spoken } from "./page.js";
import { consentForm } from "./consent.js";
import { dubOf, ended, mediaUrl, movesTime } from "./operations.js";
import { sceneLines } from "./scene.js";
import { onFiles, plainName, random, uploadShown } from "./upload.js";

const QUIET_MS = 500;
/** Matches names of pictures, which are dubbed with the method for stills unless another one is chosen. */
const PICTURE = /\.(avif|bmp|gif|hei[cf]|jpe?g|png|tiff?|webp)$/i;
/** People in the list: an installation may have a million. */
const MOST_ACTORS = 1000;
/** Difference of two lengths that nobody notices, seconds. */
const ALIKE_S = 0.1;
const form = at("dub");
const chosen = { footage: "", speech: "", mix: "", face: null, footageName: "" };
const shownUrls = {};
/** Controllers of the uploads, by kind: another file of the kind ends the upload. */
const sending = {};

/** Show footage or a sound in its player. A browser cannot play every file that the gateway reads. */
function preview(kind, url) {
  const player = at(`${kind}-preview`);
  if (!player) return;
  URL.revokeObjectURL(shownUrls[kind] ?? "");
  shownUrls[kind] = url;
  player.hidden = false;
  player.onerror = player.onloadedmetadata = () => {
    // Of a video whose codec is unknown, a browser may play the sound alone.
    player.hidden = Boolean(player.error) || player.videoWidth === 0;
  };
  player.src = url;
}

/** Show a refusal about a file in the card of the file, and all others at the top of the page. */
function refusedFile(problem) {
  if (!marked(form, problem)) refused(problem);
}

async function take(kind, file) {
  refused("");
  chosen[kind] = "";
  sending[kind]?.abort();
  const mine = new AbortController();
  sending[kind] = mine;
  if (kind === "footage") consent.footage([""]);
  at(`${kind}-progress`).hidden = false;
  if (kind === "mix") at("mix-fields").hidden = false;
  plan();
  preview(kind, URL.createObjectURL(file));
  try {
    const name = await uploadShown(file, at(`${kind}-progress`), mine.signal);
    settle(kind, name, file.name);
  } catch (problem) {
    if (!mine.signal.aborted) refusedFile(problem instanceof Refusal ? new Refusal(problem.message, problem.status, `${kind}_uri`) : problem);
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
    consent.footage([uri]);
  }
  if (kind === "mix") at("mix-fields").hidden = false;
  plan();
}

for (const kind of ["footage", "speech", "mix"]) onFiles(at(`${kind}-drop`), ([file]) => take(kind, file));

at("mix-remove").addEventListener("click", () => {
  chosen.mix = "";
  sending.mix?.abort();
  at("mix-fields").hidden = at("mix-progress").hidden = true;
  at("mix-file").focus();
  plan();
});

const scene = sceneLines(plan, () => at("footage-preview").currentTime);
const isScene = () => at("scene").checked;
function showScene() {
  at("one-speech").hidden = isScene();
  at("line-speech").hidden = at("lines-card").hidden = !isScene();
  for (const id of ["faces-choice", "preview"]) at(id).hidden = isScene();
  at("consent-lines").hidden = !isScene();
  showFit();
}
at("scene").addEventListener("change", () => {
  showScene();
  plan();
});

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
  scene.faces(null);
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
    if (operation.error) throw refusalIn(operation.error, 400);
    showFaces(operation.response);
  } catch (problem) {
    if (mine !== search) return;
    at("faces-state").textContent = "The faces are not known: the face that speaks is dubbed, or the largest.";
    showBar(at("faces-progress"), 1);
    refusedFile(problem);
  }
}

function showFaces(detection) {
  showBar(at("faces-progress"), 1);
  if (!detection.faces.length) {
    scene.faces(detection);
    at("faces-state").textContent = "The footage shows no face: the video would keep its pictures and get the new sound.";
    return;
  }
  const named = detection.faces.some((face) => face.faceId === chosen.face) ? chosen.face : (detection.speakerFaceId ?? detection.faces[0].faceId);
  chosen.face = named;
  at("faces-state").textContent = detection.faces.length === 1 ? "One face is found." : `${detection.faces.length} faces are found. Choose who says the new words, or give lines if several people speak.`;
  const cards = detection.faces.map((face, index) => {
    const words = [
      index === 0 && detection.faces.length > 1 ? "largest" : "",
      face.faceId === detection.speakerFaceId && detection.faces.length > 1 ? "speaks in the footage" : "",
    ].filter(Boolean);
    const share = Math.round((100 * Number(face.numUsableFrames)) / Math.max(1, Number(detection.numFrames)));
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
  scene.faces(detection);
  plan();
}

function chooseFace(id) {
  chosen.face = id;
  plan();
}

/** Time of the frame that the player of the footage shows, seconds. */
let frameTime = 0;

/** Return where a preview begins, seconds: with the frame that the player of the footage shows; 0: with the first frame, as the footage
 * has been played, or the video has a timeline of its own. */
function previewBegin() {
  const player = at("footage-preview");
  if (player.hidden || player.ended || movesHead() || movesTime(at("fit").value)) return 0;
  const time = player.requestVideoFrameCallback && player.currentTime ? frameTime : player.currentTime;
  return Math.floor(1000 * time) / 1000;
}
function showPreviewBegin() {
  const begin = previewBegin();
  at("preview").textContent = begin ? `Preview from ${begin.toFixed(2)} s on` : "Preview the first seconds";
}
function followFrames(now, frame) {
  frameTime = frame?.mediaTime ?? 0;
  showPreviewBegin();
  at("footage-preview").requestVideoFrameCallback?.(followFrames);
}
followFrames();
for (const event of ["timeupdate", "seeked", "ended", "loadedmetadata", "emptied"]) at("footage-preview").addEventListener(event, showPreviewBegin);

const consent = consentForm(plan, () => (isScene() ? "" : at("actor").value));

const output = random(10);
/** Controls whose names are fields of DubSpec. */
const controls = [...at("options").querySelectorAll("[name]")];
function valueOf(control) {
  if (control.type === "checkbox") return control.checked;
  // An empty number is left out of the request.
  if (control.type === "range" || control.type === "number") return control.value === "" ? undefined : Number(control.value);
  return control.value.trim();
}
/** Return whether the dub is with a method that moves the head, whose videos are as long as the speech. It refuses a fit. */
function movesHead() {
  const { value, dataset } = at("method").selectedOptions[0];
  if (value) return dataset.own === "1";
  const { method } = at("actor").selectedOptions[0].dataset;
  return method ? [...at("method").options].some((option) => option.value === method && option.dataset.own === "1") : PICTURE.test(chosen.footageName);
}

function showFit() {
  at("fit").disabled = isScene() || movesHead();
  for (const id of ["actor", "channel"]) at(id).disabled = isScene();
  showPreviewBegin();
}

/** Return a LineSpec with the record of the fields if the line has an actor and no record of its own. */
function withRecord(line) {
  const record = line.actor && !line.consent && consent.ofActor(line.actor);
  return record ? { ...line, consent: record } : line;
}

/** Return the DubSpec of the form. Names are those of the contract. */
function request() {
  const spec = {
    footageUri: chosen.footage,
    speechUri: chosen.speech,
    outputUri: `${plainName(chosen.footageName)[0].slice(0, 80)}-dub-${output}.mp4`,
    ...Object.fromEntries(controls.map((control) => [control.name, valueOf(control)])),
  };
  // Refused without a label.
  if (!spec.label) delete spec.labelPosition;
  if (chosen.mix) spec.mixUri = chosen.mix;
  else for (const field of ["mixLevelDb", "duckDb"]) delete spec[field];
  if (isScene()) {
    for (const field of ["speechUri", "actor", "fit", "audioChannel"]) delete spec[field];
    return { ...spec, lines: scene.lines().map(withRecord), ...(consent.record() && { consent: consent.record() }) };
  }
  if (movesHead()) delete spec.fit;
  if (spec.actor) delete spec.skipPersonalization;
  if (chosen.face !== null) spec.faceId = chosen.face;
  if (consent.record()) spec.consent = consent.record();
  return spec;
}

/** Return what a speech of another length than the footage means, as a sentence; empty: the lengths are alike, or not known here. */
function lengths() {
  const [footage, speech] = [at("footage-preview").duration, at("speech-preview").duration];
  // A recording that has just been made has no duration.
  if (isScene() || movesHead() || !Number.isFinite(speech - footage) || Math.abs(speech - footage) <= ALIKE_S) return "";
  const both = `The speech (${speech.toFixed(1)} s) is ${speech > footage ? "longer" : "shorter"} than the footage (${footage.toFixed(1)} s)`;
  const meaning = { FIT_CUT: speech > footage ? "the speech is cut there" : "the mouth rests after the speech", FIT_SLOW: "the footage gets another speed" }[at("fit").value];
  return meaning ? `${both}: ${meaning}. "Length" offers other ways.` : `${both}.`;
}

let asking = null;
let quiet = 0;
/** Mark of the control that the gateway has refused; null: there is none. */
let mark = null;
/** Ask what the dub would take, when the form has not changed for a moment. */
function plan() {
  clearTimeout(quiet);
  asking?.abort();
  mark?.clear();
  mark = null;
  for (const id of ["create", "preview"]) at(id).disabled = true;
  const hasSpeech = isScene() ? scene.isReady() : chosen.speech;
  const waitsForMix = !chosen.mix && !at("mix-progress").hidden;
  const missing = chosen.footage ? (hasSpeech ? (waitsForMix ? "the music is" : "") : "the new speech is") : hasSpeech ? "the footage is" : "the footage and the speech are";
  if (missing) {
    at("plan").replaceChildren(element("p", { className: "soft" }, `The plan follows when ${missing} uploaded.`));
    return;
  }
  const problem = (isScene() && scene.refusal()) || consent.refusal();
  if (problem) {
    at("plan").replaceChildren(element("p", { className: "bad" }, problem.message));
    return;
  }
  // A page that gets shorter can move a button away from the pointer that is about to press the button.
  at("plan").style.minHeight = `${at("plan").offsetHeight}px`;
  at("plan").replaceChildren(element("p", { className: "soft" }, "The gateway looks at the footage …"));
  quiet = setTimeout(estimate, QUIET_MS);
}

async function estimate() {
  const mine = new AbortController();
  asking = mine;
  try {
    const answer = await api("POST", "/v1/dubs:estimate", { dub: request() }, mine.signal);
    at("plan").style.minHeight = "";
    const tile = (value, text) => element("div", { className: "tile" }, element("b", {}, value), element("span", {}, text));
    const by = Number(answer.numDubs) ? "by earlier dubs of this gateway" : "an estimate that the first dub here corrects";
    at("plan").replaceChildren(
      element(
        "div",
        { className: "tiles" },
        tile(`${answer.numRendered} of ${answer.numFrames}`, "frames get a new mouth"),
        tile(`about ${spoken(secondsOf(answer.wallDuration))}`, `to the finished video, ${by}`),
        tile(sized(answer.memoryBytes), "of memory"),
        tile(sized(answer.diskBytes), "on disk while it runs"),
      ),
      element("p", {}, lengths()),
    );
    for (const id of ["create", "preview"]) at(id).disabled = false;
    refused("");
  } catch (problem) {
    if (problem.name === "AbortError") return;
    at("plan").style.minHeight = "";
    at("plan").replaceChildren(element("p", { className: "bad" }, inWordsOf(form, problem)));
    mark = marked(form, problem);
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
for (const id of ["method", "actor", "fit"]) at(id).addEventListener("change", showPreviewBegin);

/** Begin a dub with a button, and show its page. */
const begin = (button, spec, id) =>
  during(button, async () => {
    try {
      const operation = await api("POST", "/v1/dubs", { dub: spec, requestId: id });
      location.assign(`/ui/dubs/${lastPart(operation.name)}`);
      await new Promise(() => {});
    } catch (problem) {
      refusedAt(form, problem);
    }
  });

at("preview").addEventListener("click", () => {
  const spec = request();
  spec.outputUri = spec.outputUri.replace(/-dub-\w+\.mp4$/, `-preview-${random(10)}.mp4`);
  spec.preview = true;
  if (previewBegin()) spec.previewTime = `${previewBegin()}s`;
  begin(at("preview"), spec, newRequestId());
});

/** A second click begins no second dub. */
const requestId = newRequestId();

form.addEventListener("submit", (event) => {
  event.preventDefault();
  begin(at("create"), request(), requestId);
});

const people = [];
/** Offer further enrolled people for the dub and for lines. */
function listPeople(actors) {
  const nameOf = (actor) => actor.consent?.subject ?? lastPart(actor.name);
  at("actor").append(...actors.map((actor) => element("option", { value: actor.name, "data-method": actor.method }, `${nameOf(actor)} (${actor.method})`)));
  people.push(...actors.map((actor) => [actor.name, nameOf(actor)]));
  scene.people(people);
}

/** Fill the form with the request of an earlier dub. */
async function startFrom(id) {
  const earlier = dubOf(await api("GET", `/v1/operations/${encodeURIComponent(id)}`))?.request;
  if (!earlier) return;
  for (const name of new Set([earlier, ...(earlier.lines ?? [])].map(({ actor }) => actor))) {
    if (!name || [...at("actor").options].some((option) => option.value === name)) continue;
    // Behind the listed people, or erased since.
    const actor = await api("GET", `/v1/${name}`).catch(() => null);
    if (actor) listPeople([actor]);
  }
  for (const control of controls) {
    const value = earlier[control.name];
    if (control.type === "checkbox") control.checked = value ?? false;
    // A control without an option of this value keeps its first one.
    else if (value !== undefined && (!control.options || [...control.options].some((option) => option.value === value))) control.value = value;
    control.dispatchEvent(new Event("input"));
  }
  at("options").open = true;
  // The gateway keeps no record beyond its dub: a record may hold the face.
  at("consent-again").hidden = false;
  at("scene").checked = earlier.lines?.length > 0;
  showScene();
  for (const line of earlier.lines ?? []) scene.add(line, mediaUrl(line.speechUri), shownName(line.speechUri));
  for (const [kind, uri] of [["footage", earlier.footageUri], ["speech", earlier.speechUri], ["mix", earlier.mixUri]]) {
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
  listPeople(entries);
  if (token) at("actor").append(element("option", { disabled: true }, `${MOST_ACTORS} people are listed; dub others with the client or the command`));
  const from = new URLSearchParams(location.search).get("from");
  if (from) await startFrom(from);
} catch (problem) {
  refused(problem);
}
